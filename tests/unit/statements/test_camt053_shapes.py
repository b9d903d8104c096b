"""camt.053 in the shapes that banks give it: read like a few lines of ElementTree read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.camt053 import (
    IBAN,
    ISO,
    OTHER_IBAN,
    account,
    bal,
    document,
    entries,
    ntry,
    period,
    read,
    stmt,
    zipped,
)

D = Decimal
JUNE = "2026-06-01", "2026-07-01"
UTC = "UTC"


@dataclass(frozen=True)
class Shape:
    body: str | bytes
    period: tuple[str, str]
    """The first day, and the day after the last."""
    opening: str | None
    closing: str | None
    how: dict[str, Any] = field(default_factory=dict)
    selects: dict[str, Any] = field(default_factory=dict)
    """What the independent reader is to select."""


OPBD, CLBD = bal("OPBD", "100.00", "2026-05-31"), bal("CLBD", "130.50", "2026-06-30")
IN, OUT = ntry("50.50"), ntry("20", "DBIT", "2026-06-12")
PLAIN = document(stmt(account(), OPBD, CLBD, IN, OUT))


def dated(**fields: str) -> str:
    """Return a June statement whose first entry has other elements."""
    return document(stmt(account(), OPBD, CLBD, ntry("50.50", **fields), OUT))


def page(number: int, last: bool, *parts: str, id_: str = "P") -> str:
    pagination = (
        f"<StmtPgntn><PgNb>{number}</PgNb><LastPgInd>{str(last).lower()}</LastPgInd></StmtPgntn>"
    )
    return stmt(pagination, account(), *parts, id_=f"{id_}-{number}")


PAGES = (
    page(1, False, bal("OPBD", "100", "2026-06-10"), bal("ITBD", "150", "2026-06-10"), ntry("50")),
    page(2, False, bal("ITBD", "150", "2026-06-10"), bal("ITBD", "149", "2026-06-10"),
         ntry("1", "DBIT")),
    page(3, True, bal("ITBD", "149", "2026-06-10"), bal("CLBD", "140", "2026-06-10"),
         ntry("9", "DBIT")),
)  # fmt: skip


def day_statement(day: int, opening: str, closing: str, *parts: str, iban: str = IBAN) -> str:
    on = f"2026-06-{day:02}"
    balances = bal("OPBD", opening, on) + bal("CLBD", closing, on)
    return stmt(account(iban), balances, *parts, id_=f"D-{day}")


MONDAY = day_statement(8, "10", "15", ntry("5", day="2026-06-08"))
TUESDAY = day_statement(9, "15", "12", ntry("3", "DBIT", "2026-06-09"))
FRIDAY = day_statement(5, "9.5", "10", ntry("0.5", day="2026-06-05"))

ZERO = stmt(
    account(), bal("OPBD", "10", "2026-06-05"), bal("CLBD", "10", "2026-06-05"),
    ntry("2", day="2026-06-05"), ntry("2", "DBIT", "2026-06-05"), id_="Z",
)  # fmt: skip

MIDNIGHTS = stmt(
    period("2026-06-01T00:00:00", "2026-06-30T00:00:00"),
    account(), OPBD, CLBD, IN, ntry("20", "DBIT", "2026-06-30"),
)  # fmt: skip

SHAPES = {
    "plain": Shape(PLAIN, JUNE, "100", "130.5"),
    **{
        f"version 001.{version}": Shape(
            PLAIN.replace("001.08", f"001.{version}"), JUNE, "100", "130.5"
        )
        for version in ("02", "03", "04", "06", "10", "13")
    },
    "no namespace": Shape(PLAIN.replace(f' xmlns="{ISO}08"', ""), JUNE, "100", "130.5"),
    "prefixed namespace": Shape(
        PLAIN.replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", "")
        .replace("</", "</c:").replace("<", "<c:").replace("<c:/c:", "</c:")
        .replace("xmlns=", "xmlns:c="),
        JUNE, "100", "130.5",
    ),
    "within a business envelope": Shape(
        '<Envelope><AppHdr xmlns="urn:iso:std:iso:20022:tech:xsd:head.001.001.02"><BizMsgIdr>B'
        "</BizMsgIdr></AppHdr>" + PLAIN.partition("?>")[2] + "</Envelope>",
        JUNE, "100", "130.5",
    ),
    "UTF-16 with a byte order mark": Shape(
        PLAIN.replace("UTF-8", "UTF-16").encode("utf-16"), JUNE, "100", "130.5"
    ),
    "UTF-16, big end first": Shape(
        b"\xfe\xff" + PLAIN.replace("UTF-8", "UTF-16").encode("utf-16-be"), JUNE, "100", "130.5"
    ),
    "UTF-8 with a byte order mark": Shape("\ufeff" + PLAIN, JUNE, "100", "130.5"),
    "UTF-16 that declares UTF-8": Shape(PLAIN.encode("utf-16"), JUNE, "100", "130.5"),
    "UTF-8 that declares UTF-16": Shape(PLAIN.replace("UTF-8", "utf-16"), JUNE, "100", "130.5"),
    "Windows 1252": Shape(
        PLAIN.replace("UTF-8", "windows-1252")
        .replace("</Ntry>", "<AddtlNtryInf>5 €</AddtlNtryInf></Ntry>").encode("cp1252"),
        JUNE, "100", "130.5",
    ),
    "ISO 8859-1": Shape(
        PLAIN.replace("UTF-8", "ISO-8859-1")
        .replace("</Ntry>", "<AddtlNtryInf>Gebühr</AddtlNtryInf></Ntry>").encode("latin-1"),
        JUNE, "100", "130.5",
    ),
    "blank lines before the declaration": Shape("\r\n\n" + PLAIN, JUNE, "100", "130.5"),
    "days with Z": Shape(dated(BookgDt="<BookgDt><Dt>2026-06-10Z</Dt></BookgDt>"), JUNE, "100",
                         "130.5"),
    "days with an offset": Shape(
        dated(BookgDt="<BookgDt><Dt>2026-06-10+08:00</Dt></BookgDt>"), JUNE, "100", "130.5",
    ),
    "a time without a zone": Shape(
        dated(BookgDt="<BookgDt><DtTm>2026-06-10T23:30:00.1234567</DtTm></BookgDt>"),
        JUNE, "100", "130.5", {"time_zone": "Asia/Singapore"},
    ),
    "a time with an offset": Shape(
        dated(BookgDt="<BookgDt><DtTm>2026-06-10T00:30:00+08:00</DtTm></BookgDt>"),
        JUNE, "100", "130.5", {"time_zone": "Asia/Singapore"},
    ),
    "no booking day": Shape(dated(BookgDt=""), JUNE, "100", "130.5"),
    "an empty booking day": Shape(dated(BookgDt="<BookgDt/>"), JUNE, "100", "130.5"),
    "spaces and lines around values": Shape(
        dated(Amt='<Amt Ccy="SGD">\n  50.50 </Amt>',
              BookgDt="<BookgDt><Dt> 2026-06-10\n</Dt></BookgDt>"),
        JUNE, "100", "130.5",
    ),
    "a plus and no leading zero": Shape(
        document(stmt(account(), bal("OPBD", "+1.0", "2026-05-31"),
                      bal("CLBD", "6.25", "2026-06-30"), ntry("+5."), ntry(".25"))),
        JUNE, "1", "6.25",
    ),
    "eighteen decimals": Shape(
        document(stmt(account(), bal("PRCD", "0", "2026-05-31"),
                      bal("CLBD", "0.000000000000000003", "2026-06-30"),
                      ntry("0.000000000000000004"), ntry("0.000000000000000001", "DBIT"))),
        JUNE, "0", "0.000000000000000003",
    ),
    "yen": Shape(
        document(stmt(account(currency="JPY"), bal("OPBD", "1000", "2026-05-31", currency="JPY"),
                      bal("CLBD", "988", "2026-06-30", currency="JPY"),
                      ntry("12", "DBIT", Amt='<Amt Ccy="JPY">12</Amt>'))),
        JUNE, "1000", "988",
    ),
    "overdrawn": Shape(
        document(stmt(account(), bal("OPBD", "100", "2026-05-31", "DBIT"),
                      bal("CLBD", "70", "2026-06-30", "DBIT"), ntry("30"))),
        JUNE, "-100", "-70",
    ),
    "a reversal": Shape(
        document(stmt(account(), OPBD, bal("CLBD", "100", "2026-06-30"),
                      ntry("20", "DBIT"), ntry("20", RvslInd="<RvslInd>true</RvslInd>"))),
        JUNE, "100", "100",
    ),
    "charges and transactions within an entry": Shape(
        document(stmt(account(), OPBD, bal("CLBD", "150", "2026-06-30"),
                      ntry("50", "CRDT", "2026-06-10",
                           '<Chrgs><Rcrd><Amt Ccy="SGD">2</Amt><CdtDbtInd>DBIT</CdtDbtInd></Rcrd>'
                           "</Chrgs>"
                           '<NtryDtls><TxDtls><Amt Ccy="USD">38</Amt><CdtDbtInd>CRDT</CdtDbtInd>'
                           '<Chrgs><TtlChrgsAndTaxAmt Ccy="SGD">2</TtlChrgsAndTaxAmt></Chrgs>'
                           "</TxDtls></NtryDtls>"))),
        JUNE, "100", "150",
    ),
    "status as a code": Shape(
        PLAIN.replace("<Sts>BOOK</Sts>", "<Sts><Cd>BOOK</Cd></Sts>"), JUNE, "100", "130.5"
    ),
    "pending, future and informational entries": Shape(
        document(stmt(account(), OPBD, CLBD, IN, OUT,
                      ntry("1", Sts="<Sts>PDNG</Sts>"),
                      ntry("2", Sts="<Sts><Cd>FUTR</Cd></Sts>"),
                      ntry("3", Sts="<Sts><Cd>INFO</Cd></Sts>"),
                      ntry("4", Sts="<Sts><Prtry>PENDING</Prtry></Sts>"),
                      ntry("5", Sts="<Sts><Prtry>Not booked</Prtry></Sts>", BookgDt="", ValDt=""))),
        JUNE, "100", "130.5",
    ),
    "no status": Shape(dated(Sts=""), JUNE, "100", "130.5"),
    "previous closing balance instead of an opening one": Shape(
        PLAIN.replace("OPBD", "PRCD"), JUNE, "100", "130.5"
    ),
    "both of them, and others": Shape(
        document(stmt(account(), bal("PRCD", "100.00", "2026-05-29"),
                      bal("OPBD", "100.00", "2026-06-01"),
                      bal("CLAV", "9", ""), bal("FWAV", "8", "2026-07-01"), bal("INFO", "7", ""),
                      CLBD, IN, OUT)),
        ("2026-05-30", "2026-07-01"), "100", "130.5",
    ),
    "a closing balance with and without the credit line": Shape(
        document(stmt(account(), OPBD,
                      bal("CLBD", "5130.50", "2026-06-30").replace(
                          "</Tp>", "</Tp><CdtLine><Incl>true</Incl></CdtLine>"),
                      CLBD.replace("</Tp>", "</Tp><CdtLine><Incl>false</Incl></CdtLine>"),
                      IN, OUT)),
        JUNE, "100", "130.5",
    ),
    "no balances but a period": Shape(
        document(stmt(period("2026-06-01T00:00:00Z", "2026-06-30T23:59:59.999999999Z"), account(),
                      IN, OUT)),
        JUNE, None, None,
    ),
    "no balances and no period": Shape(
        document(stmt(account(), IN, OUT)), ("2026-06-10", "2026-06-13"), None, None
    ),
    "opening and closing of one day": Shape(
        document(MONDAY), ("2026-06-08", "2026-06-09"), "10", "15"
    ),
    "two midnights": Shape(document(MIDNIGHTS), JUNE, "100", "130.5"),
    "two midnights, the second after the last day": Shape(
        document(MIDNIGHTS.replace("2026-06-30T00", "2026-07-01T00")), JUNE, "100", "130.5"
    ),
    "two midnights without balances": Shape(
        document(MIDNIGHTS.replace(OPBD, "").replace(CLBD, "")), JUNE, None, None
    ),
    "one midnight twice": Shape(
        document(stmt(period("2026-06-08T00:00:00+08:00", "2026-06-08T00:00:00+08:00"), account(),
                      ntry("5", day="2026-06-08"))),
        ("2026-06-08", "2026-06-09"), None, None, {"time_zone": "Asia/Singapore"},
    ),
    "two midnights, written in UTC": Shape(
        document(MIDNIGHTS.replace("2026-06-01T00:00:00", "2026-05-31T16:00:00Z")
                 .replace("2026-06-30T00:00:00", "2026-06-29T16:00:00Z")),
        JUNE, "100", "130.5", {"time_zone": "Asia/Singapore"},
    ),
    "until the last second, written in UTC": Shape(
        document(MIDNIGHTS.replace("2026-06-01T00:00:00", "2026-05-31T16:00:00Z")
                 .replace("2026-06-30T00:00:00", "2026-06-30T15:59:59Z")),
        JUNE, "100", "130.5", {"time_zone": "Asia/Singapore"},
    ),
    "until 24:00:00": Shape(
        document(MIDNIGHTS.replace("2026-06-30T00:00:00", "2026-06-30T24:00:00")),
        JUNE, "100", "130.5",
    ),
    "until the last minute": Shape(
        document(MIDNIGHTS.replace("2026-06-30T00:00:00", "2026-06-30T23:59:00")),
        JUNE, "100", "130.5",
    ),
    "a period of days": Shape(
        document(MIDNIGHTS.replace("T00:00:00", "")), JUNE, "100", "130.5"
    ),
    "an empty month": Shape(
        document(stmt(account(), OPBD, bal("CLBD", "100", "2026-06-30"))), JUNE, "100", "100"
    ),
    "pages": Shape(document(*PAGES), ("2026-06-10", "2026-06-11"), "100", "140"),
    "pages in any order": Shape(
        document(*PAGES[::-1]), ("2026-06-10", "2026-06-11"), "100", "140"
    ),
    "pages without numbers in any order": Shape(
        document(*(p[: p.index("<StmtPgntn>")] + p[p.index("</StmtPgntn>") + 12 :]
                   for p in PAGES[::-1])),
        ("2026-06-10", "2026-06-11"), "100", "140",
    ),
    "pages that repeat the balances of the whole": Shape(
        document(*(page(n, n == 2, bal("OPBD", "100", "2026-06-10"),
                        bal("CLBD", "149", "2026-06-10"), entry)
                   for n, entry in ((1, ntry("50")), (2, ntry("1", "DBIT"))))),
        ("2026-06-10", "2026-06-11"), "100", "149",
    ),
    "balances on the first and the last page only": Shape(
        document(page(1, False, period("2026-06-10T00:00:00", "2026-06-10T23:59:59"),
                      bal("OPBD", "100", "2026-06-10"), ntry("50")),
                 page(2, True, period("2026-06-10T00:00:00", "2026-06-10T23:59:59"),
                      bal("CLBD", "149", "2026-06-10"), ntry("1", "DBIT"))),
        ("2026-06-10", "2026-06-11"), "100", "149",
    ),
    "days in any order with a weekend between": Shape(
        document(TUESDAY, FRIDAY, MONDAY), ("2026-06-05", "2026-06-10"), "9.5", "12"
    ),
    "a statement that is there twice": Shape(
        document(ZERO, MONDAY, ZERO), ("2026-06-05", "2026-06-09"), "10", "15",
        {}, {"once": True},
    ),
    "entries newest first": Shape(
        document(stmt(account(), OPBD, CLBD, OUT, IN)), JUNE, "100", "130.5"
    ),
    "one of two accounts": Shape(
        document(MONDAY, day_statement(8, "7", "8", ntry("1"), iban=OTHER_IBAN)),
        ("2026-06-08", "2026-06-09"), "7", "8",
        {"account": "de02 tulp 0000 9876 54"}, {"iban": OTHER_IBAN},
    ),
    "one of two currencies of an account": Shape(
        document(PLAIN[PLAIN.index("<Stmt>") : PLAIN.index("</BkToCstmrStmt>")],
                 PLAIN[PLAIN.index("<Stmt>") : PLAIN.index("</BkToCstmrStmt>")]
                 .replace("SGD", "USD").replace("130.50", "129").replace("50.50", "49")),
        JUNE, "100", "129", {"currency": "usd"}, {"currency": "USD"},
    ),
    "two currencies in one statement": Shape(
        document(stmt(account(), OPBD, CLBD, IN, OUT,
                      bal("OPBD", "1", "2026-05-31", currency="USD"),
                      bal("CLBD", "3", "2026-06-30", currency="USD"),
                      ntry("2", Amt='<Amt Ccy="USD">2</Amt>'))),
        JUNE, "1", "3", {"currency": "USD"}, {"currency": "USD"},
    ),
    "totals with pending entries left out": Shape(
        document(stmt(account(), OPBD, CLBD,
                      "<TxsSummry><TtlNtries><NbOfNtries>2</NbOfNtries><Sum>70.50</Sum>"
                      "<TtlNetNtry><Amt>30.5</Amt><CdtDbtInd>CRDT</CdtDbtInd></TtlNetNtry></TtlNtries>"
                      "<TtlCdtNtries><NbOfNtries>1</NbOfNtries><Sum>50.5</Sum></TtlCdtNtries>"
                      "<TtlDbtNtries><NbOfNtries>1</NbOfNtries><Sum>20.00</Sum></TtlDbtNtries></TxsSummry>",
                      IN, OUT, ntry("9", Sts="<Sts>PDNG</Sts>"))),
        JUNE, "100", "130.5",
    ),
    "totals with pending entries counted, as version 02 writes them": Shape(
        document(stmt(account(), OPBD, CLBD,
                      "<TxsSummry><TtlNtries><NbOfNtries>3</NbOfNtries><Sum>79.50</Sum>"
                      "<TtlNetNtryAmt>39.50</TtlNetNtryAmt><CdtDbtInd>CRDT</CdtDbtInd></TtlNtries>"
                      "</TxsSummry>",
                      IN, OUT, ntry("9", Sts="<Sts>PDNG</Sts>")), version="02"),
        JUNE, "100", "130.5",
    ),
    "interest with a period of its own": Shape(
        document(stmt(account(), OPBD, CLBD,
                      "<Intrst><FrToDt><FrDtTm>2026-01-01T00:00:00</FrDtTm>"
                      "<ToDtTm>2026-03-31T00:00:00</ToDtTm></FrToDt></Intrst>", IN, OUT)),
        JUNE, "100", "130.5",
    ),
    "a zip of days": Shape(
        zipped({"c.xml": document(FRIDAY), "a.xml": document(TUESDAY), "b.xml": document(MONDAY),
                "__MACOSX/._a.xml": b"\x00", "__MACOSX/b.xml": b"\x00", ".DS_Store": b"x",
                "folder/": b""}),
        ("2026-06-05", "2026-06-10"), "9.5", "12",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_read_like_an_independent_reader_reads_it(name: str) -> None:
    shape = SHAPES[name]
    statement = read(shape.body, **shape.how)
    zone = ZoneInfo(shape.how.get("time_zone", UTC))
    expected = entries(shape.body, **shape.selects)
    got = sorted(
        (line.effective_at.astimezone(zone).date().isoformat(), line.amount)
        for line in statement.lines
    )
    assert got == expected
    assert sum(line.amount for line in statement.lines) == sum(amount for _, amount in expected)
    balances = tuple(None if b is None else D(b) for b in (shape.opening, shape.closing))
    assert (statement.opening, statement.closing) == balances
    first, last = (
        datetime.combine(date.fromisoformat(day), datetime.min.time(), zone) for day in shape.period
    )
    assert (statement.opened_at, statement.closed_at) == (first, last)
    assert all(first <= line.booked_at < last for line in statement.lines if line.booked_at)
    assert all(line.booked_at for line in statement.lines)
