"""Decisions on values and sizes: the graph does what the model does, or raises and names the line."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import netxform as nx
from netxform.artifacts.graph import from_json, to_json
from netxform.capture.capture import capture
from netxform.graph.edits import Edit, Truncate
from netxform.graph.guards import guards_of, require
from netxform.graph.surgery import perform
from tests.emitted import as_python


class Masked(nn.Module):
    """Leaves out a mask of ones, as many attention layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(20, 8)
        self.o = nn.Linear(8, 3)

    def forward(self, ids, mask):
        h = self.e(ids)
        m = None
        if not mask.all():
            m = mask[:, None, :].bool().expand(-1, ids.shape[1], -1)
        return self.o(F.scaled_dot_product_attention(h, h, h, attn_mask=m))


class Chooses(nn.Module):
    """Takes its way by a number that Python reads, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("on", torch.tensor(True))
        self.how = how

    def forward(self, x):
        h = self.fc(x)
        match self.how:
            case "bool":
                return h * 2 if (x > 0).any() else h
            case "item":
                return h * 2 if x.amax().item() > 0 else h
            case "float":
                return h * 2 if 0 < float(x.amax()) else h
            case "int":
                return h * (1 + int((x.amax() > 0).long()))
            case "index":
                return h * [1.0, 2.0][(x.amax() > 0).long()]
            case "tolist":
                return h * (1 + sum((x[0, :2] > 0).tolist()))
            case "equal":
                return h if torch.equal(x, x.abs()) else h * 2
            case "contains":
                return h if 0.0 in x else h * 2
            case _:
                return h * 2 if self.on and (x.amax() > 0) else h


WAYS = ["bool", "item", "float", "int", "index", "tolist", "equal", "contains", "buffer"]


def agrees(module: nn.Module, model: nn.Module, *inputs: Tensor) -> bool:
    """Whether the graph gives the model's values; False where it raises a guard. Anything else fails."""
    with torch.no_grad():
        wanted = model(*inputs)
        try:
            got = module(*inputs)
        except RuntimeError as error:
            assert "would not here" in str(error)
            return False
    assert torch.equal(got, wanted)
    return True


@pytest.mark.parametrize("how", WAYS)
def test_a_decision_on_a_value_is_kept(how: str) -> None:
    model = Chooses(how).eval()
    x = torch.rand(2, 4) + 0.1
    network = capture(model, x)
    assert agrees(network.module, model, x)
    assert not agrees(network.module, model, -x) or how == "contains"
    assert not agrees(network.module, model, torch.zeros_like(x)) or how in ("equal",)
    assert network.guards
    assert all(g.where.startswith("test_guards.py:") for g in network.guards)
    line = int(network.guards[-1].where.split(":")[1])
    assert network.guards[-1].what == linecache.getline(__file__, line).strip().rstrip(":")
    assert all(any(g.what in note for note in network.notes) for g in network.guards)


@pytest.mark.parametrize("how", ["bool", "item", "float"])
def test_what_is_compared_may_change_as_long_as_the_answer_stays(how: str) -> None:
    model = Chooses(how).eval()
    network = capture(model, torch.rand(2, 4) + 0.1)
    assert agrees(network.module, model, torch.rand(5, 4) + 3)


def test_a_mask_that_was_left_out_is_not_left_out_silently() -> None:
    model = Masked().eval()
    ids, ones = torch.randint(0, 20, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    padded = ones.clone()
    padded[0, 3:] = 0
    network = capture(model, ids, ones)
    assert agrees(network.module, model, ids, ones)
    assert agrees(network.module, model, ids[:, :4], ones[:, :4])
    assert agrees(network.module, model, ids, padded), "the general branch is right for both kinds of masks"
    other = capture(model, ids, padded)
    assert agrees(other.module, model, ids, padded)
    result = nx.apply("deepen o", model=model, example_inputs=(ids, ones))
    with torch.no_grad():
        assert torch.allclose(result.model(ids, padded), model(ids, padded), atol=1e-5)


class Sized(nn.Module):
    """Turns a size into a number of Python, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)
        self.table = [float(i) for i in range(30)]
        self.how = how

    def forward(self, x):
        h = self.cell(x[:, 0])
        match self.how:
            case "range":
                for t in range(x.size(1)):
                    h = torch.tanh(self.cell(x[:, t]) + h)
            case "shape":
                for t in range(0, x.shape[1], 2):
                    h = h + x[:, t]
            case "iterate":
                for part in x.transpose(0, 1):
                    h = h + part
            case "unbind":
                h = sum(x.unbind(1))
            case "split":
                h = torch.stack([p.sum(1) for p in x.split(2, dim=1)]).sum(0)
            case "branch":
                h = h * 2 if x.shape[1] > 5 else h
            case "table":
                h = h * self.table[x.shape[1]]
            case "repeat":
                h = h * sum([1.0] * x.shape[1])
            case "scale":
                h = h * x.shape[1] ** -0.5
            case "int":
                h = h * float(int(x.shape[1]))
            case "while":
                t = 0
                while t < x.shape[1]:
                    h, t = h + x[:, t], t + 1
            case "list":
                h = h * len(self.table[: x.shape[1]])
            case _:
                h = x.mean(1).view(x.size(0), -1) * -x.shape[1]
        return h


HOW = "range shape iterate unbind split branch table repeat scale int while list free".split()


@pytest.mark.parametrize("how", HOW)
def test_a_size_in_python_is_free_or_guarded(how: str) -> None:
    model = Sized(how).eval()
    network = capture(model, torch.randn(2, 5, 4))
    assert agrees(network.module, model, torch.randn(2, 5, 4))
    assert agrees(network.module, model, torch.randn(7, 5, 4))
    for length in (1, 2, 3, 4, 6, 7, 10, 13):
        agrees(network.module, model, torch.randn(3, length, 4))
    assert bool(network.guards) is (how not in ("free", "scale"))


def test_a_loop_over_the_batch_holds_for_that_batch() -> None:
    class Loop(nn.Module):
        def forward(self, x):
            return torch.stack([x[i] * i for i in range(x.shape[0])])

    network = capture(Loop(), torch.randn(2, 4))
    assert agrees(network.module, Loop(), torch.randn(2, 4))
    assert not agrees(network.module, Loop(), torch.randn(3, 4))


def test_sizes_that_cannot_change_are_not_guarded() -> None:
    class Checks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            h = self.conv(x)
            if h.shape[1] != 8:
                raise ValueError("channels")
            return h.view(h.shape[0], int(h.shape[1]), -1).mean(-1) if x.sum() < 1e9 else h

    model = Checks().eval()
    network = capture(model, torch.randn(2, 3, 6, 6))
    assert agrees(network.module, model, torch.randn(5, 3, 9, 8))
    assert [g.what.split(" if ")[1] for g in network.guards] == ["x.sum() < 1e9 else h"]


def test_a_cached_function_keeps_no_traced_size() -> None:
    from functools import cache

    @cache
    def halves(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], 2, shape[-1] // 2)

    class Cached(nn.Module):
        def forward(self, x):
            return x.reshape(halves(tuple(x.shape))).sum(-1) if x.sum() < 1e9 else x

    x = torch.randn(2, 6, 4)
    for _ in range(2):
        network = capture(Cached(), x)
        assert agrees(network.module, Cached(), torch.randn(3, 9, 8))
    assert all(type(n) is int for n in halves(tuple(x.shape)))


@pytest.mark.parametrize("how", [*WAYS, *(h for h in HOW if h != "free")])
def test_guards_go_into_artifacts_and_back(how: str, tmp_path: Path) -> None:
    model = (Chooses(how) if how in WAYS else Sized(how)).eval()
    x = torch.rand(2, 4) + 0.1 if how in WAYS else torch.rand(2, 5, 4)
    other = -x if how in WAYS else torch.rand(2, 9, 4)
    network = capture(model, x)
    again = from_json(to_json(network), dict(network.module.state_dict()))
    assert again.guards == network.guards
    alone = as_python(network, type(model).__name__, tmp_path)
    for module in (again.module, alone.eval()):
        assert agrees(module, model, x)
        assert agrees(module, model, other) == agrees(network.module, model, other)


def test_a_cut_before_the_decision_drops_the_guard_and_one_behind_keeps_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = self.a(x)
            h = self.b(h) * 2 if h.sum() < 1e9 else self.b(h)
            return self.c(h)

    network = capture(Two(), torch.randn(2, 4))
    assert guards_of(perform(network, Edit((Truncate("b"),))).module.graph)
    assert not guards_of(perform(network, Edit((Truncate("a"),))).module.graph)
    module = perform(network, Edit((Truncate("b"),))).module
    module.graph.eliminate_dead_code()
    assert guards_of(module.graph)


def test_guards_are_checks_that_export_takes() -> None:
    model = Chooses("bool").eval()
    x = torch.rand(2, 4)
    program = torch.export.export(capture(model, x).module.eval(), (x,))
    assert torch.equal(program.module()(x), model(x))
    with pytest.raises(RuntimeError):
        program.module()(-x)


def test_a_guard_says_what_it_is_about() -> None:
    with pytest.raises(RuntimeError, match=r"net\.py:3: if x"):
        require(torch.tensor(False), True, "net.py:3: if x")
    require(torch.tensor(float("nan")), float("nan"), "there")
    require(torch.empty((), device="meta"), True, "there")


def test_nothing_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    before = range, nn.Module.__call__, len(sys.modules)
    for how in WAYS:
        capture(Chooses(how), torch.rand(2, 4))
    with pytest.raises(nx.NetxformError):
        capture(nn.Linear(3, 3), torch.rand(2, 5))
    assert (range, nn.Module.__call__) == before[:2]
    assert isinstance(range(3), range)
    assert capsys.readouterr() == ("", "")
