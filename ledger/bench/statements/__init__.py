"""The measurements of statements: importing them, and matching their lines with transactions."""
