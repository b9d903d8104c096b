"""Reading the books: one consistent snapshot per request."""
