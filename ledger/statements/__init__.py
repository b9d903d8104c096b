"""Account statements of providers and banks, from files and APIs into the event log."""
