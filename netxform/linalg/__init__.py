"""Matrices and tensors in, matrices out; knows no network."""
