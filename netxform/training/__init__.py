"""Objectives interpreted: the training loop, losses, classifiers."""
