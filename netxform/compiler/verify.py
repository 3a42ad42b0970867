"""Claims measured on the user's own network, and the values that let anyone measure them again.

Network before, Network after, Claim ─measure→ Evidence
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, assert_never

import torch
from torch import Tensor, fx, nn

from netxform.core.edit import (
    Claim,
    Edit,
    FrozenInTraining,
    LossChange,
    MaskedTwin,
    SameFunction,
    SameOutputs,
    SameValue,
    Untouched,
)
from netxform.core.law import Evidence
from netxform.core.network import Network, example, refresh
from netxform.core.reindex import Axis
from netxform.core.surgery import outputs, perform
from netxform.core.verb import Material
from netxform.errors import fail
from netxform.numerics.curvature import mean_loss
from netxform.numerics.gates import gates, masked

SAMPLES = 8


@dataclass(frozen=True)
class Measured:
    """Evidence, and what it was measured against: node → the value that must be found there (on the probe inputs)."""

    evidence: Evidence
    values: dict[str, Tensor]
    tensors: tuple[str, ...] = ()
    claim: Claim | None = None
    reference: tuple[Tensor, ...] = ()


def probe(network: Network, seed: int) -> tuple[Tensor, ...]:
    """Inputs to measure on: `SAMPLES` samples, normally distributed (integers: zeros), the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batched = [i.shape[0] if i.shape else 1 for i in network.inputs]
        return example(network, "cpu", SAMPLES if all(b == 1 for b in batched) else None)


def measure(
    claim: Claim,
    before: Network,
    after: Network,
    inputs: tuple[Tensor, ...],
    seed: int,
    edit: Edit | None = None,
    material: Material | None = None,
) -> Measured:
    """Measure one claim. `edit` is what was done: a claim about the function makes it once more in float64. `material` gives
    calibration data to the claims that are about data.
    """
    return replace(_measure(claim, before, after, inputs, seed, edit or Edit(), material), claim=claim)


def _measure(
    claim: Claim,
    before: Network,
    after: Network,
    inputs: tuple[Tensor, ...],
    seed: int,
    edit: Edit,
    material: Material | None,
) -> Measured:
    match claim:
        case SameValue():
            return _same(before, after, [claim.node], inputs, seed, "same value, bit for bit")
        case SameOutputs():
            kept = [n.name for n in outputs(before.module).values()]
            return _same(before, after, kept, inputs, seed, "same outputs, bit for bit")
        case SameFunction():
            return _same_function(before, after, edit, inputs, seed, claim.noise)
        case FrozenInTraining():
            return _frozen(after, claim, inputs, seed)
        case Untouched():
            return _untouched(before, after, claim.trained)
        case MaskedTwin():
            return _masked_twin(before, after, claim, edit, inputs, seed)
        case LossChange():
            return _loss_change(before, after, claim, material)
        case _:
            assert_never(claim)


class _Watch(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, nodes: Iterable[str]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.wanted = set(nodes)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted and isinstance(value, Tensor):
            self.seen[n.name] = value.detach().clone()
        return value


def values_at(network: Network, nodes: Iterable[str], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The values of the named nodes, in eval mode."""
    module = network.module
    modes = {m: m.training for m in module.modules()}
    module.eval()
    watch = _Watch(module, nodes)
    try:
        with torch.no_grad():
            watch.run(*[t.clone() for t in inputs])
    finally:
        for part, mode in modes.items():
            part.training = mode
    return watch.seen


def distance(found: Tensor | None, wanted: Tensor) -> float:
    """The largest difference; 0 for equal bits, infinite for another shape or a lost value."""
    if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    if torch.equal(found, wanted):
        return 0.0
    gap = (found.double() - wanted.double()).abs().max()
    return float(gap) if bool(torch.isfinite(gap)) else float("inf")


def _same(before: Network, after: Network, nodes: list[str], inputs: tuple[Tensor, ...], seed: int, claim: str) -> Measured:
    wanted = values_at(before, nodes, inputs)
    found = values_at(after, nodes, inputs)
    worst = max((distance(found.get(n), t) for n, t in wanted.items()), default=0.0)
    dtype = str(next(iter(wanted.values())).dtype).removeprefix("torch.") if wanted else "float32"
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    evidence = Evidence(claim, 0.0, worst, worst == 0.0, count, seed, dtype, {"nodes": sorted(wanted)})
    return Measured(evidence, wanted)


# Of a network with more parameters than this no double-precision copy is made; float32 alone is compared.
_LARGE = 150_000_000
_EXACT = 1e-10


def doubled(network: Network) -> Network | None:
    """A copy of the network in float64; None for a huge one."""
    if sum(p.numel() for p in network.module.parameters()) > _LARGE:
        return None
    inputs = tuple(replace(i, dtype=torch.float64 if i.dtype.is_floating_point else i.dtype) for i in network.inputs)
    return refresh(replace(network, module=copy.deepcopy(network.module).double(), inputs=inputs))


def results(network: Network, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The floating-point outputs on the inputs, in eval mode and in the network's own precision."""
    module = network.module
    given = [t.to(i.dtype) for t, i in zip(inputs, network.inputs, strict=True)]
    modes = {m: m.training for m in module.modules()}
    try:
        with torch.no_grad():
            found = _tensors(module.eval()(*given))
    finally:
        for part, mode in modes.items():
            part.training = mode
    return tuple(t for t in found if t.is_floating_point())


def _same_function(
    before: Network, after: Network, edit: Edit, inputs: tuple[Tensor, ...], seed: int, noise: float
) -> Measured:
    """The edit made on a float64 copy: 1e-10 is a thousand times the worst rounding seen in a right edit. And the network as
    it is stored: ten times its own rounding noise, which is what permuting its free axes changes.
    """
    copied = doubled(before)
    wanted = results(copied or before, inputs)
    stored = relative(results(after, inputs), wanted)
    allowed = float("inf") if noise else 10 * max(_rounding(after, inputs, seed), 1e-7)
    exact = relative(results(perform(copied, edit), inputs), wanted) if copied is not None else stored
    bound = float("inf") if noise else _EXACT if copied is not None else allowed
    name = "same function" + (f", up to noise of {noise:g}" if noise else "")
    held = exact <= bound and stored <= allowed
    detail = {"as stored": stored, "allowed as stored": allowed}
    dtype = "float64" if copied is not None else "float32"
    evidence = Evidence(name, bound, exact, held, inputs[0].shape[0] if inputs and inputs[0].dim() else 0, seed, dtype, detail)
    return Measured(evidence, {}, reference=wanted)


def _masked_twin(
    before: Network, after: Network, claim: MaskedTwin, edit: Edit, inputs: tuple[Tensor, ...], seed: int
) -> Measured:
    """Removal against masking, on a float64 copy; and the network as it is stored, within its own rounding noise."""
    named = {a.name: a.atom for a in before.atoms}
    positions = {name: index for name, index in claim.removed}
    fill = {(operand, axis): edit.tensors[name] for operand, axis, name in claim.means} or None
    copied = doubled(before)
    base = copied or before
    twins = {a.name: a.atom for a in base.atoms} if copied is not None else named
    given = tuple(t.to(i.dtype) for t, i in zip(inputs, base.inputs, strict=True))
    found = masked(base, gates(base), {twins[n]: list(i) for n, i in positions.items()}, given, fill)
    wanted = tuple(t for t in _tensors(found) if t.is_floating_point())
    exact = relative(results(perform(copied, edit) if copied is not None else after, inputs), wanted)
    stored = relative(results(after, inputs), wanted)
    allowed = float("inf") if claim.mixes else 10 * max(_rounding(after, inputs, seed), 1e-7)
    bound = float("inf") if claim.mixes else _EXACT if copied is not None else allowed
    what = "read as zero" if fill is None else "read as their mean"
    name = f"same function as with the removed indices {what}"
    if claim.mixes:
        name = f"difference from the removed indices {what}"
    detail: dict[str, Any] = {"as stored": stored, "allowed as stored": allowed}
    if claim.mixes:
        detail["mixes"] = list(claim.mixes)
    held = exact <= bound and stored <= allowed
    dtype = "float64" if copied is not None else "float32"
    count = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    return Measured(Evidence(name, bound, exact, held, count, seed, dtype, detail), {}, reference=wanted)


# How many samples of the calibration data a bundle holds, so that the loss can be measured again.
_KEPT, _KEPT_BYTES = 256, 8_000_000


def _loss_change(before: Network, after: Network, claim: LossChange, material: Material | None) -> Measured:
    """The mean loss before and after, on the samples that were scored on and on as many others."""
    if material is None:
        raise fail("X0823", f"`{claim.data}` is needed to measure the loss")

    def seen(network: Network, skip: int) -> tuple[float, float, int]:
        return mean_loss(network, material.batches(claim.data, claim.samples, skip=skip), claim.loss, claim.output)

    old, new = seen(before, 0), seen(after, 0)
    detail: dict[str, Any] = {
        "predicted": claim.predicted,
        "standard error": claim.error,
        "loss before": old[0],
        "loss after": new[0],
        "accuracy before": old[1],
        "accuracy after": new[1],
    }
    if next(iter(material.batches(claim.data, 1, skip=claim.samples)), None) is not None:
        others, after_others = seen(before, claim.samples), seen(after, claim.samples)
        detail |= {"change on other samples": after_others[0] - others[0], "other samples": others[2]}
    x, y = next(iter(material.batches(claim.data, _KEPT)))
    room = max(1, _KEPT_BYTES // max(1, x[0].numel() * x.element_size()))
    x, y = x[:room], y[:room]
    kept = mean_loss(after, [(x, y)], claim.loss, claim.output)
    detail |= {"loss": claim.loss, "output": claim.output, "loss on the samples kept": kept[0]}
    name = f"change of the mean loss on {old[2]} samples of `{claim.data}`"
    evidence = Evidence(name, float("inf"), new[0] - old[0], bool(new[0] == new[0]), old[2], 0, "float32", detail)
    return Measured(evidence, {}, reference=(x, y))


def again(
    kind: str, reference: tuple[Tensor, ...], network: Network, inputs: tuple[Tensor, ...], claim: dict[str, Any]
) -> Evidence:
    """A claim with a reference measured on the stored network alone."""
    if kind == "masked twin" and claim["detail"].get("mixes"):
        stored = float(claim["detail"]["as stored"])
        now = abs(relative(results(network, inputs), reference) - stored)
        return Evidence(f"{claim['claim']}, as stored", 1e-6, now, now <= 1e-6, claim["samples"], claim["seed"])
    if kind != "loss change":
        return same_again(reference, network, inputs, claim)
    wanted = float(claim["detail"]["loss on the samples kept"])
    detail = claim["detail"]
    now, _, count = mean_loss(network, [(reference[0], reference[1])], detail["loss"], detail["output"])
    allowed = 1e-5 * max(abs(wanted), 1.0)  # another machine rounds differently
    return Evidence("loss on the samples kept", allowed, abs(now - wanted), abs(now - wanted) <= allowed, count)


def same_again(wanted: tuple[Tensor, ...], network: Network, inputs: tuple[Tensor, ...], claim: dict[str, Any]) -> Evidence:
    """The stored network against the outputs that it must have."""
    gap, allowed = relative(results(network, inputs), wanted), float(claim["detail"]["allowed as stored"])
    return Evidence(f"{claim['claim']}, as stored", allowed, gap, gap <= allowed, claim["samples"], claim["seed"])


def relative(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest |found − wanted| over the largest |wanted|, over all outputs; infinite for other shapes or for NaN."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if b.numel():
            gap = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-300))
            worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def _rounding(network: Network, inputs: tuple[Tensor, ...], seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    maps: dict[Axis | str, list[int]] = {
        a: torch.randperm(a.size, generator=generator).tolist() for a in network.atoms if a.locked is None
    }
    return relative(results(network.reindex(maps), inputs), results(network, inputs))


def _frozen(after: Network, claim: FrozenInTraining, inputs: tuple[Tensor, ...], seed: int) -> Measured:
    """One step forward and backward in train mode, on a copy."""
    module = copy.deepcopy(after.module).train()
    before = {n: t.clone() for n, t in module.named_buffers(remove_duplicate=False) if n in set(claim.buffers)}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        result: Any = module(*[t.clone() for t in inputs])
        total = sum(
            (t.float().square().mean() for t in _tensors(result) if t.requires_grad),
            start=torch.zeros(()),
        )
        if total.requires_grad:
            total.backward()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    moved = sum(not torch.equal(dict(module.named_buffers(remove_duplicate=False))[n], t) for n, t in before.items())
    moved += sum(parameters[n].grad is not None for n in claim.parameters if n in parameters)
    detail = {"parameters": list(claim.parameters), "buffers": list(claim.buffers)}
    evidence = Evidence("frozen in train() mode", 0.0, float(moved), moved == 0, SAMPLES, seed, "float32", detail)
    return Measured(evidence, {})


def _untouched(before: Network, after: Network, trained: tuple[str, ...]) -> Measured:
    old, new = tensors(before.module), tensors(after.module)
    names = tuple(n for n in old if n not in set(trained))
    changed = [n for n in names if n not in new or not _same_bits(old[n], new[n])]
    detail: dict[str, Any] = {"tensors": len(names), "digest": digest(before.module, names)}
    if changed:
        detail["changed"] = changed[:5]
    evidence = Evidence("untouched tensors, bit for bit", 0.0, float(len(changed)), not changed, 0, 0, "bits", detail)
    return Measured(evidence, {}, names)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, further names of tied tensors included."""
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {n: t.detach() for n, t in every}


def digest(module: nn.Module, names: Iterable[str]) -> str:
    """A hash of the named tensors' bits."""
    held = tensors(module)
    out = hashlib.sha256()
    for name in sorted(names):
        out.update(name.encode())
        out.update(tensor_hash(held[name]).encode() if name in held else b"?")
    return out.hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """sha256 of shape, dtype and bytes."""
    out = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    flat = tensor.detach().cpu().contiguous().flatten()
    out.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return out.hexdigest()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and tensor_hash(a) == tensor_hash(b)


def _tensors(value: Any) -> list[Tensor]:
    from torch.utils import _pytree as pytree

    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
