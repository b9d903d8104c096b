"""Fields that several reports state: each is as the last one that has a value states it.

Not a projection: `virtual_accounts` and `rfi` are made of this. The last is the one of the higher
rank, then the later by the provider's time, then by position; one without a time is before all
that have one. So only where the provider gives no time, or one time twice, the order in which
reports were received counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

NO_TIME: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Field:
    """The value of one field, and the order of the report that states it."""

    value: Any
    rank: int
    at: datetime | None
    """The provider's time of the report."""
    position: int

    @property
    def order(self) -> tuple[int, datetime, int]:
        """The place of its report among the others."""
        return (self.rank, self.at or NO_TIME, self.position)

    @property
    def is_stated(self) -> bool:
        """Whether it has a value: an empty text, list or object is none."""
        return self.value not in (None, "", [], {})


def later(known: Field | None, new: Field) -> Field:
    """Return the one of two values that holds: a value before none, then the later."""
    if known is None:
        return new
    return max(known, new, key=lambda field: (field.is_stated, field.order))


def later_of_each(known: Mapping[str, Field], new: Mapping[str, Field]) -> dict[str, Field]:
    """Return the fields that hold, by their names."""
    return {**known, **{name: later(known.get(name), field) for name, field in new.items()}}


PROJECTIONS = ()
