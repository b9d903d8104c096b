"""The command line: exit statuses, one-line errors, tables for people, JSON for programs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from ledger.cli import main as cli
from ledger.terminal import tables

WALLETS = {
    "wallets": [
        {"source": "straitsx", "currency": currency, "available": available, "held": held,
         "pending_in": "0", "total": available, "reconciliation": {"state": "INCOMPLETE"}}
        for currency, available, held in (("XSGD", "-12269.37", "0.1"), ("XUSD", "28953.5", "0"))
    ],
    "next": None,
    "position": {"straitsx": 25},
    "parked": 0,
}  # fmt: skip
PAYOUT = {
    "source": "straitsx", "kind": "payout", "id": "a/b", "status": "completed", "amount": "500",
    "flags": [], "history": [
        {"position": 1, "status": "pending", "event_id": "e1"},
        {"position": 2, "status": "completed", "event_id": "e2"},
    ],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """What a finished command left."""

    code: int
    out: str
    err: str


async def ledger(*arguments: str, stdin: bytes = b"", **settings: str) -> Done:
    """Run the command line as its users do: another process, settings by environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", *arguments, env=kept | settings,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


Here = Callable[..., Done]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run the command line in this process, for what needs neither stdin nor a service."""
    for name in [name for name in os.environ if name.startswith("LEDGER_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Done:
        code = cli.run(list(arguments))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


class Fake:
    """A service that gives canned answers and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, str], str | None]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization")
        self.asked.append((request.method, request.raw_path.split("?")[0],
                           dict(request.query), token))  # fmt: skip
        self.bodies.append(await request.read())
        answer = self.answers.get(request.query.get("cursor") or request.path)
        if answer is None:
            problem = {"type": "x", "title": "Not Found", "status": 404, "detail": "no such thing"}
            return web.json_response(problem, status=404, content_type="application/problem+json")
        status, document = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(document, bytes):
            return web.Response(status=status, body=document)
        return web.json_response(document, status=status)


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    found = Fake()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.handle)
    server = TestServer(app)
    await server.start_server()
    found.url = str(server.make_url("")).rstrip("/")
    yield found
    await server.close()


def test_help_and_version_load_nothing_heavy() -> None:
    heavy = "{'aiohttp', 'asyncpg', 'msgspec', 'orjson', 'structlog'}"
    code = (
        "import sys; from ledger.cli.main import run; "
        "run(sys.argv[1:]); "
        f"sys.exit(str({heavy} & set(sys.modules)))"
    )
    for argument in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=False
        )
        assert (done.stderr.strip(), done.stdout != "") == ("set()", True)


async def test_version_is_printed_and_help_names_every_command() -> None:
    assert await ledger("--version") == Done(0, "0.1.0\n", "")
    helped = await ledger("--help")
    commands = (
        "serve migrate status balances wallets transactions customers events deliveries "
        "views exceptions send demo rebuild verify prove seal export doctor bench"
    )
    assert helped.code == 0
    assert [word for word in commands.split() if f" {word} " not in helped.out] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], 'Unknown command "nonsense"'),
        (["wallets", "--nonsense"], "Unknown option"),
        (["wallets", "--limit", "many"], "many"),
        (["serve", "--role", "boss"], "boss"),
        (["send", "--duplicate", "3"], "share from 0 to 1"),
        (["send", "--scenario", "nonsense"], "refund, return, kyc, swap, everything"),
        (["send", "nonsense"], "no sample fits nonsense"),
        (["send", "nonsense", "--count", "3"], "no kind 'nonsense'"),
        (["send", "--file", "/nonexistent"], "cannot be read: No such file"),
        (["exceptions", "resolve", "abc", "--action", "forget"], "forget"),
        (["export"], "either --audit FILE or --format"),
        (["export", "--audit", "x", "--format", "csv"], "either --audit FILE or --format"),
        (["export", "--audit", "x", "--what", "events"], "an audit pack takes its own FILE"),
        (["export", "--audit", "x", "--position", "7"], "write straitsx:7"),
        (["export", "--format", "csv", "--source", "a", "--source", "b"], "about one --source"),
        (["export", "--format", "csv", "--json"], "name it with --out FILE"),
        (["verify", "--key", "x"], "--key is for a pack"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], words: str, here: Here) -> None:
    done = here(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err


def test_an_unknown_setting_is_usage_and_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_NONSENSE", "1")
    done = here("wallets")
    assert done.code == 2
    assert "unknown environment variable LEDGER_NONSENSE" in done.err


@pytest.mark.parametrize("arguments", [["wallets"], ["send", "payment"], ["status", "--json"]])
def test_no_one_listening_is_exit_3_and_states_what_to_do(arguments: list[str], here: Here) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    done = here(*arguments, "--url", url)
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert f"no service answers at {url} (Connection refused); start one with" in done.err


async def test_json_is_the_answer_as_it_came(fake: Fake) -> None:
    raw = b'{"wallets": [ ],  "next":null}'
    fake.answers["/v1/wallets"] = raw
    done = await ledger("wallets", "--json", "--url", fake.url)
    assert done == Done(0, raw.decode() + "\n", "")


async def test_a_table_without_a_terminal_is_plain_aligned_text(fake: Fake) -> None:
    fake.answers["/v1/wallets"] = WALLETS
    done = await ledger("wallets", "--url", fake.url)
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines == [
        "source    currency  available  held  pending in      total  reconciled  through  "
        "difference  breaks  current",
        "straitsx  XSGD      -12269.37  0.10        0.00  -12269.37  INCOMPLETE",
        "straitsx  XUSD        28953.5   0.0         0.0    28953.5  INCOMPLETE",
    ]


async def test_options_become_the_contracts_parameters(fake: Fake) -> None:
    fake.answers["/v1/transactions"] = {"transactions": [], "next": None, "position": {}}
    done = await ledger(
        "transactions", "--source", "straitsx", "--kind", "payout", "--status", "failed",
        "--customer-id", "c1", "--flag", "returned", "--from", "2026-01-01T00:00:00+08:00",
        "--to", "2026-02-01T00:00:00Z", "--limit", "5", "--at-least", "straitsx:25",
        "--recorded-at", "2026-03-01T00:00:00Z", "--token", "secret", LEDGER_URL=fake.url,
    )  # fmt: skip
    assert done.out == "no transactions\n"
    assert fake.asked == [
        ("GET", "/v1/transactions", {
            "source": "straitsx", "kind": "payout", "status": "failed", "customer_id": "c1",
            "flag": "returned", "from": "2026-01-01T00:00:00+08:00",
            "to": "2026-02-01T00:00:00Z", "limit": "5", "at_least": "straitsx:25",
            "recorded_at": "2026-03-01T00:00:00Z",
        }, "Bearer secret"),
    ]  # fmt: skip


async def test_lists_are_followed_ordered_and_added_up(fake: Fake) -> None:
    rows = {"next": None, "position": {}}
    fake.answers["/v1/transactions"] = {
        "transactions": [], "totals": [{"currency": "XSGD", "count": 2, "sum": "30.5"}], **rows,
    }  # fmt: skip
    fake.answers["/v1/entries"] = {"entries": [], **rows}
    done = await ledger(
        "transactions", "--status", "pending,failed", "--amount-min", "10.5", "--amount-max", "99",
        "--sort=-effective_at", "--totals", LEDGER_URL=fake.url,
    )  # fmt: skip
    assert done.out.splitlines()[1:] == ["currency  count   sum", "XSGD          2  30.5"]
    await ledger("transactions", "--changed-after", "straitsx:25", LEDGER_URL=fake.url)
    await ledger("entries", "--after", "25", LEDGER_URL=fake.url)
    assert [params for _, _, params, _ in fake.asked] == [
        {"status": "pending,failed", "amount_min": "10.5", "amount_max": "99",
         "sort": "-effective_at", "totals": "true"},
        {"changed_after": "straitsx:25"},
        {"after": "25"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "command", ["wallets", "balances", "entries", "transactions", "customers", "customers s c1"]
)
async def test_an_as_of_is_handed_on(fake: Fake, command: str) -> None:
    name, *one = command.split()
    path = "/".join(["/v1", name, *one])
    fake.answers[path] = {"id": "c1"} if one else {name: [], "next": None, "position": {}}
    done = await ledger(
        name, *one, "--effective-at", "2026-03-31T00:00:00Z", "--recorded-at",
        "2026-04-05T00:00:00+08:00", "--position", "straitsx:25,gokart:3", LEDGER_URL=fake.url,
    )  # fmt: skip
    assert done.code == 0
    assert fake.asked[0][2] == {
        "effective_at": "2026-03-31T00:00:00Z", "recorded_at": "2026-04-05T00:00:00+08:00",
        "position": "straitsx:25,gokart:3",
    }  # fmt: skip


async def test_the_first_configured_token_is_used(fake: Fake) -> None:
    fake.answers["/v1/wallets"] = WALLETS
    await ledger("wallets", LEDGER_URL=fake.url, LEDGER_API_TOKENS="first,second")
    assert fake.asked[0][3] == "Bearer first"


async def test_all_follows_every_page(fake: Fake) -> None:
    first, second = WALLETS["wallets"]  # type: ignore[misc]
    fake.answers["/v1/wallets"] = {"wallets": [first], "next": "c2", "position": {"s": 1}}
    fake.answers["c2"] = {"wallets": [second], "next": None, "position": {"s": 2}}
    done = await ledger("wallets", "--all", "--json", "--url", fake.url)
    assert json.loads(done.out) == {
        "wallets": [first, second], "next": None, "position": {"s": 2}
    }  # fmt: skip
    cut = await ledger("wallets", "--url", fake.url)
    assert cut.err == "ledger: there are more rows; --all shows them\n"


async def test_all_pages_as_json_keep_every_number_as_it_came(fake: Fake) -> None:
    row = b'{"a": 0.1234567890123456789012345}'
    fake.answers["/v1/views/x"] = b'{"rows":[%b],"next":"c2"}' % row
    fake.answers["c2"] = b'{"rows":[%b],"next":null}' % row
    done = await ledger("views", "x", "--all", "--json", "--url", fake.url)
    assert done.out.encode() == b'{"rows":[%b,%b],"next":null}\n' % (row, row)


async def test_views_are_listed_with_the_filters_that_go_together(fake: Fake) -> None:
    view = {"table": "x", "columns": [], "filters": ["kind", "id"], "needs": {"id": ["kind"]}}
    fake.answers["/v1/views"] = {"views": [view], "position": {}}
    done = await ledger("views", "--url", fake.url)
    assert "kind, id (with kind)" in done.out


async def test_rows_of_a_view_are_asked_for_as_of_an_earlier_state(fake: Fake) -> None:
    fake.answers["/v1/views/x"] = {"rows": [], "next": None, "position": {}}
    options = ("--position", "straitsx:3", "--effective-at", "2026-01-01T00:00:00Z")
    done = await ledger("views", "x", "--filter", "status=sent", *options, "--url", fake.url)
    assert done.code == 0
    assert fake.asked[0][2] == {
        "status": "sent",
        "effective_at": "2026-01-01T00:00:00Z",
        "position": "straitsx:3",
    }
    for option, value in (("position", "3"), ("recorded-at", "2026-01-01T00:00:00Z")):
        wrong = await ledger("views", "x", "--filter", f"{option.replace('-', '_')}={value}")
        assert (wrong.code, f"use --{option} {value} instead" in wrong.err) == (2, True)


async def test_one_thing_is_asked_for_by_source_and_quoted_id(fake: Fake) -> None:
    fake.answers["/v1/transactions/straitsx/a/b"] = PAYOUT
    done = await ledger("transactions", "straitsx", "a/b", "--url", fake.url)
    assert fake.asked[0][1] == "/v1/transactions/straitsx/a%2Fb"
    lines = [line.split() for line in done.out.splitlines() if line.strip()]
    assert ["status", "completed"] in lines
    assert ["1", "pending", "e1"] in lines
    assert ["2", "completed", "e2"] in lines


async def test_an_events_body_is_written_byte_for_byte(fake: Fake) -> None:
    fake.answers["/v1/events/straitsx/3/body"] = b'{data: "\x01"}'
    done = await ledger("events", "straitsx", "3", "--body", "--url", fake.url)
    assert done == Done(0, '{data: "\x01"}', "")


@pytest.mark.parametrize(
    ("status", "code"), [(404, 1), (400, 2), (401, 3), (500, 3), (501, 3), (503, 3)]
)
async def test_a_problem_document_is_one_line_with_its_exit_status(
    fake: Fake, status: int, code: int
) -> None:
    problem = {"title": "Title", "detail": "what\nhappened.", "status": status}
    fake.answers["/v1/balances"] = (status, problem)
    done = await ledger("balances", "--url", fake.url)
    hint = "; give the token with --token or LEDGER_API_TOKENS" if status == 401 else ""
    reported = f"ledger: the service answered {status}: Title: what happened{hint}\n"
    assert done == Done(code, "", reported)


async def test_resolving_posts_the_decision(fake: Fake) -> None:
    fake.answers["/v1/exceptions/abc/resolve"] = {"position": 9, "status": "accepted"}
    done = await ledger(
        "exceptions", "resolve", "abc", "--action", "keep", "--keep", "7", "--note", "bank",
        "--by", "me", "--json", "--url", fake.url,
    )  # fmt: skip
    assert (done.code, json.loads(done.out)) == (0, {"position": 9, "status": "accepted"})
    assert json.loads(fake.bodies[0]) == {"action": "keep", "keep": 7, "note": "bank", "by": "me"}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (
            ["--customer", "c 1", "--note", "it is theirs", "--by", "me", "--kind", "payout"],
            {"customer_id": "c 1", "note": "it is theirs", "by": "me", "kind": "payout"},
        ),
        (["--undo", "--note", "a mistake"], {"customer_id": None, "note": "a mistake"}),
    ],
)
async def test_attributing_posts_the_decision(
    fake: Fake, options: list[str], body: dict[str, str | None]
) -> None:
    fake.answers["/v1/transactions/s/a/b/attribute"] = {"position": 9, "status": "accepted"}
    done = await ledger("transactions", "attribute", "s", "a/b", *options, "--url", fake.url)
    assert done.code == 0, done
    assert "accepted" in done.out
    assert json.loads(fake.bodies[0]) == body


@pytest.mark.parametrize("options", [[], ["--undo", "--customer", "c1"]])
async def test_attributing_names_a_customer_or_undoes(fake: Fake, options: list[str]) -> None:
    done = await ledger(
        "transactions", "attribute", "s", "x", *options, "--note", "n", "--url", fake.url
    )
    assert (done.code, fake.bodies) == (2, [])
    assert "--customer" in done.err
    assert "--undo" in done.err


async def test_sending_prints_a_line_per_answer_and_fails_on_a_refusal(
    fake: Fake, tmp_path: Path
) -> None:
    path = tmp_path / "callback.json"
    path.write_bytes(b'{"id": "x"}')
    fake.answers["/callbacks/straitsx/ping"] = {"status": "accepted", "position": 7}
    good = await ledger("send", "--file", str(path), "--event", "ping", "--url", fake.url)
    assert good == Done(0, f"200 accepted    straitsx:7       {path}\n", "")
    bad = await ledger("send", "--file", "-", "--url", fake.url, stdin=b"{}")
    assert bad == Done(1, "404 refused     straitsx         standard input no such thing\n", "")
    assert fake.bodies == [b'{"id": "x"}', b"{}"]


async def test_the_printed_seed_repeats_a_scenario_byte_for_byte(fake: Fake) -> None:
    fake.answers |= {
        f"/callbacks/straitsx/{event}": {"status": "accepted", "position": 1}
        for event in ("payoutStatusUpdated", "paymentStatusUpdated")
    }
    common = ("--scenario", "return", "--concurrency", "1", "--json", "--url", fake.url)
    first = json.loads((await ledger("send", *common)).out)
    await ledger("send", *common, "--seed", str(first["seed"]))
    assert first["counts"] == {"200 accepted": 3}
    assert fake.bodies[:3] == fake.bodies[3:]


def rendered(name: str, row: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    tables.show(name, {name: [row]}, tables.console(stream))
    return stream.getvalue()


def test_text_from_a_callback_cannot_move_the_cursor_or_mark_up() -> None:
    shown = rendered("exceptions", {"id": "1", "detail": "\x1b[2J[bold]\r\n\u202eevil", "note": ""})
    assert "\\x1b[2J[bold]\\r\\n\\u202eevil" in shown
    assert "\x1b" not in shown


def test_an_unknown_list_shows_the_fields_of_its_rows() -> None:
    lines = rendered("novelties", {"first_field": "a", "second": None}).splitlines()
    assert [line.split() for line in lines] == [["first", "field", "second"], ["a"]]


def test_what_is_stopped_by_hand_could_not_finish(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_settings: object, _options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ledger.cli.rebuild.run", stop)
    assert cli.run(["rebuild"]) == cli.UNFINISHED
    assert capsys.readouterr().err == "ledger: stopped\n"
