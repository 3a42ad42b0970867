"""State between calls: buffers are written as the model writes them; what Python keeps is noted or refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.capture.capture import capture
from tests.capture.test_modes import assert_same


class Keeps(nn.Module):
    """A module that keeps something between calls, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.how = how
        self.k = 0
        self.seen: list[Any] = []
        self.table: dict[Any, Any] = {}
        self.last: Any = None
        self.settings = type("Settings", (), {})()
        self.settings.calls = 0

    def forward(self, x):
        h = self.fc(x)
        match self.how:
            # nothing depends on it
            case "counts":
                self.k += 1
            case "logs":
                self.k += 1
                if self.k % 100 == 0:
                    self.seen = []
            case "appends":
                self.seen.append(x.shape[0])
            case "shows":
                self.last = h
            case "caches":
                if "steps" not in self.table:
                    self.table["steps"] = torch.arange(4.0)
                h = h + self.table["steps"]
            case "nested":
                self.settings.calls += 1
            case "in training":
                if self.training:
                    self.k += 1
            # something does
            case "scales":
                self.k += 1
                h = h * self.k
            case "later":
                self.k += 1
                if self.k > 1000:
                    h = h * 2
            case "first":
                if self.last is None:
                    self.last = 1
                    h = h * 2
            case "remembers":
                h = h if self.last is None else h + self.last.mean()
                self.last = h
            case "grows":
                self.seen.append(1)
                h = h + len(self.seen)
            case "inner":
                self.settings.calls += 1
                h = h - self.settings.calls
            case "warms up":
                if self.training:
                    self.k += 1
                    h = h * min(1.0, self.k / 10)
            case _:
                pass
        return h


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("how", ["counts", "logs", "appends", "shows", "caches", "nested", "in training"])
def test_what_nothing_depends_on_is_noted_and_left_as_it_was(how: str, recorded: bool) -> None:
    model = nn.Sequential(Keeps(how), Recorded() if recorded else nn.Identity())
    before = {k: copy.deepcopy(v) for k, v in vars(model[0]).items() if not k.startswith("_")}
    x = torch.randn(3, 4)
    network = capture(model, x)
    for training in (False, True):
        for inputs in (x, torch.randn(5, 4)):
            assert_same(network.module.train(training), model.train(training), inputs)
    model.train()
    assert {k: v for k, v in vars(model[0]).items() if k in before and k != "settings"} == {
        k: v for k, v in before.items() if k != "settings"
    }
    assert model[0].settings.calls == 0
    assert any("not part of the graph" in n and "`0." in n for n in network.notes)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("how", ["scales", "later", "first", "remembers", "grows", "inner", "warms up"])
def test_what_changes_later_calls_is_refused_by_name(how: str, recorded: bool) -> None:
    model = nn.Sequential(Keeps(how), Recorded() if recorded else nn.Identity())
    with pytest.raises(nx.NetxformError, match=r"`0\.(k|last|seen|settings)` of the model changes") as caught:
        capture(model, torch.randn(3, 4))
    assert caught.value.diagnostics[0].helps


class Recorded(nn.Module):
    """What the recorder alone can capture."""

    def forward(self, x):
        return x if x.sum() < 1e9 else -x


class Writes(nn.Module):
    """A module that writes its buffers, in the manner asked for."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.how = how

    def forward(self, x):
        h = self.fc(x)
        match self.how:
            case "still":
                if self.training:
                    with torch.no_grad():
                        self.mean.mul_(0.9).add_(h.mean(0) * 0.1)
            case "bound":
                with torch.no_grad():
                    self.mean = self.mean * 0.9 + h.mean(0) * 0.1
            case "bound in training":
                if self.training:
                    self.mean = 0.9 * self.mean + 0.1 * h.mean(0).detach()
            case "copied":
                with torch.no_grad():
                    self.mean.copy_(h.mean(0))
            case "counted":
                self.count += 1
                return h / self.count
            case "slice":
                with torch.no_grad():
                    self.mean[1:] = h.mean(0)[1:]
            case "lerp":
                if self.training:
                    self.mean.lerp_(h.detach().mean(0), 0.1)
            case "decorated":
                self.update(h)
            case _:
                pass
        return h - self.mean

    @torch.no_grad()
    def update(self, h):
        self.mean += h.mean(0)
        self.count.add_(1)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("how", ["still", "bound", "bound in training", "copied", "counted", "slice", "lerp", "decorated"])
def test_buffers_are_written_as_the_model_writes_them(how: str, recorded: bool) -> None:
    model = nn.Sequential(Writes(how), Recorded() if recorded else nn.Identity(), Writes(how))
    x = torch.randn(3, 4)
    held = {n: b.clone() for n, b in model.named_buffers()}
    network = capture(model, x)
    assert all(torch.equal(b, held[n]) for n, b in model.named_buffers())
    for training in (False, True):
        assert_same(network.module.train(training), model.train(training), x)
    ours, theirs = copy.deepcopy(network.module).train(), copy.deepcopy(model).train()
    for _ in range(3):  # and again: no history is kept, gradients are the model's
        inputs = torch.randn(5, 4)
        for part in (ours, theirs):
            part(inputs).square().sum().backward()
    buffers = dict(ours.named_buffers())
    assert all(torch.equal(b, buffers[n]) and not b.requires_grad for n, b in theirs.named_buffers())
    grads = {n: p.grad for n, p in ours.named_parameters()}
    assert all(torch.equal(p.grad, grads[n]) for n, p in theirs.named_parameters())


class Still(nn.Module):
    """A part whose values carry no gradient."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.how = how

    def forward(self, x):
        match self.how:
            case "layer":
                with torch.no_grad():
                    h = self.body(x)
            case "weight":
                with torch.no_grad():
                    h = nn.functional.linear(x, self.body.weight).relu()
                h = h * self.scale
            case "list":
                h = self.body(x)
                with torch.no_grad():
                    h2 = torch.cat([h, x], 1).chunk(2, 1)[0]
                h = h + h2
            case "checkpoint":
                h = torch.utils.checkpoint.checkpoint(self.body, x.requires_grad_(), use_reentrant=True)
            case _:
                with torch.no_grad(), torch.enable_grad():
                    h = self.body(x)
        return self.head(h)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("how", ["layer", "weight", "list", "checkpoint", "on again"])
def test_gradients_stop_where_the_model_stops_them(how: str, recorded: bool) -> None:
    model = nn.Sequential(Still(how), Recorded() if recorded else nn.Identity())
    network = capture(model, torch.randn(3, 4))
    x = torch.randn(5, 4)
    found: list[dict[str, Any]] = []
    for part in (network.module.train(), model.train()):
        part.zero_grad(set_to_none=True)
        part(x.clone()).square().sum().backward()
        found.append({n: None if p.grad is None else p.grad.clone() for n, p in part.named_parameters()})
    ours, theirs = found
    assert [n for n, g in ours.items() if g is None] == [n for n, g in theirs.items() if g is None]
    assert all(torch.equal(g, theirs[n]) for n, g in ours.items() if g is not None)
