"""Programs that talk to a running service: the API's client and the sender of callbacks."""
