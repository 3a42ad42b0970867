"""Data at hand: what a sample and a part of a data set are, what comes from Python, how samples meet a network's arguments."""
