"""The static pages: the documentation of the API and the console."""
