"""The settings of `[sources.<name>.statements.<profile>]`: how a statement's file is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

Column: TypeAlias = str | tuple[str, ...] | None
"""The name of a column in the header: one, or several of which the first that is there counts."""

COLUMNS: Final = (
    "effective_at", "time", "zone", "amount", "indicator", "debit", "credit", "fee", "net",
    "balance", "currency", "account", "id", "kind", "contract_id", "idempotency_id", "reference",
    "names", "counterparty", "description",
)  # fmt: skip
"""The settings of a profile that name columns of CSV and XLSX."""

JOINED: Final = ("names", "counterparty", "description")
"""Those whose columns all count; of the others' the first that the header has."""

_SKIP_WHERE: Final = "skip_where"
_LISTS: Final = ("names", "counterparty", "description", "required", "optional", "account_after",
                 "currency_after")  # fmt: skip
"""What is a list, which a text separates by commas."""
_AMOUNTS: Final = ({"amount", "indicator", "amount_sign"}, {"debit", "credit"})
"""The two ways to state an amount; who names one of them does without the other."""


class StatementProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the files of one bank or provider are written; "" and None = not declared."""

    format: str | None = None
    """The format's name; None = recognised from the file."""
    time_zone: str | None = None
    """Of days and of times without an offset, as `Asia/Singapore`; None = UTC, except in CSV."""

    # Columns of CSV and XLSX: the name in the header of the column that has …
    effective_at: Column = None
    time: Column = None
    """The time of day, where it has a column of its own."""
    zone: Column = None
    """The time zone of a row: a name, an offset, or an abbreviation of one, as PDT."""
    amount: Column = None
    """The signed amount, or with `indicator` the amount without a sign."""
    indicator: Column = None
    debit: Column = None
    credit: Column = None
    fee: Column = None
    """A fee beside the amount: it becomes a line of its own."""
    net: Column = None
    """Amount and fee together: only compared."""
    balance: Column = None
    """The running balance after the row, its fee included."""
    currency: Column = None
    account: Column = None
    id: Column = None
    kind: Column = None
    contract_id: Column = None
    idempotency_id: Column = None
    reference: Column = None
    names: tuple[str, ...] = ()
    """Every other column by whose text the books may know the line."""
    counterparty: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    """As `counterparty`, one or several, whose texts are joined."""
    required: tuple[str, ...] = ()
    """Columns that the header must have too, though nothing is taken from them."""
    optional: tuple[str, ...] = ()
    """The settings, and the columns of `skip_where`, whose columns a header may lack."""

    # How the table is written.
    header: bool | None = None
    """False: the file has no header, and columns are named by their numbers, as `#3`."""
    header_row: int | None = None
    """The line of the header, from 1; None = the first line that has every column."""
    sheet: str | None = None
    """The sheet of an XLSX; None = the first."""
    skip_where: dict[str, tuple[str, ...]] = {}
    """Column → texts: rows that have one of them there are skipped."""
    account_after: tuple[str, ...] = ()
    """The texts above the header after one of which the account's number is, as `Account No.:`."""
    currency_after: tuple[str, ...] = ()
    """The same of the currency's code."""
    spill: bool | None = None
    """Whether a row with more cells than the header has commas in its last text."""

    # How values are written.
    time_format: str | tuple[str, ...] | None = None
    """For strptime; several: the one that reads every row. None = ISO 8601."""
    decimal: str | None = None
    thousands: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    credit_word: str | None = None
    debit_word: str | None = None
    debit_negative: bool | None = None
    """Whether the column of debits writes them with a minus."""
    amount_sign: Literal["in", "out"] | None = None
    """`out`: a positive amount goes out, as in a list of payouts or of a card's charges."""
    fee_sign: Literal["cost", "signed"] | None = None
    """`cost`: a positive fee is paid by us, which is the default; `signed`: a negative one is."""
    fee_included: bool | None = None
    """Whether the amount has the fee in it already."""
    fee_id_prefix: str | None = None
    """What the id of a row begins with that states another row's fee, so that it counts once."""
    opening: str | None = None
    closing: str | None = None

    def columns(self, setting: str) -> tuple[str, ...]:
        """Return the names that a setting of COLUMNS has."""
        value: str | tuple[str, ...] | None = getattr(self, setting)
        return (value,) if isinstance(value, str) else value or ()


def account_number(text: str) -> str:
    """Return an account's number as it is compared: without blanks, in upper case."""
    return "".join(text.split()).upper()


def profile_of(
    table: Mapping[str, object], base: StatementProfile | None = None
) -> StatementProfile:
    """Return the profile of a table of settings, which win over those of `base`.

    `skip_where.Status = "Pending,Failed"` is short for a table with a list. Raises ValueError,
    naming what is wrong.
    """
    given = _nested(table)
    known = StatementProfile.__struct_fields__
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"the profile names {', '.join(unknown)}; it takes {', '.join(known)}")
    settings: dict[str, Any] = {}
    if base is not None:
        settings = msgspec.to_builtins(base)
        for one, other in (_AMOUNTS, _AMOUNTS[::-1]):
            if one & set(given):
                settings = {name: value for name, value in settings.items() if name not in other}
    settings |= {name: None if value == "" else value for name, value in given.items()}
    try:
        return msgspec.convert(_without_none(settings), StatementProfile, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the profile of the file is wrong: {error}") from error


def _nested(table: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings with lists where they belong, however they are written."""
    given: dict[str, Any] = {}
    skipped: dict[str, object] = {}
    for name, value in table.items():
        if name.startswith(_SKIP_WHERE + "."):
            skipped[name.removeprefix(_SKIP_WHERE + ".")] = value
        elif name == _SKIP_WHERE and isinstance(value, Mapping):
            skipped |= value
        elif name in _LISTS and value != "":
            given[name] = _listed(value)
        else:
            given[name] = value
    if skipped:
        given[_SKIP_WHERE] = {column: _listed(texts) for column, texts in skipped.items()}
    return given


def _listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(filter(None, map(str.strip, value.split(","))))


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
