"""Statements are fetched whole and exact, at the provider's pace, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import stamina
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from msgspec.structs import replace

from ledger.config import settings
from ledger.config.pull import Pull
from ledger.errors import PullFailed, SettingsError, StatementRefused
from ledger.statements.model import Reading, Statement
from ledger.statements.provider_api import APIS
from ledger.statements.puller import ImportedPeriod, catch_up, pull_forever
from ledger.statements.reader import read_statement
from ledger.statements.straitsx_api import PAGE_ROWS, fetch_statement, open_session

API = APIS["straitsx"]
KEY = "not-to-be-told"
DAY = datetime(2026, 6, 1, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Provider:
    """Plays the documented endpoint over rows of (time, amount); newest first, as it does."""

    rows: list[tuple[datetime, Decimal]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    """Played once each, before anything is answered."""
    asked: list[dict[str, str]] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    tells_pages: bool = True
    overlap: int = 0
    """How many rows of the page before a page repeats."""
    off_by: Decimal = Decimal(0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.asked_at.append(asyncio.get_running_loop().time())
        if request.headers.get("X-XFERS-APP-API-KEY") != KEY:
            return web.Response(status=401)
        if self.faults:
            return await self.faults.pop(0)(request)
        return web.Response(text=self.page(request.query.getone("page[number]")))

    def page(self, number: str) -> str:
        query = self.asked[-1]
        begins, ends = (datetime.fromisoformat(query[f"filter[{name}]"]) for name in ("from", "to"))
        before = sum((a for at, a in self.rows if at < begins), Decimal("0.1"))
        running, stated = before, []
        for n, (at, amount) in enumerate(self.rows):
            if begins <= at <= ends:
                running += amount
                mark = "Debit" if amount < 0 else "Credit"
                stated.append(
                    f'{{"id":"l{n}","type":"ledgerEntry","attributes":{{"type":"Fee",'
                    f'"creditDebitIndicator":"{mark}","amount":{abs(amount)},"contractId":"c{n}",'
                    f'"ledgerBalance":{running},"createdAt":"{at.isoformat()}"}}}}'
                )
        size = int(query["page[size]"])
        start = max(0, (int(number) - 1) * size - self.overlap)
        pages = f'"pages":{-(-len(stated) // size)},' if self.tells_pages else ""
        return (
            f'{{"data":[{",".join(stated[::-1][start : start + size])}],"meta":{{{pages}'
            f'"openingBalance":{before},"closingBalance":{running + self.off_by}}},'
            f'"links":{{"self":"page {number}"}}}}'
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Pull]:
        app = web.Application()
        app.router.add_get("/v1/merchant/{tail:.*}", self.answer)
        async with TestServer(app, host="127.0.0.1") as server:
            yield Pull(
                url=str(server.make_url("/v1")),
                key=KEY,
                currencies=("XSGD",),
                every_seconds=0.01,
                since=DAY,
                delay_seconds=0,
                overlap_seconds=0,
                requests_per_second=1_000,
                answer_seconds_max=5,
                attempts_max=4,
            )


def hours(*amounts: str) -> list[tuple[datetime, Decimal]]:
    return [(DAY + timedelta(hours=n), Decimal(amount)) for n, amount in enumerate(amounts)]


async def fetched(provider: Provider, **changes: float) -> Statement:
    async with provider.serving() as pull, open_session(replace(pull, **changes)) as session:  # type: ignore[arg-type]
        body = await fetch_statement(session, replace(pull, **changes), "xsgd", DAY, NEXT)  # type: ignore[arg-type]
    return read_statement(body, Reading())


def answering(status: int, **headers: str) -> Fault:
    async def fault(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return fault


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.statements.straitsx_api.WAIT_SECONDS_MAX", 0.2)


async def test_all_pages_become_one_exact_statement() -> None:
    count = 2 * PAGE_ROWS + 1
    rows = [(DAY + timedelta(seconds=n), Decimal("0.1") * (n + 1)) for n in range(count)]
    provider = Provider(rows)
    statement = await fetched(provider)
    assert [line.amount for line in statement.lines] == [amount for _, amount in rows]
    assert (statement.currency, statement.opened_at, statement.closed_at) == ("XSGD", DAY, NEXT)
    assert statement.opening == Decimal("0.1")
    assert statement.closing == sum((a for _, a in rows), Decimal("0.1"))
    assert [query["page[number]"] for query in provider.asked] == ["1", "2", "3"]
    assert {query["page[size]"] for query in provider.asked} == {"1000"}
    assert {query["filter[currency]"] for query in provider.asked} == {"xsgd"}


async def test_a_row_that_two_pages_have_is_taken_once() -> None:
    rows = [(DAY + timedelta(seconds=n), Decimal(n + 1)) for n in range(PAGE_ROWS + 5)]
    provider = Provider(rows, overlap=3)
    statement = await fetched(provider)
    assert [line.amount for line in statement.lines] == [amount for _, amount in rows]


async def test_without_a_page_count_it_asks_until_a_page_is_empty() -> None:
    provider = Provider(hours("1", "2"), tells_pages=False)
    assert len((await fetched(provider)).lines) == 2
    assert len(provider.asked) == 2


async def test_the_same_rows_give_the_same_bytes() -> None:
    async with (
        Provider(hours("1", "-0.000001", "2.50")).serving() as pull,
        open_session(pull) as session,
    ):
        one = await fetch_statement(session, pull, "xsgd", DAY, NEXT)
        two = await fetch_statement(session, pull, "XSGD", DAY, NEXT)
    assert one == two
    assert b'"amount":2.50' in one


async def test_a_row_on_the_edge_is_in_exactly_one_period() -> None:
    provider = Provider([(DAY, Decimal(1)), (NEXT, Decimal(2)), (NEXT, Decimal(3))])
    async with provider.serving() as pull, open_session(pull) as session:
        first, second = [
            read_statement(
                await fetch_statement(session, pull, "xsgd", at, at + timedelta(days=1)),
                Reading()
            )
            for at in (DAY, NEXT)
        ]  # fmt: skip
    assert [line.amount for line in first.lines] == [1]
    assert [line.amount for line in second.lines] == [2, 3]
    assert first.closing == second.opening == Decimal("1.1")


async def test_a_busy_or_broken_provider_is_asked_again() -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.Response()

    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def malformed(_: web.Request) -> web.StreamResponse:
        return web.Response(text='{"data":[{"amount":NaN')

    for fault in (
        answering(429, Retry_After="0"),
        answering(500),
        answering(503),
        slow,
        cut,
        malformed,
    ):
        provider = Provider(hours("1", "2"), [fault])
        statement = await fetched(provider, answer_seconds_max=0.5)
        assert [line.amount for line in statement.lines] == [1, 2]
        assert len(provider.asked) == 2


async def test_retry_after_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.statements.straitsx_api.WAIT_SECONDS_MAX", 5.0)
    provider = Provider(hours("1"), [answering(429, Retry_After="1")])
    await fetched(provider)
    assert provider.asked_at[1] - provider.asked_at[0] >= 1


async def test_a_provider_that_stays_away_ends_in_a_failure_without_the_key() -> None:
    provider = Provider(hours("1"), [answering(500)] * 9)
    with pytest.raises(PullFailed, match="answered 500") as caught:
        await fetched(provider)
    assert len(provider.asked) == 4
    assert KEY not in repr(caught.value)
    gone = Pull(f"http://127.0.0.1:{unused_port()}", KEY, ("XSGD",), 60)
    async with open_session(gone) as session:
        with stamina.set_testing(True), pytest.raises(PullFailed, match="did not answer"):
            await fetch_statement(session, gone, "xsgd", DAY, NEXT)
    assert KEY not in repr(gone)


@pytest.mark.parametrize("status", [401, 403, 404, 302])
async def test_a_refusal_is_not_repeated(status: int) -> None:
    provider = Provider(hours("1"), [answering(status, Location="http://127.0.0.1:1/")])
    with pytest.raises(PullFailed, match=str(status)):
        await fetched(provider)
    assert len(provider.asked) == 1


async def test_a_statement_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(StatementRefused, match="closing balance"):
        await fetched(Provider(hours("1", "2"), off_by=Decimal("0.000001")))


async def test_an_answer_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.statements.straitsx_api.PAGE_BYTES_MAX", 100)
    with pytest.raises(PullFailed, match="larger than 100 bytes"):
        await fetched(Provider(hours("1", "2")))


async def test_requests_keep_the_pace() -> None:
    provider = Provider([(DAY + timedelta(seconds=n), Decimal(1)) for n in range(3_500)])
    await fetched(provider, requests_per_second=10)
    assert len(provider.asked) == 4
    assert provider.asked_at[-1] - provider.asked_at[0] >= 0.25


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the loop tells nobody
            await asyncio.sleep(0.005)


async def test_the_loop_covers_every_period_once_and_survives_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = Provider(hours(*["1"] * 60))
    taken: list[Statement] = []
    failures = [ValueError(KEY), None, PullFailed("full")]

    async def importer(body: bytes) -> None:
        failure = failures.pop() if failures else None
        if failure:
            raise failure
        taken.append(read_statement(body, Reading()))

    covered: dict[str, ImportedPeriod] = {}
    clock = [DAY + timedelta(hours=60)]
    provider.faults = [answering(500)] * 5
    with caplog.at_level(logging.INFO):
        async with provider.serving() as pull:
            task = asyncio.create_task(pull_forever(API, pull, importer, lambda: clock[0], covered))
            await until(lambda: covered.get("XSGD") == ImportedPeriod(DAY, clock[0]))
            clock[0] += timedelta(days=1)
            await until(lambda: covered["XSGD"] == ImportedPeriod(DAY, clock[0]))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert [s.opened_at for s in taken] == [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2),
                                            DAY + timedelta(hours=60)]  # fmt: skip
    assert [s.opened_at for s in taken][1:] == [s.closed_at for s in taken][:-1]
    assert [s.opening for s in taken][1:] == [s.closing for s in taken][:-1]
    assert sum(len(s.lines) for s in taken) == 60
    assert KEY not in caplog.text


async def test_a_row_that_was_entered_late_is_fetched_with_the_next_period() -> None:
    provider = Provider(hours("1", "2", "3"))
    taken: list[Statement] = []

    async def importer(body: bytes) -> None:
        taken.append(read_statement(body, Reading()))

    covered: dict[str, ImportedPeriod] = {}
    clock = [DAY + timedelta(hours=3)]
    async with provider.serving() as stated, open_session(stated) as session:
        pull = replace(stated, overlap_seconds=5_400)

        async def next_round() -> None:
            await catch_up(API, session, pull, "XSGD", importer, lambda: clock[0], covered)

        await next_round()
        await next_round()
        assert len(taken) == 1
        provider.rows.insert(3, (DAY + timedelta(hours=2, minutes=30), Decimal(7)))
        clock[0] += timedelta(hours=1)
        await next_round()
        clock[0] += timedelta(hours=47)
        await next_round()
    assert covered == {"XSGD": ImportedPeriod(DAY, clock[0])}
    assert [line.amount for line in taken[1].lines] == [3, 7]
    hour = timedelta(hours=1)
    assert [(s.opened_at - DAY, s.closed_at - DAY) for s in taken] == [
        (0 * hour, 3 * hour), (1.5 * hour, 4 * hour), (2.5 * hour, 28 * hour),
        (28 * hour, 51 * hour),
    ]  # fmt: skip


async def test_what_is_fetched_once_more_never_begins_before_what_was_imported() -> None:
    provider = Provider(hours("1", "2"))
    begins: list[datetime] = []

    async def importer(body: bytes) -> None:
        stated = read_statement(body, Reading())
        begins.append(stated.opened_at)

    covered = {"XSGD": ImportedPeriod(DAY, DAY + timedelta(minutes=10))}
    async with provider.serving() as stated, open_session(stated) as session:
        pull = replace(stated, overlap_seconds=86_400)
        await catch_up(
            API, session, pull, "XSGD", importer, lambda: DAY + timedelta(hours=1), covered
        )
    assert begins == [DAY]


TOML = """
[sources.straitsx]
provider = "straitsx"
[sources.straitsx.pull]
url = "https://api.straitsx.com/v1/"
key = "env:STRAITSX_API_KEY"
currencies = ["xsgd", "XUSD", "XSGD"]
every_seconds = 3600
"""


def loaded(tmp_path: Path, toml: str) -> Pull | None:
    (tmp_path / "ledger.toml").write_text(toml)
    environ = {"LEDGER_CONFIG": str(tmp_path / "ledger.toml"), "STRAITSX_API_KEY": KEY}
    return settings.load(environ).sources["straitsx"].pull


def test_pull_is_off_unless_configured(tmp_path: Path) -> None:
    assert loaded(tmp_path, '[sources.straitsx]\nprovider = "straitsx"\n') is None
    pull = loaded(tmp_path, TOML)
    assert pull == Pull("https://api.straitsx.com/v1", KEY, ("XSGD", "XUSD"), 3600)
    assert KEY not in repr(pull)


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        (TOML + "speed = 9\n", "pull.speed is unknown; pull takes only answer_seconds_max"),
        (TOML.replace("every_seconds = 3600", ""), "pull lacks every_seconds$"),
        (
            TOML.replace("3600", "1"),
            "pull.every_seconds = 1 is not valid: expected a number from 60 to 2678400",
        ),
        (TOML.replace("https", "http"), "only travel over https"),
        (TOML.replace("STRAITSX_API_KEY", "NOTHING"), "is empty"),
        (
            TOML.replace('["xsgd", "XUSD", "XSGD"]', '["x sgd"]'),
            r"pull.currencies: .* is not a currency$",
        ),
        (TOML.replace('"straitsx"', '"gokart"'), "gokart come as files only"),
        (
            TOML + 'since = "2026-06-01T00:00:00"\n',
            "pull.since = .* is not valid: expected a time with a zone",
        ),
    ],
)
def test_a_wrong_pull_refuses_to_start(tmp_path: Path, wrong: str, reported: str) -> None:
    with pytest.raises(SettingsError, match=reported):
        loaded(tmp_path, wrong)
