"""What a network can do without: scores, choice, removal, compensation."""
