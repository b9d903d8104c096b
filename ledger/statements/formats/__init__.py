"""Readers of statement files as banks write them, each format by itself."""
