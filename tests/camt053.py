"""camt.053 files as banks write them, with invented names, and a few lines that read them back."""

from __future__ import annotations

import io
import re
import zipfile
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest

from ledger.config.statement_profile import profile_of
from ledger.statements.model import Reading, Statement, StatementRefused
from ledger.statements.reader import read_statement

ISO = "urn:iso:std:iso:20022:tech:xsd:camt.053.001."
IBAN = "SG44MERL0000123456"
OTHER_IBAN = "DE02TULP0000987654"


def read(body: str | bytes, **how: Any) -> Statement:
    profile = profile_of({"time_zone": how.pop("time_zone")} if "time_zone" in how else {})
    raw = body.encode() if isinstance(body, str) else body
    return read_statement(raw, Reading(**how, profile=profile))


def refused(body: str | bytes, **how: Any) -> str:
    with pytest.raises(StatementRefused) as caught:
        read(body, **how)
    return str(caught.value)


def ntry(
    amount: str, mark: str = "CRDT", day: str = "2026-06-10", *more: str, **fields: str
) -> str:
    """Return an entry; `fields` replace or add elements, "" leaves one out."""
    parts = {
        "Amt": f'<Amt Ccy="SGD">{amount}</Amt>',
        "CdtDbtInd": f"<CdtDbtInd>{mark}</CdtDbtInd>",
        "Sts": "<Sts>BOOK</Sts>",
        "BookgDt": f"<BookgDt><Dt>{day}</Dt></BookgDt>",
        "ValDt": f"<ValDt><Dt>{day}</Dt></ValDt>",
    } | fields
    return f"<Ntry>{''.join(parts.values())}{''.join(more)}</Ntry>"


def bal(code: str, amount: str, day: str, mark: str = "CRDT", currency: str = "SGD") -> str:
    dated = f"<Dt><Dt>{day}</Dt></Dt>" if day else ""
    return (
        f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy="{currency}">{amount}</Amt>'
        f"<CdtDbtInd>{mark}</CdtDbtInd>{dated}</Bal>"
    )


def account(iban: str = IBAN, currency: str = "SGD") -> str:
    return f"<Acct><Id><IBAN>{iban}</IBAN></Id><Ccy>{currency}</Ccy></Acct>"


def period(begin: str, end: str) -> str:
    return f"<FrToDt><FrDtTm>{begin}</FrDtTm><ToDtTm>{end}</ToDtTm></FrToDt>"


def stmt(*parts: str, id_: str = "A-1") -> str:
    return f"<Stmt><Id>{id_}</Id>{''.join(parts)}</Stmt>"


def document(*statements: str, version: str = "08", namespace: str | None = None) -> str:
    uri = ISO + version if namespace is None else namespace
    declared = f' xmlns="{uri}"' if uri else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Document{declared}><BkToCstmrStmt><GrpHdr><MsgId>'
        f"M-1</MsgId></GrpHdr>{''.join(statements)}</BkToCstmrStmt></Document>"
    )


def zipped(files: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def entries(
    body: str | bytes, iban: str = "", currency: str = "", once: bool = False
) -> list[tuple[str, Decimal]]:
    """Return the day and the signed amount of each booked entry, as the file writes them.

    `once`: of statements with one Id, the first one only.
    """
    raw = body.encode() if isinstance(body, str) else body
    if raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            files = [
                archive.read(n)
                for n in archive.namelist()
                if n.endswith(".xml") and "MACOSX" not in n
            ]
        return sorted(each for file in files for each in entries(file, iban, currency))
    # ElementTree believes the declaration of the encoding; these files are not as they declare.
    if raw.startswith(b"\xff\xfe") or re.match(rb"<\?xml[^>]*utf-16", raw):
        text = raw.decode("utf-16" if raw.startswith(b"\xff\xfe") else "utf-8")
        raw = text.partition("?>")[2].encode()
    root = ElementTree.fromstring(raw.strip())
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    found = []
    ids = set()
    for statement in root.iter("Stmt"):
        if once and statement.findtext("Id") in ids:
            continue
        ids.add(statement.findtext("Id"))
        if iban and iban not in [(n.text or "").strip() for n in statement.findall("Acct//")]:
            continue
        for node in statement.findall("Ntry"):
            amount = node.find("Amt")
            if currency and amount.get("Ccy") != currency:
                continue
            status = node.find("Sts")
            if status is not None and "".join(status.itertext()).strip() != "BOOK":
                continue
            sign = {"CRDT": 1, "DBIT": -1}[node.findtext("CdtDbtInd")]
            days = [
                node.findtext(f"{name}/{kind}")
                for name in ("BookgDt", "ValDt")
                for kind in ("Dt", "DtTm")
            ]
            day = next(text for text in days if text)
            found.append((day.strip()[:10], sign * Decimal(amount.text.strip())))
    return sorted(found)
