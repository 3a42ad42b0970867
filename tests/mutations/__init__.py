"""Defects put into a copy of the code on purpose: each must be killed by a test of the law that it breaks (see `__main__`)."""
