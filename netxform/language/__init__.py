"""What verbs are made of: values, selections, laws, and work as data."""
