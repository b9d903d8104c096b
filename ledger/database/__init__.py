"""Connections to PostgreSQL, migrations, and rows in PostgreSQL's COPY format."""
