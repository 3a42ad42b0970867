"""A network is called as its model was and gives what the model gives: in memory, read from a bundle, and as plain Python."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.artifacts.graph import from_json, to_json
from netxform.capture.capture import capture
from netxform.graph import results
from netxform.graph.signature import Spoken, shown
from netxform.graph.tensors import held
from tests.emitted import imported


class Pair(NamedTuple):
    logits: Tensor
    hidden: Optional[Tensor] = None  # noqa: UP045


@dataclasses.dataclass
class Parts:
    logits: Tensor
    others: Any = None
    label: str = "parts"


@dataclasses.dataclass
class Output(OrderedDict):
    """Written as the ModelOutput of transformers."""

    loss: Any = None
    logits: Any = None
    states: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]


class Net(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(4, 3), how

    def forward(
        self,
        input: Tensor,
        mask: Tensor | None = None,
        flag: bool = True,
        *,
        scale: float = 1.0,
        **more: Any,
    ) -> Any:
        y = self.fc(input)
        if mask is not None:
            y = y * mask
        match self.how:
            case "pair":
                return Pair(y)
            case "parts":
                return Parts(y, (y + 1, {"z": y * 2}))
            case "output":
                return Output(logits=y, states=(y + 1, y + 2))
            case "nested":
                return {"a": Pair(y, y + 1), "b": [y * 2, None, ("x", 3)]}
            case "nothing":
                return y, None
            case _:
                return y


def alike(a: Any, b: Any) -> bool:
    """The same classes, the same tensors, whatever module a class was made in."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if type(a).__name__ != type(b).__name__:
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[k], b[k]) for k in a)
    if dataclasses.is_dataclass(a):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def plain_python(folder: Path) -> nn.Module:
    return imported(folder / "model.py").load()


@pytest.mark.parametrize("how", ["pair", "parts", "output", "nested", "nothing", "tensor"])
@pytest.mark.parametrize("given", ["alone", "mask", "no mask"])
def test_results_and_arguments_are_the_models(how, given, tmp_path):
    torch.manual_seed(0)
    model, x = Net(how).eval(), torch.randn(2, 4)
    inputs = {"alone": (x,), "mask": (x, torch.rand(2, 3)), "no mask": (x, None)}[given]
    result = nx.apply("freeze **", model=model, example_inputs=inputs, out=tmp_path / "b")
    loaded, emitted = nx.load(tmp_path / "b"), plain_python(tmp_path / "b")
    wanted = model(*inputs)
    for other in (result.model, loaded, emitted, pickle.loads(pickle.dumps(result.model))):
        assert alike(other(*inputs), wanted)
        named = dict(zip(("input", "mask"), inputs, strict=False))
        assert alike(other(**named), wanted)
        parameters = inspect.signature(other.forward).parameters
        assert list(parameters) == list(inspect.signature(model.forward).parameters)
        assert [p.default for p in parameters.values()] == [
            p.default for p in inspect.signature(model.forward).parameters.values()
        ]
        assert "Tensor" in str(parameters["mask"].annotation)
        for more in ({"flag": False}, {"scale": 2.0}, {"unheard": 1}):
            with pytest.raises(TypeError, match=next(iter(more))):
                other(*inputs, **more)
        with pytest.raises(TypeError, match="mask"):
            other(x, torch.ones(2, 3)) if given != "mask" else other(x)
    assert type(result.model(*inputs)) is type(loaded(*inputs)) is type(wanted)
    again = nx.apply("freeze **", model=result.model, example_inputs=tuple(t for t in inputs if t is not None))
    assert alike(again.model(*inputs), wanted)


def test_attributes_keys_and_places_work_on_every_way(tmp_path):
    model, x = Net("output").eval(), torch.randn(2, 4)
    result = nx.apply("freeze **", model=model, example_inputs=x, out=tmp_path / "b")
    for other in (result.model, nx.load(tmp_path / "b"), plain_python(tmp_path / "b")):
        out = other(x)
        assert torch.equal(out.logits, out["logits"]) and torch.equal(out.logits, out[0])
        assert torch.equal(out.states[1], model(x).states[1]) and out.loss is None


def test_a_changed_result_is_no_longer_that_class():
    model, x = Net("output").eval(), torch.randn(2, 4)
    headed = nx.apply("attach h after fc classes=2", model=model, example_inputs=x).model
    assert type(headed(input=x)) is dict and "h" in headed(x)
    assert isinstance(nx.apply("cut at fc", model=model, example_inputs=x).model(x), Tensor)


class Cache:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Output:
        y = self.fc(x)
        return Output(logits=y, states=Cache(y))


def test_what_cannot_be_kept_is_said():
    network = capture(Caching().eval(), torch.randn(2, 4))
    assert any("`Cache`" in n and "None" in n for n in network.notes)
    assert shown(network.module)(torch.randn(2, 4)).states is None


kinds = st.sampled_from(["tensor", "none", "int", "text"])
trees = st.recursive(
    kinds,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        st.tuples(inner, inner).map(lambda p: Pair(*p)),
        st.tuples(inner, inner).map(lambda p: Parts(*p)),
        st.tuples(inner, inner).map(lambda p: Output(logits=p[0], states=p[1])),
    ),
    max_leaves=6,
)


def filled(tree: Any, made: list[Tensor]) -> Any:
    match tree:
        case "tensor":
            made.append(torch.full((1,), float(len(made))))
            return made[-1]
        case "none":
            return None
        case "int":
            return 7
        case "text":
            return "said"
        case Pair():
            return Pair(*(filled(t, made) for t in tree))
        case Parts():
            return Parts(filled(tree.logits, made), filled(tree.others, made))
        case Output():
            return Output(**{k: filled(v, made) for k, v in tree.items()})
        case dict():
            return {k: filled(v, made) for k, v in tree.items()}
        case list():
            return [filled(t, made) for t in tree]
        case tuple():
            return tuple(filled(t, made) for t in tree)
        case _:
            return tree


@settings(max_examples=150, deadline=None)
@given(trees)
def test_a_description_makes_the_result_again(tree):
    made: list[Tensor] = []
    value = filled(tree, made)
    description, classes, _ = results.describe(value)
    description = json.loads(json.dumps(description))  # it is plain data
    assert results.tensors(description) == len(made)
    space = {k.partition(":")[2]: c for k, c in classes.items()} | {f"t{i}": t for i, t in enumerate(made)}
    text = results.expression(description, iter([f"t{i}" for i in range(len(made))]), lambda k: k.partition(":")[2])
    again = eval(text, space)
    assert alike(again, value) and alike(value, again)


WRONG = [
    ["constant", {"x": 1}], ["tuple", "x"], ["named", "a:b c", [["x", ["tensor"]]]], ["data", "a:b", [["x y", ["tensor"]]]],
    ["mapping", "a:b", [["print(1)", ["tensor"]]]], ["torch", "os:system", [["0", ["tensor"]]]], ["call", "x"],
]  # fmt: skip


@pytest.mark.parametrize("description", WRONG, ids=str)
def test_a_damaged_description_is_refused(description):
    network = capture(Net("tensor").eval(), torch.randn(2, 4))
    stored = json.loads(json.dumps(to_json(network)))
    stored["output"]["result"] = ["tuple", [["tensor"], description]] if description[0] == "constant" else description
    with pytest.raises(nx.NetxformError, match="X0821"):
        from_json(stored, held(network.module))


@pytest.mark.parametrize(
    "row",
    [
        ["x=print()", "any", None, None, True],
        ["input", "any", "__import__('os')", None, True],
        ["class", "any", None, None, True],
    ],
    ids=str,
)
def test_a_damaged_signature_is_refused(row):
    with pytest.raises(ValueError, match="is no"):
        Spoken([row, ["", "result", None, None, False]], None, {}, set())


@pytest.mark.parametrize("text", ["__import__('os').system('x')", "torch.__dict__", "print", "(lambda: 1)()", "[x for x in y]"])
def test_an_annotation_is_code_only_where_all_its_names_are_known(text):
    said = Spoken([["x", "any", None, text, True], ["", "result", None, None, False]], None, {}, set())
    assert said.header is not None and repr(text) in said.header[0]


def test_transformers_give_their_own_classes(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertForSequenceClassification(config).eval()
    ids, mask = torch.randint(1, 20, (2, 5)), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    result = nx.apply("freeze **", model=model, example_inputs=(ids, mask), out=tmp_path / "b")
    wanted = model(ids, mask)
    for other in (result.model, nx.load(tmp_path / "b"), plain_python(tmp_path / "b")):
        out = other(input_ids=ids, attention_mask=mask)
        assert type(out) is type(wanted) and torch.equal(out.logits, wanted.logits)
        with pytest.raises(TypeError, match="labels"):
            other(ids, mask, labels=torch.zeros(2, dtype=torch.long))
