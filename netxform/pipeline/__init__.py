"""From inputs to a result: the subject with its plan, the executor, the control runs of `compare`; and looking at a model."""
