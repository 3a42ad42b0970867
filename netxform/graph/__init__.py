"""A captured network, edits to it as data, and the one place that performs them."""
