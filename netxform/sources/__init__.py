"""Models and data sets by name, and what a spec may touch."""
