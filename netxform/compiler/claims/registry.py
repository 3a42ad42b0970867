"""Which claims there are, and how each is measured, and measured again from a bundle.

A claim is one file: its dataclass, its detail, `measure`, `again`, joined by one decorator:

    @measures(SameNorm, NormDetail, again=norm_again)
    def same_norm(claim: SameNorm, case: Case) -> Measured: ...

Files of this folder are found by themselves, those of other packages through the entry point group `netxform.claims`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from netxform.compiler.evidence import Case, Kept, Measured
from netxform.errors import fail
from netxform.graph.network import Network
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import Claim
from netxform.language.laws import Detail, Evidence
from netxform.registry import import_all

C = TypeVar("C", bound=Claim)
D = TypeVar("D", bound=Detail)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of claim. `measure` and `again` are functions, or the reason why there is none.

    `probed`: it is measured on the probes, and shows nothing where these say nothing.
    `stands`: whether the claim still speaks of a network, where that is not for the hash of tensors to say. `by_digest`: what
    is looked at again are hashes, for the old values are not kept. `repeats`: by how much of itself a number may come out
    otherwise when it is measured once more on the same machine.
    """

    claim: type[Claim]
    detail: type[Detail]
    measure: Callable[[Any, Case], Measured] | str
    again: Callable[[Any, ClaimRecord, Kept], Evidence] | str
    stands: Callable[[Any, Network], bool] | None = None
    by_digest: bool = False
    repeats: float = 0.0
    probed: bool = False


FAMILIES: dict[str, Family] = {}


def measures(
    claim: type[C],
    detail: type[D],
    *,
    again: Callable[[D, ClaimRecord, Kept], Evidence] | str,
    stands: Callable[[D, Network], bool] | None = None,
    by_digest: bool = False,
    repeats: float = 0.0,
    probed: bool = False,
) -> Callable[[Callable[[C, Case], Measured]], Callable[[C, Case], Measured]]:
    """Register the function as what measures this kind of claim. Its evidence has a `detail` of that very class.

    `again` measures it once more from what was kept: it gives the evidence anew, every number of it, and those of its detail
    that can be; it raises Unmeasurable, or is a text, to say why nothing can. `probed`: the claim is about the network's values
    on the probe inputs. Raises TypeError for a kind that is registered
    already, and for a detail that is none.
    """

    def register(function: Callable[[C, Case], Measured]) -> Callable[[C, Case], Measured]:
        _add(Family(claim, detail, function, again, stands, by_digest, repeats, probed))
        return function

    return register


def measured_elsewhere(
    claim: type[Claim],
    detail: type[Detail],
    *,
    where: str,
    again: Callable[[Any, ClaimRecord, Kept], Evidence] | str,
    stands: Callable[[Any, Network], bool] | None = None,
) -> None:
    """Register a kind whose evidence comes from who does the work: `where` says from whom; `again` and `stands` are as for
    `measures`.
    """
    _add(Family(claim, detail, where, again, stands))


def _add(made: Family) -> None:
    kind = getattr(made.claim, "kind", None)
    if not isinstance(kind, str) or not kind:
        raise TypeError(f"{made.claim.__name__} has no `kind`")
    if Detail not in made.detail.__mro__:
        raise TypeError(f"the detail of `{kind}` is no Detail: {made.detail.__name__}")
    known = FAMILIES.get(kind)
    if known is not None and known.claim is not made.claim:
        raise TypeError(f"claim `{kind}` is registered twice: {known.claim.__name__}, {made.claim.__name__}")
    FAMILIES[kind] = made


@cache
def load() -> None:
    """Import every file of this folder, and every claim that an installed package offers as `netxform.claims`."""
    import_all(__name__.rpartition(".")[0], "netxform.claims")


def family(kind: str) -> Family:
    """How a kind of claim is measured. Raises NetxformError X0827 where no installed package says so."""
    load()
    if kind not in FAMILIES:
        raise fail(
            "X0827",
            f"nothing here measures the claim `{kind}`",
            helps=("update netxform, or install the package that this claim comes from",),
        )
    return FAMILIES[kind]


def detail_of(kind: str) -> type[Detail]:
    """The detail of a kind of claim. Raises NetxformError X0827 where no installed package knows it."""
    return family(kind).detail
