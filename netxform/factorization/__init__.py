"""Layers as factors: which form, which rank, which bound."""
