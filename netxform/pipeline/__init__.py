"""From inputs to a result: the subject with its plan, the executor, the control runs that are compared; and looking at a model."""
