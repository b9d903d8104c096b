"""Exact decimal arithmetic in every thread of a process."""

from __future__ import annotations

from decimal import Context, DefaultContext, setcontext

from ledger.payload import DECIMAL_DIGITS


def configure_decimal() -> None:
    """Give decimal arithmetic DECIMAL_DIGITS digits, in this thread and in those started later.

    Called once at the start of every process that adds money; importing changes nothing.
    """
    DefaultContext.prec = DECIMAL_DIGITS
    setcontext(Context(prec=DECIMAL_DIGITS))
