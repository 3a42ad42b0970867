"""Claims of the training contract: what is frozen stays, what was not trained has its bits, zeros are zeros."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from netxform.compiler.claims.registry import measured_elsewhere, measures
from netxform.compiler.evidence import Case, Kept, Measured, Unmeasurable, digest, same_bits, tensors, tensors_in
from netxform.graph.network import SAMPLES, Network
from netxform.language.certificate import ClaimRecord
from netxform.language.claims import FrozenInTraining, TeacherKept, Untouched, ZerosHeld
from netxform.language.laws import Detail, Evidence


class Frozen(Detail, frozen=True):
    """What is frozen, by name."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


class Hashed(Detail, frozen=True):
    """The hash of the tensors that the claim names."""

    digest: str


class UntouchedDetail(Hashed, frozen=True):
    """How many tensors were compared; the first few that changed."""

    tensors: int
    changed: tuple[str, ...] = ()


class ZerosDetail(Hashed, frozen=True):
    """How many zeros there were."""

    zeros: int


class TeacherDetail(Detail, frozen=True):
    """The fingerprint of the teacher after the training, and whether its answers were remembered."""

    digest: str
    answers: str


def bits_again(detail: Hashed, record: ClaimRecord, kept: Kept) -> Evidence:
    """The named tensors have the bits that they had."""
    same = digest(kept.network.module, record.tensors) == detail.digest
    if not same and not kept.in_force:
        raise Unmeasurable("only the hash of its tensors is kept, and that is another one now")
    return Evidence(record.claim, 0.0, 0.0 if same else math.inf, same, 0, 0, "bits", detail)


def zeros_again(detail: ZerosDetail, record: ClaimRecord, kept: Kept) -> Evidence:
    """The hash; and that there are as many zeros."""
    found = bits_again(detail, record, kept)
    named = tensors(kept.network.module)
    count = sum(int((named[n] == 0).sum()) for n in record.tensors if n in named)
    return replace(found, held=found.held and count >= detail.zeros)


def frozen_again(detail: Frozen, record: ClaimRecord, kept: Kept) -> Evidence:
    """One more step in train mode, of all that the plan says is frozen."""
    named = kept.claim or {"parameters": detail.parameters, "buffers": detail.buffers}
    found = Frozen(tuple(named["parameters"]), tuple(named["buffers"]))
    return _frozen(found, kept.network, kept.inputs, record.seed)


def frozen_stands(detail: Frozen, network: Network) -> bool:
    """Whether every frozen parameter is there and asks for no gradient."""
    flags = {n: p.requires_grad for n, p in network.module.named_parameters(remove_duplicate=False)}
    return not any(flags.get(n, True) for n in detail.parameters)


@measures(FrozenInTraining, Frozen, again=frozen_again, stands=frozen_stands)
def frozen_in_training(claim: FrozenInTraining, case: Case) -> Measured:
    """One step forward and backward in train mode, on a copy."""
    return Measured(_frozen(Frozen(claim.parameters, claim.buffers), case.after, case.inputs, case.seed))


def _frozen(detail: Frozen, network: Network, inputs: tuple[Tensor, ...], seed: int) -> Evidence:
    module = copy.deepcopy(network.module).train()
    before = {n: t.clone() for n, t in module.named_buffers(remove_duplicate=False) if n in set(detail.buffers)}
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
    buffers = dict(module.named_buffers(remove_duplicate=False))
    moved = sum(not torch.equal(buffers[n], t) for n, t in before.items())
    moved += sum(parameters[n].grad is not None for n in detail.parameters if n in parameters)
    return Evidence("frozen in train() mode", 0.0, float(moved), moved == 0, SAMPLES, seed, "float32", detail)


@measures(Untouched, UntouchedDetail, again=bits_again, by_digest=True)
def untouched(claim: Untouched, case: Case) -> Measured:
    """Every tensor that is not named as trained, before and after."""
    old, new = tensors(case.before.module), tensors(case.after.module)
    names = tuple(n for n in old if n not in set(claim.trained))
    changed = tuple(n for n in names if n not in new or not same_bits(old[n], new[n]))
    detail = UntouchedDetail(digest(case.before.module, names), len(names), changed[:5])
    evidence = Evidence("untouched tensors, bit for bit", 0.0, float(len(changed)), not changed, 0, 0, "bits", detail)
    return Measured(evidence, tensors=names, nothing=not names)


@measures(ZerosHeld, ZerosDetail, again=zeros_again, by_digest=True)
def zeros_held(claim: ZerosHeld, case: Case) -> Measured:
    """The zeros that were there against what is there now."""
    old, new = tensors(case.before.module), tensors(case.after.module)
    lost = sum(int((new[n][old[n] == 0] != 0).sum()) for n in claim.tensors)
    zeros = sum(int((old[n] == 0).sum()) for n in claim.tensors)
    detail = ZerosDetail(digest(case.after.module, claim.tensors), zeros)
    return Measured(Evidence("zeros held", 0.0, float(lost), lost == 0, 0, 0, "bits", detail), tensors=claim.tensors)


def teacher_stands(detail: TeacherDetail, network: Network) -> bool:
    """It speaks of a teacher, which nothing that is done to the network changes."""
    return True


measured_elsewhere(
    TeacherKept,
    TeacherDetail,
    where="who trains compares the teachers",
    again="the teachers are not in the bundle",
    stands=teacher_stands,
)
