"""Sums: one file per view, each folding facts into rows and postings. See README.md."""
