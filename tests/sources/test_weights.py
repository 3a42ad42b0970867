"""Weights as people store them go into the model that they belong to, whatever was written around them; nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import netxform as nx
from netxform.errors import NOWHERE, NetxformError
from netxform.sources.state_dicts import AVERAGES, INSIDE, PREFIXES, fit, read, renamed
from netxform.sources.trust import Trust
from netxform.sources.weights import Asked, load_weights


def net(classes: int = 3) -> nn.Module:
    """A model with every kind of tensor: tied ones, a counter, a buffer, two of one shape."""
    made = nn.Module()
    made.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    made.a, made.b = nn.Linear(4, 4), nn.Linear(4, 4)
    made.table, made.head = nn.Embedding(classes, 4), nn.Linear(4, classes, bias=False)
    made.head.weight = made.table.weight
    made.register_buffer("scale", torch.rand(4))
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(one[n], other[n]) for n in one)


prefixes = st.lists(st.sampled_from([*PREFIXES, "anything.", "a.b."]), max_size=2).map("".join)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_around_them(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    old, new = net(), net()
    off, on = data.draw(prefixes), data.draw(prefixes)
    state = {off + n: t for n, t in old.state_dict().items()}
    for gone in data.draw(st.sampled_from([(), ("stem.1.num_batches_tracked",), ("head.weight",), ("table.weight",)])):
        del state[off + gone]
    where = data.draw(st.lists(st.sampled_from([*INSIDE, *AVERAGES]), max_size=1))
    kept: dict[str, object] = state
    for key in where:
        kept = {"epoch": 3, key: kept, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "lr": [1e-3]}}
    path = tmp_path_factory.mktemp("w") / "x.pt"
    torch.save(kept, path)
    target: nn.Module = new
    for part in reversed(on.removesuffix(".").split(".")) if on else ():
        target = nn.ModuleDict({part: target})
    if off and on:
        return
    taken = load_weights(target, path, Trust(), NOWHERE)
    assert same(old, new)
    assert not taken.warnings
    assert not off or any(off in n for n in taken.notes)


@given(st.permutations(["a.weight", "b.weight", "a.bias", "b.bias"]), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_no_tensor_is_taken_for_another(order: list[str], count: int) -> None:
    """Under names that are the model's in part, only what has its name is taken, and the rest is told."""
    wanted = {n: torch.rand(2) for n in ("a.weight", "b.weight", "a.bias", "b.bias")}
    state = {n if i < count else f"other.{n}": torch.rand(2) for i, n in enumerate(order)}
    found = fit(state, wanted)
    assert all(theirs.endswith(own) for own, theirs in found.taken.items())
    assert {*found.taken.values(), *found.unused} == set(state) or found.wrong
    assert {*found.taken, *found.missing} == set(wanted)


def test_several_files(tmp_path: Path) -> None:
    old, new = net(), net()
    names = sorted(n for n in old.state_dict() if n != "head.weight")
    where = {n: f"part-{i % 3}.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: old.state_dict()[n].contiguous() for n in names if where[n] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        load_weights(new, path, Trust(), NOWHERE)
        assert same(old, new)
    for broken, code in (
        ({**where, "a.weight": "../x.safetensors"}, "X0808"),
        ({**where, "zz": "part-0.safetensors"}, "X0808"),
    ):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": broken}))
        with pytest.raises(NetxformError, match=code):
            load_weights(new, tmp_path, Trust(), NOWHERE)


def test_one_of_several_is_named(tmp_path: Path) -> None:
    one, other = net(), net()
    torch.save({"first": one.state_dict(), "second": other.state_dict()}, tmp_path / "x.pt")
    with pytest.raises(NetxformError, match='inside="first"'):
        load_weights(net(), tmp_path / "x.pt", Trust(), NOWHERE)
    for key, wanted in (("first", one), ("second", other)):
        made = net()
        load_weights(made, tmp_path / "x.pt", Trust(), NOWHERE, Asked(inside=key))
        assert same(made, wanted)
    with pytest.raises(NetxformError, match="second"):
        load_weights(net(), tmp_path / "x.pt", Trust(), NOWHERE, Asked(inside="secnd"))


def test_other_names(tmp_path: Path) -> None:
    old = net()
    state = {n.replace("stem.", "features.conv_").replace("head", "fc"): t.clone() for n, t in old.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    made = net()
    load_weights(
        made, tmp_path / "x.safetensors", Trust(), NOWHERE, Asked(rename={"features.conv_*.*": "stem.*.*", "fc.*": "head.*"})
    )
    assert same(made, old)
    with pytest.raises(NetxformError, match="is called `nothing"):
        renamed(state, {"nothing.*": "x.*"}, NOWHERE)
    with pytest.raises(NetxformError, match="would be called"):
        renamed(state, {"*": "x"}, NOWHERE)


def test_in_part_only_when_told(tmp_path: Path) -> None:
    old, new = net(classes=5), net(classes=3)
    before = {n: t.clone() for n, t in new.state_dict().items()}
    torch.save({**old.state_dict(), "more": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(NetxformError, match="partial=true"):
        load_weights(new, tmp_path / "x.pt", Trust(), NOWHERE)
    assert all(torch.equal(t, before[n]) for n, t in new.state_dict().items()), "nothing is half-applied"
    taken = load_weights(new, tmp_path / "x.pt", Trust(), NOWHERE, Asked(partial=True))
    for name, tensor in new.state_dict().items():
        from_file = old.state_dict()[name]
        assert torch.equal(tensor, from_file if from_file.shape == tensor.shape else before[name])
    assert len(taken.warnings) == 1 and "more" in taken.warnings[0] and "head.weight" in taken.warnings[0]
    torch.save({"x": torch.zeros(2)}, tmp_path / "y.pt")
    with pytest.raises(NetxformError, match="another model"):
        load_weights(new, tmp_path / "y.pt", Trust(), NOWHERE, Asked(partial=True))


def test_the_spec_says_it_and_the_certificate_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netxform.zoo import build

    monkeypatch.chdir(tmp_path)
    state = build("mlp", width=4).state_dict()
    torch.save({"ema": {f"module.{n}": t for n, t in state.items()}, "step": 3}, "old.pt")
    last = list(state)[-1].rpartition(".")[0]
    torch.save({n.replace(f"{last}.", "other."): t for n, t in state.items()}, "names.pt")
    spec = 'model net = zoo.mlp(width=4) weights="{}" {} input="1x1x28x28"\nfreeze **'
    result = nx.apply(spec.format("old.pt", ""))
    assert all(torch.equal(result.model.state_dict()[n], t) for n, t in state.items())
    assert any("`module.` was taken off" in n for n in nx.plan(spec.format("old.pt", "")).notes)
    result = nx.apply(spec.format("names.pt", f'rename={{"other.*": "{last}.*"}}'))
    assert all(torch.equal(result.model.state_dict()[n], t) for n, t in state.items())
    partial = nx.apply(spec.format("names.pt", "partial=true"))
    assert "fits in part" in partial.certificate["plan_warnings"][0]
    for wrong, said in (('rename="x"', "rename="), ("partial=3", "partial=true"), ('rename={"a": 3}', "rename=")):
        with pytest.raises(NetxformError, match=said):
            nx.apply(spec.format("names.pt", wrong))
    with pytest.raises(NetxformError, match="no `weights` are named"):
        nx.apply("model net = zoo.mlp(width=4) partial=true\nfreeze **")


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "notes": "none"}, tmp_path / "none.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name in ("none.pt", "whole.pt", "text.pt", "folder"):
        with pytest.raises(NetxformError) as caught:
            read(tmp_path / name, Trust(), NOWHERE)
        assert "\x1b" not in str(caught.value) and "help" in str(caught.value)
    assert read(tmp_path / "whole.pt", Trust(pickle=True), NOWHERE).tensors.keys() == {"weight", "bias"}


def test_another_number_of_classes_is_one_step(tmp_path: Path) -> None:
    """The help of X0809, carried out word for word: the head goes, a new one comes, everything else is the file's."""
    torch.manual_seed(1)
    from netxform.zoo import build

    old = build("smallcnn", classes=5)
    save_file({f"module.{n}": t.clone() for n, t in old.state_dict().items()}, tmp_path / "five.safetensors")
    text = 'model net = zoo.smallcnn({}) weights="five.safetensors" input="1x1x8x8"\n'
    with pytest.raises(NetxformError, match="X0809") as refused:
        nx.apply(text.format("") + "freeze **", root=tmp_path)
    said = next(h for h in refused.value.diagnostics[0].helps if "cut before" in h)
    statements = said.split("`")[-2]
    made = nx.apply(text.format("classes=5") + statements, root=tmp_path).model
    assert made(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    mine = made.state_dict()
    assert all(torch.equal(mine[n], t) for n, t in old.state_dict().items() if not n.startswith("fc."))
