"""Claims of the bounded contract: what a layer may change by, and how far the outputs moved."""

from __future__ import annotations

import copy
import math

import torch
from msgspec.structs import replace
from scipy.stats import beta
from torch import Tensor, nn

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import Case, Kept, Measured, doubled, relative, results
from netxform.errors import NetxformError
from netxform.factorization.difference import kernel_error, linear_part, links_of, matrix_of, matrix_worst, table_part, worst
from netxform.graph.network import Network
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import LayerBound, LayerErrors, OutputError, WithinBound
from netxform.language.laws import Detail, Evidence, Real
from netxform.language.material import HeldOut, Material

# a bound is compared in float64, where the two sides of an equality differ by rounding
_ROUNDING = 1e-6


class LayerRow(Detail, frozen=True):
    """One layer: ‖K − K̂‖_F of its kernel and the gain that was reached, each with its bound; `how` names that on the gain."""

    layer: str
    kernel: Real
    gain: Real
    kernel_bound: Real
    gain_bound: Real
    how: str


class LayersDetail(Detail, frozen=True):
    """A row a layer; the layers that are above a bound."""

    layers: tuple[LayerRow, ...]
    broken: tuple[str, ...] = ()


class OutputDetail(Detail, frozen=True):
    """The relative change of the outputs on the probe inputs, and what it may be when it is measured again.

    With `data`: the samples that it was `measured_on`, the quantile at `level` and the mean of the change over them, how often
    the largest output is the same, and a lower bound of that at `level`. With a `worst_case`: the bound for inputs of that
    norm, and what the probe reached.
    """

    on_the_probe: Real
    allowed_as_stored: Real
    data: str | None = None
    level: Real | None = None
    quantile: Real | None = None
    mean: Real | None = None
    agreement: Real | None = None
    agreement_at_least: Real | None = None
    worst_case: Real | None = None
    for_inputs_of_norm: Real | None = None
    reached_on_the_probe: Real | None = None
    measured_on: HeldOut | None = None

    def found(self, measured: float, bound: float) -> str:
        """The change, and how often the class is the same."""
        if self.agreement is None or self.agreement_at_least is None:
            return super().found(measured, bound)
        return f"{measured:.3g}; same class for {self.agreement:.1%}, at least {self.agreement_at_least:.1%}"


class WithinDetail(Detail, frozen=True):
    """What the stored network may differ by."""

    sized = True

    allowed_as_stored: Real


def within_again(detail: WithinDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The outputs of the stored network against those before the change."""
    gap, allowed = relative(results(kept.network, kept.inputs), kept.reference), detail.allowed_as_stored
    return Evidence(f"{record.claim}, as stored", allowed, gap, gap <= allowed, record.samples, record.seed)


def layers_again(detail: LayersDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """Each chain on the worst input that was found for it, against the value that the layer had there."""
    top = 0.0 if len(kept.reference) == 2 * len(detail.layers) else math.inf
    for row, x, y in zip(detail.layers, kept.reference[::2], kept.reference[1::2], strict=False):
        path, _, name = row.layer.partition("::")
        try:
            part = kept.network.module.get_submodule(path)
            z = matrix_of(part, name) @ x if name else _chain(part, x)
            gap = float((z - y).norm()) / float(x.norm()) if z.shape == y.shape else math.inf
        except (AttributeError, RuntimeError, IndexError, TypeError):
            gap = math.inf  # another layer stands there now
        top = max(top, _share(gap, row.gain_bound))
    return Evidence(record.claim, 1.0, top, top <= 1 + _ROUNDING, record.samples, record.seed, "float64")


def outputs_again(detail: OutputDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The probe inputs once more, against the outputs before the change."""
    allowed = detail.allowed_as_stored
    try:
        moved = relative(results(kept.network, kept.inputs), kept.reference)
    except (NetxformError, RuntimeError, IndexError):
        moved = math.inf
    name = "change of the outputs, probe inputs"
    return Evidence(name, allowed, moved, moved <= allowed, record.samples, record.seed)


@measures(WithinBound, WithinDetail, again=within_again, probed=True)
def within_bound(claim: WithinBound, case: Case) -> Measured:
    """The outputs against those of the network as it was, in float64 where it is not huge."""
    wanted = results(doubled(case.before) or case.before, case.inputs)
    found = results(case.after, case.inputs)
    gap = relative(found, wanted)
    allowed = claim.bound * (1 + _ROUNDING)
    dtype = str(next((p.dtype for p in case.after.module.parameters()), "")).removeprefix("torch.")
    what, detail = "relative change of the outputs", WithinDetail(allowed)
    evidence = Evidence(what, allowed, gap, gap <= allowed, case.count, case.seed, dtype, detail)
    return Measured(evidence, reference=wanted, found=found)


@measures(LayerErrors, LayersDetail, again=layers_again)
def layer_errors(claim: LayerErrors, case: Case) -> Measured:
    """Each kernel against its bound, and each layer on the input that it changed most on (power iteration)."""
    reference: list[Tensor] = []
    rows: list[LayerRow] = []
    for i, bound in enumerate(claim.layers):
        kernel, gain, x, y = _one(case.before, case.after, bound, case.seed + i)
        reference += [x, y]
        rows.append(LayerRow(bound.path, kernel, gain, kernel_bound=bound.kernel, gain_bound=bound.gain, how=bound.how))
    shares = [max(_share(r.kernel, r.kernel_bound), _share(r.gain, r.gain_bound)) for r in rows]
    broken = tuple(r.layer for r, s in zip(rows, shares, strict=True) if s > 1 + _ROUNDING)
    name = "layer errors over their bounds, at the worst inputs"
    detail = LayersDetail(tuple(rows), broken)
    evidence = Evidence(name, 1.0, max(shares, default=0.0), not broken, len(rows), case.seed, "float64", detail)
    return Measured(evidence, reference=tuple(reference))


def _share(measured: float, bound: float) -> float:
    """The measured value in terms of its bound; infinite where it is no number."""
    if math.isnan(measured):
        return math.inf
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


def _chain(part: nn.Module, x: Tensor) -> Tensor:
    links = links_of(part)
    with torch.no_grad():
        if isinstance(links[0], nn.Embedding):
            return table_part([copy.deepcopy(link).double() for link in links], x)
        flat = isinstance(links[0], nn.Linear) or x.dim() == 1
        return linear_part(links, x[None])[0] if flat else linear_part(links, x)


@measures(OutputError, OutputDetail, again=outputs_again, probed=True)
def output_error(claim: OutputError, case: Case) -> Measured:
    """The relative change of the outputs: on the probe inputs, and on held-out data where there is some."""
    wanted = results(case.before, case.inputs)
    found = results(case.after, case.inputs)
    moved = relative(found, wanted)
    detail = OutputDetail(moved, moved + 1e-5 * (1 + moved))
    count, name, measured = case.count, "change of the outputs, probe inputs", moved
    if claim.data is not None and case.material is not None:
        errors, agree = _on_data(case.before, case.after, claim, case.material)
        if errors:
            measured, count = _quantile(errors, claim.level), len(errors)
            detail = replace(detail, data=claim.data, level=claim.level, quantile=measured, mean=sum(errors) / count)
            if agree:
                least = _at_least(sum(agree), count, claim.level)
                detail = replace(detail, agreement=sum(agree) / count, agreement_at_least=least)
            what = case.material.held_out(claim.data)
            detail = replace(detail, measured_on=what)
            name = f"change of the outputs: {claim.level:.0%} of {what} stay below"
    held = math.isfinite(moved)
    if claim.worst is not None:
        reached = _reached(case.before, case.after, case.inputs, claim.radius)
        detail = replace(detail, worst_case=claim.worst, for_inputs_of_norm=claim.radius, reached_on_the_probe=reached)
        held = held and reached <= claim.worst * (1 + _ROUNDING)
    evidence = Evidence(name, math.inf, measured, held, count, case.seed, "float32", detail)
    return Measured(evidence, reference=wanted, found=found)


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
