"""Settings: what the environment and the TOML file say, checked before anything starts."""
