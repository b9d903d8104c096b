"""`python -m ledger` is `ledger`."""

from ledger.cli.main import main

main()
