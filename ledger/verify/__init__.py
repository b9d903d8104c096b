"""Verification: recomputes everything from the events and reports what does not hold."""
