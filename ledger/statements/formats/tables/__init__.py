"""Reading statements that are tables, CSV and XLSX, by a profile of their columns."""
