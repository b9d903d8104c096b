"""`ledger bench`: measurements of the whole service on this machine."""
