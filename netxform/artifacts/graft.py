"""The edits of a spec on a copy of the user's own model, so that its class, its methods and its configuration stay.

model, Network before, Network after ─graft→ the same class with other layers and sizes, compared with the graph bit for bit

What a spec does to layers and sizes can be done to the modules that the user wrote: layers are replaced under their
paths, and whole numbers that the code reads from `self` or from a configuration follow the sizes that changed. Which of
them do is tried, and decided by running the result beside the graph, in eval and in train mode. Where no choice gives the
same bits, the graft is refused.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from netxform.artifacts.grafting.compare import difference, results
from netxform.artifacts.grafting.configuration import configure
from netxform.artifacts.grafting.layers import put_layers, put_tensors, take_out
from netxform.artifacts.grafting.sizes import Change, Sizes, attempts, sizes_of
from netxform.capture.detectors import tensor_part
from netxform.errors import fail
from netxform.graph.network import Network


def graft(model: nn.Module, before: Network, after: Network, inputs: tuple[Tensor, ...]) -> nn.Module:
    """A copy of the model with the layers and sizes of `after`; `before` is the graph of the model as it came.

    Raises NetxformError X0849 where the graph was rewritten in a way that the model's own code cannot follow.
    """
    made = copy.deepcopy(model)
    gone = put_layers(made, before, after)
    put_tensors(made, after)
    run = tensor_part(made)  # of a detector; it shares the layers
    wanted = {training: results(after.module, inputs, training) for training in (False, True)}
    sizes = sizes_of(before, after)
    ways = list(attempts(made, sizes))  # under the paths of the model as it came
    taken = take_out(made, gone)
    why = ""
    for changes in ways:
        was = [(holder, name, vars(holder)[name]) for holder, name, _ in changes]
        _set(changes)
        found = difference(run, after.module, wanted, inputs)
        if found is None:
            still = lambda: difference(run, after.module, wanted, inputs) is None  # noqa: E731
            configure(made, getattr(model, "config", None), taken, sizes.get("", Sizes()), still)
            return made.train(model.training)
        why = why or found
        _set(was)
    raise fail(
        "X0849",
        f"`{type(model).__name__}` cannot take these edits as its own class",
        notes=(why, *(f"the graph holds what the model does in eval mode alone: {one}" for one in before.lost[:1])),
        helps=("use `result.model`: it is a plain graph module with the same names",),
    )


def _set(changes: list[Change]) -> None:
    for holder, name, value in changes:
        vars(holder)[name] = value
