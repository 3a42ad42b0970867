"""The parts of a graft: layers, sizes, configuration, comparison."""
