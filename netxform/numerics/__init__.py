"""Numbers that choices rest on: where an index set is read, and what removing one of its indices would cost."""
