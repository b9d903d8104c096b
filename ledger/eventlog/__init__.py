"""The event log: appending events, and the sources that have a log."""
