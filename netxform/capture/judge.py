"""Whether a graph computes what the model computes: equal programs on meta tensors, or equal values."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from netxform.capture import sizes
from netxform.capture.concrete import plain
from netxform.capture.equivalence import RandomError, UnknownError, program, provable
from netxform.errors import fail
from netxform.graph.copies import own, parts, structure, weightless
from netxform.graph.guards import REFUSES, pick
from netxform.graph.meta import MetaRun, annotate
from netxform.graph.results import Description, agreed, describe
from netxform.graph.shape_cache import Kernels

Given = tuple[Tensor, ...]


class Judge:
    """Compares graphs with one model.

    `narrow`: the last graph was right, and its guards refuse other batch sizes. `random`: the model draws random numbers in
    eval mode. `doubts`: what was taken for right on meta tensors without a proof, in words.
    """

    def __init__(self, model: nn.Module, inputs: Given, doubts: list[str] | None = None) -> None:
        self.model = model
        self.doubts: list[str] = [] if doubts is None else doubts
        self.given = (inputs, tuple(_bigger(t) for t in inputs))
        self.shapes: dict[Any, Any] = {}
        self.narrow = False
        self.random = False
        self.results: list[Any] = []  # descriptions of what the model gives, with classes and notes, one a batch size
        self.on_meta = any(t.is_meta for t in (*inputs, *model.parameters()))

    def accept(self, module: fx.GraphModule, recorded: bool = False) -> bool:
        """Returns whether shapes and dtypes were noted on the way. Raises NetxformError X0802 where they differ.

        A recorded pass has gone one way through the sizes: guards whose sizes never change are taken out of it, and what holds
        at the given sizes alone is guarded.
        """
        self.narrow = False
        extra = [n.name for n in module.graph.nodes if n.op == "placeholder"][len(self.given[0]) :]
        if extra:
            raise fail("X0802", f"`{extra[0]}`, which has a default, would become an input")
        if recorded:
            programs = sizes.settle(module, self)
            if self.programs is not None and programs == self.programs:
                return True
        elif self.programs is not None:
            try:
                shadow = parts(module, weightless)
                first = functools.partial(annotate, module.graph, shadow)
                if self._programs(shadow, first, MetaRun(shadow, graph=module.graph).run) == self.programs:
                    return True
            except Exception:  # the graph is arbitrary code, and meta tensors refuse some of it in any way
                pass  # then by values
        self._compare(module)
        return False

    @cached_property
    def programs(self) -> list[list[Any]] | None:
        """The model's programs at both batch sizes, where they say all."""
        if not provable(self.model):
            return None
        try:
            self.results = []
            return self._programs(self.shadow, self._told_result, self._told_result)
        except RandomError:
            self.random = True
            return None
        except Exception:  # so is the model
            return None

    def _told_result(self, *inputs: Tensor) -> Any:
        result = self.shadow(*inputs)
        self.results.append(describe(result))
        return result

    def result(self) -> tuple[Description | None, dict[str, type], tuple[str, ...]]:
        """What the model gives, as data; its classes; what of it a graph does not keep. None where it cannot be told."""
        if not self.results:
            try:
                with torch.no_grad(), torch.device("meta"), Kernels(self.shapes):
                    self._told_result(*(weightless(t) for t in self.given[0]))
            except Exception:
                if self.on_meta or not self.runs:
                    return None, {}, ()
        first, classes, notes = self.results[0]
        both = first
        for other, _, _ in self.results[1:2]:
            both = agreed(first, other)
        if both is not None and both != first:
            notes = (*notes, "numbers in the result that follow the batch are None in this network")
        return both, classes, notes

    @cached_property
    def shadow(self) -> nn.Module:
        """The model without weights, in eval mode."""
        return structure(self.model, weightless).eval()

    def _programs(self, module: nn.Module, *calls: Callable[..., Any]) -> list[list[Any]]:
        given = [tuple(weightless(t) for t in inputs) for inputs in self.given]
        return [program(module, inputs, self.shapes, call) for inputs, call in zip(given, calls, strict=True)]

    @cached_property
    def runs(self) -> list[tuple[Given, list[Tensor], dict[str, Tensor]]]:
        """What eager computes at both batch sizes, at the second where it can, and its buffers then. Nothing on meta."""
        if self.on_meta:
            return []
        runs: list[tuple[Given, list[Tensor], dict[str, Tensor]]] = []
        self.results = []
        for i, given in enumerate(self.given):
            try:
                runs.append((given, *_values(self.model, given, told=lambda r: self.results.append(describe(r)))))
            except Exception as error:  # whatever the model raises
                if i == 0:
                    text = str(error).strip().split("\n")[0]
                    raise fail("X0802", f"the model does not run on these inputs: {text}") from error
        return runs

    def _compare(self, module: fx.GraphModule) -> None:
        self._unproven()
        for i, (given, wanted, buffers) in enumerate(self.runs):
            try:
                got, held = _values(module, given)
            except RuntimeError as error:
                if i and REFUSES in str(error):
                    self.narrow = True
                    return
                raise
            if len(got) != len(wanted):
                raise fail("X0802", f"the graph returns {len(got)} tensors, the model {len(wanted)}")
            same = all(_equal(a, b) for a, b in zip(got, wanted, strict=True))
            if not same or not all(_equal(held[n], b) for n, b in buffers.items() if n in held):
                raise fail("X0802", f"the graph differs from the model at batch {given[0].shape[0] if given else 0}")

    def mixed(self, module: fx.GraphModule, reads: Iterable[str]) -> bool:
        """Whether graph and model do the same where some of the modules that decide by their mode, `reads`, are in eval mode:
        every second one, and the others. What one of them ends with must reach what is behind it in its own mode.
        """
        paths = list(dict.fromkeys(reads))
        if len(paths) < 2 or not any(n.target is pick for n in module.graph.nodes):
            return True
        return all(self.trains(module, quiet=frozenset(paths[k::2])) for k in (0, 1))

    def trains(
        self, module: fx.GraphModule, gradients: bool = False, both: bool = False, quiet: frozenset[str] = frozenset()
    ) -> bool:
        """Whether graph and model do the same in training: results and written buffers, under one random state.

        `gradients`: in eval mode instead, with gradients on; `both`: in training too. `quiet`: modules that stay in eval mode.
        """
        given = self.given[1]
        if gradients:
            self._unproven()
            runs = [(given, training) for given in self.given for training in (False, *(True,) * both)]
            return all(_same(*(_values(m, given, t, True) for m in (module, self.model))) for given, t in runs)
        try:
            empty = tuple(weightless(t) for t in given)
            shadow, other = (_trained(structure(m, weightless), quiet) for m in (module, self.model))
            with torch.device("meta"):
                ours = program(shadow, empty, self.shapes, MetaRun(shadow, graph=module.graph).run, drawn=True)
                if provable(self.model) and ours == program(other, empty, self.shapes, other, drawn=True):
                    return True
        except Exception:  # whatever runs on meta tensors
            pass  # then by values
        if self.on_meta:
            self._unproven()
            return False
        try:
            ours, theirs = (_values(m, given, training=True, quiet=quiet) for m in (module, self.model))
        except Exception:  # what does not run in training is not the same there
            return False
        return _same(ours, theirs)

    def _unproven(self) -> None:
        if self.on_meta:
            self.doubts.append("graph and model are compared by values")

    def told(self, shadow: nn.Module, inputs: Given, call: Callable[..., Any]) -> list[Any] | None:
        """The program of a call on meta tensors, None where programs do not say all. Raises what the call raises."""
        empty = tuple(weightless(t) for t in inputs)
        if self.programs is not None:
            try:
                return program(shadow, empty, self.shapes, call)
            except UnknownError:
                pass
        with torch.no_grad(), torch.device("meta"), Kernels(self.shapes):
            call(*empty)
        return None

    def same_at(self, module: fx.GraphModule, inputs: Given, ours: list[Any] | None) -> bool:
        """Whether the graph, whose program is `ours`, is the model there; where the model does not run, it is not."""
        try:
            if ours is not None and ours == self.told(self.shadow, inputs, self.shadow):
                return True
            if self.on_meta:
                self._unproven()
                return False
            got, wanted = _values(module, inputs)[0], _values(self.model, inputs)[0]
            return len(got) == len(wanted) and all(_equal(a, b) for a, b in zip(got, wanted, strict=True))
        except Exception:  # whatever the model raises at other sizes
            return False


def _same(ours: tuple[list[Tensor], dict[str, Tensor]], theirs: tuple[list[Tensor], dict[str, Tensor]]) -> bool:
    same = len(ours[0]) == len(theirs[0]) and all(_equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    return same and all(_equal(ours[1][n], b) for n, b in theirs[1].items() if n in ours[1])


def _values(
    module: nn.Module,
    given: Given,
    training: bool = False,
    gradients: bool = False,
    told: Callable[[Any], None] = lambda result: None,
    quiet: frozenset[str] = frozenset(),
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What a copy of the module computes, and its buffers afterwards; in training under one random state."""
    copied = _trained(structure(module, own), quiet) if training else structure(module, own).eval()
    with torch.set_grad_enabled(gradients), torch.random.fork_rng(devices=[]) if training else contextlib.nullcontext():
        if training:
            torch.manual_seed(0)
        run = copied.forward if isinstance(copied, fx.GraphModule) else copied  # a graph that fails when called prints
        raw = run(*[t.clone() for t in given])
        told(raw)
        result = _leaves(plain(raw))
    return result, dict(copied.named_buffers())


def _trained(module: nn.Module, quiet: frozenset[str]) -> nn.Module:
    """The module in training, those parts of it in eval mode."""
    module.train()
    for path in quiet:
        module.get_submodule(path).eval()
    return module


def _bigger(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor.flip(0), tensor], 0) if tensor.dim() else tensor


def _leaves(value: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
