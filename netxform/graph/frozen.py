"""BatchNorm that stays frozen: it normalises by its running statistics, in `train()` too, and never updates them.

Freezing the parameters alone leaves the statistics moving; setting `track_running_stats=False` makes the layer use batch
statistics. These subclasses do neither, and they survive any later `model.train()` of a plain training loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from netxform.graph.layers import BatchNormAct2d, FrozenBatchNormAct2d
from netxform.graph.memory import written_buffers
from netxform.graph.network import Network


class FrozenBatchNorm1d(nn.BatchNorm1d):
    """`BatchNorm1d` that is always in eval mode."""

    def train(self, mode: bool = True) -> FrozenBatchNorm1d:
        """Stay in eval mode, whatever `mode` says."""
        super().train(False)
        return self


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` that is always in eval mode."""

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stay in eval mode, whatever `mode` says."""
        super().train(False)
        return self


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """`BatchNorm3d` that is always in eval mode."""

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stay in eval mode, whatever `mode` says."""
        super().train(False)
        return self


FROZEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
    BatchNormAct2d: FrozenBatchNormAct2d,
}
THAWED: dict[type[nn.Module], type[nn.Module]] = {frozen: plain for plain, frozen in FROZEN.items()}


def norms_in(network: Network, owners: set[str]) -> tuple[list[str], list[str]]:
    """BatchNorm modules among `owners` that can be frozen, and layers that write buffers and cannot."""
    good: list[str] = []
    bad: list[str] = []
    written = {n.rpartition(".")[0] for n in written_buffers(network.module)}
    called = {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}
    for name, module in network.module.named_modules(remove_duplicate=False):
        if type(module) in FROZEN and name in owners and getattr(module, "running_mean", None) is not None:
            good.append(name)
        elif type(module) not in (*FROZEN, *THAWED) and name in owners and name in written and name in called:
            bad.append(name)
    return good, bad


def still_in(network: Network, owners: set[str], norms: Iterable[str]) -> tuple[list[str], list[str]]:
    """Modules among `owners` whose own code writes their buffers in training, and the buffers that are written even where
    those modules are in eval mode. `norms` are frozen as layers.
    """
    inside = owners - set(norms)
    order = [n for n, _ in network.module.named_modules(remove_duplicate=False)]
    found = {n.rpartition(".")[0] for n in written_buffers(network.module)}
    still = [n for n in order if n in inside and n in found]
    held = [n for n in written_buffers(network.module, still) if n.rpartition(".")[0] in inside] if still else []
    return still, sorted(held)


def frozen_norms(network: Network) -> list[str]:
    """The BatchNorm modules that are frozen."""
    return [n for n, m in network.module.named_modules(remove_duplicate=False) if type(m) in THAWED]


def modules_in_training(network: Network, selected: Iterable[str], owners: set[str]) -> tuple[str, ...]:
    """The modules that are in `train()` mode while the selection is trained: the selected ones.

    Everything else stays in eval: its dropout is off and its running statistics stand still.
    """
    chosen = set(selected) | owners
    return tuple(n for n, _ in network.module.named_modules(remove_duplicate=False) if n in chosen)
