"""Exports: tables, journals and audit packs."""
