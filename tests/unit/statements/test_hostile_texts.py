"""The time that a file takes grows with its size, not with the square of it, whatever it holds."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import product
from types import ModuleType

import pytest

from ledger.config.statement_profile import profile_of
from ledger.errors import StatementRefused
from ledger.statements import formats
from ledger.statements.formats.chain import chained
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.camt053 import account, bal, document, ntry, stmt

CHARACTERS = 10_000
SECONDS_OF_NO_INTEREST = 0.1
"""Far more than a linear pattern takes, and less than a quadratic one."""
SECONDS_OF_A_SMALL_FILE = 0.5
"""A file that takes the square of its size takes more."""
GROWTH_MAX = 8
"""Of the time for four times as much; of a square it is 16."""

BEGINNINGS = (
    "", "C", "C260601EUR", "C260601EUR1,00", "2606010601C", "2606010601C1,00NTRF", "166", "AA00",
    "1", "(", "2026-06-01T10:00:00.0", "2026-06-01T24:00:00.0", "<?xml ", "sep=", "-",
)  # fmt: skip
FILLERS = (
    " ", "\t", "\n", "0", "1", "A", "a", "-", ",", ".", "'", "+", "A ", "1-", "AA00", "EREF",
    "EREF+", "EREF: ", "/EREF/", "?20", "<", "{1:", "\n:61:", "\n-", "T24:00:00.0", "$",
)  # fmt: skip
ENDS = ("", "x", "\n!")


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(formats.__path__, f"{formats.__name__}."):
        yield importlib.import_module(found.name)


def patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes], str]]:
    """Yield every pattern of the formats, with its name and each method by which it is used."""
    for module in modules():
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found = re.findall(
                    rf"\b{name}\.(search|match|fullmatch|split|sub|finditer|findall)\(", source
                )
                for method in sorted(set(found) or {"search"}):
                    yield f"{module.__name__}.{name}.{method}", value, method


def seconds(action: Callable[[], object], tries: int = 1) -> float:
    """Return the least processor time of an action."""
    taken = []
    for _ in range(tries):
        begin = time.process_time()
        action()
        taken.append(time.process_time() - begin)
    return min(taken)


def apply(pattern: re.Pattern[str], method: str, text: str) -> None:
    match method:
        case "sub":
            pattern.sub("", text)
        case "finditer":
            for _ in pattern.finditer(text):
                pass
        case _:
            getattr(pattern, method)(text)


@pytest.mark.parametrize(
    ("pattern", "method"), [pytest.param(p, m, id=name) for name, p, m in patterns()]
)
def test_no_pattern_takes_the_square_of_a_text(pattern: re.Pattern[str], method: str) -> None:
    is_bytes = isinstance(pattern.pattern, bytes)
    for beginning, filler, end in product(BEGINNINGS, FILLERS, ENDS):

        def of_size(
            characters: int,
            tries: int = 1,
            beginning: str = beginning,
            filler: str = filler,
            end: str = end,
        ) -> float:
            text = beginning + filler * (characters // len(filler)) + end
            given = text.encode() if is_bytes else text
            return seconds(lambda: apply(pattern, method, given), tries)  # type: ignore[arg-type]

        once = of_size(CHARACTERS)
        if once > SECONDS_OF_NO_INTEREST:
            once = of_size(CHARACTERS, 3)
            assert of_size(4 * CHARACTERS, 3) < GROWTH_MAX * once, (beginning, filler, end)


def mt940(line: str = "2606020602C1,NTRFA-1", details: str = "", closing: str = "1,") -> str:
    return (
        f":20:X\n:25:SG0001\n:28C:1\n:60F:C260601SGD0,\n:61:{line}\n:86:{details}\n"
        f":62F:C260602SGD{closing}\n-\n"
    )


def messages_of_one_day(count: int) -> str:
    """Return messages that follow each other, the last one first."""
    return "".join(
        f":20:X\n:25:SG0001\n:60F:C260601SGD{n},\n:61:2606010601C1,NTRFA-{n}\n"
        f":62F:C260601SGD{n + 1},\n-\n"
        for n in reversed(range(count))
    )


def statements_of_one_day(count: int, ids: str = "{}", more: str = "") -> str:
    day = "2026-06-01"
    return document(
        *(
            stmt(account(), bal("OPBD", f"{n}", day), bal("CLBD", f"{n + 1}", day), more,
                 ntry("1", day=day), id_=ids.format(n))
            for n in reversed(range(count))
        )
    )  # fmt: skip


def of_entry(*parts: str, **fields: str) -> str:
    balances = bal("OPBD", "0", "2026-06-01"), bal("CLBD", "1", "2026-06-30")
    return document(stmt(account(), *balances, ntry("1", "CRDT", "2026-06-10", *parts, **fields)))


def csv(day: str = "2026-06-01", amount: str = "1", more: str = "", above: str = "") -> str:
    return f"{above}Date,Amount,Text,Zone\n{day},{amount},a,\n{more}"


PAGE = (
    "<StmtPgntn><PgNb>1</PgNb></StmtPgntn>"
    "<TxsSummry><TtlNtries><NbOfNtries>1</NbOfNtries></TtlNtries></TxsSummry>"
)
LONG_DATE = "<BookgDt><DtTm>2026-06-01T24:00:00.{}x</DtTm></BookgDt>"
TRANSACTION = "<TxDtls><Refs><TxId>a</TxId></Refs></TxDtls>"
FILES: dict[str, tuple[int, Callable[[int], str]]] = {
    "mt940 blanks after a balance": (10_000, lambda n: mt940(closing="1," + " " * n + "x")),
    "mt940 minus signs after a balance": (10_000, lambda n: mt940(closing="1," + " -" * n)),
    "mt940 zeros": (25_000, lambda n: mt940("2606020602C" + "0" * n + "x")),
    "mt940 blanks before an amount": (25_000, lambda n: mt940("2606020602C" + " " * n + "x")),
    "mt940 blanks in a reference": (25_000, lambda n: mt940("2606020602C1,NTRF" + " " * n + "x")),
    "mt940 words in a reference": (25_000, lambda n: mt940("2606020602C1,NTRF" + "x " * n)),
    "mt940 slashes in a reference": (25_000, lambda n: mt940("2606020602C1,NTRF" + "//" * n)),
    "mt940 a blank purpose": (25_000, lambda n: mt940(details=" " * n + "x")),
    "mt940 lines of a purpose": (25_000, lambda n: mt940(details="x\n" * n)),
    "mt940 subfields": (25_000, lambda n: mt940(details="166" + "?20x" * n)),
    "mt940 words": (25_000, lambda n: mt940(details="EREF+" * n)),
    "mt940 references in a text": (25_000, lambda n: mt940(details="EREF: x " * n)),
    "mt940 codes": (25_000, lambda n: mt940(details="/EREF/x" * n)),
    "mt940 parties": (25_000, lambda n: mt940(details="/ORDP//NAME/x" * n)),
    "mt940 heads": (25_000, lambda n: "{1:" * n + mt940()),
    "mt940 blank lines": (25_000, lambda n: " \n" * n + mt940()),
    "mt940 messages of one day": (1_000, messages_of_one_day),
    "camt.053 statements of one day": (1_000, statements_of_one_day),
    "camt.053 statements of one Id": (1_000, lambda n: statements_of_one_day(n, "A")),
    "camt.053 pages": (1_000, lambda n: statements_of_one_day(n, more=PAGE)),
    "camt.053 a long date": (
        25_000, lambda n: of_entry(BookgDt=LONG_DATE.format("0" * n)),
    ),
    "camt.053 a long amount": (25_000, lambda n: of_entry(Amt=f'<Amt Ccy="SGD">{"1" * n}</Amt>')),
    "camt.053 a long status": (25_000, lambda n: of_entry(Sts=f"<Sts>{'PROCES' * n}</Sts>")),
    "camt.053 references": (
        2_500, lambda n: of_entry(f"<NtryDtls>{TRANSACTION * n}</NtryDtls>"),
    ),
    "camt.053 texts": (25_000, lambda n: of_entry("<AddtlNtryInf>a</AddtlNtryInf>" * n)),
    "camt.053 blanks before it": (25_000, lambda n: " " * n + of_entry()),
    "camt.053 an endless tag": (15_000, lambda n: of_entry("<" + "a" * n + "/>")),
    "table blanks in an amount": (25_000, lambda n: csv(amount="1" + " " * n + "x")),
    "table digits of an amount": (25_000, lambda n: csv(amount="1" * n)),
    "table groups of an amount": (25_000, lambda n: csv(amount="1'" * n)),
    "table blanks in a time": (25_000, lambda n: csv("2026-06-01" + " " * n + "x")),
    "table digits of a time": (25_000, lambda n: csv("2026-06-01 10:00:00." + "1" * n + "x")),
    "table rows that go on": (5_000, lambda n: csv(more=",,text,\n" * n)),
    "table an open quote above": (5_000, lambda n: csv(above='"a\n' * n)),
    "table a long header": (25_000, lambda n: csv(above="x" * n + ",")),
    "table an account above": (50, lambda n: csv(above="Account" + f",{'AA0011' * 30}" * n + "\n")),
    "table numbers above": (50, lambda n: csv(above="Account" + f",{'1-' * 100}" * n + "\n")),
}  # fmt: skip
TABLE = profile_of(
    {"effective_at": "Date", "amount": "Amount", "description": "Text", "zone": "Zone",
     "time_zone": "UTC", "account_after": ["Account"]}
)  # fmt: skip


def read(body: bytes, how: Reading) -> None:
    with contextlib.suppress(StatementRefused):
        read_statement(body, how)


@pytest.mark.parametrize("name", FILES)
def test_no_file_takes_the_square_of_its_size(name: str) -> None:
    size, write = FILES[name]
    how = Reading(currency="SGD")
    if name.startswith("table"):
        how = Reading(currency="SGD", profile=TABLE)
    once, often = write(size).encode(), write(4 * size).encode()
    read(once, how)
    taken = seconds(lambda: read(once, how), 3)
    assert seconds(lambda: read(often, how), 3) < max(GROWTH_MAX * taken, SECONDS_OF_A_SMALL_FILE)


def test_statements_of_one_time_are_put_in_order_without_trying_each() -> None:
    def ordered(count: int) -> None:
        numbers = list(range(count))[::-1]
        found = chained(numbers, lambda n: (0, -n), lambda n: (Decimal(n), Decimal(n + 1)))
        assert found == sorted(numbers)

    assert seconds(lambda: ordered(8_000)) < max(
        GROWTH_MAX * seconds(lambda: ordered(2_000)), SECONDS_OF_A_SMALL_FILE
    )
