"""Every dimension of every tensor has a type; index maps follow from the types."""
