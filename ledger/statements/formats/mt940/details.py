"""The field `:86:` of a line: what banks write in it, free or structured.

Three structures are read; anything else is free text:

* Subfields, as German, Dutch and Polish banks have them: a code of three digits, then each subfield
  after a separator and two digits: `166?00CREDIT?20EREF+A-1?21SVWZ+Invoice 7?32NAME`. Of these
  `?20` to `?29` and `?60` to `?63` are the purpose, `?32` and `?33` the other party. The separator
  may be `~`, `^`, `<` or `>`.
* Code words with a plus sign, within that purpose or alone: `EREF+A-1 SVWZ+Invoice 7`.
* Code words between slashes, as Dutch banks and SWIFT have them: `/TRTP/SEPA/NAME/X/EREF/A-1`.

Long texts are cut into lines of 65 characters, and purposes into subfields of 27, so one that is
full goes on without a blank. Some banks count the tag among the first 65.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_LINE_CHARS: Final = 65
_TAG_CHARS: Final = len(":86:")
_SUBFIELD_CHARS: Final = 27

_SUBFIELDS: Final = re.compile(r"(?:\d{3})?\s*([?~^<>])(?=(?:00|10|[236]\d))", re.ASCII)
_PURPOSE: Final = frozenset({*map(str, range(20, 30)), *map(str, range(60, 64))})
_PARTY: Final = frozenset({"32", "33"})

_WORDS: Final = "EREF|KREF|MREF|CRED|DEBT|COAM|OAMT|SVWZ|ABWA|ABWE|PREF|RREF|PURP"
_PLUS: Final = re.compile(rf"({_WORDS})\+")
_COLON: Final = re.compile(r"(?<![A-Za-z])(EREF|KREF|PREF|RREF): ?(\S+)")

_CODES: Final = re.compile(
    r"/(TRTP|TRCD|IBAN|BIC|NAME|REMI|USTD|STRD|EREF|KREF|PREF|RREF|MARF|MREF|CSID|ORDP|BENM|ULTD"
    r"|ULTC|ULTB|CNTP|RTRN|PURP|ISDT|ADDR|SVCL|EXCH|OCMT|CHGS|INV|RFB|ROC|IPI)(?=/)"
)
_REFERENCES: Final = ("EREF", "KREF", "PREF", "RREF", "ROC", "RFB", "INV", "IPI")
_TEXTS: Final = ("TRTP", "REMI", "USTD", "STRD", "INV", "RFB", "ROC", "IPI", "RTRN")
_WORDS_OF_TEXTS: Final = ("", "SVWZ", "ABWA", "ABWE")
_ULTIMATE: Final = frozenset({"ULTD", "ULTC", "ULTB"})

_Values = list[tuple[str, str]]
"""Code words and their values, in order; line breaks where the text may have a blank."""


class Details(NamedTuple):
    """What `:86:` states."""

    description: str = ""
    counterparty: str = ""
    end_to_end: str = ""
    """The end-to-end reference, or what the bank writes where there is none."""
    references: tuple[str, ...] = ()
    """Every other reference, placeholders too."""


def details_of(text: str) -> Details:
    """Return what the text of `:86:` states; text that has no structure is the description."""
    lines = text.split("\n")
    subfields = _SUBFIELDS.match(text)
    if subfields is not None:
        return _of_subfields(_joined(lines, _LINE_CHARS, _TAG_CHARS), subfields[1])
    joined = _joined(lines, _LINE_CHARS, _TAG_CHARS if text.startswith("/") else 0)
    if "/" in joined:
        codes = _values(_CODES, joined)
        if len(codes) > 2 or (len(codes) == 2 and not codes[0][1].strip()):
            return _of_codes(codes)
    return _of_words(joined)


def _joined(pieces: Sequence[str], chars: int, tag_chars: int = 0) -> str:
    """Return the pieces as one text, with a line break after one that is not full.

    The first one is full with `tag_chars` less.
    """
    last = len(pieces) - 1
    return "".join(
        piece
        if place == last or len(piece) >= chars - (0 if place else tag_chars)
        else piece + "\n"
        for place, piece in enumerate(pieces)
    )


def _values(pattern: re.Pattern[str], text: str) -> _Values:
    """Return what is before the first code word, named "", and each code word with its value."""
    values = []
    name, begin = "", 0
    for match in pattern.finditer(text):
        values.append((name, text[begin : match.start()]))
        name, begin = match[match.lastindex or 0], match.end()
    values.append((name, text[begin:]))
    return values


def _of_subfields(text: str, separator: str) -> Details:
    pieces = re.split(rf"\n?{re.escape(separator)}(\d\d)", text)
    fields = list(zip(pieces[1::2], pieces[2::2], strict=True))
    purpose = _joined([value for code, value in fields if code in _PURPOSE], _SUBFIELD_CHARS)
    party = _joined([value for code, value in fields if code in _PARTY], _SUBFIELD_CHARS)
    booked_as = [value for code, value in fields if code == "00"]
    inner = _of_words(purpose)
    return inner._replace(
        description=_prose(*booked_as, inner.description), counterparty=_prose(party)
    )


def _of_words(text: str) -> Details:
    """Read code words with a plus sign; without any the text is the description.

    References after a colon (`EREF: A-1`) are read within the text, and stay in it.
    """
    values = _values(_PLUS, text) if "+" in text else [("", text)]
    within = _COLON.findall(text) if ":" in text else []
    return Details(
        description=_prose(*(value for name, value in values if name in _WORDS_OF_TEXTS)),
        end_to_end=_reference(_first(values, "EREF") or _first(within, "EREF")),
        references=_references([*values, *within]),
    )


def _of_codes(values: _Values) -> Details:
    values = [(name, value.strip("/ \n")) for name, value in values]
    texts = [value.rpartition("/")[2] if name == "STRD" else value
             for name, value in values if name in ("", *_TEXTS)]  # fmt: skip
    structured = _first(values, "STRD").rpartition("/")[2]
    return Details(
        description=_prose(*texts),
        counterparty=_prose(_party(values)),
        end_to_end=_reference(_first(values, "EREF")),
        references=(*_references(values), *filter(None, [_reference(structured)])),
    )


def _party(values: _Values) -> str:
    """Return the name of the other party, not of one that it acts for."""
    is_ultimate = False
    for name, value in values:
        if name in _ULTIMATE:
            is_ultimate = True
        elif name in ("ORDP", "BENM"):
            is_ultimate = False
            if value:
                return value
        elif name == "NAME" and value and not is_ultimate:
            return value.partition("/ID/")[0]
        elif name == "CNTP" and value.count("/") > 1:  # account, BIC, name, city
            return value.split("/")[2]
    return ""


def _first(values: _Values, name: str) -> str:
    return next((value for code, value in values if code == name and value.strip()), "")


def _references(values: _Values) -> tuple[str, ...]:
    references = (_reference(value) for name, value in values if name in _REFERENCES)
    return tuple(filter(None, references))


def _reference(value: str) -> str:
    """Return a reference, which goes on in the next piece unless that has several words."""
    first, _, more = value.strip().partition("\n")
    return first.strip() if " " in more.strip() else (first + more.replace("\n", "")).strip()


def _prose(*texts: str) -> str:
    """Return the texts as one, each once, with single blanks."""
    return " ".join(word for text in dict.fromkeys(texts) for word in text.split())
