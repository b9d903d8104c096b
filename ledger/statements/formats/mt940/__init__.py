"""Reads MT940 and MT950, the SWIFT bank statements, as banks write them."""
