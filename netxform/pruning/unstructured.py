"""Single weights set to zero: a share of all of them, or two of every four neighbours along the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from netxform.axes.infer import types_of
from netxform.graph.edits import Assign, Edit
from netxform.graph.network import Network
from netxform.graph.surgery import perform
from netxform.language.material import Material
from netxform.language.work import Training
from netxform.pruning.halves import Halves, halves
from netxform.pruning.iterative import Stop, recovered, tensors_of
from netxform.pruning.loss import answered, little_learnt
from netxform.pruning.needs import SCORES
from netxform.pruning.removal import Sign
from netxform.pruning.scores import Request
from netxform.pruning.spread import standard_error
from netxform.registry import called


def weights_in(network: Network, modules: Sequence[str] | None) -> tuple[str, ...]:
    """The weights of the Linear and Conv layers among the modules."""
    out: list[str] = []
    for path, part in network.module.named_modules():
        inside = modules is None or path in set(modules)
        if inside and isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            out.append(types_of(network).names[f"{path}.weight"])
    return tuple(dict.fromkeys(out))


@dataclass(frozen=True)
class Sparsity:
    """What is asked for. `amount`: the share that goes, or `below` (op, bound) on the score; `pattern` two of every four.

    `by`: a score of single weights, such as magnitude |w|, or obd-weights ½ h w². `ranking`: all weights in one list, or
    the same share of each tensor.
    """

    by: str
    amount: float
    below: tuple[Sign, float] | None
    pattern: bool
    ranking: Literal["global", "layer"]
    step: float | None
    data: str | None
    samples: int
    loss: Literal["cross_entropy", "mse", "bce"]


@dataclass(frozen=True)
class Zeroed:
    """The new tensors by name, those of them that are `sparse`, and how many of their `count` elements are zero.

    `chosen_on`: how many samples chose; on the `samples` behind them the change of the loss was `predicted`, with its standard
    `error` over samples, where the score predicts one. `metrics`: what the last training measured. `notes`: why
    the rounds ended early.
    """

    tensors: Mapping[str, Tensor]
    sparse: tuple[str, ...]
    zeros: int
    count: int
    chosen_on: int
    samples: int
    predicted: float | None
    error: float | None
    metrics: Mapping[str, float]
    notes: tuple[str, ...]


def zero_weights(
    network: Network, names: Sequence[str], wanted: Sparsity, recover: Sequence[Training], stop: Stop, material: Material
) -> Zeroed:
    """The lowest weights set to zero, in rounds where `step` says so; trainings in between keep the zeros."""
    trainings = [replace(w, held=tuple(dict.fromkeys((*w.held, *(n for n in names if n in w.parameters))))) for w in recover]
    rounds = 1 if wanted.step is None else max(1, math.ceil(wanted.amount / wanted.step - 1e-9))
    kind = SCORES.find(wanted.by)
    material = answered(material, network, None)
    parts = halves(material, wanted.data, wanted.samples, kind.data)
    judged: _Judged | None = _Judged() if kind.predicts and parts.judge else None
    notes, metrics = list[str](), dict[str, float]()
    if kind.predicts and wanted.data is not None:
        told = little_learnt(network, material.batches(wanted.data, parts.choose), wanted.loss)
        notes += [told] if told else []
    wanted = replace(wanted, samples=parts.choose or wanted.samples)
    done: dict[str, Tensor] = {}
    material.start("prune", rounds)
    try:
        for number in range(rounds):
            share = min(wanted.amount, (number + 1) * (wanted.step or 1.0))
            scores = _scores(network, names, wanted, material)
            held = dict(network.module.named_parameters(remove_duplicate=False))
            gone = _chosen(scores, wanted, share)
            if judged is not None:
                judged = judged.with_round(network, gone, wanted, parts, material)
            tensors = {n: held[n].detach().masked_fill(m.to(held[n].device), 0.0) for n, m in gone.items()}
            after = perform(network, Edit((Assign(tuple(tensors)),), tensors))
            after, found, broken = recovered(after, trainings, stop, material, number)
            if broken is not None:
                notes.append(broken)
                break
            network, metrics = after, found
            done |= tensors_of(network) if trainings else tensors
            material.step(f"round {number + 1}")
    finally:
        material.stop()
    done = {n: t.detach() for n, t in done.items()}
    sparse = [n for n in names if n in done]
    zeros, count = sum(int((done[n] == 0).sum()) for n in sparse), sum(done[n].numel() for n in sparse)
    predicted, error = (None, None) if judged is None else (judged.predicted, judged.error)
    chosen, samples = (parts.choose, parts.judge) if parts.judge else (0, parts.choose)
    return Zeroed(done, tuple(sparse), zeros, count, chosen, samples, predicted, error, metrics, tuple(notes))


@dataclass(frozen=True)
class _Judged:
    """The prediction so far, and the same sum for every sample (N,) where the score tells them apart."""

    predicted: float = 0.0
    totals_N: Tensor | None = None
    counted: bool = True

    @property
    def error(self) -> float | None:
        return standard_error(self.totals_N) if self.counted and self.totals_N is not None else None

    def with_round(
        self, network: Network, gone: Mapping[str, Tensor], wanted: Sparsity, parts: Halves, material: Material
    ) -> _Judged:
        """What this round's weights are predicted to cost, on samples that chose nothing. Those that were zero cost nothing."""
        kind, data = SCORES.find(wanted.by), wanted.data
        assert data is not None
        request = Request(lambda: material.batches(data, parts.judge, skip=parts.choose), wanted.loss)
        if kind.each is None:
            assert kind.weights is not None
            found = called(kind.weights)(network, tuple(gone), request)
            return _Judged(self.predicted + sum(float(found[n][m].sum()) for n, m in gone.items()), None, False)
        each = called(kind.each)(network, gone, request)
        own = each if self.totals_N is None else self.totals_N + each
        return _Judged(self.predicted + float(each.mean()), own, self.counted)


def _scores(network: Network, names: Sequence[str], wanted: Sparsity, material: Material) -> dict[str, Tensor]:
    kind, data = SCORES.find(wanted.by), wanted.data
    assert kind.weights is not None and (data is not None or not kind.data)
    request = Request(lambda: iter(()) if data is None else material.batches(data, wanted.samples), wanted.loss)
    return called(kind.weights)(network, names, request)


def _chosen(scores: Mapping[str, Tensor], wanted: Sparsity, share: float) -> dict[str, Tensor]:
    """The weights that go, as masks. Ties are broken by the order of tensors and positions."""
    if wanted.pattern:
        return {n: _two_of_four(s) for n, s in scores.items()}
    if wanted.below is not None:
        op, bound = wanted.below
        return {n: s < bound if op == "<" else s <= bound for n, s in scores.items()}
    if wanted.ranking == "layer":
        return {n: _lowest(s.flatten(), share).reshape(s.shape) for n, s in scores.items()}
    taken = _lowest(torch.cat([s.flatten() for s in scores.values()]), share)
    parts = taken.split([s.numel() for s in scores.values()])
    return {n: part.reshape(s.shape) for (n, s), part in zip(scores.items(), parts, strict=True)}


def _lowest(flat: Tensor, share: float) -> Tensor:
    out = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    out[torch.argsort(flat, stable=True)[: round(share * len(flat))]] = True
    return out


def _two_of_four(values: Tensor) -> Tensor:
    """The two lowest of every four neighbours along the inputs (dimension 1); a rest of fewer than four stays."""
    moved = values.movedim(1, -1)
    whole = moved.shape[-1] // 4 * 4
    mask = torch.zeros(moved.shape, dtype=torch.bool)
    four = moved[..., :whole].unflatten(-1, (-1, 4))
    low = four.argsort(dim=-1, stable=True)[..., :2]
    mask[..., :whole] = torch.zeros(four.shape, dtype=torch.bool).scatter(-1, low, True).flatten(-2)
    return mask.movedim(-1, 1)
