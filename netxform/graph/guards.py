"""Decisions that the model's code takes on values and sizes, kept in the graph: what would decide otherwise is refused.

`require` and `number` stand in captured graphs; on the meta device nothing is known of values: there the example decides.
`only` and `pick` are what depends on the mode of a module.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import has_side_effect

REFUSES = "when this network was captured, and would not here"


def require(value: Any, wanted: Any, where: str) -> None:
    """Go on if `value` (a number, or a tensor of them) is `wanted`. Raises RuntimeError that says where the model decides."""
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            return
        value = value.tolist() if isinstance(wanted, list) else value.item()
    if isinstance(value, torch.SymBool):
        right = value if wanted else torch.sym_not(value)
    else:
        right = value == wanted or (value != value and wanted != wanted)
    said = f"`{where}` came out as {wanted!r} when this network was captured, and would not here: it holds that branch alone"
    torch._check(right, lambda: said)  # pyright: ignore[reportPrivateUsage]


def number(value: torch.Tensor, example: Any) -> Any:
    """The number in a tensor of one element; on the meta device, where there is none, the number of the example."""
    return example if value.is_meta else value.item()


def only(training: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """What the function of that name gives in training; None in eval mode."""
    return function_named(name)(*args, **kwargs) if training else None


def pick(training: Any, trained: Any, evaluated: Any) -> Any:
    """The one in training, the other in eval mode."""
    return trained if training else evaluated


def function_named(name: str) -> Any:
    """A function of torch or of `operator`, or a method of tensors, by its full name. Raises AttributeError."""
    if name == "getattr":
        return getattr
    space, _, rest = name.partition(".")
    return operator.attrgetter(rest)({"torch": torch, "operator": operator, "math": math}[space])


has_side_effect(require)  # dead-code elimination keeps both
has_side_effect(only)
FUNCTIONS: dict[str, Any] = {"require": require, "number": number, "only": only, "pick": pick}


@dataclass(frozen=True, slots=True)
class Guard:
    """A decision that the graph holds one branch of: where the model takes it, on what, and how it came out."""

    where: str
    what: str
    value: Any

    def __str__(self) -> str:
        """One line for plans and certificates."""
        return f"guarded: `{self.what}` ({self.where}) is {self.value!r} in this network; inputs that decide otherwise raise"


@dataclass(frozen=True, slots=True)
class Lost:
    """A place where the model does something in training that the graph does not hold.

    `path`: the module whose mode decides. `name`: what it is called in messages. `where`, `what`: file and line of the code,
    and its text.
    """

    path: str
    name: str
    where: str
    what: str

    def __str__(self) -> str:
        """One line for plans, certificates and the module's own `train()`."""
        code = f"`{self.what}`, {self.where}"
        return f"train() loses what `{self.name}` does in training alone ({code}): the graph holds what it does in eval mode"


def is_guard(node: fx.Node) -> bool:
    """Whether the node holds a decision of the model."""
    return node.op == "call_function" and node.target is require


def guards_of(graph: fx.Graph) -> tuple[Guard, ...]:
    """The guards of a graph, in its order, each once."""
    found: dict[Guard, None] = {}
    for node in graph.nodes:
        if is_guard(node):
            where, _, what = str(node.args[2]).partition(": ")
            value: Any = node.args[1]
            found[Guard(where, what, tuple(value) if isinstance(value, list) else value)] = None
    return tuple(found)
