"""The long-lived service: supervisor, web process, projector, and their start."""
