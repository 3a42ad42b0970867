"""Claims and how each is measured; a family a file."""
