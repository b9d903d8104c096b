"""The provider simulator: made-up stories as callbacks and as statements."""
