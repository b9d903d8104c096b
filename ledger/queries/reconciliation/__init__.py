"""Reading what reconciliations found: runs, matches and breaks, with everything about them."""
