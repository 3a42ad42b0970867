"""How rules are found, when they cover a call, and that nothing but Uncovered is taken for caution."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import netxform as nx
from netxform import registry
from netxform.axes import rules
from netxform.axes.algebra import fresh
from netxform.axes.infer import infer, types_of
from netxform.axes.reindex import axes_of
from netxform.axes.rules.context import Context, Typed, Uncovered
from netxform.axes.rules.registry import LAYERS, RULES, VIEWS, covered, layer, rule
from netxform.graph.network import Network


class Wobbly(nn.Module):
    """Kept whole, and its control flow depends on values: no meta tensor can run it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [row.abs() if float(row.sum()) > 1e30 else row.relu() for row in x]
        return torch.stack(rows)


class Middle(nn.Module):
    """A layer, something in the middle, another layer."""

    def __init__(self, middle: Any) -> None:
        super().__init__()
        self.a, self.middle, self.b = nn.Linear(6, 8), middle, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.middle(self.a(x)))


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.i0(x)


class Kept(nn.Module):
    """Kept whole, for it counts the samples; every operation of it can run on meta tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.i0(row) for row in x])


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """The registries as they were, whatever a test adds."""
    rules.load()
    before = dict(RULES), dict(LAYERS), set(VIEWS)
    yield
    for table, old in zip((RULES, LAYERS), before, strict=False):
        table.clear()
        table.update(old)  # type: ignore[arg-type]
    VIEWS.clear()
    VIEWS.update(before[2])
    sys.modules.pop("tests.axes.extra_rules", None)
    rules.load.cache_clear()


def captured(middle: nn.Module) -> Network:
    return nx.capture(Middle(middle), torch.randn(4, 6))


def between(network: Network) -> str | None:
    """Why the axis between the layers is locked, or None."""
    infer_again(network)
    return next(a.locked for a in axes_of(network) if ("a.weight", 0) in a.sites)


def infer_again(network: Network) -> None:
    network.known.pop("types", None)
    network.known.pop("axes", None)
    types_of(network)


def test_a_package_adds_rules_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    bessel, wobbly = captured(Bessel()), captured(Wobbly())
    assert "no rule covers" in str(between(bessel))
    assert "no rule covers" in str(between(wobbly))
    point = EntryPoint("extra", "tests.axes.extra_rules", "netxform.rules")
    monkeypatch.setattr(registry, "points", lambda group: {"extra": point} if group == "netxform.rules" else {})
    rules.load.cache_clear()
    assert between(bessel) is None
    assert between(wobbly) is None


def test_what_code_says_when_it_fails_is_kept() -> None:
    network = captured(Wobbly())
    infer_again(network)
    (reason,) = types_of(network).uncovered.values()
    assert "meta" in reason or "item" in reason


def broken(t: Context, x: Typed) -> Typed:
    raise KeyError("a bug")


def test_a_bug_in_a_rule_surfaces() -> None:
    network = captured(Bessel())
    rule("i0")(broken)
    with pytest.raises(KeyError, match="a bug"):
        infer(network.module)


def test_a_bug_in_the_rule_of_a_layer_surfaces() -> None:
    network = captured(Wobbly())
    layer("Wobbly")(lambda t, module, x: broken(t, x))
    with pytest.raises(KeyError, match="a bug"):
        infer(network.module)


def test_a_bug_surfaces_from_code_that_is_kept_whole() -> None:
    network = captured(Kept())
    assert network.islands
    rule("i0")(broken)
    with pytest.raises(KeyError, match="a bug"):
        infer(network.module)


def test_uncovered_is_caution_and_says_why() -> None:
    network = captured(Kept())

    @rule("i0")
    def _(t: Context, x: Typed) -> Typed:
        raise Uncovered("the moon is full")

    infer_again(network)
    assert set(types_of(network).uncovered.values()) == {"the moon is full"}
    assert "no rule covers" in str(between(network))


def test_a_rule_that_gives_other_sizes_is_a_bug() -> None:
    network = captured(Bessel())

    @rule("i0")
    def _(t: Context, x: Typed) -> Typed:
        return Typed([*x.dims[:-1], fresh(5)], x.shape)

    with pytest.raises(ValueError, match="other sizes"):
        infer(network.module)


class MaskMoved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[x > 0] = x[x > 0] * 2
        return x


def test_a_write_that_no_rule_covers_is_not_overlooked() -> None:
    assert "no rule covers" in str(between(captured(MaskMoved())))


def test_a_name_has_one_rule() -> None:
    with pytest.raises(ValueError, match="`relu` has a rule already"):
        rule("relu")(broken)
    with pytest.raises(ValueError, match="`Linear` has a rule already"):
        layer("Linear")(broken)


def test_the_signature_says_what_is_covered() -> None:
    @rule("signed")
    def signed(t: Context, x: Typed, several: list[int], other: Typed | None = None) -> Typed:
        return x

    x, t = Typed([], ()), object()
    covered(signed, (t, x, []), {"other": None})
    covered(signed, (t, x), {"several": [], "other": x})
    for args, kwargs, why in (
        ((t, x), {}, "called in another way"),
        ((t, x, []), {"out": 1}, "called in another way"),
        ((t, 3, []), {}, "`x` is int"),
        ((t, x, []), {"other": 3}, "`other` is int"),
    ):
        with pytest.raises(Uncovered, match=why):
            covered(signed, args, kwargs)


def test_every_file_of_rules_is_loaded() -> None:
    for name in (
        "relu",
        "linear",
        "conv2d",
        "batch_norm",
        "max_pool2d",
        "view",
        "cat",
        "getitem",
        "embedding",
        "zeros",
        "mean",
    ):
        assert name in RULES
    for name in ("ReLU", "Linear", "Conv2d", "BatchNorm2d", "MultiheadAttention", "LSTM", "Embedding", "Int8Linear", "Flatten"):
        assert name in LAYERS
    assert {f.__module__ for f in RULES.values()} <= {m for m in sys.modules if m.startswith("netxform.axes.rules.")}
