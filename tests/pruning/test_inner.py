"""Index sets inside attention and recurrent layers: opened the layers compute the same, and removal is the masked twin."""

from __future__ import annotations

import random
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netxform.axes.reindex import reindex
from netxform.capture.capture import capture
from netxform.pruning.curvature import gate_loss, saliency
from netxform.pruning.gates import free, gates, masked
from netxform.pruning.inner import opened
from netxform.pruning.scores import Request, known
from tests.pruning.test_curvature import EXACT, gap


@st.composite
def cells(draw: st.DrawFn) -> nn.RNNBase:
    """A recurrent layer of any form."""
    kind = draw(st.sampled_from(["RNN", "GRU", "LSTM"]))
    more: dict[str, Any] = {"proj_size": 2} if kind == "LSTM" and draw(st.booleans()) else {}
    if kind == "RNN":
        more["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    torch.manual_seed(draw(st.integers(0, 999)))
    made = getattr(nn, kind)(
        4, 5, num_layers=draw(st.integers(1, 3)), bidirectional=draw(st.booleans()), batch_first=draw(st.booleans()),
        bias=draw(st.booleans()), **more,
    )  # fmt: skip
    return made.double().eval()


@given(cells(), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_step_by_step_a_recurrent_layer_computes_the_same(cell: nn.RNNBase, batched: bool, start: bool) -> None:
    x = torch.randn(3, 6, 4, dtype=torch.float64) if batched else torch.randn(6, 4, dtype=torch.float64)
    count = cell.num_layers * (2 if cell.bidirectional else 1)
    middle = (x.shape[0 if cell.batch_first else 1],) if batched else ()
    states = [
        torch.randn(count, *middle, n, dtype=torch.float64) for n in (cell.proj_size or cell.hidden_size, cell.hidden_size)
    ]
    given_ = () if not start else ((states[0], states[1]),) if cell.mode == "LSTM" else (states[0],)
    holder = nn.ModuleDict({"cell": cell})
    with torch.no_grad():
        wanted = cell(x, *given_)
        found = opened(holder, "cell")(x, *given_)
    flat = lambda v: [v[0], *(v[1] if isinstance(v[1], tuple) else [v[1]])]  # noqa: E731
    assert all(a.shape == b.shape and gap(a, b) <= EXACT for a, b in zip(flat(found), flat(wanted), strict=True))


class Reads(nn.Module):
    """A recurrent layer and an attention over a sequence; the attention is called twice."""

    def __init__(self, cell: nn.RNNBase, features: bool) -> None:
        super().__init__()
        width = (cell.proj_size or cell.hidden_size) * (2 if cell.bidirectional else 1)
        self.cell, self.up = cell, nn.Linear(width, 6)
        sizes = width if features else None
        self.attention = nn.MultiheadAttention(6, 3, batch_first=True, kdim=sizes, vdim=sizes)
        self.features, self.head = features, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell(x)[0]
        y = self.up(h)
        for _ in range(2):
            y = y + self.attention(y, h if self.features else y, h if self.features else y, need_weights=False)[0]
        return self.head(y[:, -1])


@given(cells(), st.booleans(), st.integers(0, 99))
@settings(max_examples=8)
def test_inner_index_sets_are_scored_by_their_gates_and_removed_as_masked(cell: nn.RNNBase, features: bool, seed: int) -> None:
    cell.batch_first = True
    torch.manual_seed(seed)
    model = Reads(cell, features).double().eval()
    x, y = torch.randn(3, 5, 4, dtype=torch.float64), torch.arange(3)
    network = capture(model, x[:2])
    found = gates(network)
    assert not found.missing
    # the first order against the loss with gates itself
    scores = saliency(network, [(x, y)])
    m = {a.atom: torch.ones(a.size, dtype=torch.float64, requires_grad=True) for a in free(network)}
    slopes = torch.autograd.grad(gate_loss(network, list(found.gates), x, y, m, "cross_entropy"), list(m.values()))
    scale = max(float(s.abs().max()) for s in slopes)  # rounding is relative to the largest of what is added up
    for atom, slope in zip(m, slopes, strict=True):
        assert float((scores.first[atom] + slope).abs().max()) <= 1e-9 * scale
        assert bool((scores.second[atom] >= 0).all())
    weighed = known("magnitude")(network, Request(lambda: iter(())))
    assert not weighed.missing
    rng = random.Random(seed)
    sizes = {a.atom: a.size for a in free(network)}
    if cell.proj_size or cell.bidirectional or cell.num_layers > 1:  # one attribute states the sizes of all states
        sizes = {a: n for a, n in sizes.items() if any(g.layer and "weight" not in g.layer for g in found.of(a))}
    removed = {a: rng.sample(range(n), rng.randrange(1, n)) for a, n in sizes.items() if n > 1}
    names = {a.atom: a.name for a in free(network)}
    maps: dict[Any, list[int]] = {names[a]: [i for i in range(sizes[a]) if i not in gone] for a, gone in removed.items()}
    with torch.no_grad():
        wanted = masked(network, found, dict(removed), (x,))
        assert gap(reindex(network, maps).module(x), wanted) <= EXACT
        assert gap(wanted, network.module(x)) > EXACT  # something was removed
