"""Claims of the bounded contract: what a layer may change by, and how far the outputs moved."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from scipy.stats import beta
from torch import Tensor, nn

from netxform.compiler.evidence import Measured, relative, results
from netxform.errors import NetxformError
from netxform.factorization.difference import kernel_error, linear_part, links_of, matrix_of, matrix_worst, table_part, worst
from netxform.graph.network import Network
from netxform.language.claims import LayerBound, LayerErrors, OutputError
from netxform.language.laws import Evidence
from netxform.language.verb import Material

# a bound is compared in float64, where the two sides of an equality differ by rounding
_ROUNDING = 1e-6


def layers(before: Network, after: Network, claim: LayerErrors, seed: int) -> Measured:
    """Each kernel against its bound, and each layer on the input that it changed most on (power iteration)."""
    reference: list[Tensor] = []
    rows: list[dict[str, Any]] = []
    for i, bound in enumerate(claim.layers):
        kernel, gain, x, y = _one(before, after, bound, seed + i)
        reference += [x, y]
        stated = {"kernel bound": bound.kernel, "gain bound": bound.gain, "how": bound.how}
        rows.append({"layer": bound.path, "kernel": kernel, "gain": gain} | stated)
    shares = [max(_share(r["kernel"], r["kernel bound"]), _share(r["gain"], r["gain bound"])) for r in rows]
    worst_share = max(shares, default=0.0)
    broken = [r["layer"] for r, s in zip(rows, shares, strict=True) if s > 1 + _ROUNDING]
    detail: dict[str, Any] = {"layers": rows} | ({"broken": broken} if broken else {})
    name = "layer errors over their bounds, at the worst inputs"
    evidence = Evidence(name, 1.0, worst_share, not broken, len(rows), seed, "float64", detail)
    return Measured(evidence, {}, reference=tuple(reference))


def _share(measured: float, bound: float) -> float:
    return 0.0 if measured == 0.0 else measured / bound if bound > 0 else math.inf


def _one(before: Network, after: Network, bound: LayerBound, seed: int) -> tuple[float, float, Tensor, Tensor]:
    path, _, name = bound.path.partition("::")
    old, new = before.module.get_submodule(path), after.module.get_submodule(path)
    if name:
        first, second = matrix_of(old, name), matrix_of(new, name)
        found = matrix_worst(first, second, seed)
        return float((first - second).norm()), found.gain, found.x, found.y
    found = worst(old, new, bound.size, seed)
    return kernel_error(old, new)[0], found.gain, found.x, found.y


def layers_again(claim: dict[str, Any], reference: tuple[Tensor, ...], network: Network) -> Evidence:
    """Each chain on the worst input that was found for it, against the value that the layer had there."""
    top = 0.0
    for row, x, y in zip(claim["detail"]["layers"], reference[::2], reference[1::2], strict=True):
        path, _, name = row["layer"].partition("::")
        try:
            part = network.module.get_submodule(path)
            z = matrix_of(part, name) @ x if name else _chain(part, x)
            gap = float((z - y).norm()) / float(x.norm()) if z.shape == y.shape else math.inf
        except (AttributeError, RuntimeError, IndexError, TypeError):
            gap = math.inf  # another layer stands there now
        top = max(top, _share(gap, row["gain bound"]))
    return Evidence(claim["claim"], 1.0, top, top <= 1 + _ROUNDING, claim["samples"], claim["seed"], "float64")


def _chain(part: nn.Module, x: Tensor) -> Tensor:
    links = links_of(part)
    with torch.no_grad():
        if isinstance(links[0], nn.Embedding):
            return table_part([copy.deepcopy(link).double() for link in links], x)
        flat = isinstance(links[0], nn.Linear) or x.dim() == 1
        return linear_part(links, x[None])[0] if flat else linear_part(links, x)


def outputs(
    before: Network, after: Network, claim: OutputError, inputs: tuple[Tensor, ...], seed: int, material: Material | None
) -> Measured:
    """The relative change of the outputs: on the probe inputs, and on held-out data where there is some."""
    wanted = results(before, inputs)
    moved = relative(results(after, inputs), wanted)
    detail: dict[str, Any] = {"on the probe": moved, "allowed as stored": moved + 1e-5 * (1 + moved)}
    count, name, measured = (
        inputs[0].shape[0] if inputs and inputs[0].dim() else 0,
        "change of the outputs, probe inputs",
        moved,
    )
    if claim.data is not None and material is not None:
        errors, agree = _on_data(before, after, claim, material)
        if errors:
            measured, count = _quantile(errors, claim.level), len(errors)
            detail |= {"data": claim.data, "level": claim.level, "quantile": measured, "mean": sum(errors) / count,
                       "agreement": sum(agree) / count if agree else None,
                       "agreement at least": _at_least(sum(agree), count, claim.level) if agree else None}  # fmt: skip
            detail["measured on"] = material.held_out(claim.data)
            name = f"change of the outputs: {claim.level:.0%} of {detail['measured on']} stay below"
    held = math.isfinite(moved)
    if claim.worst is not None:
        reached = _reached(before, after, inputs, claim.radius)
        detail |= {"worst case": claim.worst, "for inputs of norm": claim.radius, "reached on the probe": reached}
        held = held and reached <= claim.worst * (1 + _ROUNDING)
    return Measured(Evidence(name, math.inf, measured, held, count, seed, "float32", detail), {}, reference=wanted)


def _reached(before: Network, after: Network, inputs: tuple[Tensor, ...], radius: float) -> float:
    """The largest change of the outputs on the probe inputs, scaled to the radius."""
    x = tuple(t / t.flatten(1).norm(dim=1).reshape(-1, *[1] * (t.dim() - 1)) * radius for t in inputs)
    pairs = zip(results(before, x), results(after, x), strict=True)
    return max(float((a.double() - b.double()).flatten(1).norm(dim=1).max()) for a, b in pairs)


def _on_data(before: Network, after: Network, claim: OutputError, material: Material) -> tuple[list[float], list[bool]]:
    errors: list[float] = []
    agree: list[bool] = []
    assert claim.data is not None
    for x, _ in material.fresh(claim.data, claim.samples, skip=claim.skip):
        old, new = (results(n, (x,)) for n in (before, after))
        for a, b in zip(old[:1], new[:1], strict=True):
            flat_a, flat_b = a.double().flatten(1), b.double().flatten(1)
            errors += ((flat_a - flat_b).norm(dim=1) / flat_a.norm(dim=1).clamp_min(1e-300)).tolist()
            if a.dim() == 2:
                agree += (a.argmax(1) == b.argmax(1)).tolist()
    return errors, agree


def _quantile(errors: list[float], level: float) -> float:
    """Split-conformal (Vovk et al. 2005): the next exchangeable sample is below it with at least this probability."""
    rank = math.ceil((len(errors) + 1) * level)
    return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf


def _at_least(right: int, count: int, level: float) -> float:
    """The lower end of the one-sided interval of Clopper and Pearson (1934)."""
    return 0.0 if right == 0 else float(beta.ppf(1 - level, right, count - right + 1))


def outputs_again(
    claim: dict[str, Any], reference: tuple[Tensor, ...], network: Network, inputs: tuple[Tensor, ...]
) -> Evidence:
    """The probe inputs once more, against the outputs before the change."""
    allowed = float(claim["detail"]["allowed as stored"])
    try:
        moved = relative(results(network, inputs), reference)
    except (NetxformError, RuntimeError, IndexError):
        moved = math.inf
    return Evidence("change of the outputs, probe inputs", allowed, moved, moved <= allowed, claim["samples"], claim["seed"])
