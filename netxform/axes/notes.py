"""What a pass over the graph knows and notes down: the context of the rules, and how a rule is called."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, fx

from netxform.axes.algebra import Dim, Lock, Mix, lock, mix, size, unify, unit, units
from netxform.axes.rules.context import Positions, Typed, Uncovered, locked
from netxform.axes.rules.registry import RULES, Rule, covered
from netxform.axes.types import Contraction, Parts, Stated, Types


class Notes:
    """The types found so far, and where the pass is: at which node, of which layer, inside code that is kept whole or not."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.types = Types()
        self.modules = dict(self.module.named_modules(remove_duplicate=False))
        self.held: dict[str, Tensor] = {}
        self.typed: dict[str, Typed] = {}
        first: dict[int, str] = {}
        every = [*self.module.named_parameters(remove_duplicate=False), *self.module.named_buffers(remove_duplicate=False)]
        for name, tensor in every:
            self.types.names[name] = first.setdefault(id(tensor), name)
            self.held.setdefault(first[id(tensor)], tensor)
        self.node: fx.Node | None = None
        self.at = ""
        self.shape: Any = ()
        self.path = ""
        self.inside = False
        self.asked: list[Typed] = []  # what the rule that runs has read of the module
        self.met: list[Dim] = []  # and what it sums over or computes across

    # --- the context of the rules

    def state(self, number: Any, *dims: Dim) -> None:
        """See `Context`."""
        path = getattr(number, "path", None) if not self.inside else None
        if isinstance(number, bool) or not isinstance(number, int) or number != sum(size(d) for d in dims):
            return
        self.types.stated.append(Stated(self.at, path, dims, int(number), computed=getattr(number, "dims", ())))

    def state_split(self, axis: int, parts: list[Dim]) -> None:
        """See `Context`."""
        if self.inside:
            for part in parts:
                self.types.stated.append(Stated(self.at, None, (part,), size(part)))
        else:
            self.types.parts.append(Parts(self.at, axis, parts))

    def drop_last_statement(self) -> tuple[Dim, ...] | None:
        """See `Context`."""
        if self.types.stated and self.types.stated[-1].node == self.at and self.types.stated[-1].path is None:
            return self.types.stated.pop().dims
        return None

    def attribute(self, name: str, *dims: Dim, item: int | None = None) -> None:
        """See `Context`."""
        path = ("attribute", name) if item is None else ("attribute", name, item)
        value = getattr(self.modules[self.path], name, None)
        if value is None and name == "value_dim":
            value = cast(Any, self.modules[self.path]).head_dim
        if item is not None:
            value = cast(Any, value)[item]
        self.types.stated.append(Stated(self.at, path, dims, int(cast(int, value)), self.path))

    def contract(self, left: Typed, i: int, right: Typed, j: int) -> None:
        """See `Context`."""
        unify(left.dims[i], right.dims[j], self.at)
        self.met.append(right.dims[j])
        sides = [
            (x.source, cast(int, x.axes[k])) if x.source is not None and x.axes[k] is not None else None
            for x, k in ((left, i), (right, j))
        ]
        if right.dims[j]:
            self.types.contractions.append(
                Contraction(self.at, sides[0], sides[1], right.dims[j], self.path if self.inside else None)
            )

    def mix(self, dim: Dim, kind: str) -> None:
        """See `Context`."""
        mix(dim, Mix(kind, self.at))
        self.met.append(dim)
        if dim:
            self.types.mixes.append((Mix(kind, self.at), dim))

    def inner_product(self, dim: Dim) -> None:
        """See `Context`."""
        self.types.contractions.append(Contraction(self.at, None, None, dim, self.path))

    def touch(self, tensor: Typed) -> None:
        """See `Context`."""
        if isinstance(tensor, Positions):
            lock(tensor.of, Lock("position", self.at))
        if tensor.source is not None:
            self.types.uses[tensor.source] = self.types.uses.get(tensor.source, 0) + 1

    def scaled_by_size(self, dim: Dim) -> bool:
        """See `Context`."""
        if self.inside:
            return False
        self.types.scaled.append((self.at, dim))
        return True

    def tensor(self, name: str) -> Typed | None:
        """See `Context`."""
        full = self.types.names.get(f"{self.path}.{name}" if self.path else name)
        if full is None:
            return None
        self.asked.append(self.of(full))
        return self.asked[-1]

    def read_items(self) -> set[int]:
        """Which items of the node's tuple somebody reads; every one where that cannot be told."""
        assert self.node is not None
        found: set[int] = set()
        for user in self.node.users:
            if user.op == "call_function" and user.target is operator.getitem and isinstance(user.args[1], int):
                found.add(user.args[1])
            else:
                found |= set(range(8))
        return found

    def of(self, name: str) -> Typed:
        """The type of a tensor of the module; born with fresh atoms."""
        made = self.typed.get(name)
        if made is None:
            shape = tuple(self.held[name].shape)
            made = Typed([unit(n) for n in shape], shape, self.held[name].dtype, name, tuple(range(len(shape))))
            self.typed[name] = made
            self.types.tensors[name] = made.dims
        return made

    def rule(self, name: str, args: tuple[Any, ...], kwargs: dict[str, object]) -> Any:
        """The result by the rule of that name. Raises Uncovered where there is none or it does not cover this use."""
        known = RULES.get(name)
        if known is None:
            raise Uncovered("no rule")
        made = self.by(known, (self, *args), {k: v for k, v in kwargs.items() if k not in ("inplace", "out")})
        self.note(made)
        return made

    def by(self, known: Rule, args: tuple[Any, ...], kwargs: dict[str, object]) -> Any:
        """What the rule says; what it noted is forgotten where it does not cover the use. Raises Uncovered."""
        covered(known, args, kwargs)
        mark = self.mark()
        self.asked, self.met = [], []
        try:
            made = known(*args, **kwargs)
        except Uncovered:
            self.back(mark)
            raise
        self.keep_units((args, kwargs), made)
        for value in leaves(made):
            if tuple(size(d) for d in value.dims) != value.shape:
                raise ValueError(f"`{known.__name__}` gives other sizes than {value.shape} at `{self.at}`")
        return made

    def keep_units(self, given: Any, made: Any) -> None:
        """Where an axis of size 1 is not in the result and nothing is summed over it, its size stays 1."""
        read = [*leaves(given), *self.asked]
        free = {a for x in read for d, n in zip(x.dims, x.shape, strict=True) if n == 1 for a in units(d)}
        if free:
            kept = {a for d in (*self.met, *(d for x in leaves(made) for d in x.dims)) for a in units(d)}
            lock(tuple(free - kept), Lock("one", self.at))

    def note(self, made: Any) -> None:
        """Tell a result its precision."""
        dtype = self.node.meta.get("dtype") if self.node is not None and not self.inside else None
        if isinstance(made, Typed) and dtype is not None:
            made.dtype = dtype

    def mark(self) -> tuple[int, int, int, int]:
        """How much is noted."""
        t = self.types
        return len(t.stated), len(t.contractions), len(t.parts), len(t.scaled)

    def back(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what a rule noted before it gave up. What it unified stays: that is coarser, never wrong."""
        t = self.types
        del t.stated[mark[0] :], t.contractions[mark[1] :], t.parts[mark[2] :], t.scaled[mark[3] :]


def is_shape(shape: Any) -> bool:
    """Whether it is the shape of one tensor."""
    return isinstance(shape, tuple) and all(isinstance(n, int) for n in cast("tuple[Any, ...]", shape))


def leaves(value: Any) -> Iterator[Typed]:
    """The tensors in a value, at any depth."""
    if isinstance(value, Typed):
        yield value
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in cast("dict[Any, Any]", value).values():
            yield from leaves(item)


def all_locked(shape: Any, at: str, dtype: Any) -> Any:
    """A value of these shapes of which nothing is known."""
    if is_shape(shape):
        return locked(shape, "unknown", at, dtype)
    if isinstance(shape, list | tuple):
        return tuple(all_locked(s, at, None) for s in cast("list[Any]", shape))
    if isinstance(shape, dict):
        return {k: all_locked(s, at, None) for k, s in cast("dict[Any, Any]", shape).items()}
    return None
