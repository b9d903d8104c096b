"""Reading the books as they were at an earlier position or time."""
