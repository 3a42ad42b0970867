"""Claims about an input of another kind: the network computes what it did for what the new input stands for."""

from __future__ import annotations

from torch import Tensor

from netxform.compiler.claims.exact import FunctionDetail, as_stored, function_again
from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import EXACT, Case, Measured, Tolerance, doubled, ends, relative, results
from netxform.graph.input_channels import through
from netxform.graph.network import Network
from netxform.graph.probes import samples
from netxform.graph.surgery import perform
from netxform.language.claims import SameThrough
from netxform.language.laws import Evidence


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
