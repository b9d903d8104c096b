"""What a camt.053 states is read: periods, accounts, references, parties; the rest is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ledger.errors import OtherAccount
from ledger.statements.validation import NAMES_MAX
from tests.camt053 import (
    IBAN,
    ISO,
    OTHER_IBAN,
    account,
    bal,
    document,
    ntry,
    period,
    read,
    refused,
    stmt,
)

OPBD, CLBD = bal("OPBD", "100", "2026-05-31"), bal("CLBD", "150", "2026-06-30")


def day_after() -> str:
    """Return the statement of the day after June."""
    day = "2026-07-01"
    balances = bal("OPBD", "10", day) + bal("CLBD", "11", day)
    return stmt(account(), balances, ntry("1", day=day), id_="A-2")


def june(*parts: str) -> str:
    return document(stmt(account(), OPBD, CLBD, *parts))


def details(*transactions: str, batch: str = "") -> str:
    inner = "".join(f"<TxDtls>{each}</TxDtls>" for each in transactions)
    return f"<NtryDtls>{batch}{inner}</NtryDtls>"


def refs(**names: str) -> str:
    return (
        "<Refs>" + "".join(f"<{name}>{text}</{name}>" for name, text in names.items()) + "</Refs>"
    )


# Periods: a line dated outside keeps its date and counts within.


@pytest.mark.parametrize(
    ("stated", "day", "booked"),
    [
        (period("2026-07-01T00:00:00", "2026-09-30T23:59:59"), "2026-06-30", "2026-07-01"),
        (period("2026-06-08T00:00:00", "2026-06-08T23:59:59"), "2026-06-05", "2026-06-08"),
        (period("2026-06-01T00:00:00", "2026-06-30T23:59:59"), "2026-07-02", "2026-06-30"),
        (period("2026-06-05T00:00:00", "2026-06-08T23:59:59"), "2026-06-06", "2026-06-06"),
    ],
    ids=["quarter end, the day before", "Friday in Monday's", "after the closing day", "weekend"],
)
def test_a_line_outside_of_the_stated_period_keeps_its_date(
    stated: str, day: str, booked: str
) -> None:
    body = document(
        stmt(stated, account(), bal("OPBD", "1", ""), bal("CLBD", "6", ""), ntry("5", day=day))
    )
    statement = read(body)
    assert read(body.replace(ntry("5", day=day), ntry("5"))).opened_at == statement.opened_at
    (line,) = statement.lines
    assert line.effective_at.date().isoformat() == day
    assert line.booked_at is not None
    assert line.booked_at.date().isoformat() == booked
    assert statement.opened_at <= line.booked_at < statement.closed_at


def test_lines_never_widen_an_inferred_period() -> None:
    late, early = ntry("20", day="2026-07-02"), ntry("30", day="2026-05-29")
    statement = read(june(late, early))
    assert statement.opened_at == datetime(2026, 6, 1, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 7, 1, tzinfo=UTC)
    assert [line.effective_at.date().isoformat() for line in statement.lines] == [
        "2026-05-29", "2026-07-02",
    ]  # fmt: skip
    assert any("dated outside 2026-06-01 to 2026-06-30" in note for note in statement.notes)


def test_the_lines_of_each_statement_of_a_file_count_within_its_own_period() -> None:
    monday = stmt(account(), bal("OPBD", "1", "2026-06-08"), bal("CLBD", "6", "2026-06-08"),
                  ntry("5", day="2026-06-09"))  # fmt: skip
    tuesday = stmt(account(), bal("OPBD", "6", "2026-06-09"), bal("CLBD", "9", "2026-06-09"),
                   ntry("3", day="2026-06-08"))  # fmt: skip
    days = {
        line.amount: (line.effective_at.day, line.booked_at.day)
        for line in read(document(tuesday, monday)).lines
        if line.booked_at
    }
    assert days == {Decimal(5): (9, 8), Decimal(3): (8, 9)}


def test_a_previous_closing_balance_shows_the_first_day() -> None:
    body = june(ntry("50", day="2026-06-01")).replace("OPBD", "PRCD")
    statement = read(body)
    assert statement.opened_at == datetime(2026, 6, 1, tzinfo=UTC)
    assert statement.claimed_from in (None, statement.opened_at)


def test_a_time_in_the_stated_period_counts_to_its_own_offset() -> None:
    stated = period("2026-06-01T00:00:00+08:00", "2026-06-30T00:00:00+08:00")
    statement = read(document(stmt(stated, account(), OPBD, CLBD, ntry("50"))))
    assert statement.opened_at == datetime(2026, 5, 31, 16, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 30, 16, tzinfo=UTC)


def test_a_period_that_is_one_moment_states_none() -> None:
    moment = period("2026-06-30T18:03:11", "2026-06-30T18:03:11")
    statement = read(document(stmt(moment, account(), OPBD, CLBD, ntry("50"))))
    assert (statement.opened_at.day, statement.closed_at.day) == (1, 1)


# Accounts.


def test_the_account_is_the_iban_or_another_number() -> None:
    assert read(june(ntry("50"))).account == IBAN
    other = june(ntry("50")).replace(f"<IBAN>{IBAN}</IBAN>", "<Othr><Id> 072-9 00 </Id></Othr>")
    assert read(other).account == "072-900"
    without = june(ntry("50")).replace(account(), "")
    assert read(without).account == ""
    assert read(without, account="my one").account == "MYONE"


def test_one_of_several_accounts_is_chosen() -> None:
    body = document(
        stmt(account(), OPBD, CLBD, ntry("50")), stmt(account(OTHER_IBAN), OPBD, CLBD, ntry("50"))
    )
    assert f"about {OTHER_IBAN}, {IBAN}; choose one (--account)" in refused(body)
    assert read(body, account=IBAN.lower()).account == IBAN
    with pytest.raises(OtherAccount, match="not SG00"):
        read(body, account="SG00")
    with pytest.raises(OtherAccount, match="about SGD, not USD"):
        read(body, account=IBAN, currency="usd")


# Ids, names, parties, texts.


def test_one_reference_of_the_bank_on_several_entries_stays_on_each() -> None:
    ref = "<AcctSvcrRef>000001</AcctSvcrRef>"
    other = "<AcctSvcrRef>NONREF</AcctSvcrRef>"
    entries = [
        ntry(amount, "CRDT", "2026-06-10", each)
        for amount, each in (("20", ref), ("20", ref), ("10", other))
    ]
    statement = read(june(*entries))
    assert sorted(line.id for line in statement.lines) == ["000001", "000001", "NONREF"]
    assert len({line.name for line in statement.lines}) == 3
    assert any("1, 2 are equal" in note for note in statement.notes)


def test_every_reference_of_every_transaction_of_a_batch_is_a_name() -> None:
    batch = "<Btch><MsgId>MSG-7</MsgId><PmtInfId>PAY-7  </PmtInfId><NbOfTxs>2</NbOfTxs></Btch>"
    first = refs(EndToEndId="E-1", InstrId="I-1", TxId="T-1", UETR="u-1", MndtId="MANDATE")
    second = refs(EndToEndId="NOTPROVIDED", AcctSvcrRef="B-2") + (
        "<RmtInf><Strd><RfrdDocInf><Nb>INV-2</Nb></RfrdDocInf>"
        "<CdtrRefInf><Ref>RF18X</Ref></CdtrRefInf></Strd></RmtInf>"
    )
    third = "<Refs><Prtry><Tp>OTHR</Tp><Ref>OWN-3</Ref></Prtry></Refs>"
    (line,) = read(
        june(ntry("50", "CRDT", "2026-06-10", details(first, second, third, batch=batch)))
    ).lines
    assert set(line.names) == {
        "E-1", "I-1", "T-1", "u-1", "B-2", "INV-2", "RF18X", "OWN-3", "MSG-7", "PAY-7",
    }  # fmt: skip
    assert (line.reference, line.idempotency_id) == (None, None)


def test_the_references_of_a_single_transaction_are_the_lines() -> None:
    only = details(refs(EndToEndId="E-1", InstrId="I-1"))
    (line,) = read(june(ntry("50", "CRDT", "2026-06-10", only))).lines
    assert (line.reference, line.idempotency_id, line.names) == ("E-1", "I-1", ("E-1", "I-1"))


@pytest.mark.parametrize("name", ["Nm", "Pty/Nm", "Agt/FinInstnId/Nm"])
@pytest.mark.parametrize(
    ("mark", "reversal", "party"),
    [("CRDT", "", "Ada"), ("DBIT", "", "Bo"), ("CRDT", "true", "Bo"), ("DBIT", "1", "Ada")],
)
def test_the_counterparty_is_the_other_side(
    name: str, mark: str, reversal: str, party: str
) -> None:
    def nested(text: str) -> str:
        tags = name.split("/")
        opening = "".join(f"<{tag}>" for tag in tags)
        return opening + text + "".join(f"</{tag}>" for tag in reversed(tags))

    parties = f"<RltdPties><Dbtr>{nested('Ada')}</Dbtr><Cdtr>{nested('Bo')}</Cdtr></RltdPties>"
    rvsl = f"<RvslInd>{reversal}</RvslInd>" if reversal else ""
    entry = ntry("50", mark, "2026-06-10", details(parties), RvslInd=rvsl)
    (line,) = read(document(stmt(account(), OPBD, entry))).lines
    assert line.counterparty == party


def test_the_ultimate_party_counts_where_there_is_no_other_and_a_batch_has_none() -> None:
    def paid_by(name: str, role: str = "Dbtr") -> str:
        return f"<RltdPties><{role}><Nm>{name}</Nm></{role}></RltdPties>"

    def counterparty(*transactions: str) -> str:
        return (
            read(june(ntry("50", "CRDT", "2026-06-10", details(*transactions))))
            .lines[0]
            .counterparty
        )

    assert counterparty(paid_by("Cy", "UltmtDbtr")) == "Cy"
    assert counterparty(paid_by("Cy"), paid_by("Di")) == ""
    assert counterparty(paid_by("Cy"), paid_by("Cy")) == "Cy"


def test_texts_of_entry_and_transaction_make_the_description() -> None:
    transaction = (
        "<RmtInf><Ustrd>Invoice 7</Ustrd><Ustrd>and 8</Ustrd><Strd><CdtrRefInf><Ref>RF7</Ref>"
        "</CdtrRefInf><AddtlRmtInf>thanks</AddtlRmtInf></Strd></RmtInf>"
        "<AddtlTxInf>by app</AddtlTxInf>"
    )
    info = "<AddtlNtryInf>Instant payment</AddtlNtryInf>"
    (line,) = read(june(ntry("50", "CRDT", "2026-06-10", details(transaction), info))).lines
    assert line.description == "Instant payment Invoice 7 and 8 by app thanks RF7"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("<Domn><Cd>PMNT</Cd><Fmly><Cd>MDOP</Cd><SubFmlyCd>CHRG</SubFmlyCd></Fmly></Domn>",
         "PMNT-MDOP-CHRG"),
        ("<Prtry><Cd>NCHG</Cd></Prtry>", "NCHG"),
        ("<Domn><Cd>XTND</Cd><Fmly><Cd>NTAV</Cd><SubFmlyCd>NTAV</SubFmlyCd></Fmly></Domn>"
         "<Prtry><Cd>FEE</Cd></Prtry>", "FEE"),
    ],
)  # fmt: skip
def test_the_kind_is_the_banks_code_of_the_entry_or_its_transaction(code: str, kind: str) -> None:
    coded = f"<BkTxCd>{code}</BkTxCd>"
    for body in (june(ntry("50", "CRDT", "2026-06-10", coded)),
                 june(ntry("50", "CRDT", "2026-06-10", details(coded)))):  # fmt: skip
        assert read(body).lines[0].kind == kind


def test_entries_that_are_not_booked_are_left_out_and_noted() -> None:
    statement = read(june(ntry("50"), ntry("7", Sts="<Sts><Prtry>PENDING</Prtry></Sts>")))
    assert [line.amount for line in statement.lines] == [50]
    assert statement.notes == ("1 entry is not booked (pending or for information) and left out",)


@pytest.mark.parametrize("more", ["", day_after()])
def test_entries_left_out_are_named_when_the_balances_do_not_add_up(more: str) -> None:
    memo, authorised = ("<Sts><Prtry>MEMO POST</Prtry></Sts>", "<Sts><Cd>AUTHORISED</Cd></Sts>")
    balances = bal("OPBD", "0", "2026-05-31") + bal("CLBD", "10", "2026-06-30")
    entries = ntry("6", Sts=memo), ntry("1"), ntry("3", Sts=authorised)
    message = refused(document(stmt(account(), balances, *entries, id_="J"), more))
    assert "line 2: the closing balance is 10, but the opening balance 0" in message
    assert "add up to 1" in message
    assert "left out as not booked: entries 1 (Sts 'MEMO POST'), 3 (Sts 'AUTHORISED')" in message
    assert "if their status means booked, write it as BOOK" in message


def test_many_entries_left_out_are_counted() -> None:
    balances = bal("OPBD", "0", "2026-05-31") + bal("CLBD", "10", "2026-06-30")
    entries = [ntry("1", Sts="<Sts>PDNG</Sts>") for _ in range(12)]
    message = refused(document(stmt(account(), balances, *entries)))
    assert "10 (Sts 'PDNG') and 2 more; " in message


def test_references_of_a_batch_beyond_the_limit_are_noted() -> None:
    many = [refs(EndToEndId=f"E-{n}", InstrId=f"I-{n}") for n in range(NAMES_MAX)]
    statement = read(june(ntry("50", "CRDT", "2026-06-10", details(*many))))
    assert statement.lines[0].names == tuple(f"E-{n}" for n in range(NAMES_MAX))
    assert any("line 1 has 1000 references or more" in note for note in statement.notes)


# Refusals.

ENTRY = ntry("50")


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (june(ntry("20"), ntry("30,00")), ["line 2: ", "Amt", "'30,00'"]),
        (june(ntry("50"), ntry("")), ["line 2: ", "Amt is missing"]),
        (june(ntry("20"), ntry("-30")), ["line 2: ", "Amt", "'-30'", "CdtDbtInd"]),
        (june(ntry("20"), ntry("30", "DR")), ["line 2: ", "CdtDbtInd", "'DR'", "CRDT nor DBIT"]),
        (june(ntry("50", day="2026-06-31")), ["line 1: ", "BookgDt", "'2026-06-31'"]),
        (june(ntry("50", day="10.06.2026")), ["line 1: ", "BookgDt", "'10.06.2026'"]),
        (june(ntry("50", BookgDt="", ValDt="")), ["line 1: ", "BookgDt", "ValDt"]),
        (june(ntry("50", Sts="<Sts><Prtry>MAYBE</Prtry></Sts>")), ["line 1: ", "Sts", "'MAYBE'"]),
        (june(ntry("50", "CRDT", "2026-06-10", f"<AcctSvcrRef>{'x' * 600}</AcctSvcrRef>")),
         ["line 1: ", "AcctSvcrRef", "longer than 512"]),
        (june(ENTRY, ntry("0.01")), ["line 2: ", "closing balance is 150", "150.01"]),
        (june(ENTRY).replace("<Dt>2026-06-30", "<Dt>30/06/26"),
         ["statement 1 (Id 'A-1')", "Bal CLBD", "'30/06/26'"]),
        (june(ENTRY).replace(CLBD, bal("CLBD", "1e2", "2026-06-30")),
         ["statement 1 (Id 'A-1')", "Bal CLBD", "'1e2'"]),
        (document(stmt(period("2026-06-30T00:00:00", "2026-06-01T00:00:00"), account(), ENTRY)),
         ["statement 1", "FrToDt", "'2026-06-01T00:00:00'", "before it begins"]),
        (document(stmt(period("June", "July"), account(), ENTRY)),
         ["statement 1", "FrToDt", "'June'"]),
        (document(stmt(account(), OPBD, CLBD, ENTRY),
                  stmt(account(), bal("OPBD", "151", "2026-07-01"),
                       bal("CLBD", "151", "2026-07-31"), id_="B-2")),
         ["statement 2 (Id 'B-2') opens with 151", "statement 1 (Id 'A-1')", "closes with 150"]),
        (document(stmt(account(), ENTRY), stmt(account(), ENTRY, id_="B-2")),
         ["nothing shows that statement 2"]),
        (document(stmt(account(), OPBD, bal("CLBD", "151", "2026-06-30"), ENTRY),
                  stmt(account(), bal("OPBD", "151", "2026-07-01"),
                       bal("CLBD", "151", "2026-07-31"))),
         ["line 1: ", "closing balance is 151", "statement 1"]),
        (document(), ["no statement (Stmt)"]),
        (june(ENTRY).replace("</Document>", "</Document>" + june(ENTRY).partition("?>")[2]),
         ["second XML document", "zip"]),
        ("<html><body>Please log in</body></html>", ["no statement (Stmt)"]),
        (june(ENTRY).replace(ISO + "08", "urn:iso:std:iso:20022:tech:xsd:camt.052.001.08")
         .replace("BkToCstmrStmt", "BkToCstmrAcctRpt"), ["is a camt.052", "export the camt.053"]),
        (june(ENTRY).replace(f' xmlns="{ISO}08"', "")
         .replace("BkToCstmrStmt", "BkToCstmrDbtCdtNtfctn"),
         ["is a camt.054", "export the camt.053"]),
        (june(ENTRY).replace("camt.053", "pain.001"), ["pain.001", "no camt.053"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_its_text(
    body: str, reported: list[str]
) -> None:
    message = refused(body)
    assert [each for each in reported if each not in message] == []


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("TtlNtries/NbOfNtries", "3", "2"),
        ("TtlNtries/Sum", "80", "90"),
        ("TtlNtries/TtlNetNtry/Amt", "50.01", "50"),
        ("TtlCdtNtries/NbOfNtries", "2", "1"),
        ("TtlCdtNtries/Sum", "69", "70"),
        ("TtlDbtNtries/NbOfNtries", "0", "1"),
        ("TtlDbtNtries/Sum", "20.000001", "20"),
    ],
)
def test_a_total_that_the_entries_do_not_have_is_refused(
    field: str, wrong: str, right: str
) -> None:
    def summary(figure: str) -> str:
        path = field.split("/")
        inner = "".join(f"<{tag}>" for tag in path) + figure
        return f"<TxsSummry>{inner}{''.join(f'</{tag}>' for tag in reversed(path))}</TxsSummry>"

    lines = ntry("70"), ntry("20", "DBIT")
    assert len(read(june(summary(right), *lines)).lines) == 2
    message = refused(june(summary(wrong), *lines))
    assert f"statement 1 (Id 'A-1'): TxsSummry/{field} is '{wrong}'" in message
    assert right in message.partition("make")[2]


def test_totals_with_pending_entries_are_right_with_or_without_them() -> None:
    pending = ntry("7", Sts="<Sts>PDNG</Sts>")
    for count, total in (("1", "50"), ("2", "57")):
        summary = (
            f"<TxsSummry><TtlCdtNtries><NbOfNtries>{count}</NbOfNtries><Sum>{total}</Sum>"
            "</TtlCdtNtries></TxsSummry>"
        )
        assert len(read(june(summary, ENTRY, pending)).lines) == 1
    wrong = "<TxsSummry><TtlCdtNtries><Sum>56</Sum></TtlCdtNtries></TxsSummry>"
    assert "50 or 57" in refused(june(wrong, ENTRY, pending))
