"""cast: half precision, or weights as int8, with the error stated before and measured after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.errors import NetxformError, fail
from netxform.graph.edits import Edit
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, LayerBound, LayerErrors, Quantized, Rounded, SameOutputs, WithinBound
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Material, Scope, operand, prep, verb
from netxform.syntax import ast

if TYPE_CHECKING:
    from torch import nn

    from netxform.graph.network import Network


@dataclass(frozen=True)
class Halves(Values):
    """What is rounded, by name; once the weights are read, what rounding does to them and the bound of the outputs."""

    tensors: int
    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    kept: int
    seed: int = field(metadata=HIDDEN)
    bound: float | None = field(default=None, metadata=IF_KNOWN)
    numbers: int | None = field(default=None, metadata=IF_KNOWN)
    subnormal: int | None = field(default=None, metadata=IF_KNOWN)
    zeroed: int | None = field(default=None, metadata=IF_KNOWN)
    largest_weight: float | None = field(default=None, metadata=IF_KNOWN)
    largest_value: float | None = field(default=None, metadata=IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """How many, then the rest."""
        return (f"{len(self.parameters)} parameters", *super().lines())


@dataclass(frozen=True)
class Steps(Values):
    """How many layers become int8, what that saves, what is left and why; once made, the bound of the outputs and of each
    layer (path, bound, size of what it reads).
    """

    int8_layers: int
    bytes_before: int
    bytes_after: int
    left: Mapping[str, str] = field(metadata=HIDDEN)
    seed: int = field(metadata=HIDDEN)
    bound: float | None = field(default=None, metadata=IF_KNOWN)
    numbers: int | None = field(default=None, metadata=IF_KNOWN)
    largest_step: float | None = field(default=None, metadata=IF_KNOWN)
    bounds: tuple[tuple[str, float, int], ...] | None = field(default=None, metadata=HIDDEN | IF_KNOWN)


@verb("cast")
@dataclass(frozen=True)
class Cast:
    """Store weights in half precision and compute in it, half the size; or store them as int8, a quarter of it.

    `cast float16` or `cast bfloat16`. `keep [norms, head]` leaves layers in the precision that they have: `norms` is every
    normalisation, anything else a selection. Inputs and outputs of the network keep their precision: the graph casts
    where values of two precisions meet. What is in half precision already stays as it is: casting twice is casting once.

    Stated before anything is written: each weight moves by at most 2⁻¹¹ of itself (bfloat16: 2⁻⁸), in the normal range; how
    many numbers lie below that range and how many of them become zero; and the bound of the outputs' relative change, four
    times the largest change when the network in float64 has every weight and value moved at random by its rounding
    (stochastic, not a worst case). Both are measured on the cast network, and a violation stops the apply.

    `cast int8` stores the weights of Linear layers and embeddings as int8 with one step a row, made by torchao; what is
    computed stays in float32, so that it saves bytes and no time. Everything else (convolutions, recurrent layers, what is
    kept) is left, and the plan says why. Stated: a number moves by at most half a step of its row; a layer's output by at
    most ½ √columns · ‖steps‖ times the norm of its input; the outputs by what moving every weight at random by up to half
    a step shows, times four. The result holds plain int8 tensors and needs no torchao. The int8 weights are not trained
    any more and their sizes stay: cast last.

    Example: model net = zoo.smallcnn() input="1x1x8x8"; cast float16 keep norms

    Contract: bounded.
    Refused: a weight or a value that overflows (float16 ends at 65504), with its place (X0329); `keep` that matches nothing
    (X0203); int8 where no layer can be stored so (X0330) or torchao is missing (X0814).
    Papers: Micikevicius et al., "Mixed precision training", ICLR 2018; Vignes, "A stochastic arithmetic for reliable
    scientific computation", 1993; Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018.
    """

    dtype: Literal["float16", "bfloat16", "int8"] = operand()
    keep: Selection | None = prep("keep")
    contract: ClassVar[Contract] = Contract.BOUNDED

    def resolve(self, network: Network, scope: Scope) -> Choice[Halves] | Choice[Steps]:
        """Name the tensors: all floating-point ones but those of layers that are kept or in this precision already."""
        from netxform.precision.rounding import HALF

        kept = self._kept(network, scope)
        if self.dtype == "int8":
            return _int8(network, scope, kept)
        from netxform.graph.tensors import held as held_by

        held = held_by(network.module)
        shared = {id(t) for n, t in held.items() if n in kept or n.rpartition(".")[0] in kept}
        chosen = [
            n
            for n, t in held.items()
            if t.is_floating_point()
            and t.dtype not in HALF.values()
            and id(t) not in shared
            and n.rpartition(".")[0] not in kept
        ]
        warnings: list[str] = []
        other = [n for n, t in held.items() if t.dtype in HALF.values() and t.dtype != HALF[self.dtype]]
        if other:
            warnings.append(f"{len(other)} tensors are in another half precision already, and stay in it: {other[0]} …")
        return Choice(
            Halves(len(chosen), tuple(chosen), len(kept), scope.seed),
            targets=tuple(dict.fromkeys(n.rpartition(".")[0] for n in chosen)),
            warnings=tuple(warnings),
            provisional="the bound of the outputs, and what overflows: from the weights" if chosen else "",
        )

    def _kept(self, network: Network, scope: Scope) -> set[str]:
        """The modules and tensors that keep their precision; a layer that is called as one is kept whole."""
        if self.keep is None:
            return set()
        items = self.keep.expression.items if isinstance(self.keep.expression, ast.List) else (self.keep.expression,)
        from netxform.graph.tensors import held

        modules, tensors = dict(network.module.named_modules(remove_duplicate=False)), held(network.module)
        found: set[str] = set()
        for item in items:
            if isinstance(item, ast.Path) and item.text == "norms" and "norms" not in modules:
                norms = {n for n, m in modules.items() if "Norm" in type(m).__name__ and _holds(m)}
                if not norms:
                    raise fail("X0203", "`keep norms`: the network has no normalisation", item.span, "matches nothing")
                found |= norms
            elif isinstance(item, ast.Path) and item.text.removeprefix(".") in tensors:
                found.add(item.text.removeprefix("."))
            else:
                found |= set(scope.modules_of(Selection(item, item.span)))
        called = {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}
        whole = {c for c in called for f in found if f == c or f.startswith(f"{c}.")}
        return found | {n for n in modules for c in whole if n == c or n.startswith(f"{c}.")}

    def settle(self, network: Network, choice: Choice[Halves | Steps], material: Material) -> Choice[Halves] | Choice[Steps]:
        """Count what rounding does to the weights; predict what it does to the outputs."""
        v = choice.values
        if isinstance(v, Steps):
            return _steps(network, choice, v)
        from netxform.graph.probes import samples
        from netxform.graph.surgery import perform
        from netxform.precision.rounding import HALF, failing, predict, rounding

        names = v.parameters
        if not names:
            return choice.settled(v)
        dtype = HALF[self.dtype]
        from netxform.graph.tensors import held as held_by

        held = held_by(network.module)
        every = {id(held[n]): held[n] for n in names}
        counts = rounding(every.values(), dtype)
        if counts.overflow:
            broken = [n for n in names if rounding([held[n]], dtype).overflow]
            layer = broken[0].rpartition(".")[0]
            raise self._overflow(f"{counts.overflow} weights would become infinite", broken, layer, counts.largest)
        after = perform(network, self.rewrite(network, choice))
        try:
            found = predict(network, after, names, dtype, samples(network, v.seed), v.seed)
        except RuntimeError as error:
            raise self._stops(str(error), "LAYER") from error
        stops = failing(after, samples(network, v.seed))
        if stops is not None:
            raise self._stops(stops[1], stops[0])
        if self.dtype == "float16" and found.largest >= 65520:  # below, it rounds to 65504
            raise self._overflow("a value on the way would become infinite", [found.where], found.where, found.largest)
        values = replace(
            v,
            bound=found.bound,
            numbers=counts.numbers,
            subnormal=counts.subnormal,
            zeroed=counts.zeroed,
            largest_weight=counts.largest,
            largest_value=found.largest,
        )
        warnings: tuple[str, ...] = ()
        if counts.zeroed > counts.numbers // 100:
            share = 100 * counts.zeroed / counts.numbers
            warnings = (f"{counts.zeroed} of {counts.numbers} numbers ({share:.1f} %) are too small for {self.dtype}: zero",)
        return choice.settled(values, warnings=warnings)

    def _stops(self, error: str, place: str) -> NetxformError:
        where = "" if place == "LAYER" else f", at `{place}`"
        return fail(
            "X0801",
            f"the network in {self.dtype} does not run{where}: {error.strip().splitlines()[0]}",
            helps=(f"keep what makes numbers in float32 there: `cast {self.dtype} keep [{_path(place)}]`", "or `cast int8`"),
        )

    def _overflow(self, what: str, places: list[str], layer: str, largest: float) -> NetxformError:
        limit = "65504" if self.dtype == "float16" else "3.39e38"
        return fail(
            "X0329",
            f"{what}: the largest is {largest:.4g}, and {self.dtype} ends at {limit}",
            notes=(f"at {', '.join(places[:5])}{' …' if len(places) > 5 else ''}",),
            helps=(f"keep it: `cast {self.dtype} keep [{_path(layer or places[0])}]`", "or `cast bfloat16`"),
        )

    def rewrite(self, network: Network, choice: Choice[Halves | Steps]) -> Edit:
        """Cast the tensors; the graph follows."""
        from netxform.precision.halves import Narrow
        from netxform.precision.int8 import Quantize

        v = choice.values
        if isinstance(v, Steps) or self.dtype == "int8":
            return Edit((Quantize(choice.targets),), choice.tensors) if choice.targets else Edit()
        return Edit((Narrow(v.parameters, self.dtype),)) if v.parameters else Edit()

    def law(self, choice: Choice[Halves | Steps]) -> tuple[Claim, ...]:
        """Every weight is rounded to nearest; the outputs stay within the bound."""
        v = choice.values
        if isinstance(v, Steps):
            return _int8_law(choice.targets, v)
        if not v.parameters:
            return (SameOutputs(),)
        assert self.dtype != "int8"
        return (Rounded(v.parameters, self.dtype), WithinBound(_stated(v.bound)))


def _path(name: str) -> str:
    """The name of a module as it is written in a spec: one that starts with a number stands in backticks."""
    first, dot, rest = name.partition(".")
    return f".`{first}`{dot}{rest}" if first[:1].isdigit() else name


def _holds(module: nn.Module) -> bool:
    """Whether tensors hang on the module itself."""
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


# --- int8 ------------------------------------------------------------------------------------------------------------


def _int8(network: Network, scope: Scope, kept: set[str]) -> Choice[Steps]:
    """The layers that are stored as int8; everything else that has a matrix, with the reason why it is not."""
    from netxform.graph.layers import Int8Embedding, Int8Linear
    from netxform.precision.int8 import need_torchao, quantizable

    need_torchao(scope.span)
    modules = dict(network.module.named_modules(remove_duplicate=False))
    called = {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}
    read = {str(n.target) for n in network.module.graph.nodes if n.op == "get_attr"}

    def obstacle(path: str, part: nn.Module) -> str | None:
        if path in kept:
            return "kept"
        if f"{path}.weight" in read:
            return "the code reads its weight"
        if why := quantizable(part):
            return why if path in called else "only layers that are called are stored as int8"
        return None if path in called else "a part of a layer that is called as one"

    heavy = {n: m for n, m in modules.items() if any(p.dim() > 1 for p in m.parameters(recurse=False))}
    left = {n: why for n, m in heavy.items() if (why := obstacle(n, m)) is not None}
    chosen = [n for n in heavy if n not in left]
    alone = {n: why for n in chosen if (why := _shared(modules, n, chosen)) is not None}
    left |= alone
    chosen = [n for n in chosen if n not in alone]
    already = [n for n, m in modules.items() if isinstance(m, Int8Linear | Int8Embedding)]
    if not chosen and not already:
        raise fail(
            "X0330",
            "no layer can be stored as int8",
            scope.span,
            "nothing to cast",
            notes=tuple(f"`{p}`: {w}" for p, w in list(left.items())[:5]),
            helps=("`cast float16` or `cast bfloat16` takes every layer",),
        )
    owners = {id(modules[c].get_parameter("weight")): modules[c].get_parameter("weight") for c in chosen}
    before = sum(w.numel() * w.element_size() for w in owners.values())
    after = sum(w.numel() + 4 * w.shape[0] for w in owners.values())
    return Choice(
        Steps(len(chosen), before, after, left, scope.seed),
        targets=tuple(chosen),
        origins={"note": _told(left)} if left else {},
        provisional="steps, and the bound of the outputs: from the weights" if chosen else "",
    )


def _told(left: Mapping[str, str]) -> str:
    """What is left, by reason."""
    by: dict[str, list[str]] = {}
    for path, why in left.items():
        by.setdefault(why, []).append(path or "the network itself")
    return "left: " + "; ".join(f"{', '.join(p[:4])}{' …' if len(p) > 4 else ''} ({why})" for why, p in by.items())


def _shared(modules: Mapping[str, nn.Module], path: str, chosen: list[str]) -> str | None:
    """Who else holds the weight, in float: a tensor is stored once."""
    weight = modules[path].get_parameter("weight")
    for other, part in modules.items():
        for name, tensor in part.named_parameters(recurse=False, remove_duplicate=False):
            if tensor is weight and not (other in chosen and name == "weight"):
                return f"it shares its weight with `{other}`, which is left"
    return None


def _steps(network: Network, choice: Choice[Values], v: Steps) -> Choice[Steps]:
    """Let torchao make int8 and steps; state what they can do."""
    import torch

    from netxform.graph.probes import samples
    from netxform.precision.int8 import half_steps, predict, quantize

    if not choice.targets:
        return choice.settled(v)
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    tensors: dict[str, torch.Tensor] = {}
    bounds: list[tuple[str, float, int]] = []
    for path in choice.targets:
        weight = network.module.get_parameter(f"{path}.weight")
        if id(weight) not in made:
            made[id(weight)] = quantize(weight)
        q, scale = made[id(weight)]
        tensors |= {f"{path}.weight": q, f"{path}.scale": scale}
        embedding = isinstance(network.module.get_submodule(path), torch.nn.Embedding)
        bounds.append((path, half_steps(scale, weight.shape[1]), weight.shape[0 if embedding else 1]))
    seed = v.seed
    steps = {f"{p}.weight": tensors[f"{p}.scale"] for p in choice.targets}
    bound = predict(network, steps, samples(network, seed), seed)
    numbers = sum(q.numel() for q, _ in made.values())
    largest = max(float(s.max()) for _, s in made.values())
    values = replace(v, bound=bound, numbers=numbers, largest_step=largest, bounds=tuple(bounds))
    return choice.settled(values, tensors)


def _int8_law(targets: tuple[str, ...], v: Steps) -> tuple[Claim, ...]:
    """Every number within half a step, every layer within what that allows, the outputs within the bound."""
    if not targets:
        return (SameOutputs(),)
    names = tuple(f"{p}.{n}" for p in targets for n in ("weight", "scale"))
    layers = tuple(
        LayerBound(path, bound, bound, "half a step in every number", (size,)) for path, bound, size in v.bounds or ()
    )
    claims: tuple[Claim, ...] = (Quantized(targets, names), LayerErrors(layers))
    return (*claims, WithinBound(_stated(v.bound)))


def _stated(bound: float | None) -> float:
    """The bound, infinite where it is not known yet."""
    return float("inf") if bound is None else bound
