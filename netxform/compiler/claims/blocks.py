"""The claim that blocks were taken out, and nothing else was done."""

from __future__ import annotations

import torch

from netxform.compiler.claims.exact import Nodes, dtype_of, nodes_again
from netxform.compiler.claims.registry import measures
from netxform.compiler.evidence import Case, Measured, distance, tensors_in, values_at
from netxform.graph.bypass import Skipping
from netxform.graph.meta import evaluating
from netxform.graph.outputs import outputs
from netxform.language.claims import Bypassed
from netxform.language.laws import Evidence


class BypassedDetail(Nodes, frozen=True):
    """The output values that were compared, by node, and the blocks."""

    blocks: tuple[str, ...]


@measures(Bypassed, BypassedDetail, again=nodes_again)
def bypassed(claim: Bypassed, case: Case) -> Measured:
    """The network as it was, run without the blocks, against the network as it is."""
    module = case.before.module
    with torch.no_grad(), evaluating(module):
        wanted = tensors_in(Skipping(module, claim.blocks).run(*[t.clone() for t in case.inputs]))
    names = tuple(dict.fromkeys(n.name for n in outputs(case.after.module).values()))
    found = values_at(case.after, names, case.inputs)
    worst = max((distance(a, b) for a, b in zip(found.values(), wanted, strict=True)), default=0.0)
    detail = BypassedDetail(tuple(sorted(names)), claim.blocks)
    dtype = dtype_of([found[n] for n in detail.nodes])
    said = Evidence(
        "as before without these blocks, bit for bit", 0.0, worst, worst == 0.0, case.count, case.seed, dtype, detail
    )
    return Measured(said, found, nodes=detail.nodes)
