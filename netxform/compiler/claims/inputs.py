"""Claims about an input of another kind: the network computes what it did for what the new input stands for."""

from __future__ import annotations

import math

from torch import Tensor

from netxform.compiler.claims.exact import FunctionDetail, as_stored, function_again
from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import EXACT, Case, Kept, Measured, Tolerance, again_at, doubled, ends, relative, results
from netxform.graph.input_channels import through
from netxform.graph.network import Network
from netxform.graph.probes import samples
from netxform.graph.surgery import perform
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import Resized, SameThrough
from netxform.language.laws import Detail, Evidence


class ResizedDetail(Detail, frozen=True):
    """The sizes of the image, and the outputs that were compared: those whose shape is the same at both."""

    sizes: tuple[str, str]
    outputs: int = 0

    def found(self, measured: float, bound: float) -> str:
        """The change, and that nothing bounds it."""
        return f"{measured:.3g} of the largest output, on images of {self.sizes[0]} stretched to {self.sizes[1]}"


def _again(detail: ResizedDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The outputs now against those at the old size."""
    now = again_at(kept, record.nodes)
    pairs = [(a, b) for a, b in zip(now, kept.reference, strict=True) if a.shape == b.shape]
    gap = relative(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)) if pairs else math.inf
    found = ResizedDetail(detail.sizes, len(pairs))
    return Evidence(record.claim, math.inf, gap, math.isfinite(gap), kept.count, record.seed, record.dtype, found)


@measures(Resized, ResizedDetail, again=_again, probed=True)
def resized(claim: Resized, case: Case) -> Measured:
    """The outputs for the stretched probes against those for the probes as they were."""
    given = samples(case.after, case.seed)
    before, after = results(case.before, case.inputs), results(case.after, given)
    pairs = [(a, b) for a, b in zip(after, before, strict=True) if a.shape == b.shape]
    gap = relative(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)) if pairs else 0.0
    sizes = (" x ".join(map(str, claim.old)), " x ".join(map(str, claim.new)))
    detail = ResizedDetail(sizes, len(pairs))
    text = "change of the outputs from the old size to the new one"
    dtype = str(after[0].dtype).removeprefix("torch.") if after else "float32"
    said = Evidence(text, math.inf, gap, math.isfinite(gap), case.count, case.seed, dtype, detail)
    return Measured(said, reference=before, nodes=ends(case.after), nothing=not pairs, found=after)


def as_before(claim: SameThrough, network: Network, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the network before is given in the place of the new inputs."""
    pairs = zip(network.inputs, given, strict=True)
    return tuple(through(claim.M, t.double(), claim.dim) if i.name == claim.input else t for i, t in pairs)


@measures(SameThrough, FunctionDetail, again=function_again, probed=True)
def same_through(claim: SameThrough, case: Case) -> Measured:
    """The edit made on a float64 copy and run on new inputs, against the copy as it was on what they stand for; and the network
    as it is stored, on a line of its own. The new inputs are made of the probes: a mean of channels, or some once more.
    """
    given = samples(case.after, case.seed)
    inner = as_before(claim, case.before, given)
    copied = doubled(case.before)
    wanted, after = results(copied or case.before, inner), results(case.after, given)
    stored = as_stored(Case(case.before, case.after, given, case.seed, case.edit), wanted, after, inner)
    name = f"the same for what the old channels read of the new ones ({claim.how})"
    if copied is None:
        own = stored.evidence
        assert isinstance(own.detail, Tolerance)
        detail = FunctionDetail(0.0, own.detail)
        said = Evidence(name, own.bound, own.measured, own.held, case.count, case.seed, own.dtype, detail)
        return Measured(said, reference=stored.reference, nodes=stored.nodes, found=after)
    exact = relative(results(perform(copied, case.edit), given), wanted)
    said = Evidence(name, EXACT, exact, exact <= EXACT, case.count, case.seed, "float64", FunctionDetail())
    return Measured(said, nodes=ends(case.after), beside=(stored,), found=after)
