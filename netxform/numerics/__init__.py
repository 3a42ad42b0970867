"""Numerics of factorization: pure functions on tensors, that know no network and no verb."""
