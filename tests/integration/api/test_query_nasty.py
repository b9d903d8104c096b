"""Law: no question, however odd, is answered with 500, and every refusal says why."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import msgspec
import orjson
import pytest
from yarl import URL

from ledger.api.routes import all_routes
from ledger.queries.kinds import kinds_of
from ledger.queries.params import Route, write_cursor
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.statements import JANUARY, post_statement, reconcile, row, statement

AT_ONCE = 16
IN_PATH = re.compile(r"\{(\w+)\}")
NASTY = (
    "", " ", "x", "0", "1", "-1", "1.5", "1e400", "NaN", "null", "true", "9" * 18,
    str(2**31), str(2**63 - 1), str(2**63), str(2**64), "9" * 400,
    "0001-01-01T00:00:00Z", "0001-01-01", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z",
    "2199-12-31T23:59:59.999999Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:60Z", "2026-02-30T00:00:00Z", "2026-W01-1",
    "2026-01-01T00:00:00Z",
    "\x00", "a\x00b", "\ud800", "\udfff", "\ufffe", "\U0010ffff", "\u202e", "\r\n", "\x7f",
    "{", "}", "{id}", "{}", "a{1}b", "[]", "*", "liabilities:*", "%", "%s", "%00", "_", "\\", "'",
    "'; DROP TABLE ledger.events --", "$1", "../../etc/passwd", "a/b", "?", "#", "&", "+",
    "straitsx", "straitsx:0", "straitsx:1", "straitsx:1,straitsx:2", "straitsx:-1", "nobody:1",
    "straitsx:" + "9" * 30, "straitsx.statements", "XSGD", "xsgd:X", "unknown:", "unknown:x",
    "payment", "completed", "x" * 512, "x" * 513, "\u00e9" * 512,
)  # fmt: skip
"""What clients, people and attackers write: years 1 and 9999, NUL, surrogates, vast numbers."""
CURSORS = tuple(
    write_cursor(key)
    for key in (
        [], ["straitsx"], ["nobody"], ["straitsx", 1], ["straitsx", -1], ["straitsx", 2**63 - 1],
        ["straitsx", -(2**63) + 1], ["straitsx", "x"], ["straitsx", ""], ["straitsx", 1, "x"],
        ["straitsx", -5, "x"], ["straitsx", "a", "b"], ["straitsx", "x" * 600],
        ["straitsx", -(2**62), "x"], ["straitsx", -1, "x"],
    )
)  # fmt: skip
BODIES = (
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"action":', b'{"action":1}',
    b'{"action":"keep","keep":-1}', b'{"action":"keep","keep":9999999999999999999999}',
    b'{"action":"keep","keep":1,"note":"\\ud800","by":"a"}',
    b'{"action":"acknowledge","note":"a\\u0000b","by":"a"}',
    b'{"action":"note","by":"\\u0000","note":"x"}', b'{"by":"a","note":"b"}',
    b'{"action":"match","by":"a","note":"b","items":["line:\\u0000"]}',
    b'{"action":"write_off","by":"a","note":"b","account":"\\u0000"}',
)  # fmt: skip


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    """A source with a bit of everything: callbacks of every kind, a statement, a run."""
    async with serving(database) as running:
        for provider in ("straitsx", "gokart"):
            await running.post_samples(provider)
        await post_statement(running, statement([row("r1", "c1", "10", "2026-01-02T00:00:00Z")]))
        await running.post_json("straitsx", payment(1, id="a{b}c"))
        await reconcile(running)
        yield running


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def usual(route: Route) -> dict[str, str]:
    """Return parameters that make a question whole, where one alone would be refused."""
    if route.method == "POST" and route.takes is bytes:
        return {"source": "straitsx", "currency": "XSGD", "from": JANUARY[0], "to": JANUARY[1]}
    return {"from": "1"} if route.path.endswith("/consistency") else {}


PLACES = {"source": "straitsx", "position": "1", "id": "contract_0001", "currency": "XSGD"}


def questions(route: Route) -> Iterator[str]:
    """Yield addresses: each parameter, and each part of the path, with each odd value."""
    path = IN_PATH.sub(lambda part: PLACES.get(part[1], "0" * 64), route.path)
    values = "&".join(f"{name}={encoded(text)}" for name, text in usual(route).items())
    yield f"{path}?{values}"
    for param in route.query:
        for text in (*NASTY, *(CURSORS if param.name == "cursor" else ())):
            more = usual(route) | {param.name: text}
            yield path + "?" + "&".join(f"{name}={encoded(word)}" for name, word in more.items())
        yield f"{path}?{param.name}=%FF%C0%80"
    for name in IN_PATH.findall(route.path):
        for text in NASTY:
            odd = IN_PATH.sub(
                lambda part: encoded(text) if part[1] == name else PLACES.get(part[1], "x"),  # noqa: B023
                route.path,
            )
            yield f"{odd}?{values}"


async def answers(service: Service, route: Route, bodies: tuple[bytes, ...]) -> list[str]:
    """Ask everything; return what was answered with 500, or refused without a reason."""
    turn = asyncio.Semaphore(AT_ONCE)
    bad: list[str] = []

    async def one(address: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"} if body else {}
        url = URL(address, encoded=True)
        async with (
            turn,
            service.client.request(route.method, url, data=body, headers=headers) as answer,
        ):
            raw = await answer.read()
            if answer.status >= 500 and answer.status != 503:
                bad.append(f"{answer.status} {route.method} {address} {body[:80]!r} {raw[:300]!r}")
            elif answer.status >= 400 and route.path.startswith("/v1/"):
                assert orjson.loads(raw)["detail"], address

    async with asyncio.TaskGroup() as tasks:
        for address in questions(route):
            for body in bodies:
                tasks.create_task(one(address, body))
    return bad


def texts_of(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.StrType]:
    """Yield every text that a type has, however deep."""
    match kind:
        case msgspec.inspect.StrType():
            yield kind
        case msgspec.inspect.Metadata(type=inner):
            yield from texts_of(inner)
        case msgspec.inspect.ListType(item_type=inner):
            yield from texts_of(inner)
        case msgspec.inspect.UnionType(types=several):
            for each in several:
                yield from texts_of(each)
        case msgspec.inspect.StructType(fields=fields):
            for field in fields:
                yield from texts_of(field.type)


def test_every_text_of_a_body_has_a_longest_length_and_no_nul() -> None:
    taken = [route for route in all_routes() if route.takes not in (None, bytes)]
    assert taken
    for route in taken:
        for text in texts_of(msgspec.inspect.type_info(route.takes)):
            assert (text.max_length or 0) > 0, route.path
            assert text.pattern is not None, route.path
            assert re.search(text.pattern, "a\x00b") is None, route.path


@pytest.mark.timeout(600)
async def test_no_odd_question_is_answered_with_500(service: Service) -> None:
    bad = []
    for route in all_routes():
        if route.method == "GET":
            bad += await answers(service, route, (b"",))
    assert bad == []


@pytest.mark.timeout(300)
async def test_no_odd_decision_is_answered_with_500(service: Service) -> None:
    listed = await service.ask("/v1/exceptions")
    found = [await service.ask("/v1/breaks"), listed]
    ids = [found[0]["breaks"][0]["id"], *(each["id"] for each in listed["exceptions"])]
    bad = []
    for route in all_routes():
        if route.method == "POST" and route.takes is not bytes:
            bad += await answers(service, route, (b'{"action":"note","by":"a","note":"b"}',))
            for id_ in ids[:3]:
                for body in BODIES:
                    address = IN_PATH.sub(lambda part: quote(id_, safe=""), route.path)  # noqa: B023
                    answer = await service.client.request(
                        route.method, URL(address, encoded=True), data=body,
                        headers={"Content-Type": "application/json"},
                    )  # fmt: skip
                    if answer.status >= 500:
                        bad.append(f"{answer.status} {address} {body!r} {await answer.text()}")
    assert bad == []


@pytest.mark.timeout(300)
async def test_no_odd_import_is_answered_with_500(service: Service) -> None:
    """Column maps that no one would write, and files of no format."""
    maps = [
        {"effective_at": "Date", "amount": "Amount", "time_zone": "UTC"} | odd
        for odd in (
            {"time_format": "%"}, {"time_format": "%y%y"}, {"time_format": "%d/%m/%Y"},
            {"time_format": "(("}, {"time_format": "%Q"}, {"time_format": "\x00"},
            {"time_format": "%j%U%W%G%V%u"}, {"time_format": "%-d"}, {"time_zone": "../x"},
            {"time_zone": "\x00"}, {"time_zone": "x" * 300}, {"decimal": "x"}, {"thousands": "@"},
            {"delimiter": "\x00"}, {"delimiter": "\n"}, {"encoding": "utf-16"},
            {"encoding": "rot13"}, {"opening": "1e400"}, {"closing": "\x00"}, {"amount": "\x00"},
        )
    ]  # fmt: skip
    file = b"Date,Amount\n2026-01-02,1\n"
    asked = {"source": "straitsx", "currency": "XSGD", "from": JANUARY[0], "to": JANUARY[1]}
    for columns in maps:
        params = asked | {"format": "csv", "columns": orjson.dumps(columns).decode()}
        async with service.client.post("/v1/statements", params=params, data=file) as answer:
            # 409: what an earlier map read would change, which is asked for with `replace`.
            assert answer.status in (200, 409, 422), (columns, await answer.text())


async def test_what_is_misspelt_is_refused_and_what_there_is_listed(service: Service) -> None:
    status, stated = await service.refused("/v1/transactions", kind="payments")
    assert (status, "kind 'payments' is no kind; there is: chain_deposit" in stated["detail"]) == (
        400, True,
    )  # fmt: skip
    status, stated = await service.refused("/v1/transactions", kind="payment", status="sucess")
    assert (status, stated["detail"]) == (
        400,
        "status 'sucess' is no status of payment; there is: completed, conflict, expired, failed, "
        "pending, refunded",
    )
    for path in ("events", "exceptions"):
        for kind in kinds_of(""):
            await service.ask(f"/v1/{path}", kind=kind)
        assert (await service.refused(f"/v1/{path}", kind="payement"))[0] == 400
    for path, name in (
        ("events", "status"), ("rfi", "status"), ("limit_requests", "status"),
        ("virtual_accounts", "status"), ("customers", "verification_status"),
        ("bank_accounts", "verification_status"),
    ):  # fmt: skip
        status, stated = await service.refused(f"/v1/{path}", **{name: "pendnig"})
        assert (status, "there is: " in stated["detail"]) == (400, True)
        await service.ask(f"/v1/{path}", **{name: "pending" if path != "rfi" else "sent"})
    await service.ask("/v1/transactions", status="unknown:paused")
    status, stated = await service.refused("/v1/reconciliation/findings", reason="stuck")
    assert (status, "it is 'stuck'" in stated["detail"]) == (400, True)


async def test_every_status_of_a_row_can_be_asked_for(service: Service) -> None:
    for path, name in (("transactions", "status"), ("events", "status"), ("rfi", "status")):
        for each in (await service.ask(f"/v1/{path}", limit=1000))[path]:
            if each[name]:
                found = await service.ask(f"/v1/{path}", **{name: each[name]})
                assert each in found[path]


async def test_an_id_with_braces_has_its_page(service: Service) -> None:
    url = URL("/v1/transactions/straitsx/a%7Bb%7Dc", encoded=True)
    async with service.client.get(url) as answer:
        assert (answer.status, (await answer.json())["id"]) == (200, "a{b}c")


async def test_a_decision_that_is_none_lists_what_there_is(service: Service) -> None:
    (found, *_) = (await service.ask("/v1/exceptions"))["exceptions"]
    for path, stated in (
        (f"/v1/exceptions/{found['id']}/resolve", "action is one of: acknowledge, keep"),
        ("/v1/breaks/x/decide", "action is one of: match, write_off, post_fee, void, reopen, note"),
    ):
        async with service.client.post(path, json={"action": "kepe", "by": "a"}) as answer:
            document = await answer.json()
        assert answer.status == 400
        assert "'kepe'" in document["detail"]
        assert stated in document["detail"]
