"""A captured network as its users see it: the graph, and the axes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netxform.axes.infer import types_of
from netxform.axes.reindex import Axis, axes_of, reindex
from netxform.axes.types import Types
from netxform.graph.network import Network

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Captured(Network):
    """A network with its axes: what `nx.capture` gives. `module` is an ordinary `torch.fx.GraphModule`."""

    @classmethod
    def of(cls, network: Network) -> Captured:
        """The same network, seen so."""
        if isinstance(network, Captured):
            return network
        made = cls(
            network.module,
            network.inputs,
            network.front_end,
            network.islands,
            network.notes,
            network.given,
            network.drawn,
            network.probes,
            network.eval_only,
        )
        made.known.update(network.known)
        return made

    @property
    def types(self) -> Types:
        """The axis types: of every tensor of the module and of every value of the graph."""
        return types_of(self)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the network's tensors: each with its size, why it is locked, what mixes it, and where it occurs."""
        return axes_of(self)

    @property
    def atoms(self) -> tuple[Axis, ...]:
        """The same as `axes`, under the name of the first release."""
        return self.axes

    def reindex(self, maps: Mapping[Axis | str, Sequence[int]], optimizer: Optimizer | None = None) -> Captured:
        """The network with new[i] = old[maps[axis][i]] along each axis, wherever it occurs (see `axes.reindex`).

        Raises NetxformError X0320 (unknown or locked axis, bad index), X0321 (code that cannot follow).
        """
        return Captured.of(reindex(self, maps, optimizer))
