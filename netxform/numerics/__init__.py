"""The mathematics of factorizing and of saliency: tensors, networks and data; no verbs, no text."""
