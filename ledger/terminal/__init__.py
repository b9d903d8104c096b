"""What commands print: tables, progress and exit statuses."""
