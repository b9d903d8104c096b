"""The embedded PostgreSQL server: programs, cluster, process. Not used when a DSN is set."""
