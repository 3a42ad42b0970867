"""Weights by position: refused where the file is sorted and the model is not, with the repair; taken where orders agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import netxform as nx
from netxform.errors import NOWHERE
from netxform.sources.positions import not_in_order
from netxform.sources.trust import Trust
from netxform.sources.weights import Asked, load_weights


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 6, bias=False), *[nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh()) for _ in range(11)]
    )


def norms() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(6), nn.BatchNorm1d(6))


def filled(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    made = make()
    for t in (*made.parameters(), *made.buffers()):
        if t.is_floating_point():
            t.data.uniform_(0.5, 2.0)
    return made


def load(make: Callable[[], nn.Module], path: Path) -> nn.Module:
    made = make()
    load_weights(made, path, Trust(root=path.parent), NOWHERE, Asked(by_position=True))
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("make", [deep, norms])
@pytest.mark.parametrize("prefix", ["module.", "", "net.body."])
def test_a_sorted_file_is_refused_and_one_in_order_is_taken(make: Callable[[], nn.Module], prefix: str, tmp_path: Path) -> None:
    model = filled(make)
    state = {prefix + k: v.clone() for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    assert same(load(make, tmp_path / "w.pth"), model)
    save_file(state, tmp_path / "w.safetensors")
    torch.save(dict(sorted(state.items())), tmp_path / "sorted.pth")
    for name in ("w.safetensors", "sorted.pth"):
        with pytest.raises(nx.NetxformError, match="X0809") as caught:
            load(make, tmp_path / name)
        assert "not in the order of the model" in str(caught.value) and "leave `by_position` out" in str(caught.value)


def test_a_sorted_file_with_other_names_is_refused_too(tmp_path: Path) -> None:
    model = filled(deep)
    renamed = {f"stage{i}.kernel": v.clone() for i, v in enumerate(model.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pth")
    assert same(load(deep, tmp_path / "w.pth"), model)
    torch.save(dict(sorted(renamed.items())), tmp_path / "sorted.pth")
    with pytest.raises(nx.NetxformError, match="sorted by name"):
        load(deep, tmp_path / "sorted.pth")


@given(st.permutations([f"l{i}" for i in range(12)]))
def test_never_another_order_than_the_names_say(names: list[str]) -> None:
    """Names that are the model's behind a prefix decide: taken as they are, or refused."""
    wanted: dict[str, Tensor] = {f"l{i}": torch.zeros(2, 2) for i in range(12)}
    state = {f"model.{n}": torch.zeros(2, 2) for n in names}
    assert (not_in_order(state, wanted) is None) == (names == list(wanted))


def test_where_all_shapes_differ_nothing_can_change_places() -> None:
    wanted = {"b": torch.zeros(2), "a": torch.zeros(3)}
    assert not_in_order({"x": torch.zeros(2), "y": torch.zeros(3)}, wanted) is None
