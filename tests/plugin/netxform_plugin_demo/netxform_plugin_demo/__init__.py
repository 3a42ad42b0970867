"""A package beside netxform: each file adds one thing, and an entry point in pyproject.toml names it."""
