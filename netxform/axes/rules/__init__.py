"""What each operation does to axes; a file an op family, the layer's rule beside the operation's."""
