"""BatchNorm that stays frozen: it normalises by its running statistics, in `train()` too, and never updates them.

Freezing the parameters alone leaves the statistics moving; setting `track_running_stats=False` makes the layer use batch
statistics. These subclasses do neither, and they survive any later `model.train()` of a plain training loop.
"""

from __future__ import annotations

from torch import nn

from netxform.core.layers import BatchNormAct2d, FrozenBatchNormAct2d


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
