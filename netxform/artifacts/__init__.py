"""What is written: bundles, standalone modules, reports."""
