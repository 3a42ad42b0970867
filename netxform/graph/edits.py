"""An Edit: what a verb wants done to a graph, as data.

Verbs return Edits; `graph/surgery` performs them. An Edit is inert and names graph nodes, modules and tensors: the same
Edit is performed on the weightless twin (planning) and on the real network (applying). What must be computed from weights
or data is computed when the choice is settled (`verb.Settles`), and travels with the Edit.

An operation is registered with the function that performs it (`surgery.perform_operation`). Those that need to know what an
axis or a precision is live with their function on that floor: `axes.index_maps.Reindex`, `precision.halves.Narrow`,
`precision.int8.Quantize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.graph.layer_spec import Layer

if TYPE_CHECKING:
    from torch import Tensor


class Operation:
    """One change of a graph. `copies`: performing it makes a copy of the structure of its own. `restructures`: code or shapes
    may have changed, so that the network is run on the meta device again; False where the operation sees to that itself.
    """

    __slots__ = ()
    copies: ClassVar[bool] = False
    restructures: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Truncate(Operation):
    """Make the value of `node` the only output; remove what no output needs any more.

    `open` says that the new output is a loose end: the next head that is attached there takes its place.
    """

    node: str
    open: bool = True


@dataclass(frozen=True, slots=True)
class Append(Operation):
    """Put `layers` in sequence behind the value of `node`, in a new module `name`, and make the result an output.

    With `replace` the new output takes the place of the output that `node` was. Each new tensor is made by its
    layer's own initialisation under `seed`.
    """

    name: str
    node: str
    layers: tuple[Layer, ...]
    replace: bool
    open: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Trainable(Operation):
    """Set `requires_grad` of the named parameters; put the named BatchNorm modules in or out of frozen mode.

    `still`: modules whose own code is in eval mode from now on; `held`: buffers that the graph no longer writes into.
    """

    restructures: ClassVar[bool] = False
    parameters: tuple[str, ...]
    value: bool
    norms: tuple[str, ...] = ()
    still: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Insert(Operation):
    """Put `layers` in sequence behind the value of `node`, in a new module `name`, for all who read it.

    `start` says how the new tensors begin: as the identity, or as drawn with the last scale zero (a residual branch,
    whose result is added to the value). A new BatchNorm begins with the Edit's `running_mean` and `running_var`, where it has
    some, and undoes itself with those.
    """

    name: str
    node: str
    layers: tuple[Layer, ...]
    start: Literal["identity", "branch"]
    seed: int


@dataclass(frozen=True, slots=True)
class InsertBlock(Operation):
    """Put a fresh copy of the residual block `path` behind it, as module `name`, its branches beginning at zero.

    `zeroed`: the tensors of the block (by their name in it) that begin at zero: the last scales of its branches.
    """

    name: str
    path: str
    zeroed: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Beside(Operation):
    """Put `layers` in sequence beside the layer `path`, in a new module `name`: they read what it reads, and `scale` times
    their result is added to its own, wherever it is called.

    The new tensors are drawn by their layers' own initialisation under `seed`, but that of the layer `zeroed` is zero. With
    `lengths` a layer `M` joins the two instead (DoRA), which begins with the lengths that the weights of `path` have.
    """

    path: str
    name: str
    layers: tuple[Layer, ...]
    zeroed: str
    scale: float
    seed: int
    lengths: bool = False


@dataclass(frozen=True, slots=True)
class Rescale(Operation):
    """Put a factor for every output channel behind the layer `path` ((IA)³), or for every input channel before it, in a new
    module `name`, wherever it is called. All are one at first.
    """

    path: str
    name: str
    side: Literal["input", "output"]
    size: int
    after: int


@dataclass(frozen=True, slots=True)
class TakeAway(Operation):
    """Take away what `Beside` and `Rescale` put there, in the modules of these names: the layers alone are left."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bypass(Operation):
    """Take the blocks of these paths out: whoever read what one gave reads what it was given."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replace(Operation):
    """Put `layers` in sequence in the place of the layer `path`, as its children, wherever it is called.

    Their tensors are those of the Edit, by their full new name; on the twin they have shapes alone.
    """

    path: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Bias(Operation):
    """Give the named layers a bias of zeros, where they have none."""

    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assign(Operation):
    """Put the Edit's tensors of these names in the place of the network's, in its precision; on the twin nothing happens."""

    restructures: ClassVar[bool] = False
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """Operations in order. The empty Edit changes nothing.

    `tensors`: what was computed while the choice was settled, by name; empty on the twin.
    """

    operations: tuple[Operation, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)
