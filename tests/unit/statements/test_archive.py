"""A zip of statement files is read as one statement, within limits, or refused by its member."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime

import pytest

from ledger.config.statement_profile import profile_of
from ledger.statements.formats.archive import MEMBERS_MAX
from ledger.statements.model import Reading, StatementRefused
from ledger.statements.reader import read_statement
from tests.camt053 import (
    IBAN,
    OTHER_IBAN,
    account,
    bal,
    document,
    ntry,
    read,
    refused,
    stmt,
    zipped,
)


def day(number: int, opening: str, closing: str, *entries: str, iban: str = IBAN) -> str:
    on = f"2026-06-{number:02}"
    balances = bal("OPBD", opening, on) + bal("CLBD", closing, on)
    return document(stmt(account(iban), balances, *entries, id_=f"D-{number}"))


MONDAY = day(8, "10", "15", ntry("5", day="2026-06-08"))
TUESDAY = day(9, "15", "12", ntry("3", "DBIT", "2026-06-09"))


def test_members_are_put_in_the_order_of_their_statements() -> None:
    statement = read(zipped({"1.xml": TUESDAY, "2.xml": MONDAY}))
    assert [line.amount for line in statement.lines] == [5, -3]
    assert (statement.opening, statement.closing) == (10, 12)
    assert (statement.account, statement.format) == (IBAN, "camt.053")
    assert statement.opened_at == datetime(2026, 6, 8, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 10, tzinfo=UTC)


def test_the_zip_itself_is_the_file_that_is_kept() -> None:
    body = zipped({"1.xml": MONDAY})
    assert read(body).body == body


def test_one_reference_on_every_day_stays_on_each() -> None:
    ref = "<AcctSvcrRef>000001</AcctSvcrRef>"
    days = [day(n, str(n), str(n + 1), ntry("1", "CRDT", f"2026-06-{n:02}", ref)) for n in (8, 9)]
    statement = read(zipped({f"{n}.xml": each for n, each in enumerate(days)}))
    assert [line.id for line in statement.lines] == ["000001", "000001"]
    assert len({line.name for line in statement.lines}) == 2


def test_pages_of_one_day_in_several_files_follow_each_other() -> None:
    pages: dict[str, str | bytes] = {
        "b.xml": document(stmt(account(), bal("OPBD", "1", "2026-06-08"),
                               bal("ITBD", "6", "2026-06-08"), ntry("5", day="2026-06-08"))),
        "a.xml": document(stmt(account(), bal("ITBD", "6", "2026-06-08"),
                               bal("CLBD", "4", "2026-06-08"), ntry("2", "DBIT", "2026-06-08"))),
    }  # fmt: skip
    statement = read(zipped(pages))
    assert (statement.opening, statement.closing) == (1, 4)


def test_files_of_another_account_are_left_out_when_one_is_named() -> None:
    other = day(8, "70", "71", ntry("1", day="2026-06-08"), iban=OTHER_IBAN)
    body = zipped({"a.xml": MONDAY, "b.xml": other, "c.xml": TUESDAY})
    assert f"about {OTHER_IBAN}, {IBAN}; choose one (--account)" in refused(body)
    statement = read(body, account=IBAN)
    assert statement.closing == 12
    assert statement.notes == ("1 of the zip's files are about other accounts and left out",)
    assert read(body, account=OTHER_IBAN).closing == 71
    assert "'a.xml': the file is about" in refused(body, account="SG0")


def test_copies_are_left_out_and_noted() -> None:
    again = TUESDAY.replace("<MsgId>M-1<", "<MsgId>M-2<")
    pdf = b"%PDF-1.7"
    body = zipped(
        {"a.xml": MONDAY, "a (1).xml": MONDAY, "b.xml": TUESDAY, "c.xml": again, "a.pdf": pdf}
    )
    statement = read(body)
    assert [line.amount for line in statement.lines] == [5, -3]
    assert set(statement.notes) == {
        "member 'a (1).xml' is a copy of 'a.xml' and left out",
        "member 'a.pdf' is a PDF and left out",
        "member 'c.xml' repeats 'b.xml' and is left out",
    }


def test_a_zip_of_csv_files_is_read_by_the_profile() -> None:
    profile = profile_of({"effective_at": "t", "amount": "a", "time_zone": "UTC"})
    months: dict[str, str | bytes] = {
        "2.csv": "t,a\n2026-07-01,2\n2026-07-02,3\n",
        "1.csv": "t,a\n2026-06-02,1\n2026-06-30,4\n",
    }
    how = Reading(currency="SGD", profile=profile)
    statement = read_statement(zipped(months), how)
    assert [line.amount for line in statement.lines] == [1, 4, 2, 3]
    assert (statement.opening, statement.closing) == (None, None)
    both = "t,a\n2026-06-03,1\n2026-07-02,2\n"
    overlapping = zipped({"1.csv": months["1.csv"], "2.csv": both})
    with pytest.raises(StatementRefused, match=r"member '2\.csv' begins at .* no balances show"):
        read_statement(overlapping, how)


def test_a_day_that_is_missing_is_refused_with_both_balances() -> None:
    friday = day(12, "99", "100", ntry("1", day="2026-06-12"))
    message = refused(zipped({"mon.xml": MONDAY, "fri.xml": friday}))
    assert (
        "member 'fri.xml' opens with 99, but 'mon.xml', the one before, closes with 15" in message
    )


def test_a_refusal_within_a_member_names_it_and_its_line() -> None:
    wrong = TUESDAY.replace(">3<", ">3,00<")
    message = refused(zipped({"mon.xml": MONDAY, "tue.xml": wrong}))
    assert message.startswith("member 'tue.xml': line 1: ")
    assert "'3,00'" in message


SWIFT = f":20:X\n:25:{IBAN}\n:28C:1\n:60F:C260608SGD15,\n:62F:C260609SGD15,\n-"


def nameless() -> bytes:
    """Return a zip whose only member has an empty name in its directory."""
    body = bytearray(zipped({"a": MONDAY}))
    place = body.index(b"PK\x01\x02")
    body[place + 28] = 0
    del body[place + 46]
    end = body.index(b"PK\x05\x06")
    body[end + 12 : end + 16] = (int.from_bytes(body[end + 12 : end + 16], "little") - 1).to_bytes(
        4, "little"
    )
    return bytes(body)


def encrypted() -> bytes:
    body = bytearray(zipped({"a.xml": MONDAY}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(signature) + place] |= 1
    return bytes(body)


def bomb() -> bytes:
    """Return a zip of 100 members that share one content, which is larger than the limit."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(100):
            archive.writestr(f"{number}.xml", b"<" + b" " * 20_000)
    return file.getvalue()


def damaged() -> bytes:
    body = bytearray(zipped({"a.xml": MONDAY}))
    body[60] ^= 0xFF
    return bytes(body)


def compressed_by_lzma() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.xml", MONDAY)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (encrypted(), "member 'a.xml' is encrypted"),
        (bomb(), "more than 1000000 bytes when unpacked"),
        (nameless(), "the zip is damaged"),
        (damaged(), "the zip is damaged"),
        (b"PK\x03\x04 and nothing more", "the zip is damaged"),
        (zipped({"in.zip": zipped({"a.xml": MONDAY})}), "member 'in.zip' is a zip itself"),
        (zipped({}), "holds no file"),
        (zipped({"__MACOSX/a.xml": "x", ".DS_Store": "x", "d/": ""}), "holds no file"),
        (zipped({"a.xml": ""}), "member 'a.xml': the file is empty"),
        (zipped({"notes.txt": "hello"}), "member 'notes.txt': the format is none of"),
        (zipped({f"{n}.xml": "" for n in range(MEMBERS_MAX + 1)}), f"more than {MEMBERS_MAX}"),
        (compressed_by_lzma(), "member 'a.xml' is compressed by method 14"),
        (zipped({"a.xml": MONDAY, "b.sta": SWIFT}), "zip the files of each format apart"),
    ],
)  # fmt: skip
def test_a_zip_that_cannot_be_read_is_refused_with_the_reason(body: bytes, reported: str) -> None:
    with pytest.raises(StatementRefused) as caught:
        read_statement(body, Reading(), bytes_max=1_000_000)
    assert reported in str(caught.value)
