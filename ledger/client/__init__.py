"""Clients of a running service: of its API, and of its callback paths."""
