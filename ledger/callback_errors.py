"""What a callback's body may fail with while it is read and translated, and the root of all errors.

Apart from `ledger.errors`, which hands these on, because the pure code imports them: a new error of
another package is no other version of the books.
"""

from __future__ import annotations

from typing import ClassVar


class LedgerError(Exception):
    """The ledger could not do what was asked. The message says what to do next."""

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


class MalformedBody(LedgerError):
    """The body is not the strict JSON that the ledger reads; it is kept and listed."""


class InvalidCallback(LedgerError):
    """A callback states something impossible; it moves no money and is listed as an exception.

    `reason` is a stable word (`negative_fees`), the message explains it to a person.
    """

    name_in_books: ClassVar[str] = "CannotBeTrue"
    """What books call this error beside its message; they are compared with earlier ones."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
