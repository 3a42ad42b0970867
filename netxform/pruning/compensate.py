"""What the readers of removed indices are given instead: their mean in the bias, or a least-squares fit of the weights.

    Network, removed, batches ─fold | refit→ Compensation

*Fold*: bias += W[:, k] · E[a_k] (exact where a_k is constant and no zero padding lies between). *Refit*: with x the input of a
reader, S the kept features and C its covariance, W′ = W C[:, S] C[S, S]⁻¹ and b′ = b + W μ − W′ μ[S]: the least change of the
reader's output over the data (Hassibi, Stork, 1993, Optimal Brain Surgeon, for a whole group at once).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netxform.axes.algebra import Atom, positions
from netxform.axes.infer import types_of
from netxform.graph.inputs import arguments
from netxform.graph.inputs import count as size_of
from netxform.graph.network import Network
from netxform.pruning.gates import Gate, Gated, gates, masks
from netxform.pruning.ranking import kept
from netxform.pruning.scores import Request, activity

_LARGE = 8192  # features of one reader, above which no covariance matrix is made


@dataclass(frozen=True)
class Compensation:
    """New tensors by name, as they are behind the removal; layers that get a bias; readers that could not be compensated;
    the constants that stand for the removed values, by (operand, axis); readers that pad with zeros, where the fold is not
    exact at the border.
    """

    tensors: dict[str, Tensor]
    biases: tuple[str, ...]
    skipped: dict[str, str]
    means: dict[tuple[str, int], Tensor]
    padded: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reader:
    path: str
    gate: Gate
    gone: Tensor
    part: Any


def fold(network: Network, removed: Mapping[Atom, Sequence[int]], request: Request) -> Compensation:
    """The means of the removed values, in the biases of their readers."""
    readers, skipped = _readers(network, removed)
    seen = activity(network, request).means
    tensors: dict[str, Tensor] = {}
    for reader in readers:
        mean = seen[reader.gate.layer or reader.gate.operand, reader.gate.axis]
        shift = _shift(reader.part, torch.where(reader.gone, mean, torch.zeros_like(mean)))
        tensors[f"{reader.path}.bias"] = _rows(network, reader.path, removed, _bias(reader.part) + shift)
    done = {(r.gate.layer or r.gate.operand, r.gate.axis) for r in readers}
    return Compensation(
        tensors, _without_bias(readers), skipped, {k: m for k, m in seen.items() if k in done}, _padded(readers)
    )


def refit(network: Network, removed: Mapping[Atom, Sequence[int]], request: Request, ridge: float = 1e-6) -> Compensation:
    """The weights of the readers fitted again; `ridge` is relative to the mean variance of a feature."""
    readers, skipped = _readers(network, removed)
    for reader in list(readers):
        part = reader.part
        grouped = not isinstance(part, nn.Linear) and (part.groups != 1 or not isinstance(part, nn.Conv2d))
        if grouped or isinstance(getattr(part, "padding", None), str) or part.weight[0].numel() > _LARGE:
            readers.remove(reader)
            skipped[reader.path] = "fitted are Linear and Conv2d without groups, up to 8192 features"
    count = 0
    first = {r.path: torch.zeros(r.part.weight[0].numel(), dtype=torch.float64) for r in readers}
    second = {p: torch.zeros(len(m), len(m), dtype=torch.float64) for p, m in first.items()}
    rows = dict.fromkeys(first, 0)
    by_gate: dict[Gate, list[_Reader]] = {}
    for reader in readers:
        by_gate.setdefault(reader.gate, []).append(reader)

    def act(gate: Gate, value: Tensor) -> Tensor:
        for reader in by_gate[gate]:
            part = reader.part
            if isinstance(part, nn.Linear):
                x = value.reshape(-1, value.shape[-1])
            else:
                cut = F.unfold(value, part.kernel_size, part.dilation, part.padding, part.stride)
                x = cut.transpose(1, 2).reshape(-1, cut.shape[1])
            x = x.double()
            first[reader.path] += x.sum(0)
            second[reader.path] += x.T @ x
            rows[reader.path] += len(x)
        return value

    run = Gated(network, list(by_gate))
    with torch.no_grad():
        for x, _ in request.batches():
            run(arguments(x), act)
            count += size_of(x)
    tensors: dict[str, Tensor] = {}
    for reader in readers:
        path, weight = reader.path, reader.part.weight.detach().double()
        flat = weight.flatten(1)
        mean = first[path] / rows[path]
        covariance = second[path] / rows[path] - torch.outer(mean, mean)
        stay = (~reader.gone).repeat_interleave(flat.shape[1] // len(reader.gone))
        inner = covariance[stay][:, stay]
        inner = inner + torch.eye(len(inner), dtype=torch.float64) * (ridge * inner.diagonal().mean() + 1e-30)
        fitted = torch.linalg.solve(inner, (flat @ covariance[:, stay]).T).T
        bias = _bias(reader.part) + flat @ mean - fitted @ mean[stay]
        shaped = fitted.reshape(weight.shape[0], -1, *weight.shape[2:])
        tensors[f"{path}.weight"] = _rows(network, path, removed, shaped)
        tensors[f"{path}.bias"] = _rows(network, path, removed, bias)
    return Compensation(tensors, _without_bias(readers), skipped, {})


def _readers(network: Network, removed: Mapping[Atom, Sequence[int]]) -> tuple[list[_Reader], dict[str, str]]:
    """The layers that read removed indices at one place each; the other readers and why they are left alone."""
    found = gates(network)
    gone = masks(found.gates, dict(removed))
    nodes = {n.name: n for n in network.module.graph.nodes}
    modules = dict(network.module.named_modules(remove_duplicate=False))
    readers: dict[str, _Reader] = {}
    skipped: dict[str, str] = {}
    for gate, mask in gone.items():
        for name in (gate.layer,) if gate.layer is not None else gate.readers:
            node = nodes.get(name)
            path = name if gate.layer is not None else str(node.target) if node is not None and node.op == "call_module" else ""
            part = modules.get(path)
            if not isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                skipped[path or name] = "not a Linear or Conv layer"
            elif gate.layer is not None and part.bias is None:
                skipped[path] = "its attention has no bias"
            elif path in readers or list(types_of(network).names.values()).count(f"{path}.weight") != 1:
                readers.pop(path, None)
                skipped[path] = "it is called several times, or its weight is shared"
            elif path not in skipped:
                readers[path] = _Reader(path, gate, mask, part)
    return list(readers.values()), skipped


def _shift(part: Any, values: Tensor) -> Tensor:
    """What constant inputs (one a position) add to every output: (O,), float64."""
    weight = part.weight.detach().double().flatten(2).sum(2) if part.weight.dim() > 2 else part.weight.detach().double()
    groups = getattr(part, "groups", 1)
    by_group = values.reshape(groups, -1)
    return torch.cat([w @ v for w, v in zip(weight.chunk(groups), by_group, strict=True)])


def _bias(part: Any) -> Tensor:
    bias = cast("Tensor | None", part.bias)
    return torch.zeros(part.weight.shape[0], dtype=torch.float64) if bias is None else bias.detach().double()


def _rows(network: Network, path: str, removed: Mapping[Atom, Sequence[int]], tensor: Tensor) -> Tensor:
    """The rows that stay when the layer's own outputs are reduced."""
    maps = kept(removed)
    dim = types_of(network).tensors[types_of(network).names[f"{path}.weight"]][0]
    return tensor[torch.tensor(positions(dim, lambda a: maps.get(a) or range(a.size)))]


def _without_bias(readers: Sequence[_Reader]) -> tuple[str, ...]:
    return tuple(r.path for r in readers if r.part.bias is None)


def _padded(readers: Sequence[_Reader]) -> tuple[str, ...]:
    out: list[str] = []
    for reader in readers:
        padding = getattr(reader.part, "padding", 0)
        plain = padding == "valid" or (
            not isinstance(padding, str) and not any((padding,) if isinstance(padding, int) else padding)
        )
        if not plain:
            out.append(reader.path)
    return tuple(out)
