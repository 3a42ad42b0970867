"""Claims measured on the user's own network, and the values that let anyone measure them again.

Network before, Network after, Claim ─measure→ Evidence
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, assert_never

import torch
from torch import Tensor, fx, nn

from netxform.compiler.claims import bounded, lossy
from netxform.compiler.claims import stored as carried
from netxform.compiler.evidence import EXACT, Measured, doubled, relative, results, rounding, tensors_in
from netxform.graph.edits import Edit
from netxform.graph.meta import evaluating
from netxform.graph.network import SAMPLES, Network, samples
from netxform.graph.outputs import outputs
from netxform.graph.surgery import perform
from netxform.language.claims import (
    Claim,
    FrozenInTraining,
    LayerErrors,
    LossChange,
    MaskedTwin,
    OutputError,
    Quantized,
    Rounded,
    SameFunction,
    SameOutputs,
    SameValue,
    Sparse,
    Taken,
    Untouched,
    WithinBound,
    ZerosHeld,
)
from netxform.language.laws import Evidence
from netxform.language.verb import Material
from netxform.precision.rounding import HALF


def probe(network: Network, seed: int) -> tuple[Tensor, ...]:
    """Inputs to measure on, the same for the same seed."""
    return samples(network, seed)


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
        case WithinBound():
            return carried.within(before, after, doubled(before) or before, inputs, seed, claim.bound)
        case Rounded():
            return carried.rounded(tensors(before.module), tensors(after.module), claim, digest(after.module, claim.tensors))
        case Quantized():
            return carried.quantized(before.module, after.module, claim, digest(after.module, claim.tensors))
        case Taken():
            return carried.taken(tensors(after.module), claim, edit, digest(after.module, claim.tensors))
        case ZerosHeld():
            return carried.zeros_held(tensors(before.module), tensors(after.module), claim, digest(after.module, claim.tensors))
        case Sparse():
            return carried.sparse(tensors(after.module), claim, digest(after.module, claim.tensors))
        case LayerErrors():
            return bounded.layers(before, after, claim, seed)
        case OutputError():
            return bounded.outputs(before, after, claim, inputs, seed, material)
        case MaskedTwin():
            return lossy.masked_twin(before, after, claim, edit, inputs, seed)
        case LossChange():
            return lossy.loss_change(before, after, claim, material)
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
    """The values of the named nodes, in eval mode. No parameter asks for a gradient meanwhile, or `nn.RNN` rounds otherwise."""
    module = network.module
    asking = [p for p in module.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    watch = _Watch(module, nodes)
    try:
        with torch.no_grad(), evaluating(module):
            watch.run(*[t.clone() for t in inputs])
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
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


def _same_function(
    before: Network, after: Network, edit: Edit, inputs: tuple[Tensor, ...], seed: int, noise: float
) -> Measured:
    """The edit made on a float64 copy: 1e-10 is a thousand times the worst rounding seen in a right edit. And the network as
    it is stored: ten times its own rounding noise, which is what permuting its free axes changes.
    """
    copied = doubled(before)
    wanted = results(copied or before, inputs)
    stored = relative(results(after, inputs), wanted)
    own = max(rounding(after, inputs, seed), 1e-7)
    if any(t.dtype in HALF.values() for t in before.module.parameters()):  # half precision: its distance from float64
        own = max(own, relative(results(before, inputs), wanted))
    allowed = float("inf") if noise else 10 * own
    exact = relative(results(perform(copied, edit), inputs), wanted) if copied is not None else stored
    bound = float("inf") if noise else EXACT if copied is not None else allowed
    name = "same function" + (f", up to noise of {noise:g}" if noise else "")
    held = exact <= bound and stored <= allowed
    detail = {"as stored": stored, "allowed as stored": allowed}
    dtype = "float64" if copied is not None else "float32"
    evidence = Evidence(name, bound, exact, held, inputs[0].shape[0] if inputs and inputs[0].dim() else 0, seed, dtype, detail)
    return Measured(evidence, {}, reference=wanted)


def again(claim: dict[str, Any], reference: tuple[Tensor, ...], network: Network, inputs: tuple[Tensor, ...]) -> Evidence:
    """A claim that rests on stored values, measured on the network as it is now. `claim` is the certificate's entry."""
    match claim["kind"]:
        case "layer errors":
            return bounded.layers_again(claim, reference, network)
        case "output error":
            return bounded.outputs_again(claim, reference, network, inputs)
        case "masked twin":
            return lossy.masked_twin_again(claim, reference, network, inputs)
        case "loss change":
            return lossy.loss_change_again(claim, reference, network)
        case _:
            gap, allowed = relative(results(network, inputs), reference), float(claim["detail"]["allowed as stored"])
            name = f"{claim['claim']}, as stored"
            return Evidence(name, allowed, gap, gap <= allowed, claim["samples"], claim["seed"])


def _frozen(after: Network, claim: FrozenInTraining, inputs: tuple[Tensor, ...], seed: int) -> Measured:
    """One step forward and backward in train mode, on a copy."""
    module = copy.deepcopy(after.module).train()
    before = {n: t.clone() for n, t in module.named_buffers(remove_duplicate=False) if n in set(claim.buffers)}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        result: Any = module(*[t.clone() for t in inputs])
        total = sum(
            (t.float().square().mean() for t in tensors_in(result) if t.requires_grad),
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
