"""How a payload is read without guessing: either casing, exact money, zoned times.

Money comes from its exact lexeme and is added without rounding; a text that is not plainly an
amount, a time or a short word cannot be true. `ledger.model` hands all of this on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, getcontext
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, Final, TypeAlias

from ledger.callback_errors import InvalidCallback

JSON: TypeAlias = Any
"""A strictly parsed JSON value: dict, list, str, int, bool, None or `Number`."""

TEXT_MAX: Final = 512
"""Characters that an identifier or status may have."""

NAME_MAX: Final = TEXT_MAX + 64
"""Characters of a name that holds an identifier: an account, an item, a finding's subject."""

AMOUNT_MAX: Final = 40
"""Characters of the longest amount: a sign, 20 digits, a point and 18 more."""

YEARS: Final = range(1970, 2200)
"""Years in which something can have happened."""

RETURNED_IDS_MAX: Final = 64
"""Ids that are read from the remarks of one incoming transfer; banks carry about 140 characters."""

LEXEME_MAX: Final = 64
"""Characters of a JSON number with an exponent; longer ones are no amount."""

SHOWN_MAX: Final = 32
"""Characters of a value that a message shows."""

_PERSONAL: Final = re.compile(
    "name|account|remark|sender|address|mail|phone|birth|document|information|note|^by$",
    re.IGNORECASE,
)
"""Fields whose values no message shows."""

_NO_DATE: Final = "0001-01-01T00:00:00"
_SNAKE_CASE: Final = re.compile(r"[a-z]+[0-9]*(?:_[a-z]+[0-9]*)*")
_MONEY: Final = re.compile(r"-?\d{1,20}(?:\.\d{1,18})?", re.ASCII)
_DECIMAL: Final = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_EXPONENT: Final = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?0*\d{1,3}", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{1,11}", re.ASCII)
_INTEGER_MAX: Final = 10**TEXT_MAX
_RETURN: Final = re.compile(r"\bRTN\b([\s:/-]*)", re.IGNORECASE)
_ID_END: Final = re.compile(r"[^\w-]|$")
_CUT_WORD: Final = re.compile(r"[\w-]*\Z")
_SECOND: Final = timedelta(seconds=1)
_UNUSUAL_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d):(\d\d)((?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))", re.ASCII
)
_moment: Final = datetime.fromisoformat

DECIMAL_DIGITS: Final = 128
"""Digits of exact arithmetic. Amounts have up to 38; Python's default of 28 would round them."""

_EXACT: Final = Context(prec=DECIMAL_DIGITS, traps=[Inexact])


class Number(str):
    """The exact lexeme of a JSON number that is not an integer (`13304.95`, `1e400`)."""

    __slots__ = ()


class _Camel(dict[str, str]):
    """Field names in camelCase by their snake_case; "" for those that have no other spelling."""

    def __missing__(self, name: str) -> str:
        words = name.split("_") if _SNAKE_CASE.fullmatch(name) else [name]
        other = words[0] + "".join(map(str.capitalize, words[1:]))
        found = self[name] = "" if other == name else other
        return found


_CAMEL: Final = _Camel()
"""Filled by the names that handlers ask for, never by what a callback holds."""


def camel(name: str) -> str:
    """Spell a snake_case field name in camelCase; what is no snake_case spells only itself."""
    return _CAMEL[name] or name


def _find(fields: Mapping[str, JSON], node: Mapping[str, JSON], name: str) -> JSON:
    """Return the field `name` in either casing, from the node around when the fields lack it."""
    value = fields.get(name)
    other = _CAMEL[name]
    if other and (twin := fields.get(other)) is not None:
        if value is not None and value != twin:
            detail = f"{named(name, value)} and {named(other, twin)} disagree"
            raise InvalidCallback("two_values", detail)
        return twin
    if value is None and fields is not node:
        value = node.get(name)
        return node.get(other) if value is None and other else value
    return value


class Payload:
    """A callback's fields, whichever of the three envelopes they came in.

    The envelopes are flat, `{"data": {id, type, attributes}}` and `{id, type, attributes}`
    (straitsx-callback-samples). Fields are asked for in snake_case and found in either casing;
    a field present in both casings with different values cannot be true.
    """

    __slots__ = ("fields", "get", "id", "path_event", "root", "type")

    fields: Mapping[str, JSON]
    """The fields as they stand there."""
    get: Callable[[str], JSON]
    """(snake_case name) → the field in either casing; None when absent or null."""

    def __init__(self, root: Mapping[str, JSON], path_event: str | None = None) -> None:
        data = root.get("data")
        node: Mapping[str, JSON] = data if isinstance(data, dict) else root
        attributes = node.get("attributes")
        self.fields = fields = attributes if isinstance(attributes, dict) else node
        self.get = partial(_find, fields, node)
        self.root = root
        self.path_event = path_event
        self.type = as_text("type", node.get("type"))
        self.id = as_text("id", node.get("id"))

    @classmethod
    def inner(cls, fields: Mapping[str, JSON]) -> Payload:
        """Return an object inside a callback as a payload: always flat, no type and id read."""
        payload = cls.__new__(cls)
        payload.root = payload.fields = fields
        payload.get = partial(_find, fields, fields)
        payload.path_event = payload.type = payload.id = None
        return payload

    def within(self, name: str) -> Payload | None:
        """Return the object in field `name` as a payload of its own; None when it is none."""
        value = self.get(name)
        return Payload.inner(value) if isinstance(value, dict) else None

    def text(self, name: str) -> str | None:
        """Return a short text or identifier; absent, null and "" are None; integers read as text.

        Raises InvalidCallback for other types and beyond `TEXT_MAX` characters.
        """
        value = self.get(name)
        return value if value is None else as_text(name, value)

    def named(self, name: str) -> str | None:
        """Return a name that holds an identifier, as `text`. Raises beyond NAME_MAX characters."""
        return as_text(name, self.get(name), NAME_MAX)

    def need(self, name: str) -> str:
        """Return a text that must be there. Raises InvalidCallback when it is not."""
        value = self.text(name)
        if value is None:
            raise InvalidCallback("missing_" + name, f"the callback has no {name}")
        return value

    def note(self, name: str) -> str | None:
        """Return a descriptive text, cut to TEXT_MAX; what is no text is None, never refused."""
        value = self.get(name)
        return value[:TEXT_MAX] or None if isinstance(value, str) else None

    def notes(self, names: Iterable[str]) -> dict[str, JSON]:
        """Return the descriptive texts of several fields by their names."""
        get = self.get
        found: dict[str, JSON] = {}
        for name in names:
            value = get(name)
            found[name] = value[:TEXT_MAX] or None if isinstance(value, str) else None
        return found

    def texts(self, names: Iterable[str]) -> dict[str, JSON]:
        """Return the short texts of several fields by their names. Raises InvalidCallback."""
        return {name: as_text(name, self.get(name)) for name in names}

    def status(self, name: str, known: frozenset[str]) -> str:
        """Return the state in lower case, or `unknown:<text>` when it is not in `known`.

        Raises InvalidCallback `missing_status`.
        """
        text = as_text(name, self.get(name))
        if text is None:
            raise InvalidCallback("missing_status", f"the callback has no {name}")
        word = text.lower()
        return word if word in known else "unknown:" + text

    def amount(self, name: str) -> Decimal:
        """Return an amount that must be there and not negative, from its exact lexeme.

        Raises InvalidCallback `missing_amount` or `negative_amount`: absent is not zero.
        """
        value = as_money(name, self.get(name))
        if value is None:
            raise InvalidCallback("missing_amount", f"the callback has no {name}")
        if value.is_signed():
            raise InvalidCallback("negative_amount", f"{name} is {value}")
        return value

    def fees(self, name: str) -> Decimal | None:
        """Return fees, None when unknown. Raises InvalidCallback `negative_fees`."""
        value = as_money(name, self.get(name))
        if value is not None and value.is_signed():
            raise InvalidCallback("negative_fees", f"{name} is {value}")
        return value

    def fees_within(self, name: str, amount: Decimal, fees: Decimal | None) -> Decimal | None:
        """Return the fees, from the stated total where no field names them.

        Raises InvalidCallback `total_mismatch` when the total is not amount plus fees.
        """
        stated = self.money(name)
        if stated is None or (fees is not None and stated == total(amount, fees)):
            return fees
        if fees is None and stated >= amount:
            return total(stated, amount.copy_negate())
        message = f"{name} is {stated}, but amount and fees are {amount} and {fees}"
        raise InvalidCallback("total_mismatch", message)

    def currency(self, name: str) -> str:
        """Return a currency in upper case. Raises InvalidCallback `missing_` or `bad_currency`."""
        text = as_text(name, self.get(name))
        if text is None:
            raise InvalidCallback("missing_currency", f"the callback has no {name}")
        code = as_currency(text)
        if code is None:
            raise InvalidCallback(
                "bad_currency", f"{name} is no currency code: {text[:SHOWN_MAX]!r}"
            )
        return code

    def money(self, name: str) -> Decimal | None:
        """Return an amount from its exact lexeme, string or number; None when absent or null."""
        return as_money(name, self.get(name))

    def instant(self, name: str) -> datetime | None:
        """Return a time with a zone, in UTC; None when absent, null or ""."""
        return as_instant(name, self.get(name))

    def stated_time(self) -> tuple[datetime | None, bool]:
        """Return the provider's time of this callback in UTC: updated, else created; and which.

        The second is whether only the time of creation is given.
        """
        updated = self.instant("updated_at")
        moment = updated or self.instant("created_at")
        return moment, updated is None and moment is not None


def joined_id(*parts: str | None) -> str:
    """Return one id for a resource that several texts name together: `customer/id`.

    Different parts never make the same id: `/` and `%` inside a part are escaped, and what would
    be longer than TEXT_MAX is `sha256:` and a digest, which has no `/`.
    """
    escaped = ((part or "").replace("%", "%25").replace("/", "%2F") for part in parts)
    joined = "/".join(escaped)
    if len(joined) <= TEXT_MAX:
        return joined
    return f"sha256:{sha256(joined.encode()).hexdigest()}"


def shown(value: JSON) -> str:
    """Show a value in a message, bounded; of an object or a list only that it is one."""
    match value:
        case Number():
            text = str(value)
        case str():
            text = repr(value if len(value) <= SHOWN_MAX else value[:SHOWN_MAX] + "…")
        case dict():
            text = "an object"
        case list():
            text = "a list"
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case int() if abs(value) >= _INTEGER_MAX:
            text = "a vast number"
        case _:
            text = str(value)
    return text if len(text) <= SHOWN_MAX + 3 else text[:SHOWN_MAX] + "…"


def named(name: str, value: JSON) -> str:
    """Name a field and show its value, unless that may be personal data."""
    return name if _PERSONAL.search(name) else f"{name} {shown(value)}"


def inside(value: JSON, name: str) -> JSON:
    """Return field `name` of an object, in either casing; None where there is none."""
    return _find(value, value, name) if isinstance(value, dict) else None


def as_text(name: str, value: JSON, chars_max: int = TEXT_MAX) -> str | None:
    """Read `value` as a text of at most `chars_max` characters; integers allowed, "" is None."""
    if type(value) is str and len(value) <= chars_max:
        return value or None
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGER_MAX:
        value = str(value)
    if not isinstance(value, str):
        raise InvalidCallback("bad_" + name, f"{named(name, value)} is not a text")
    if len(value) > chars_max:
        detail = f"{named(name, value)} is longer than {chars_max} characters"
        raise InvalidCallback("bad_" + name, detail)
    return str(value)


@lru_cache(maxsize=1024)
def as_currency(text: str) -> str | None:
    """Return a currency code in upper case; None for what is none."""
    return text.upper() if _CURRENCY.fullmatch(text) else None


def as_note(value: JSON) -> str | None:
    """Read a descriptive text, cut to TEXT_MAX; what is no text, or "", is None."""
    return value[:TEXT_MAX] or None if isinstance(value, str) else None


def as_codes(value: JSON) -> tuple[list[str], bool]:
    """Read a list of codes, or one; return the codes, and whether nothing else was there.

    The documents show both plain ones and objects with a `code`; an item that is neither is left
    out.
    """
    if value is None or value in ("", [], {}):
        return [], True
    items = value if isinstance(value, list) else [value]
    read = [as_note(item.get("code") if isinstance(item, dict) else item) for item in items]
    codes = [code for code in read if code is not None]
    return codes, len(codes) == len(items)


def returned_ids(*remarks: JSON) -> list[str] | None:
    """Return what the remarks of an incoming transfer may name after `RTN`, longest first.

    A bank that sends a payout back writes `RTN` and the payout's id somewhere into the remarks
    (StraitsX docs, payment and payout lifecycle; payout FAQ). Where the id ends is not marked, so
    every text that begins there and ends before a blank or a punctuation mark other than `-` and
    `_` may be it. None when no text has the word `RTN`; [] when nothing follows the word. At most
    RETURNED_IDS_MAX, of the first TEXT_MAX characters of each text; the shortest ones after each
    `RTN` come first, so that words before the id do not displace it.
    """
    texts = dict.fromkeys(text for text in remarks if isinstance(text, str))
    if not any(map(_RETURN.search, texts)):
        return None
    candidates = [
        candidate
        for text in map(_whole_words, texts)
        for match in _RETURN.finditer(text)
        if match[1]
        for candidate in enumerate(_beginnings(text[match.end() :]))
    ]
    candidates.sort(key=lambda candidate: candidate[0])
    distinct = dict.fromkeys(beginning for _, beginning in candidates)
    return sorted([*distinct][:RETURNED_IDS_MAX], key=len, reverse=True)


def _whole_words(text: str) -> str:
    """Cut a text to TEXT_MAX, and no word in two: its beginning may be another id."""
    return text if len(text) <= TEXT_MAX else _CUT_WORD.sub("", text[:TEXT_MAX])


def _beginnings(text: str) -> list[str]:
    """Return the beginnings of a text that end where an id can end, shortest first."""
    beginnings = (text[: end.start()].rstrip() for end in _ID_END.finditer(text))
    return [*dict.fromkeys(beginning for beginning in beginnings if beginning)]


def as_money(name: str, value: JSON) -> Decimal | None:
    """Read `value` as a Decimal: ASCII digits, at most 20 before and 18 after the point.

    A JSON number may have an exponent (`1e-7`), as some programs write small amounts; its value
    has the same bounds. In a text no exponent passes, and nowhere a sign other than "-", a blank
    or a currency sign; -0 reads as 0.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value) if abs(value) < 10**20 else ""
    else:
        raise InvalidCallback("bad_" + name, f"{named(name, value)} is not an amount")
    amount = _amount(text) if len(text) <= AMOUNT_MAX else None
    if amount is None and type(value) is Number:
        amount = _scaled(text)
    if amount is None:
        raise InvalidCallback("bad_" + name, f"{named(name, value)} {_fault(value)}")
    return amount


def _fault(value: JSON) -> str:
    """Say why a value is no amount."""
    if type(value) is not str or _DECIMAL.fullmatch(value):
        return "has more than 20 digits before the point or 18 after it"
    return "is not a plain decimal amount"


@lru_cache(maxsize=16_384)
def _amount(text: str) -> Decimal | None:
    """Read a lexeme; a transaction's callbacks repeat theirs, and fees are few."""
    return (Decimal(text) or Decimal(0)) if _MONEY.fullmatch(text) else None


def _scaled(lexeme: str) -> Decimal | None:
    """Read a number with an exponent exactly; None for what has none or is beyond the bounds."""
    if len(lexeme) > LEXEME_MAX or not _EXPONENT.fullmatch(lexeme):
        return None
    value = Decimal(lexeme)
    text = plain(value) if value else "0"
    return _amount(text) if len(text) <= AMOUNT_MAX else None


def as_instant(name: str, value: JSON) -> datetime | None:
    """Read an RFC 3339 time with an offset, in UTC; more than 6 fractional digits are cut.

    A leap second (`:60`) is the first second of the next minute, as POSIX and PostgreSQL count:
    `23:59:60Z` is the first instant of the next day. `t` and `z` may be lower case. The first
    moment of year 1 is how many programs write that there is no date: it is None.
    """
    if value is None or value == "":
        return None
    if type(value) is not str or len(value) > 64:
        raise InvalidCallback("bad_" + name, f"{named(name, value)} is not a time")
    try:
        moment = _read_moment(value)
        zone = moment.tzinfo
        if moment.year == 1 and moment.isoformat().startswith(_NO_DATE):
            return None
        if zone is UTC:
            return moment
        if zone is None:
            raise InvalidCallback("bad_" + name, f"{named(name, value)} names no time zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidCallback("bad_" + name, f"{named(name, value)} is not a time") from error


def _read_moment(text: str) -> datetime:
    """Read a time, also as `fromisoformat` does not. Raises ValueError or OverflowError."""
    try:
        return _moment(text)
    except ValueError:
        unusual = _UNUSUAL_TIME.fullmatch(text)
        if unusual is None:
            raise
    day, minute, second, rest = unusual.groups()
    if second != "60":
        return _moment(f"{day}T{minute}:{second}{rest.upper()}")
    return _moment(f"{day}T{minute}:59{rest.upper()}") + _SECOND


def stamp(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC, as answers give all times."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def check_decimal_context() -> None:
    """Raise RuntimeError where `+` and `-` of amounts would round, before any money is added.

    Every process calls `ledger.runtime.decimals.configure_decimal` at its start.
    """
    if getcontext().prec < DECIMAL_DIGITS:
        raise RuntimeError(
            f"decimal arithmetic rounds at {getcontext().prec} digits in this process: call "
            "configure_decimal() at its start"
        )


def total(*amounts: Decimal) -> Decimal:
    """Add amounts exactly, whatever the decimal context of this process.

    Unary minus and abs() round by that context: negate with `copy_negate()`.
    """
    found = Decimal(0)
    for amount in amounts:
        found = _EXACT.add(found, amount)
    return found


def plain(amount: Decimal) -> str:
    """Write an amount canonically: no exponent, no trailing zeros, -0 as 0."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
