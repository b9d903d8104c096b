"""Signature schemes: how a provider proves that it sent a callback."""
