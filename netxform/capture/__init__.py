"""From a PyTorch model to a graph that computes what the model computes."""
