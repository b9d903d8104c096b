"""The event log: appending events, reading them back, and the sources that have a log."""
