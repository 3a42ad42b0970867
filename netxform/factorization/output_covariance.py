"""What layers put out on data, in one pass and without keeping activations: mean, covariance, and how the loss depends on them.

Network, layers, batches ─observe→ Seen of each layer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netxform.graph.inputs import arguments, count
from netxform.graph.meta import evaluating
from netxform.graph.network import Network
from netxform.graph.outputs import given

# positions of a map beyond this many a batch are thinned out evenly: neighbours tell the same
_POSITIONS = 65_536


@dataclass
class Seen:
    """Sums over samples and positions of a layer's output y (channels last), in float64.

    `mean_O` and `covariance_OO` are those of y; `count` is the number of positions, `samples` of inputs. `slope` is the mean
    over positions of ‖∂L/∂y‖² / channels, L the sum of the samples' losses; 0 where no gradient was asked for.
    """

    total_O: Tensor
    products_OO: Tensor
    count: int = 0
    samples: int = 0
    slope_sum: float = 0.0
    slope_count: int = 0

    def over_all(self, total_of: Callable[..., tuple[Tensor, ...]]) -> Seen:
        """The same of what all processes saw, each on its share."""
        counts = torch.tensor([self.count, self.samples, self.slope_sum, self.slope_count], dtype=torch.float64)
        total, products, counts = total_of(self.total_O, self.products_OO, counts)
        count, samples, slope, elements = counts.tolist()
        return Seen(total, products, int(count), int(samples), slope, int(elements))

    @property
    def mean_O(self) -> Tensor:
        """E[y]."""
        return self.total_O / max(self.count, 1)

    @property
    def covariance_OO(self) -> Tensor:
        """E[(y − E y)(y − E y)ᵀ]."""
        mean = self.mean_O
        return self.products_OO / max(self.count, 1) - torch.outer(mean, mean)

    @property
    def slope(self) -> float:
        """E[(∂L/∂y)²], an element."""
        return self.slope_sum / max(self.slope_count, 1)

    def add(self, y_NO: Tensor) -> None:
        """More outputs, one row a position."""
        rows = y_NO.detach()
        step = -(-len(rows) // _POSITIONS)
        rows = rows[::step].double()
        self.total_O += rows.sum(0)
        self.products_OO += rows.T @ rows
        self.count += len(rows)


def _rows(y: Tensor, channels_first: bool) -> Tensor:
    return (y.movedim(1, -1) if channels_first else y).reshape(-1, y.shape[1] if channels_first else y.shape[-1])


def observe(
    network: Network, layers: Sequence[str], batches: Iterable[tuple[Any, Any]], *, gradients: bool = False
) -> dict[str, Seen]:
    """Outputs of the named layers over the batches, in eval mode.

    With `gradients`, the loss is the cross-entropy against the labels (for targets that are no classes: half the squared
    error; without labels: the output in a random direction, whose mean square gradient is that of its squared change), and its
    gradient is taken at the outputs.
    """
    module = network.module
    found: dict[str, Seen] = {}
    kept: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)

    def watch(path: str, part: nn.Module) -> Any:
        first = isinstance(part, nn.modules.conv._ConvNd)  # pyright: ignore[reportPrivateUsage]

        def hook(_: nn.Module, __: Any, y: Tensor) -> Tensor | None:
            rows = _rows(y, first)
            if path not in found:
                size = rows.shape[1]
                empty = torch.zeros(size, size, dtype=torch.float64)
                found[path] = Seen(torch.zeros(size, dtype=torch.float64), empty)
            found[path].add(rows)
            if y.requires_grad:
                kept.setdefault(path, []).append(y)
                return y.clone()  # what comes next may write into it
            return None

        return hook

    handles = [module.get_submodule(p).register_forward_hook(watch(p, module.get_submodule(p))) for p in layers]
    try:
        with evaluating(module):
            for x, y in batches:
                with torch.set_grad_enabled(gradients):
                    held = arguments(x)
                    if gradients:
                        held = tuple(t.detach().requires_grad_() if t.is_floating_point() else t for t in held)
                    out: Any = module(*held)
                    for seen in found.values():
                        seen.samples += count(x)
                    if gradients:
                        _slopes(_loss(out, y, generator), kept, found)
                kept.clear()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _loss(out: Any, y: Tensor | None, generator: torch.Generator) -> Tensor:
    z = next(iter(given(out).values())).float()
    if y is None:
        return (z * torch.randn(z.shape, generator=generator)).sum()
    if not y.is_floating_point():
        if z.dim() == 3 and y.shape == z.shape[:-1]:  # sequences have their classes last
            z = z.movedim(-1, 1)
        if z.dim() >= 2 and y.shape == (len(z), *z.shape[2:]):
            return nn.functional.cross_entropy(z, y.long(), reduction="sum")
    return 0.5 * (z - y.float().reshape(z.shape)).square().sum() if z.numel() == y.numel() else 0.5 * z.square().sum()


def _slopes(loss: Tensor, kept: dict[str, list[Tensor]], found: dict[str, Seen]) -> None:
    values = [(path, y) for path, several in kept.items() for y in several]
    gradients: Any = torch.autograd.grad(loss, [y for _, y in values], allow_unused=True)
    for (path, _), gradient in zip(values, gradients, strict=True):
        if gradient is not None:
            found[path].slope_sum += float(gradient.double().square().sum())
            found[path].slope_count += gradient.numel()
