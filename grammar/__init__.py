"""The grammar of `.xform` texts, as data."""
