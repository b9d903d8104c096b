"""The parameters of the query API: which there are, how they are checked, and cursors.

Nothing is ignored: an unknown, repeated or malformed parameter is an InvalidRequest.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import orjson

from ledger.errors import InvalidRequest
from ledger.model import YEARS
from ledger.payload import NAME_MAX
from ledger.queries.kinds import LOG, UNNAMED, is_status, kinds_of, statuses_of
from ledger.queries.schemas.log import PATTERNS

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
SHOWN_MAX: Final = 60
MESSAGE_MAX: Final = 500
CURSOR_MAX: Final = 6144
"""Characters of the longest cursor: a name of NAME_MAX characters and the rest of its key."""
POSITION_MAX: Final = 2**63 - 1
VALUES_MAX: Final = 64
"""Values that one filter has at most."""

OF_STATEMENTS: Final = ".statements"
"""Suffix of the name of the log that holds the statements of a source."""

BOUND_PATTERN: Final = r"^-?\d{1,20}(\.\d{1,18})?$"
"""How an amount is written, as a pattern for the documentation."""

POSITIONS_PATTERN: Final = (
    r"^(\d{1,19}|[a-z0-9][a-z0-9_-]*(\.statements)?:\d{1,19}"
    r"(,[a-z0-9][a-z0-9_-]*(\.statements)?:\d{1,19})*)$"
)
"""How positions of sources are written, as a pattern for the documentation."""

S = TypeVar("S", bound=msgspec.Struct)

_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_AMOUNT = re.compile(BOUND_PATTERN, re.ASCII)
_SOURCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(\.statements)?", re.ASCII)
_LOST_PLUS = re.compile(r" (\d\d:\d\d)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter: what it accepts, and how it is described."""

    name: str
    about: str
    kind: Literal[
        "text", "currency", "time", "kept_time", "position", "integer", "positions", "choice",
        "kind", "status", "amount",
    ] = "text"  # fmt: skip
    choices: tuple[str, ...] = ()
    table: str = LOG
    """The table of the books whose kinds or statuses are allowed."""
    several: bool = False
    """Whether it takes several values, separated by commas. Never an id: it may have commas."""


@dataclass(frozen=True, slots=True)
class AsOfParams:
    """Which earlier state is requested; all conditions that are given apply together."""

    effective_at: datetime | None = None
    """Only what the provider dates at or before this."""
    recorded_at: datetime | None = None
    """Only what the log contained at this time."""
    position: int | None = None
    """Only what the log of the one requested source contained up to here."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """The same, where the request names the sources."""


@dataclass(frozen=True, slots=True)
class QueryParams:
    """The checked parameters of a request. `values` has those of path and query that were given."""

    values: Mapping[str, str | int | datetime] = field(default_factory=dict)
    limit: int = LIMIT_DEFAULT
    cursor: tuple[str | int, ...] | None = None
    at_least: Mapping[str, int] = field(default_factory=dict)
    as_of: AsOfParams | None = None

    def text(self, name: str) -> str | None:
        """Return a text value; None when it was not given."""
        value = self.values.get(name)
        return None if value is None else str(value)

    def need(self, name: str) -> str:
        """Return a text that the path always gives."""
        return str(self.values[name])

    def texts(self, name: str) -> list[str] | None:
        """Return the values of a parameter that takes several; None when it was not given."""
        value = self.text(name)
        return None if value is None else split_values(value)

    def amount(self, name: str) -> Decimal | None:
        """Return an amount; None when it was not given."""
        value = self.text(name)
        return None if value is None else Decimal(value)

    def is_true(self, name: str) -> bool:
        """Return whether a choice of true and false is true."""
        return self.text(name) == "true"

    def positions(self, name: str) -> int | Mapping[str, int] | None:
        """Return a bare position, or positions by source; None when it was not given."""
        value = self.text(name)
        return None if value is None else read_positions(name, value)

    def number(self, name: str) -> int | None:
        """Return a position; None when it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def time(self, name: str) -> datetime | None:
        """Return a time in UTC; None when it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, datetime) else None


AT_LEAST: Final = Param(
    "at_least",
    "Wait up to 5 s until the books have reached these positions: `source:position[,…]`.",
)
PAGING: Final = (
    Param("limit", f"Rows per page, 1 to {LIMIT_MAX}; {LIMIT_DEFAULT} when not given.", "position"),
    Param("cursor", "The `next` of the page before."),
)
AS_OF: Final = (
    Param("effective_at", "Only what the provider dates at or before this.", "time"),
    Param("recorded_at", "As known then: only what the log contained at this time.", "time"),
    Param(
        "position",
        "As known then: only what the log contained up to here. A number for the one "
        "requested source, or `source:position[,…]`.",
        "positions",
    ),
)
AS_OF_NAMES: Final = frozenset(param.name for param in AS_OF)
COMMON_NAMES: Final = frozenset({AT_LEAST.name, *(param.name for param in PAGING)})


@dataclass(frozen=True, slots=True)
class Route:
    """One address of the query API: the one table behind routing and documentation."""

    path: str
    summary: str
    tag: str
    answer: type[Any]
    endpoint: Callable[..., Awaitable[Any]]
    """(request, its checked parameters) → response."""
    params: tuple[Param, ...] = ()
    is_list: bool = True
    is_dated: bool = False
    """Whether it takes the as-of parameters."""
    method: str = "GET"
    takes: type[Any] | None = None
    """The type of the request's body."""
    can_conflict: bool = False
    """Whether a request can contradict what is already so (409)."""
    content_types: tuple[str, ...] = ("application/json",)
    """What the answer is; anything but JSON has no schema."""
    headers: tuple[str, ...] = ("Ledger-Position", "Ledger-Books")
    """The headers of the answer that the documentation names."""
    about: str = ""

    @property
    def query(self) -> tuple[Param, ...]:
        """Every query parameter that it accepts, including the common ones."""
        if self.method != "GET":
            return self.params
        paging = PAGING if self.is_list else ()
        return (*self.params, *(AS_OF if self.is_dated else ()), *paging, AT_LEAST)


def parse_params(
    route: Route, path: Mapping[str, str], query: Iterable[tuple[str, str]]
) -> QueryParams:
    """Check a request against its route. Raises InvalidRequest."""
    known = {param.name: param for param in route.query}
    given: dict[str, str] = {}
    for name, value in query:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            dated = "" if name not in AS_OF_NAMES else "; it answers for the present only"
            raise InvalidRequest(
                f"unknown parameter {_shown(name)}; this address takes: {allowed}{dated}"
            )
        if name in given:
            several = ", its values separated by commas" if known[name].several else ""
            raise InvalidRequest(f"parameter {name} is given more than once; give it once{several}")
        given[name] = value
    values: dict[str, str | int | datetime] = {}
    for name, text in path.items():
        values[name] = _position(name, text) if name == "position" else _text(name, text)
    for param in route.params:
        if param.name in given:
            values[param.name] = _read(param, given[param.name])
    _check_status(route, values)
    return QueryParams(
        values=values,
        limit=_limit(given.get("limit")),
        cursor=_cursor(given.get("cursor")),
        at_least=_positions("at_least", given.get("at_least")),
        as_of=_as_of(given) if route.is_dated else None,
    )


def _check_status(route: Route, values: Mapping[str, str | int | datetime]) -> None:
    """Refuse a status that no row of the list, or none of the requested kind, can have."""
    for param in route.params:
        text = values.get(param.name)
        if param.kind != "status" or not isinstance(text, str):
            continue
        kinds = values.get("kind")
        named = split_values(kinds) if isinstance(kinds, str) else [None]
        for status in split_values(text) if param.several else [text]:
            if not any(is_status(status, param.table, kind) for kind in named):
                known = {word for kind in named for word in statuses_of(param.table, kind)}
                listed = ", ".join(sorted(known)) or "none"
                of = f" of {kinds}" if kinds else ""
                raise InvalidRequest(
                    f"{param.name} {_shown(status)} is no status{of}; there is: {listed}"
                )


def _as_of(given: Mapping[str, str]) -> AsOfParams | None:
    """Read the as-of parameters; None when there are none."""
    if not any(param.name in given for param in AS_OF):
        return None
    effective, recorded = given.get("effective_at"), given.get("recorded_at")
    places = read_positions("position", given.get("position"))
    return AsOfParams(
        None if effective is None else read_time("effective_at", effective),
        None if recorded is None else read_time("recorded_at", recorded),
        places if isinstance(places, int) else None,
        {} if isinstance(places, int) else places,
    )


def read_positions(name: str, text: str | None) -> int | dict[str, int]:
    """Read a bare position, or positions by source. Raises InvalidRequest."""
    if text is not None and ":" not in text:
        return _position(name, text)
    return _positions(name, text)


def positions_by_source(
    name: str, places: int | Mapping[str, int], heads: Mapping[str, int]
) -> dict[str, int]:
    """Return the positions that a parameter names, by source; `heads` has the requested sources.

    A bare number is a position among callbacks: logs of statements and sources without events do
    not make it ambiguous. Raises InvalidRequest for a bare number where several sources are
    requested, and for a source that is not requested.
    """
    if isinstance(places, int):
        sources = [source for source in heads if not source.endswith(OF_STATEMENTS)] or list(heads)
        sources = [source for source in sources if heads[source]] or sources
        if len(sources) != 1:
            example = ",".join(f"{source}:{places}" for source in sources)
            raise InvalidRequest(
                f"{name}={places} is about one source: add source=, or write {example}"
            )
        return {sources[0]: places}
    for source in places:
        if source not in heads:
            raise InvalidRequest(f"{name} names {source}, but the request is not about it")
    return dict(places)


def split_values(text: str) -> list[str]:
    """Return the values of a text that has several, separated by commas.

    A status that no document names (`unknown:…`) may have commas: everything after `unknown:`
    belongs to it.
    """
    listed, unnamed, rest = text.partition(UNNAMED)
    if unnamed and (not listed or listed.endswith(",")):
        return [*listed.removesuffix(",").split(","), unnamed + rest] if listed else [text]
    return text.split(",")


def _read(param: Param, text: str) -> str | int | datetime:
    if not param.several:
        return _value(param, text)
    values = split_values(text)
    if len(values) > VALUES_MAX:
        raise InvalidRequest(f"{param.name} has more than {VALUES_MAX} values")
    return ",".join(str(_value(param, value)) for value in values)


def _value(param: Param, text: str) -> str | int | datetime:
    match param.kind:
        case "amount":
            return _amount(param.name, text)
        case "positions":
            read_positions(param.name, text)
            return text
        case "position":
            return _position(param.name, text)
        case "integer":
            return _integer(param.name, text)
        case "time":
            return read_time(param.name, text)
        case "kept_time":
            return _kept_time(param.name, text)
        case "kind" if text not in kinds_of(param.table):
            listed = ", ".join(kinds_of(param.table))
            raise InvalidRequest(f"{param.name} {_shown(text)} is no kind; there is: {listed}")
        case "currency":
            return _text(param.name, text).upper()
        case "choice" if text not in param.choices:
            listed = ", ".join(param.choices)
            raise InvalidRequest(f"{param.name} must be one of: {listed}; it is {_shown(text)}")
        case _:
            return _text(param.name, text)


def _shown(text: str) -> str:
    """Show a value in a message, bounded, whatever characters it has."""
    return ascii(text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "...")


def _text(name: str, text: str) -> str:
    if not text:
        raise InvalidRequest(f"{name} is empty; leave it out or give it a value")
    if len(text) > NAME_MAX:
        raise InvalidRequest(f"{name} is longer than {NAME_MAX} characters")
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidRequest(f"{name} {_shown(text)} contains a character that no text may have")
    return text


def _position(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > POSITION_MAX:
        raise InvalidRequest(
            f"{name} must be a log position: a whole number up to {POSITION_MAX}; it is "
            f"{_shown(text)}"
        )
    return int(text)


def _integer(name: str, text: str) -> int:
    number = text.removeprefix("-")
    if not _DIGITS.fullmatch(number) or int(number) > POSITION_MAX:
        raise InvalidRequest(f"{name} must be a whole number; it is {_shown(text)}")
    return int(text)


def _amount(name: str, text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise InvalidRequest(
            f"{name} must be an amount like 1000.50, of up to 20 digits and 18 decimals; it is "
            f"{_shown(text)}"
        )
    return text


def _kept_time(name: str, text: str) -> datetime:
    """Read a time at which something that is kept can have happened."""
    moment = read_time(name, text)
    if moment.year not in YEARS:
        raise InvalidRequest(
            f"{name} must lie in {YEARS[0]} to {YEARS[-1]}, as all that is kept; it is "
            f"{_shown(text)}"
        )
    return moment


def read_time(name: str, text: str) -> datetime:
    """Return a time with a zone in UTC. Raises InvalidRequest, naming the parameter."""
    # A "+" that was not percent-encoded arrives as a blank.
    text = _LOST_PLUS.sub(r"+\1", text) if "T" in text else text
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{name} must be a time like 2024-03-31T00:00:00Z; it is {_shown(text)}"
        ) from error
    raise InvalidRequest(
        f"{name} {_shown(text)} names no time zone; write it like 2024-03-31T00:00:00Z"
    )


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidRequest(f"limit must be a number from 1 to {LIMIT_MAX}; it is {_shown(text)}")
    return int(text)


def _positions(name: str, text: str | None) -> dict[str, int]:
    positions: dict[str, int] = {}
    for part in [] if text is None else text.split(","):
        source, colon, position = part.strip().partition(":")
        if not colon or not _SOURCE.fullmatch(source) or source in positions:
            raise InvalidRequest(
                f"{name} must be like straitsx:25 or straitsx:25,gokart:3; it has {_shown(part)}"
            )
        positions[source] = _position(name, position)
    return positions


def write_cursor(key: Sequence[str | int]) -> str:
    """Make an opaque cursor of the last row's source and key."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def _cursor(text: str | None) -> tuple[str | int, ...] | None:
    if not text:
        return None
    bad = InvalidRequest("cursor is not one that this address gave; start again without it")
    if len(text) > CURSOR_MAX:
        raise bad
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        key = orjson.loads(raw)
    except (ValueError, binascii.Error) as error:
        raise bad from error
    if not isinstance(key, list) or not key or not isinstance(key[0], str):
        raise bad
    if not all(_is_key(part) for part in key):
        raise bad
    return tuple(key)


def _is_key(part: object) -> bool:
    if isinstance(part, str):
        return "\x00" not in part
    return (
        isinstance(part, int)
        and not isinstance(part, bool)
        and -POSITION_MAX <= part <= POSITION_MAX
    )


def decode_body(raw: bytes, kind: type[S], what: str) -> S:
    """Read a request's JSON body. Raises InvalidRequest that lists the allowed values."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = ascii(_in_words(str(error)))[1:-1]
        raise InvalidRequest(
            f"{what} cannot be read: {message[:MESSAGE_MAX]}{_choices(kind, message)}"
        ) from error


def _in_words(message: str) -> str:
    """Replace the pattern in a message by what it means."""
    for pattern, words in PATTERNS.items():
        message = message.replace(f"matching regex {pattern!r}", words)
    return message


def _choices(kind: type[msgspec.Struct], message: str) -> str:
    """List what the fields named in a message accept, where that is one of several words."""
    listed = {
        name: get_args(choice)
        for name, hint in get_type_hints(kind).items()
        for choice in (hint, *get_args(hint))
        if get_origin(choice) is Literal and f"$.{name}`" in message
    }
    return "".join(f"; {name} is one of: {', '.join(words)}" for name, words in listed.items())


def after(params: QueryParams, source: str, kinds: Sequence[type]) -> list[str | int | None]:
    """Return where the page starts within `source`: its cursor's key, or nothing but None.

    Raises InvalidRequest when the types of the cursor's key are not `kinds`.
    """
    if params.cursor is None:
        return [None] * len(kinds)
    first, *key = params.cursor
    if len(key) != len(kinds) or any(type(k) is not t for k, t in zip(key, kinds, strict=True)):
        raise InvalidRequest("cursor belongs to another address; start again without it")
    return list(key) if first == source else [None] * len(kinds)


def marked_after(
    params: QueryParams, source: str, mark: str, kinds: Sequence[type]
) -> list[str | int | None]:
    """Return where the page starts, as `after`, where cursors name the order of their list.

    Raises InvalidRequest when the cursor is not of the order `mark`.
    """
    if params.cursor is None:
        return [None] * len(kinds)
    if params.cursor[1:2] != (mark,):
        raise InvalidRequest("cursor belongs to another list or order; start again without it")
    begin, *key = after(params, source, [str, *kinds])
    return [None] * len(kinds) if begin is None else key
