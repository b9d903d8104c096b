"""Receiving callbacks over HTTP: authenticate, limit, append, answer after the commit."""
