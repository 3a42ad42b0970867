"""A stored graph from a stranger: no name becomes code, no call leaves the short list, nothing is made too large."""

from __future__ import annotations

import json
import operator
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.artifacts import allowed
from netxform.artifacts.graph import from_json, to_json
from netxform.artifacts.manifest import place, strict
from netxform.compiler.measure import tensors


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.fc(x) * self.scale, dim=1)


@pytest.fixture(scope="module")
def given() -> tuple[str, dict[str, torch.Tensor]]:
    network = nx.capture(Net().eval(), torch.randn(2, 4))
    return json.dumps(to_json(network)), {n: t.clone() for n, t in tensors(network.module).items()}


def node(name: str, target: str, *args: Any, op: str = "call_function", **kwargs: Any) -> dict[str, Any]:
    return {
        "name": name, "op": op, "target": target, "args": {"tuple": list(args)},
        "kwargs": {"dict": [[k, v] for k, v in kwargs.items()]}, "scope": "", "exits": [], "entries": [],
    }  # fmt: skip


def refused(given: tuple[str, dict[str, torch.Tensor]], change: Any) -> str:
    """The code of the refusal, which comes at once."""
    held = json.loads(given[0])
    change(held)
    started = time.monotonic()
    with pytest.raises(nx.NetxformError) as caught:
        from_json(held, given[1], 1 << 30)
    assert time.monotonic() - started < 10
    return caught.value.diagnostics[0].code


def put(*nodes: dict[str, Any]) -> Any:
    def change(held: dict[str, Any]) -> None:
        held["nodes"][1:1] = nodes

    return change


X = {"node": "x"}


def code_of(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def renamed(held: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return json.loads(json.dumps(held).replace(json.dumps(old), json.dumps(new)))


NAMES = {
    "target of an input": lambda h, c: h["nodes"][0].update(target=f"x={c}"),
    "target with a star": lambda h, c: h["nodes"][0].update(target=f"*a, x={c}"),
    "name of a node": lambda h, c: h.update(renamed(h, "softmax", f"softmax = {c}; y")),
    "name of an input": lambda h, c: h["inputs"][0].update(name=f"x, y={c}"),
    "keyword": lambda h, c: put(node("a", "torch.softmax", X, **{f"dim=1, x={c}, y": 1}))(h),
    "module": lambda h, c: h["modules"][0].update(path=f'fc"); {c}; ("'),
    "module with a dunder": lambda h, c: h["modules"][0].update(path="__class__"),
    "called module": lambda h, c: h["nodes"][1].update(target=f'fc"); {c}; ("', op="call_module"),
    "read tensor": lambda h, c: put(node("a", f'scale"); {c}; ("', op="get_attr"))(h),
    "tensor": lambda h, c: h["tensors"][0].update(path=f'scale"); {c}; ("'),
    "tie": lambda h, c: h["ties"].update({f'"; {c}': "scale"}),
    "frozen": lambda h, c: h["frozen"].append(f'"; {c}'),
    "network": lambda h, c: h.update(name=f"Net\n{c}\nclass X"),
    "scope": lambda h, c: h["nodes"][1].update(scope=f"x\n{c}\n"),
    "a Python word": lambda h, c: h["nodes"][0].update(target="lambda"),
    "torch itself": lambda h, c: h["nodes"][0].update(target="torch"),
    "device": lambda h, c: put(node("a", "torch.zeros", 2, device={"device": f"cpu'){c}"}))(h),
    "number": lambda h, c: put(node("a", "torch.add", X, {"float": f"nan{c}"}))(h),
    "constant": lambda h, c: put(node("a", "torch.add", X, {"dtype": "hub"}))(h),
}


@pytest.mark.parametrize("what", NAMES)
def test_no_name_becomes_code(what: str, given: Any, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    assert refused(given, lambda h: NAMES[what](h, code_of(marker))) in ("X0904", "X0821")
    assert not marker.exists()


def of_class(name: str, held: dict[str, Any]) -> None:
    held["modules"][0]["class"] = name


CALLS = {
    "attrgetter": put(node("a", "operator.attrgetter", "__class__")),
    "methodcaller": put(node("a", "operator.methodcaller", "backward")),
    "itemgetter": put(node("a", "operator.itemgetter", 0)),
    "call": put(node("a", "operator.call", X)),
    "eval": put(node("a", "builtins.eval", "1")),
    "getattr of a class": put(node("a", "builtins.getattr", X, "__class__")),
    "getattr of the grad function": put(node("a", "builtins.getattr", X, "grad_fn")),
    "getattr by a value": put(node("a", "builtins.getattr", X, X)),
    "getattr with a default": put(node("a", "builtins.getattr", X, "shape", 1)),
    "getattr with keywords": put(node("a", "builtins.getattr", X, "shape", default="__class__")),
    "only attrgetter": put(node("a", "netxform.only", True, "operator.attrgetter", "__class__")),
    "only getattr": put(node("a", "netxform.only", True, "getattr", X, "__class__")),
    "only a method": put(node("a", "netxform.only", True, "torch.Tensor.numpy", X)),
    "only by a value": put(node("a", "netxform.only", True, X, X)),
    "only only": put(node("a", "netxform.only", True, "netxform.only", True, "torch.load", "x")),
    "torch.load": put(node("a", "torch.load", "x")),
    "torch.save": put(node("a", "torch.save", X, "x")),
    "torch.hub.load": put(node("a", "torch.hub.load", "x", "y")),
    "aten from_file": put(node("a", "torch.ops.aten.from_file.default", "x", True)),
    "aten set_": put(node("a", "torch.ops.aten.set_.source_Storage_storage_offset", X, X, 0, [1])),
    "aten resize_": put(node("a", "torch.ops.aten.resize_.default", X, [10])),
    "aten without an overload": put(node("a", "torch.ops.aten.add.__class__", X, X)),
    "another space of operators": put(node("a", "torch.ops.prim.device.default", X)),
    **{
        f"method {m}": put(node("a", m, X, op="call_method"))
        for m in "numpy tolist register_hook apply_ map_ backward data_ptr storage set_ resize_ module_load share_memory_ "
        "as_subclass __reduce__ __class__ __getattribute__ __init__ type_ cuda_ record_stream pin_memory".split()
    },
    **{
        f"layer {c}": partial(of_class, c)
        for c in "DataParallel Module Sequential LazyLinear ParameterList Module.__subclasses__ modules init".split()
    },
    "a layer of ours that is none": lambda h: h["modules"][0].update({"class": "Linear", "own": True}),
    "a layer with code": lambda h: h["modules"][0].update(arguments={"dict": [["in_features", {"code": "1"}]]}),
    "too few arguments": put(node("a", "operator.setitem", X)),
    "operator with keywords": put(node("a", "operator.add", X, b=X)),
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_no_call_leaves_the_list(what: str, given: Any) -> None:
    assert refused(given, CALLS[what]) in ("X0904", "X0821")


def doubled(held: dict[str, Any]) -> None:
    made = [node("d0", "torch.cat", [X, X])]
    made += [node(f"d{i}", "torch.cat", [{"node": f"d{i - 1}"}, {"node": f"d{i - 1}"}]) for i in range(1, 60)]
    put(*made)(held)


def squared(held: dict[str, Any]) -> None:
    made = [node("d0", "size", X, 0, op="call_method")]
    made += [node(f"d{i}", "operator.mul", {"node": f"d{i - 1}"}, {"node": f"d{i - 1}"}) for i in range(1, 60)]
    put(*made)(held)


def joined(held: dict[str, Any]) -> None:
    made = [node("d0", "builtins.getattr", X, "shape")]
    made += [node(f"d{i}", "operator.add", {"node": f"d{i - 1}"}, {"node": f"d{i - 1}"}) for i in range(1, 60)]
    put(*made)(held)


def deep(held: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    put(node("a", "torch.tensor", value))(held)


SIZE, BATCH = node("s", "builtins.getattr", X, "shape"), node("n", "size", X, 0, op="call_method")
BOMBS = {
    "9 ** 9 ** 9": put(node("a", "operator.pow", 9, 9**9)),
    "size ** 9 ** 9": put(BATCH, node("a", "operator.pow", {"node": "n"}, 9**9)),
    "size ** size": put(BATCH, node("a", "operator.pow", {"node": "n"}, {"node": "n"})),
    "1 << 4e9": put(node("a", "operator.lshift", 1, 4 * 10**9)),
    "a text 4e9 times": put(node("a", "operator.mul", "a", 4 * 10**9)),
    "sizes 4e9 times": put(SIZE, node("a", "operator.mul", {"node": "s"}, 4 * 10**9)),
    "a list 4e9 times": put(node("a", "operator.mul", [1, 2], 4 * 10**9)),
    "sizes squared 60 times": squared,
    "sizes joined 60 times": joined,
    "full of terabytes": put(node("a", "torch.full", [10**12], 1)),
    "zeros of exabytes": put(node("a", "torch.zeros", 2**30, 2**30)),
    "arange": put(node("a", "torch.arange", 10**12)),
    "repeat": put(node("a", "repeat", X, 10**10, 1, op="call_method")),
    "interpolate": put(
        node("a", "unsqueeze", X, 0, op="call_method"),
        node("b", "torch.nn.functional.interpolate", {"node": "a"}, 10**10),
    ),
    "pad": put(node("a", "torch.nn.functional.pad", X, [0, 10**11])),
    "joined 60 times": doubled,
    "ten thousand million pieces": put(
        node("a", "expand", X, 10**10, 2, 4, op="call_method"), node("b", "unbind", {"node": "a"}, op="call_method")
    ),
    "a layer a thousand million deep": lambda h: h["modules"][0].update(
        {"class": "LSTM", "arguments": {"dict": [["input_size", 1], ["hidden_size", 1], ["num_layers", 10**9]]}}
    ),
    "a number of thousand bits": put(node("a", "torch.add", X, 2**1000)),
    "a text of a megabyte": put(node("a", "torch.einsum", "i" * 10**6, X)),
    "lists in lists": deep,
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_nothing_is_made_too_large(what: str, given: Any) -> None:
    assert refused(given, BOMBS[what]) in ("X0906", "X0904", "X0821")


def test_honest_graphs_compute_with_sizes(given: Any) -> None:
    half = node("h", "operator.floordiv", {"node": "n"}, 2)
    more = [node("m", "operator.add", {"node": "h"}, 3), node("p", "operator.pow", {"node": "m"}, 2)]
    root = node("r", "operator.pow", {"node": "n"}, -0.5)
    made = node("z", "torch.zeros", {"node": "p"}, 4)
    held = json.loads(given[0])
    put(BATCH, half, *more, root, made)(held)
    network = from_json(held, given[1])
    assert network.module(torch.randn(3, 4)).shape == (3, 4)


def test_deep_and_double_json_is_damage() -> None:
    for text in ("[" * 100_000 + "]" * 100_000, '{"a": 1, "a": 1}\n', '{"b": 1,"a": 1}', "9" * 5000):
        with pytest.raises(nx.NetxformError, match="X0822"):
            strict("graph.json", text)


@pytest.mark.parametrize("name", ["../x.skops", "/tmp/x.skops", "a/b.skops", "..skops", "torch.py", "x y.skops", "model.sig"])
def test_files_of_a_bundle_have_names_of_a_bundle(name: str, tmp_path: Path) -> None:
    with pytest.raises(nx.NetxformError, match="X0901"):
        place(tmp_path, name)
    (tmp_path / "plan.json").symlink_to(tmp_path.parent / "other")
    with pytest.raises(nx.NetxformError, match="X0901"):
        place(tmp_path, "plan.json")


def test_the_lists_are_short_and_hold_nothing_that_runs_code() -> None:
    names = set(allowed.functions())
    assert len(names) < 700
    for bad in ("attrgetter", "methodcaller", "itemgetter", "call", "concat", "iconcat", "delitem", "length_hint", "contains"):
        assert f"operator.{bad}" not in names
        assert hasattr(operator, bad) or bad == "call"
    assert all(not name.rpartition(".")[2].startswith("__") for name in names)
    assert not allowed.READ & {"data", "grad", "grad_fn", "storage"}
    assert not any(a.startswith("_") for a in allowed.READ)
