"""What every process needs whatever it does: event loop, logs, metrics, files, addresses."""
