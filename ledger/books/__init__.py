"""The books: the projections' tables, one schema per generation, and the worker that fills them."""
