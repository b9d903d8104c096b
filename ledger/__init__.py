"""callback-ledger: every callback kept for ever; everything else is a fold over that log."""

__version__ = "0.1.0"
