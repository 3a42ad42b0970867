"""From inputs to a result: the subject, the executor, the variants that are compared."""
