"""Claims of the bounded contract: what a layer may change by, and how far the outputs moved."""

# Long: each claim stands with how it is measured once more.

from __future__ import annotations

import copy
import math
from dataclasses import fields
from typing import cast

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import (
    KEPT_BYTES,
    Case,
    Kept,
    Measured,
    Unmeasurable,
    again_at,
    doubled,
    ends,
    relative,
    results,
    size_of,
    tensors,
)
from netxform.compiler.harms import accuracy_fell, class_changed
from netxform.factorization.difference import kernel_error, linear_part, links_of, matrix_of, matrix_worst, table_part, worst
from netxform.factorization.geometry import Geometry, geometry, layer
from netxform.graph.network import Network
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import LayerBound, LayerErrors, OutputError, WithinBound
from netxform.language.laws import Detail, Evidence, Harm, Real
from netxform.language.material import HeldOut, Material

# a bound is compared in float64, where the two sides of an equality differ by rounding
_ROUNDING = 1e-6
# the power iteration is in the precision of the weights, and is not run to its end: it does not end at the same bits elsewhere
_ITERATION = 1e-4


class Shape(Detail, frozen=True):
    """The numbers of a layer that is linear in its weight (`factorization.geometry.Geometry`)."""

    kind: str
    outputs: int
    inputs: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    padding_mode: str = "zeros"
    padding_idx: int | None = None


class LayerRow(Detail, frozen=True):
    """One layer: ‖K − K̂‖_F of its kernel and the gain that was reached, each with its bound; `how` names that on the gain.

    `layer_before` is what it was, for one sample of `size`, if it is a layer of its own; `kept`: its kernel is in the folder.
    """

    layer: str
    kernel: Real
    gain: Real
    kernel_bound: Real
    gain_bound: Real
    how: str
    size: tuple[int, ...] = ()
    layer_before: Shape | None = None
    kept: bool = True


class LayersDetail(Detail, frozen=True):
    """A row a layer; the layers that are above a bound."""

    layers: tuple[LayerRow, ...]
    broken: tuple[str, ...] = ()


class OutputDetail(Detail, frozen=True):
    """The relative change of the outputs on the probe inputs.

    With `data`: the samples that it was `measured_on`, the quantile at `level` and the mean of the change over them, how often
    the largest output is the same, and a lower bound of that at `level`; `kept`: these samples are in the folder. With a
    `worst_case`: the bound for inputs of that norm, and what the probe reached.
    """

    on_the_probe: Real
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
    kept: bool = True
    samples: int | None = None
    accuracy_before: Real | None = None
    accuracy_after: Real | None = None

    def harms(self, measured: float) -> tuple[Harm, ...]:
        """Accuracy that fell by more than a point; where no labels say so, classes that changed."""
        where = self.measured_on or "samples"
        if self.accuracy_before is not None and self.accuracy_after is not None:
            return accuracy_fell(self.accuracy_before, self.accuracy_after, self.samples or 0, where)
        return () if self.agreement is None else class_changed(self.agreement, self.samples or 0, where)

    def metrics_after(self) -> dict[str, float]:
        """`accuracy` and `agreement` with the network before, on held-out samples."""
        known = {"accuracy": self.accuracy_after, "agreement": self.agreement}
        return {n: v for n, v in known.items() if v is not None}

    def metrics_before(self) -> dict[str, float]:
        """The accuracy on test or validation samples."""
        part = {"test samples": "test", "validation samples": "val"}.get(self.measured_on or "")
        return {f"{part}_accuracy": self.accuracy_before} if part and self.accuracy_before is not None else {}

    def found(self, measured: float, bound: float) -> str:
        """The change, and how often the class is the same."""
        if self.agreement is None or self.agreement_at_least is None:
            return super().found(measured, bound)
        return f"{measured:.3g}; same class for {self.agreement:.1%}, at least {self.agreement_at_least:.1%}"


class WithinDetail(Detail, frozen=True):
    """The bound that was stated; rounding of the comparison itself is on top of it."""

    sized = True

    stated: Real


def within_again(detail: WithinDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The outputs of the stored network against those before the change."""
    gap = relative(again_at(kept, record.nodes), kept.reference) if kept.reference else math.inf
    stated = float(kept.claim.get("bound", detail.stated))
    allowed = stated * (1 + _ROUNDING)
    found = WithinDetail(stated)
    return Evidence(record.claim, allowed, gap, gap <= allowed, kept.count, record.seed, record.dtype, found)


def layers_again(detail: LayersDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """Each kernel against the one that was kept, and the power iteration once more.

    Raises Unmeasurable where a kernel was not kept; the chains are compared on the inputs that were kept nevertheless.
    """
    given, rows, lost = list(kept.reference), list[LayerRow](), list[str]()
    stated = kept.claim.get("layers", [{}] * len(detail.layers))
    if len(stated) != len(detail.layers):
        raise Unmeasurable("its rows are not those of the plan", _layers_evidence(record.claim, (), record.seed))
    for i, (row, said) in enumerate(zip(detail.layers, stated, strict=True)):
        bounds = {"kernel_bound": said.get("kernel", row.kernel_bound), "gain_bound": said.get("gain", row.gain_bound)}
        names = {
            "layer": said.get("path", row.layer),
            "how": said.get("how", row.how),
            "size": tuple(said.get("size", row.size)),
        }
        row = replace(row, **bounds, **names)
        size = 3 if row.kept else 2
        parts, given = given[:size], given[size:]
        try:
            if len(parts) < size:
                raise IndexError("nothing was kept")
            row = _row_again(row, kept.network, parts, record.seed + i)
        except (AttributeError, RuntimeError, IndexError, TypeError, ValueError, AssertionError) as error:
            if not kept.in_force:
                raise Unmeasurable(f"`{row.layer}` is another layer now") from error
            row = replace(row, kernel=math.inf, gain=math.inf)
        if not row.kept:
            lost.append(row.layer)
        rows.append(row)
    found = _layers_evidence(record.claim, tuple(rows), record.seed)
    if lost:
        raise Unmeasurable(f"the kernels of {len(lost)} layers are too large to keep", found)
    return found


def _row_again(row: LayerRow, network: Network, parts: list[Tensor], seed: int) -> LayerRow:
    path, _, name = row.layer.partition("::")
    part = network.module.get_submodule(path)
    x, y = parts[0], parts[1]
    if not row.kept:
        z = matrix_of(part, name) @ x if name else _chain(part, x)
        gain = float((z - y).norm()) / float(x.norm()) if z.shape == y.shape else math.inf
        # the gain on that input is what it was; the kernel cannot be compared
        return replace(row, gain=gain)
    if name:
        second = matrix_of(part, name)
        first = parts[2].double()
        return replace(row, kernel=float((first - second).norm()), gain=matrix_worst(first, second, seed).gain)
    assert row.layer_before is not None
    old = _layer_of(row.layer_before, parts[2])
    return replace(row, kernel=kernel_error(old, part)[0], gain=worst(old, part, row.size, seed).gain)


def _layer_of(shape: Shape, weight: Tensor) -> nn.Module:
    """The layer before, without its bias, from its numbers and its weight."""
    call = layer(Geometry(**{n: getattr(shape, n) for n in shape.__struct_fields__}))
    made: nn.Module = getattr(nn, call.name)(*call.arguments, **call.keywords, device="meta")
    made.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    return made


def _layers_evidence(name: str, rows: tuple[LayerRow, ...], seed: int) -> Evidence:
    shares = [max(_share(r.kernel, r.kernel_bound), _share(r.gain, r.gain_bound)) for r in rows]
    broken = tuple(r.layer for r, s in zip(rows, shares, strict=True) if s > 1 + _ROUNDING)
    top = max(shares, default=math.inf)
    return Evidence(name, 1 + _ROUNDING, top, top <= 1 + _ROUNDING, len(rows), seed, "float64", LayersDetail(rows, broken))


def outputs_again(detail: OutputDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The probe inputs and the samples once more, against the outputs before the change.

    Raises Unmeasurable where the samples were not kept.
    """
    given, now = list(kept.reference), again_at(kept, record.nodes)
    count = len(now)
    wanted, given = tuple(given[:count]), given[count:]
    moved = relative(now, wanted)
    found, measured, samples = replace(detail, on_the_probe=moved), moved, kept.count
    held = math.isfinite(moved)
    if detail.worst_case is not None and detail.for_inputs_of_norm is not None:
        there, given = tuple(given[:count]), given[count:]
        x = _scaled(kept.inputs, detail.for_inputs_of_norm)
        reached = _farthest(there, again_at(_on(kept, x), record.nodes))
        limit = float(kept.claim.get("worst") or detail.worst_case)
        found = replace(found, worst_case=limit, reached_on_the_probe=reached)
        held = held and reached <= limit * (1 + _ROUNDING)
    if detail.data is not None and detail.level is not None:
        if not detail.kept:
            said = Evidence(record.claim, math.inf, record.measured, held, record.samples, record.seed, "float32", found)
            raise Unmeasurable("the samples that it was measured on are too large to keep", said)
        errors, agree = list[float](), list[bool]()
        for x, old in zip(given[::2], given[1::2], strict=True):
            _beside(old, again_at(_on(kept, (x,)), record.nodes)[0], errors, agree)
        found, measured, samples = _statistics(found, errors, agree)
    return Evidence(record.claim, math.inf, measured, held, samples, record.seed, "float32", found)


def _on(kept: Kept, inputs: tuple[Tensor, ...]) -> Kept:
    return Kept(kept.network, inputs, kept.values, kept.now, kept.reference, kept.slack, kept.in_force)


@measures(WithinBound, WithinDetail, again=within_again, probed=True)
def within_bound(claim: WithinBound, case: Case) -> Measured:
    """The outputs against those of the network as it was, in float64 where it is not huge."""
    wanted = results(doubled(case.before) or case.before, case.inputs)
    found = results(case.after, case.inputs)
    gap = relative(found, wanted)
    allowed = claim.bound * (1 + _ROUNDING)
    dtype = str(next((p.dtype for p in case.after.module.parameters()), "")).removeprefix("torch.")
    what, detail = "relative change of the outputs", WithinDetail(claim.bound)
    evidence = Evidence(what, allowed, gap, gap <= allowed, case.count, case.seed, dtype, detail)
    return Measured(evidence, reference=wanted, nodes=ends(case.after), found=found)


@measures(LayerErrors, LayersDetail, again=layers_again, repeats=_ITERATION)
def layer_errors(claim: LayerErrors, case: Case) -> Measured:
    """Each kernel against its bound, and each layer on the input that it changed most on (power iteration)."""
    reference: list[Tensor] = []
    rows: list[LayerRow] = []
    room = KEPT_BYTES
    for i, bound in enumerate(claim.layers):
        row, x, y, held = _one(case.before, case.after, bound, case.seed + i)
        reference += [x, y]
        if size_of([held]) <= room:
            reference.append(held)
            room -= size_of([held])
        else:
            row = replace(row, kept=False)
        rows.append(row)
    evidence = _layers_evidence("layer errors over their bounds, at the worst inputs", tuple(rows), case.seed)
    paths = {row.layer.partition("::")[0] for row in rows}
    names = tuple(n for n in tensors(case.after.module) if any(n.startswith(f"{p}.") for p in paths))
    return Measured(evidence, tensors=names, reference=tuple(reference))


def _share(measured: float, bound: float) -> float:
    """The measured value in terms of its bound; infinite where it is no number."""
    if math.isnan(measured):
        return math.inf
    return 0.0 if measured == 0.0 else measured / bound if bound > 0 else math.inf


def _one(before: Network, after: Network, bound: LayerBound, seed: int) -> tuple[LayerRow, Tensor, Tensor, Tensor]:
    path, _, name = bound.path.partition("::")
    old, new = before.module.get_submodule(path), after.module.get_submodule(path)
    row = LayerRow(bound.path, 0.0, 0.0, kernel_bound=bound.kernel, gain_bound=bound.gain, how=bound.how, size=bound.size)
    if name:
        first, second = matrix_of(old, name), matrix_of(new, name)
        found = matrix_worst(first, second, seed)
        return replace(row, kernel=float((first - second).norm()), gain=found.gain), found.x, found.y, first
    g = geometry(old)
    assert isinstance(g, Geometry)
    found = worst(old, new, bound.size, seed)
    shape = Shape(**{f.name: getattr(g, f.name) for f in fields(g) if f.name != "bias"})
    row = replace(row, kernel=kernel_error(old, new)[0], gain=found.gain, layer_before=shape)
    return row, found.x, found.y, cast(Tensor, old.weight).detach()


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
    after = results(case.after, case.inputs)
    moved = relative(after, wanted)
    detail, reference = OutputDetail(moved), wanted
    count, name, measured = case.count, "change of the outputs, probe inputs", moved
    held = math.isfinite(moved)
    if claim.worst is not None:
        x = _scaled(case.inputs, claim.radius)
        there = results(case.before, x)
        reached, reference = _farthest(there, results(case.after, x)), (*reference, *there)
        detail = replace(detail, worst_case=claim.worst, for_inputs_of_norm=claim.radius, reached_on_the_probe=reached)
        held = held and reached <= claim.worst * (1 + _ROUNDING)
    if claim.data is not None and case.material is not None:
        errors, agree, right, seen = _on_data(case.before, case.after, claim, case.material)
        if errors:
            what = case.material.held_out(claim.data)
            fits = size_of(seen) <= KEPT_BYTES
            detail = replace(detail, data=claim.data, level=claim.level, measured_on=what, kept=fits)
            detail, measured, count = _statistics(detail, errors, agree)
            detail = replace(detail, samples=count)
            if right:
                was, now = (sum(r[i] for r in right) / count for i in (0, 1))
                detail = replace(detail, accuracy_before=was, accuracy_after=now)
            reference = (*reference, *seen) if fits else reference
            name = f"change of the outputs: {claim.level:.0%} of {what} stay below"
    evidence = Evidence(name, math.inf, measured, held, count, case.seed, "float32", detail)
    return Measured(evidence, reference=reference, nodes=ends(case.after), found=after)


def _scaled(inputs: tuple[Tensor, ...], radius: float) -> tuple[Tensor, ...]:
    """The inputs, each sample scaled to that norm."""
    return tuple(t / t.flatten(1).norm(dim=1).reshape(-1, *[1] * (t.dim() - 1)) * radius for t in inputs)


def _farthest(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> float:
    """The largest 2-norm of a change; infinite where it is no number."""
    if [t.shape for t in old] != [t.shape for t in new]:
        return math.inf
    gaps = [float((a.double() - b.double()).flatten(1).norm(dim=1).max()) for a, b in zip(old, new, strict=True)]
    return max((g if g == g else math.inf for g in gaps), default=0.0)


def _on_data(
    before: Network, after: Network, claim: OutputError, material: Material
) -> tuple[list[float], list[bool], list[tuple[bool, bool]], list[Tensor]]:
    """Sample by sample: the relative change, whether the class is the same, and whether it is right before and after; and the
    samples with the outputs before.
    """
    errors: list[float] = []
    agree: list[bool] = []
    right: list[tuple[bool, bool]] = []
    seen: list[Tensor] = []
    assert claim.data is not None
    for x, y in material.fresh(claim.data, claim.samples, skip=claim.skip):
        old, new = (results(n, (x,)) for n in (before, after))
        for a, b in zip(old[:1], new[:1], strict=True):
            _beside(a, b, errors, agree)
            if a.dim() == 2 and not y.dtype.is_floating_point and y.shape == a.shape[:1]:
                right += zip((a.argmax(1) == y).tolist(), (b.argmax(1) == y).tolist(), strict=True)
            seen += [x, a]
    return errors, agree, right, seen


def _beside(old: Tensor, new: Tensor, errors: list[float], agree: list[bool]) -> None:
    """The relative change of each sample, and whether its largest output is the same."""
    flat_old, flat_new = old.double().flatten(1), new.double().flatten(1)
    gaps = (flat_old - flat_new).norm(dim=1) / flat_old.norm(dim=1).clamp_min(1e-300)
    errors += [g if g == g else math.inf for g in gaps.tolist()]
    if old.dim() == 2:
        agree += (old.argmax(1) == new.argmax(1)).tolist()


def _statistics(detail: OutputDetail, errors: list[float], agree: list[bool]) -> tuple[OutputDetail, float, int]:
    """The detail with the quantile, the mean and the agreement; the quantile; the number of samples."""
    level, count = detail.level or 0.0, len(errors)
    if not count:
        return detail, math.inf, 0
    measured = _quantile(errors, level)
    detail = replace(detail, quantile=measured, mean=sum(errors) / count)
    if agree:
        share = sum(agree) / count
        detail = replace(detail, agreement=share, agreement_at_least=_at_least(sum(agree), count, level))
    return detail, measured, count


def _quantile(errors: list[float], level: float) -> float:
    """Split-conformal (Vovk et al. 2005): the next exchangeable sample is below it with at least this probability."""
    rank = math.ceil((len(errors) + 1) * level)
    return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf


def _at_least(right: int, count: int, level: float) -> float:
    """The lower end of the one-sided interval of Clopper and Pearson (1934)."""
    from scipy.special import betaincinv  # imported here: it takes a fifth of a second

    return 0.0 if right == 0 else float(betaincinv(right, count - right + 1, 1 - level))
