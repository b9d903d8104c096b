"""The HTTP receiver: authenticates a callback, bounds it, appends it, and then answers."""
