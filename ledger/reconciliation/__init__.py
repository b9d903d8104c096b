"""Reconciliation: statement lines matched with the books' movements, and what differs."""
