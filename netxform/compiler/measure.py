"""Claims measured on the user's own network.

Network before, Network after, Claim ─measure→ Measured
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from netxform.compiler.claims.registry import family
from netxform.compiler.evidence import Case as Case
from netxform.compiler.evidence import Measured as Measured
from netxform.compiler.evidence import digest as digest
from netxform.compiler.evidence import relative as relative
from netxform.compiler.evidence import results as results
from netxform.compiler.evidence import tensor_hash as tensor_hash
from netxform.compiler.evidence import tensors as tensors
from netxform.compiler.evidence import values_at as values_at
from netxform.compiler.vacuous import vacuous
from netxform.graph.edits import Edit
from netxform.graph.network import Network
from netxform.graph.probes import samples
from netxform.language.claims import Claim
from netxform.language.verb import Material


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

    Raises NetxformError X0827 (a claim that nothing measures); TypeError for one that is measured elsewhere.
    """
    known = family(claim.kind)
    if isinstance(known.measure, str):
        raise TypeError(f"`{claim.kind}` is not measured here: {known.measure}")
    found = known.measure(claim, Case(before, after, inputs, seed, edit or Edit(), material))
    if type(found.evidence.detail) is not known.detail:
        raise TypeError(f"`{claim.kind}` gives {type(found.evidence.detail).__name__}, not {known.detail.__name__}")
    evidence = replace(found.evidence, kind=claim.kind)
    if known.probed:
        case = Case(before, after, inputs, seed)
        evidence = replace(evidence, probes=str(before.probes or ""))
        if (why := vacuous(case, found)) is not None:
            evidence = replace(evidence, held=False, vacuous=why)
    return replace(found, evidence=evidence, found=(), nothing=found.nothing or claim.nothing)
