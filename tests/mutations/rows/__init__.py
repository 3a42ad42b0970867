"""The defects, one file for each part of the code."""
