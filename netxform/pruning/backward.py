"""What one backward pass through a gated network says of every gate.

    x ─forward→ z (N, C)        seedling (N, C) ─backward→ {atom: v (N, size)}

v_k is the sum over gates and places of a_k · ∂(seedling · z)/∂a_k, for every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from netxform.axes.algebra import Atom
from netxform.errors import fail
from netxform.graph.inputs import Given, arguments, count
from netxform.graph.network import Network
from netxform.pruning.gates import Gate, Gated
from netxform.pruning.loss import logits


class Backward:
    """A forward pass that keeps what the gates see, and backward passes that give v (N, size) of every atom."""

    def __init__(self, network: Network, wanted: list[Gate], missing: dict[Atom, str]) -> None:
        self.gated = Gated(network, wanted)
        self.shapes = {n.name: n.meta.get("shape") for n in network.module.graph.nodes}
        self.missing = dict(missing)
        self.example = next((i.shape[0] for i in network.inputs if i.shape), 1)
        self.index = {(g, a): g.index(a) for g in wanted for a in g.atoms}
        self.whole = {(g, a): g.dim == (a,) for g in wanted for a in g.atoms}
        self.copied: set[Gate] = set()
        self.seen: list[tuple[Gate, Tensor]] = []  # a gate inside a layer sees several values
        self.checked = False

    def forward(self, x: Given, output: str | None, lay: Callable[[Tensor], Tensor] = lambda z: z) -> Tensor:
        """The scores (N, C) or (N, P, C), as `lay` makes them of the output."""
        versions: list[int] = []
        z = arguments(x)[0]

        def act(gate: Gate, value: Tensor) -> Tensor:
            if value.requires_grad:
                kept = value.clone() if gate in self.copied else value.view_as(value)
            else:
                kept = (value.clone() if gate in self.copied else value).detach().requires_grad_()
            self.seen.append((gate, kept))
            versions.append(kept._version)
            return kept

        for _ in range(2):
            self.seen, versions[:] = [], []
            with torch.enable_grad():
                try:
                    z = lay(logits(self.gated(arguments(x), act), output))
                except (RuntimeError, ValueError) as error:
                    raise fail("X0805", f"the network fails on the data: {str(error).splitlines()[0]}") from error
            # a value that the network overwrites later is kept as a copy, in a second run
            changed = {g for (g, v), n in zip(self.seen, versions, strict=True) if v._version != n}
            if not changed:
                break
            self.copied |= changed
        self.count = count(x)
        self.place = {g: self._batch_axis(g, v) for g, v in self.seen}
        if not self.checked and self.seen and z.requires_grad:
            self._check(z)
        return z

    def _batch_axis(self, gate: Gate, value: Tensor) -> int | None:
        """The axis along which samples lie, outermost in it; None where there is none."""
        if value.shape[0] == self.count and gate.axis % value.dim() != 0:
            return 0
        held = self.shapes.get(gate.operand) if gate.layer is None else None
        for i, n in enumerate(value.shape):
            if i == gate.axis % value.dim() or n % self.count:
                continue
            if held is None or len(held) != value.dim() or n * self.example == held[i] * self.count:
                return i
        return None

    def _check(self, z: Tensor) -> None:
        """One backward pass from the first sample: where its gradient is not within its own part, samples are not apart."""
        self.checked = True
        odd = [(g, v) for g, v in self.seen if self.place[g] is None or v.shape[0] != self.count]
        if not odd:
            return
        found: Any = torch.autograd.grad(z[0].sum(), [v for _, v in odd], retain_graph=True, allow_unused=True)
        for (gate, _), slope in zip(odd, found, strict=True):
            axis = self.place[gate]
            if slope is None:
                continue
            rest = None if axis is None else slope.movedim(axis, 0).unflatten(0, (self.count, -1))[1:]
            if rest is None or bool((rest != 0).any()):
                why = "its values do not belong to one sample each"
                self.missing |= {a: self.missing.get(a, why) for a in gate.atoms}

    def backward(self, z: Tensor, seedling: Tensor, keep: bool) -> dict[Atom, Tensor]:
        """V (N, size), float64, of every scored atom: Σ over its gates and places of a · ∂(seedling · z)/∂a."""
        out: dict[Atom, Tensor] = {}
        if not self.seen or not z.requires_grad:
            return out
        slopes: Any = torch.autograd.grad(z, [v for _, v in self.seen], seedling, retain_graph=keep, allow_unused=True)
        with torch.no_grad():
            for (gate, value), slope in zip(self.seen, slopes, strict=True):
                axis = self.place[gate]
                if axis is None:
                    continue
                if slope is None:
                    v = value.new_zeros((self.count, value.shape[gate.axis]))
                else:
                    v = _places(value, slope, axis, gate.axis % slope.dim(), self.count)
                v = v.double()
                for atom in gate.atoms:
                    if atom in self.missing:
                        continue
                    held = out.get(atom)
                    if self.whole[gate, atom]:
                        out[atom] = v if held is None else held + v
                        continue
                    index = self.index[gate, atom]
                    mine = index >= 0
                    base = torch.zeros((self.count, atom.size), dtype=torch.float64) if held is None else held
                    out[atom] = base.index_add(1, index[mine], v[:, mine])
        return out


def _places(value: Tensor, slope: Tensor, batch: int, axis: int, count: int) -> Tensor:
    """Σ over all places of value · slope, for every sample and position along the axis: (N, size)."""
    product = value * slope
    if batch == 0 and product.shape[0] == count:
        others = [i for i in range(product.dim()) if i not in (0, axis)]
        return product.sum(others) if others else product
    moved = product.movedim(axis, -1).movedim(batch if batch < axis else batch - 1, 0)
    return moved.reshape(count, -1, moved.shape[-1]).sum(1)
