"""Rebuilding the books from the event log beside the live ones, and swapping them in."""
