"""nn.Module → Network: two front-ends in order, each accepted only when it computes what the model computes.

    symbolic trace → recorder → symbolic trace with islands        first that equals eager, bit for bit

Equal is shown in one of two ways, at two batch sizes: the graph and the model are the same program, operation by operation (on
meta tensors: nothing is computed); or, where that says nothing, they give the same values.

The model itself is never touched: everything happens on a copy of its structure, which shares its parameters and writes none.
"""

# Long: the order of the front-ends and what each is accepted by belong together.

from __future__ import annotations

import contextlib
import functools
import operator
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from netxform.capture.concrete import Recorder
from netxform.capture.detectors import islands_of, tensor_part
from netxform.capture.general import general
from netxform.capture.judge import Judge
from netxform.capture.modes import ApartError, gradients_on, merge
from netxform.capture.proof import Places, doubt_of
from netxform.capture.shell import Shell, keep_everything
from netxform.capture.state import Attributes, State, StateError, named, refuse_state
from netxform.capture.stillness import grad_mode, hold_still
from netxform.capture.symbolic import (
    Reads,
    TrainingFlag,
    computes_weights,
    drop_asserts,
    drop_passed,
    flag_at,
    foreign,
    is_leaf,
    lower_training,
    symbolic,
)
from netxform.capture.unusual import refuse_unusual
from netxform.collector import paused
from netxform.errors import NetxformError, fail
from netxform.graph.copies import lent, own, structure
from netxform.graph.guards import Lost, guards_of, is_guard
from netxform.graph.layers import BatchNormAct2d, DropPath
from netxform.graph.memory import settle
from netxform.graph.meta import annotate
from netxform.graph.network import Input, Island, Network
from netxform.graph.outputs import output_node, outputs
from netxform.graph.results import tensors, usual
from netxform.graph.signature import inner, keep, signature_of, without_nothing

_MAX_ISLANDS = 64


def capture(model: nn.Module, *example: Tensor | None, proven: bool = False) -> Network:
    """Capture `model` as it computes `model(*example)` in eval mode. The network may share the memory of its parameters.

    The module hierarchy and every `state_dict` key are kept; modules that eval never runs survive and are listed in
    `notes`. The graph runs at other batch sizes where the model does. On meta inputs values are not compared.

    `proven`: only a graph that is the model's own program, so that with weights the same one is captured.
    Raises NetxformError X0802 where no front-end captures the model.
    """
    everything: tuple[Any, ...] = example
    if isinstance(model, fx.GraphModule) and all("exits" in n.meta for n in model.graph.nodes if n.op != "output"):
        taken = tuple(t for t in everything if t is not None)
        return _finish(inner(structure(model, lent)), taken, "graph", (), model)
    whole, model = model, tensor_part(model)
    given, (model, everything) = (model, everything), without_nothing(model, everything)
    if not all(isinstance(t, Tensor) for t in everything):
        raise fail(
            "X0802",
            f"`{type(model).__name__}` takes something else than tensors here",
            notes=("a captured network takes tensors; lists and dicts of them, as detectors take, are no tensors",),
            helps=("capture its `backbone`, or wrap the model in a module that takes tensors",),
        )
    refuse_unusual(model)
    barred = [n for n, _ in model.named_children() if hasattr(fx.GraphModule, n)]
    if barred:
        raise fail(
            "X0802",
            f"a submodule is called `{barred[0]}`, a name that torch.fx needs for itself",
            helps=("rename the submodule, or wrap the model in another module",),
        )
    inputs: tuple[Tensor, ...] = everything
    tried: list[str] = []
    packed = False
    narrow: Any = None
    doubts: list[str] = []
    places = Places(doubts) if proven else contextlib.nullcontext()
    lost: tuple[Lost, ...] = ()  # decisions by the mode, where no graph does both
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), paused(), places:
        warnings.simplefilter("ignore")
        judge = Judge(model, inputs, doubts)
        reads: Reads = {}
        run = _Run(inputs)
        ways: list[tuple[str, Reads | None, Callable[[], tuple[fx.GraphModule, tuple[Island, ...]]]]] = [
            ("symbolic", reads, lambda: (_symbolic(model, reads=reads, run=run), ())),
            ("recorder", reads, lambda: (_recorded(model, inputs, reads, run), ())),
            ("symbolic", None, lambda: (_symbolic(model, run=run), ())),
            ("recorder", None, lambda: (_recorded(model, inputs, run=run), ())),
            ("islands", reads, lambda: _with_islands(model, run, reads)),
            ("islands", None, lambda: _with_islands(model, run)),
        ]
        for name, both, way in ways:
            if both is None and not lost:
                continue
            reads.clear()
            run.state.clear()
            run.gradients.clear()
            try:
                module, islands = way()
                noted = judge.accept(module, name == "recorder")
                if run.gradients and not judge.trains(module, gradients=True, both=both is not None):
                    raise fail("X0802", f"the graph differs from the model where gradients are on ({_place(run.gradients)})")
                if both and not (judge.trains(module) and judge.mixed(module, (path for path, *_ in both))):
                    raise ApartError(fail("X0802", "the graph differs from the model in training").diagnostics)
                if run.state:
                    refuse_state(model, judge.given, run.state)
                if name == "recorder":
                    once = functools.partial(_recorded, model, reads=both, run=run)
                    wider = general(module, judge, lambda given, once=once: once(given), both is not None)
                    module, noted = (module, noted) if wider is None else (wider, False)
                found = (
                    module,
                    inputs,
                    name,
                    islands,
                    model,
                    noted,
                    () if both is not None else lost,
                    dict(run.state),
                    judge.narrow,
                )
                if proven and doubts:
                    break
                if not judge.narrow:
                    return _as_called(_finish(*found), judge, *given, whole)
                narrow = found  # right, but for batches of this size alone: what is kept whole may do more
            except StateError:
                raise
            except Exception as error:  # whatever the model's code raises while it is traced
                if isinstance(error, ApartError) and not lost:
                    lost = tuple(Lost(path, path or type(model).__name__, *place) for path, *place in reads)
                if isinstance(error, NetxformError):
                    tried.append(f"{name}: {error.diagnostics[0].message}")
                    continue
                packed = packed or _packs(error)
                doubts += [said for said in (doubt_of(error),) if said]
                lines = str(error).strip().splitlines()
                tried.append(f"{name}: {type(error).__name__}: {lines[0] if lines else ''}"[:200])
        if proven and doubts:
            raise fail("X0802", doubts[0])
        if narrow is not None:
            return _as_called(_finish(*narrow), judge, *given, whole)
        if judge.random:
            raise fail(
                "X0802",
                f"`{type(model).__name__}` is random in eval mode: it draws numbers, and no two runs of it agree",
                notes=tuple(tried),
                helps=("let eval mode return what is expected of it (the mean), or pass the random numbers in as an input",),
            )
    raise fail(
        "X0802",
        f"`{type(model).__name__}` packs sequences: a packed sequence is no tensor, and no graph takes one"
        if packed
        else f"`{type(model).__name__}` cannot be captured as a graph",
        notes=tuple(tried),
        helps=("leave out `pack_padded_sequence`, and pad in front, so that a recurrent layer ends at the last word",)
        if packed
        else ("pass inputs with which the model runs in eval mode",),
    )


def _packs(error: BaseException) -> bool:
    """Whether it was raised while sequences were packed for a recurrent layer."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_name in ("pack_padded_sequence", "pack_sequence", "pad_packed_sequence"):
            return True
        frame = frame.tb_next
    return False


def _place(reads: dict[tuple[str, str], None]) -> str:
    """The first place in the code, in words."""
    where, what = next(iter(reads))
    return f"`{what}`, {where}"


def _prepared(copied: nn.Module) -> nn.Module:
    """The copy in eval mode, with those layers of other libraries exchanged that have a twin in torch.nn or here."""
    copied.eval()
    for part in list(copied.modules()):
        _exchange(part)
    return copied


def _exchange(part: nn.Module) -> None:
    """Stochastic depth of torchvision and timm becomes `DropPath`; timm's norm with activation becomes ours."""
    if type(part).__name__ == "BatchNormAct2d" and type(part).__module__.startswith("timm."):
        norm = cast(Any, part)
        if isinstance(part, nn.BatchNorm2d) and norm.track_running_stats:
            norm.__class__ = BatchNormAct2d
    for name, child in list(part.named_children()):
        kind = type(child).__name__
        if kind == "StochasticDepth":
            setattr(part, name, DropPath(float(cast(Any, child).p), str(cast(Any, child).mode)).eval())
        elif kind == "DropPath" and hasattr(child, "scale_by_keep") and not isinstance(child, DropPath):
            drop = cast(Any, child)
            setattr(part, name, DropPath(float(drop.drop_prob or 0.0), "row", bool(drop.scale_by_keep)).eval())


def _flagged(model: nn.Module, training: int = 0, reads: Reads | None = None) -> nn.Module:
    """The model with flags in the place of modes; `reads` gets who decides by them."""
    for path, part in model.named_modules():
        if not is_leaf(part):
            part.training = cast(bool, TrainingFlag(training, path, reads))
    return model


def _unflagged(module: nn.Module) -> None:
    for part in module.modules():
        part.training = False


def joined(
    graph: fx.Graph,
    model: nn.Module,
    other: nn.Module,
    trained: fx.Graph,
    more: dict[str, Tensor],
    mode: Callable[[fx.Graph, str], fx.Node] = flag_at,
) -> dict[str, Tensor]:
    """Two recorded graphs made one, as `merge` does. Returns the tensors that the second brings along, of those in `more`."""
    for name, tensor in more.items():
        other.register_buffer(name, tensor)
    merge(graph, model, trained, other, mode)
    return {n: t for n, t in more.items() if any(n == node.target for node in graph.nodes)}


class _Run:
    """Which inputs of traced calls could carry a gradient, and what the calls leave behind."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        self.floats = [t.is_floating_point() or t.is_complex() for t in inputs]
        self.state = State()
        self.gradients = dict[tuple[str, str], None]()


def _symbolic(
    model: nn.Module, islands: frozenset[str] = frozenset(), reads: Reads | None = None, run: _Run | None = None
) -> fx.GraphModule:
    """The graph by symbolic tracing. Where code decides by the mode and `reads` is given, that of both modes."""
    run = run or _Run(())

    def traced(training: int, gradients: bool = False) -> tuple[nn.Module, fx.Graph]:
        copied = _flagged(_prepared(structure(model, lent)), training, reads)
        before = Attributes(copied)
        with grad_mode(gradients, run.gradients):
            graph = symbolic(copied, islands)
        run.state |= before.changed()
        drop_asserts(graph)
        hold_still(graph, copied, run.floats)
        alien = foreign(graph)
        if alien is not None and not islands:
            raise fail("X0802", f"`{alien}` would stay a call in the graph")
        if run.gradients and not gradients:
            trained, other = traced(training, True)
            merge(graph, copied, other, trained, gradients_on)
        return copied, graph

    copied, graph = traced(0)
    if reads:
        other, trained = traced(1)
        merge(graph, copied, trained, other)
    return _module(copied, graph, {})


def _recorded(
    model: nn.Module, inputs: tuple[Tensor, ...], reads: Reads | None = None, run: _Run | None = None
) -> fx.GraphModule:
    """The graph of one pass; where code decides by the mode and `reads` is given, of one in each mode."""
    run = run or _Run(inputs)

    def recorded(training: int, gradients: bool = False) -> tuple[nn.Module, fx.Graph, dict[str, Tensor]]:
        copied = _flagged(_prepared(structure(model, own)), training, reads)  # the code runs: it may write
        learned = [p for p in copied.parameters() if p.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)  # gradients are on, so that code which turns them off is seen
        before = Attributes(copied)
        with grad_mode(gradients, run.gradients):
            graph, constants = Recorder(copied, f"_{'training_' * training}{'grad_' * gradients}constant").record(*inputs)
        for parameter in learned:
            parameter.requires_grad_()  # torch picks kernels by it
        run.state |= before.changed()
        hold_still(graph, copied, run.floats)
        if run.gradients and not gradients:
            trained, other, more = recorded(training, True)
            constants |= joined(graph, copied, trained, other, more, gradients_on)
        return copied, graph, constants

    copied, graph, constants = recorded(0)
    if reads:
        other, trained, more = recorded(1)
        constants |= joined(graph, copied, other, trained, more)
    return _module(copied, graph, constants)


def _with_islands(model: nn.Module, run: _Run, reads: Reads | None = None) -> tuple[fx.GraphModule, tuple[Island, ...]]:
    """Symbolic tracing again and again, with the innermost module that fails kept whole."""
    islands: dict[str, Island] = {}
    for _ in range(_MAX_ISLANDS):
        try:
            return _symbolic(model, frozenset(islands), reads, run), tuple(islands.values())
        except Exception as error:  # whatever the model's code raises while it is traced
            path = getattr(error, "failing", None)
            if not path or path in islands:
                raise
            kind = type(model.get_submodule(path)).__name__
            islands[path] = Island(path, kind, str(error).strip().split("\n")[0][:160])
    raise fail("X0802", f"more than {_MAX_ISLANDS} submodules cannot be traced")


def _module(model: nn.Module, graph: fx.Graph, constants: dict[str, Tensor]) -> fx.GraphModule:
    _unhook(model)
    drop_passed(graph)
    module = fx.GraphModule(Shell(model, constants), graph, class_name=type(model).__name__)
    keep_everything(model, module)
    _unflagged(module)
    lower_training(module)
    module.graph.lint()
    module.recompile()
    return module.eval()


def _unhook(model: nn.Module) -> None:
    """What hooks do stands in the graph. A layer whose weights are computed there is a holder of its tensors from now on."""
    for path, part in list(model.named_modules()):
        if path and computes_weights(part) and not isinstance(part, nn.utils.parametrize.ParametrizationList):
            held = nn.Module()
            held._parameters, held._buffers, held._modules = part._parameters, part._buffers, part._modules  # pyright: ignore
            held._non_persistent_buffers_set = part._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
            held.training = part.training
            owner, _, last = path.rpartition(".")
            model.get_submodule(owner)._modules[last] = held  # pyright: ignore[reportPrivateUsage]
            part = held
        own_: Any = part
        for hooks in (own_._forward_hooks, own_._forward_pre_hooks):
            hooks.clear()


def _finish(
    module: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    way: str,
    islands: tuple[Island, ...],
    model: nn.Module,
    noted: bool = False,
    lost: tuple[Lost, ...] = (),
    state: State | None = None,
    narrow: bool = False,
) -> Network:
    taken = [n for n in module.graph.nodes if n.op == "placeholder"]
    for node in taken:
        node.args = ()  # a default value that was bound while tracing
        node.type = None  # annotations may name anything
    names = [n.name for n in taken]
    specs = tuple(Input(n, tuple(t.shape), t.dtype) for n, t in zip(names, inputs, strict=True))
    if not noted:
        held = [(t, t.detach().clone()) for t in _written(module)]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            annotate(module.graph, module, *(t.clone() for t in inputs))
            for tensor, value in held:  # a pass may write
                tensor.copy_(value)
    for node in module.graph.nodes:
        if node.meta.get("dtype") is None and node.op != "output":  # a tuple or a number is no value to cut at
            if node.op == "call_module":  # the first of several results is a layer's output: the states of a recurrent one
                for first in [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]:
                    first.meta["exits"] = (*node.meta.get("exits", ()), *first.meta.get("exits", ()))
            node.meta |= {"exits": (), "entries": ()}
    settle(module)
    end = output_node(module)
    end.args = (_untyped(end.args[0]),)
    called = {str(n.target) for n in module.graph.nodes if n.op == "call_module"}
    called |= {str(n.target).rpartition(".")[0] for n in module.graph.nodes if n.op == "get_attr"} - {""}
    run = called | {a for c in called for a in _above(c)}
    with_parameters = {a for n, _ in module.named_parameters(remove_duplicate=False) for a in _above(n)}
    idle = [
        n
        for n, _ in module.named_modules()
        if n in with_parameters and n not in run and not any(a in called for a in _above(n))
    ]
    tops = [n for n in idle if n.rpartition(".")[0] not in idle]
    notes = tuple(f"`{n}` is not run in eval mode: it stays in the module, outside the graph" for n in tops)
    notes += tuple(f"`{i.path}` ({i.kind}) is kept whole: {i.reason}" for i in islands)
    notes += tuple(str(guard) for guard in guards_of(module.graph))
    free = module.meta.get("free")
    if free:
        said = ", ".join(f"`{names[i]}.shape[{axis}]`" for i, axis in sorted(free))
        notes += (f"free sizes: {said}{'' if narrow else ', and the batch'}",)
    notes += tuple(map(str, lost))
    if state:
        notes += (f"{named(state)} of the model changes from call to call: it is not part of the graph, nothing depends on it",)
    modes = {n: m.training for n, m in model.named_modules(remove_duplicate=False)}
    flags = {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(flags.get(name, parameter.requires_grad))
    for name, part in module.named_modules(remove_duplicate=False):
        part.training = next(modes[p] for p in (name, *reversed(_above(name)), "") if p in modes)
    narrowed = any(is_guard(n) and not n.meta.get("rank") for n in module.graph.nodes)
    given = tuple(t.detach().clone() for t in inputs) if narrowed else ()
    return Network(module, specs, way, islands, notes, given, eval_only=lost)


def _written(module: fx.GraphModule) -> list[Tensor]:
    """What a pass may write: every buffer, and the parameters that the graph itself reads."""
    read = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    return [*module.buffers(), *(p for n, p in module.named_parameters() if n in read)]


def _untyped(value: Any) -> Any:
    """What a graph gives, with tuples in the place of named ones."""
    if isinstance(value, tuple | list):
        items = [_untyped(v) for v in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return {k: _untyped(v) for k, v in cast("dict[Any, Any]", value).items()} if isinstance(value, dict) else value


def _as_called(network: Network, judge: Judge, model: nn.Module, inputs: tuple[Tensor, ...], came: nn.Module) -> Network:
    """The network with a note of how the model is called and what it gives."""
    description, classes, notes = judge.result()
    ends = outputs(network.module)
    if description is None or tensors(description) != len(ends):
        whole = len(ends) == 1 and any(n.meta.get("dtype") is None for n in ends.values())  # the model's own value
        lost = ", ".join(f"`{key.partition(':')[2]}`" for key in classes)
        notes = (
            (f"the result is tensors in dicts and tuples in this network: {lost} cannot be kept",) if lost and not whole else ()
        )
        description = None
    elif usual(description):
        description = None
    keep(network.module, signature_of(model, inputs), description, classes)
    left = islands_of(came)
    notes += tuple(f"`{i.path}` ({i.kind}): {i.reason}" for i in left)
    return replace(network, notes=(*network.notes, *notes), islands=(*network.islands, *left))


def _above(path: str) -> list[str]:
    """The modules that a module or tensor of this name lies in."""
    parts_ = path.split(".")
    return [".".join(parts_[:i]) for i in range(1, len(parts_))]
