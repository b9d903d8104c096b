"""Reads camt.053, the ISO 20022 bank statement, as banks write it."""
