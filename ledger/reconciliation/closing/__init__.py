"""Months of a wallet: what they end with, how they are closed, what changes them afterwards."""
