"""The mathematics of factorizing and of saliency, on tensors and networks; no verbs, no text."""
