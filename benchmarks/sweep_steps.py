"""What `benchmarks.models_sweep` tries with one model, a step each. A step returns a word and a figure, or raises."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.sweep_row import Row

BASE = ("capture", "eval", "batch", "length", "mask", "train", "permute")
BUNDLE = ("bundle", "reload", "verify")
VERBS = {
    "freeze": "freeze **", "unfreeze": "freeze **; unfreeze {layer}", "snapshot": "snapshot earlier; freeze **",
    "widen": "widen {layer} x2", "deepen": "deepen {layer}", "prune": "prune ** by magnitude amount=25%",
    "factorize": "factorize {layer} using svd rank={rank}", "cast": "cast float16", "int8": "cast int8",
    "cut": "cut after {neck}; attach head {{ out = Linear(auto, 4) }}", "features": "features at {neck} pool=none", "init": "snapshot earlier; init {layer} from earlier",
    "fit": "stage one {{ train ** for 1epochs on d; keep best by train_loss }}",
    "distill": "snapshot teacher; distill from teacher for 1epochs on d",
}  # fmt: skip
STEPS = (*BASE, *VERBS, *BUNDLE)
SAME = {"freeze": 0.0, "unfreeze": 0.0, "snapshot": 0.0, "init": 0.0, "widen": 1e-3, "deepen": 1e-3}
ROUNDING = 1e-5  # other batch sizes and rearranged products round differently
DOUBLE = 1e-9
LARGEST = 30e6
# what a guard says: of this package, and of torch.fx and torch.export about arguments that were fixed
GUARDS = ("when this network was captured", "has been specialized to have value", "Guard failed")
MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")


class NotAsked(Exception):
    """The step says nothing about this model: the model refuses the input itself, or has no such place."""


class Wrong(Exception):
    """A silent difference."""


class Late(BaseException):
    """The step took longer than it may; no `except Exception` of a library takes it away."""


class Subject:
    """One model in this process, with what the steps share."""

    def __init__(self, row: Row) -> None:
        self.row = row

    @cached_property
    def model(self) -> Any:
        import torch

        torch.manual_seed(0)
        return self.row.build().eval()

    def again(self) -> Any:
        """The model built once more, with the same tensors: some cannot be copied, such as those with hooks on weights."""
        import torch

        torch.manual_seed(0)
        made = self.row.build()
        made.load_state_dict(self.model.state_dict())
        return made.eval()

    def inputs(self, batch: int = 2, size: int | None = None, padded: bool = False) -> tuple[Any, ...]:
        import torch

        torch.manual_seed(batch)
        return self.row.draw(batch, self.row.sizes[0] if size is None else size, padded)

    @cached_property
    def network(self) -> Any:
        from netxform.capture.capture import capture
        from netxform.graph.network import detached

        return detached(capture(self.model, *self.inputs()))

    @cached_property
    def places(self) -> dict[str, Any]:
        """A layer whose outputs may be changed, the layer before the last one, and half the layer's rank."""
        from torch import nn

        from netxform.axes.reindex import axes_of

        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        called = {n.target for n in self.network.module.graph.nodes if n.op == "call_module"}
        layers = [(n, m) for n, m in self.network.module.named_modules() if n in called and isinstance(m, kinds)]
        if not layers:
            raise NotAsked("no layer")
        free = {n for a in axes_of(self.network) if a.locked is None for n, d in a.sites if d == 0}
        name, layer = next(((n, m) for n, m in layers if f"{n}.weight" in free and m.weight.shape[0] >= 4), layers[0])
        rows = layer.weight.shape[0]
        rank = max(min(rows, layer.weight.numel() // rows) // 2, 1)
        return {"layer": _path(name), "rank": rank, "neck": _path(layers[-2 if len(layers) > 1 else -1][0])}

    @cached_property
    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="sweep"))

    @cached_property
    def written(self) -> Path:
        import netxform as nx

        nx.apply("freeze **", model=self.model, example_inputs=self.inputs(), out=self.folder / "b")
        return self.folder / "b"

    def close(self) -> None:
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)


def _path(name: str) -> str:
    """A module's path as the language writes it; a name that starts with a number stands in backticks."""
    first, *rest = name.split(".")
    return ".".join([f"`{first}`" if first[:1].isdigit() else first, *rest])


# --- comparison -----------------------------------------------------------------------------------------------------------
def leaves(value: Any) -> Iterator[Any]:
    """The tensors of an output, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from leaves(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from leaves(v)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from leaves([getattr(value, f.name) for f in dataclasses.fields(value)])


def gap(wanted: Any, found: Any) -> float:
    """0 where all bits are the same, else the largest difference over the largest value. Raises Wrong on other shapes."""
    import torch

    a, b = list(leaves(wanted)), list(leaves(found))
    if [tuple(t.shape) for t in a] != [tuple(t.shape) for t in b]:
        raise Wrong(f"shapes {[tuple(t.shape) for t in a]} against {[tuple(t.shape) for t in b]}"[:160])
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.dtype != y.dtype:
            raise Wrong(f"{x.dtype} against {y.dtype}")
        if torch.equal(x, y) or (x.is_floating_point() and torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0))):
            continue
        if not x.is_floating_point() and not x.is_complex():
            raise Wrong(f"other values of {x.dtype}")
        finite = x.isfinite() & y.isfinite()
        if not torch.equal(x.isfinite(), y.isfinite()):
            raise Wrong("finite in one, not in the other")
        scale = float(x[finite].abs().max().clamp_min(1e-30)) if finite.any() else 1.0
        worst = max(worst, float((x - y)[finite].abs().max()) / scale)
    return worst


def run(module: Any, inputs: tuple[Any, ...], seed: int = 5) -> Any:
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        return module(*inputs)


def model_run(module: Any, inputs: tuple[Any, ...]) -> Any:
    try:
        return run(module, inputs)
    except Exception as error:
        raise NotAsked(f"the model itself: {type(error).__name__}") from error


def settle(figure: float, most: float, what: str = "") -> tuple[str, float]:
    if not figure <= most:
        raise Wrong(f"{what}{figure:.2e} apart")
    return "ok", figure


# --- the steps ------------------------------------------------------------------------------------------------------------
def step_capture(s: Subject) -> tuple[str, float]:
    _ = s.network
    return "ok", 0.0


def at(s: Subject, *cases: tuple[Any, ...]) -> tuple[str, float]:
    """The graph against the model, in eval mode, on several inputs; a guard that refuses one of them is told."""
    module = s.network.module.eval()
    model = s.again()  # what it keeps of these inputs is no part of the next step
    worst, guarded, tried = 0.0, "", 0
    for inputs in cases:
        try:
            wanted = model_run(model, inputs)
        except NotAsked:
            continue
        tried += 1
        try:
            found = run(module, inputs)
        except Exception as error:
            if not any(g in str(error) for g in GUARDS):
                raise
            guarded = " ".join(str(error).split())[:200]
            continue
        worst = max(worst, settle(gap(wanted, found), ROUNDING)[1])
    if not tried:
        raise NotAsked("the model takes no such input")
    return (f"guarded: {guarded}" if guarded else "ok"), worst


def step_eval(s: Subject) -> tuple[str, float]:
    return at(s, s.inputs())


def step_batch(s: Subject) -> tuple[str, float]:
    return at(s, s.inputs(1), s.inputs(3))


def step_length(s: Subject) -> tuple[str, float]:
    if len(s.row.sizes) < 2:
        raise NotAsked("one size")
    return at(s, *(s.inputs(2, n) for n in s.row.sizes[1:]))


def step_mask(s: Subject) -> tuple[str, float]:
    if not s.row.masked:
        raise NotAsked("no mask")
    return at(s, s.inputs(2, None, True), s.inputs(3, None, True))


def step_train(s: Subject) -> tuple[str, float]:
    """`train()` under one random state: the outputs, and the buffers afterwards. What the network says that it loses is told."""
    from netxform.graph.network import detached

    model = s.again().train()
    graph = detached(s.network).module.train()
    inputs = s.inputs(4)
    wanted = model_run(model, inputs)
    try:
        figure = gap(wanted, run(graph, inputs))
        settle(figure, ROUNDING, "outputs ")
        mine, theirs = dict(graph.named_buffers()), dict(model.named_buffers())
        for name, buffer in theirs.items():
            if name in mine:
                settle(gap(buffer, mine[name]), ROUNDING, f"buffer {name} ")
    except Wrong as error:
        if not s.network.lost:
            raise
        return f"refused+: X0345 {error}; {s.network.lost[0]}", 0.0
    return "ok", figure


def step_permute(s: Subject) -> tuple[str, float]:
    """Every free axis permuted at random, in float64 where the model computes in it."""
    import torch
    from torch.utils import _pytree as pytree

    from benchmarks.zoo_laws import scatter
    from netxform.axes.reindex import axes_of, reindex
    from netxform.capture.capture import capture
    from netxform.graph.network import detached

    if sum(p.numel() for p in s.model.parameters()) > LARGEST:
        raise NotAsked("large")
    inputs, most = s.inputs(), DOUBLE
    wide = pytree.tree_map(lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v, inputs)
    model = s.again().double()
    scatter(model)
    try:
        run(model, wide)
        network, inputs = capture(model, *wide), wide
        if any(torch.float32 in (*n.args, *n.kwargs.values()) or n.target == "float" for n in network.module.graph.nodes):
            most = ROUNDING  # the model casts to float32 itself
    except (RuntimeError, ValueError):  # a model that computes in float32 alone
        network, most = detached(s.network), 1e-3
        scatter(network.module)
    wanted = run(network.module.eval(), inputs)
    if not all(t.isfinite().all() for t in leaves(wanted)):
        raise NotAsked("not finite with random weights")
    free = [a for a in axes_of(network) if a.locked is None]
    if not free:
        raise NotAsked("no free axis")
    random.seed(0)
    found = reindex(network, {a: random.sample(range(a.size), a.size) for a in free})
    return settle(gap(wanted, run(found.module.eval(), inputs)), most)


def statement(name: str) -> Callable[[Subject], tuple[str, float]]:
    def step(s: Subject) -> tuple[str, float]:
        import torch

        import netxform as nx

        inputs = s.inputs()
        wanted = model_run(s.model.eval(), inputs)
        text = VERBS[name]
        more: dict[str, Any] = {}
        if name in ("fit", "distill"):
            outputs = list(leaves(wanted))
            if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor) or outputs[0].dim() != 2 or len(outputs) > 1:
                raise NotAsked("no classifier of one input")
            labels = torch.arange(8) % outputs[0].shape[1]
            labels[-1] = outputs[0].shape[1] - 1
            more["data"] = {"d": (s.inputs(8)[0], labels)}
        spec = text.format(**s.places) if "{layer}" in text or "{neck}" in text else text.format()
        before = {n: t.clone() for n, t in s.model.state_dict().items()}
        result = nx.apply(spec, model=s.model, example_inputs=inputs, **more)
        if any(not torch.equal(t, before[n]) and not t.isnan().any() for n, t in s.model.state_dict().items()):
            raise Wrong("the model that was handed in has changed")
        found = run(result.model.eval(), inputs)
        return settle(gap(wanted, found), max(SAME[name], ROUNDING)) if name in SAME else ("ok", 0.0)

    return step


def step_bundle(s: Subject) -> tuple[str, float]:
    _ = s.written
    return "ok", 0.0


RELOAD = f"""
from __future__ import annotations
import dataclasses, sys
from collections.abc import Iterator, Mapping
from typing import Any
{inspect.getsource(leaves)}
sys.modules["netxform"] = None
sys.path.insert(0, sys.argv[1])
import torch, model
made = model.load().eval()
torch.manual_seed(5)
with torch.no_grad():
    torch.save(list(leaves(made(*torch.load(sys.argv[2])))), sys.argv[3])
"""


def step_reload(s: Subject) -> tuple[str, float]:
    """The bundle's `model.py` in a process that has no netxform and none of the libraries."""
    import torch

    given, answer = s.folder / "given.pt", s.folder / "answer.pt"
    inputs = s.inputs()
    folder = s.written
    torch.save(inputs, given)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RELOAD, str(folder), str(given), str(answer)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"reload: {done.stderr.strip().splitlines()[-1]}")
    return settle(gap(model_run(s.model.eval(), inputs), torch.load(answer, weights_only=False)), ROUNDING)


def step_verify(s: Subject) -> tuple[str, float]:
    import netxform as nx

    verdict = nx.verify(s.written)
    if not verdict.held:
        raise Wrong("; ".join(e.claim for _, e in verdict.lines if not e.held)[:160])
    return "ok", 0.0


def step(name: str) -> Callable[[Subject], tuple[str, float]]:
    """The function of a step."""
    return statement(name) if name in VERBS else globals()[f"step_{name}"]


def judged(error: BaseException) -> dict[str, Any]:
    """What a step that raised is called, why, and where."""
    from netxform.errors import NetxformError

    text = " ".join(str(error).split())
    here = [
        f for f in traceback.extract_tb(error.__traceback__) if "/netxform/" in f.filename and "site-packages" not in f.filename
    ]
    place = f"{here[-1].filename.rpartition('/netxform/')[2]}:{here[-1].lineno}" if here else ""
    if isinstance(error, NotAsked):
        return {"cell": "–", "why": text}
    if isinstance(error, Wrong):
        return {"cell": "wrong", "why": text}
    if isinstance(error, Late):
        return {"cell": "time", "why": "", "at": place}
    if isinstance(error, NetxformError):
        first = error.diagnostics[0]
        why = f"{first.code} {first.message}" + ("; " + "; ".join(first.notes) if first.notes else "")
        cell = "crash" if first.code == "X0004" else "refused+" if any(d.helps for d in error.diagnostics) else "refused"
        return {"cell": cell, "why": " ".join(why.split())[:400], "at": place}
    if any(g in text for g in GUARDS):
        return {"cell": "guarded", "why": text[:300]}
    if isinstance(error, MemoryError) or any(m in text for m in MEMORY):
        return {"cell": "memory", "why": "", "at": place}
    return {"cell": "crash", "why": f"{type(error).__name__}: {text}"[:400], "at": place}


def line(name: str, value: dict[str, Any]) -> str:
    return json.dumps({"step": name} | value) + "\n"
