"""Meaning: one file per callback type, each translating a callback into a fact. See README.md."""
