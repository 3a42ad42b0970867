"""cast: weights and values in half precision, with the error stated before and measured after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.core.edit import Cast as CastEdit
from netxform.core.edit import Choice, Claim, Edit, Rounded, SameOutputs, WithinBound
from netxform.core.law import Contract
from netxform.core.values import Selection
from netxform.core.verb import Material, Scope, operand, prep, verb
from netxform.errors import NetxformError, fail
from netxform.syntax import ast

if TYPE_CHECKING:
    from torch import nn

    from netxform.core.network import Network


@verb("cast")
@dataclass(frozen=True)
class Cast:
    """Store weights in half precision, and compute in it: half the size, the same inputs and outputs.

    `cast float16` or `cast bfloat16`. `keep [norms, head]` leaves layers in the precision that they have: `norms` is every
    normalisation, anything else a selection. Inputs and outputs of the network keep their precision: the graph casts
    where values of two precisions meet. What is in half precision already stays as it is: casting twice is casting once.

    Stated before anything is written: each weight moves by at most 2⁻¹¹ of itself (bfloat16: 2⁻⁸), in the normal range; how
    many numbers lie below that range and how many of them become zero; and the bound of the outputs' relative change, four
    times the largest change when the network in float64 has every weight and value moved at random by its rounding
    (stochastic, not a worst case). Both are measured on the cast network, and a violation stops the apply.

    Example: model net = zoo.smallcnn() input="1x1x8x8"; cast float16 keep norms

    Contract: bounded. Refused: a weight or a value that overflows (float16 ends at 65504), with its place; nothing to cast.
    Papers: Micikevicius et al., "Mixed precision training", ICLR 2018; Vignes, "A stochastic arithmetic for reliable
    scientific computation", 1993.
    """

    dtype: Literal["float16", "bfloat16"] = operand()
    keep: Selection | None = prep("keep")
    contract: ClassVar[Contract] = Contract.BOUNDED

    def resolve(self, network: Network, scope: Scope) -> Choice:
        """Name the tensors: all floating-point ones but those of layers that are kept or in this precision already."""
        from netxform.core.rounding import HALF

        kept = self._kept(network, scope)
        held = dict(network.module.named_parameters(remove_duplicate=False))
        held |= dict(network.module.named_buffers(remove_duplicate=False))
        shared = {id(t) for n, t in held.items() if n.rpartition(".")[0] in kept}
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
            targets=tuple(dict.fromkeys(n.rpartition(".")[0] for n in chosen)),
            values={"tensors": len(chosen), "parameters": chosen, "kept": len(kept), "seed": scope.seed},
            warnings=tuple(warnings),
            provisional="the bound of the outputs, and what overflows: from the weights" if chosen else "",
        )

    def _kept(self, network: Network, scope: Scope) -> set[str]:
        """The modules that keep their precision; a layer that is called as one is kept whole."""
        if self.keep is None:
            return set()
        items = self.keep.expression.items if isinstance(self.keep.expression, ast.List) else (self.keep.expression,)
        modules = dict(network.module.named_modules(remove_duplicate=False))
        found: set[str] = set()
        for item in items:
            if isinstance(item, ast.Path) and item.text == "norms" and "norms" not in modules:
                norms = {n for n, m in modules.items() if "Norm" in type(m).__name__ and _holds(m)}
                if not norms:
                    raise fail("X0203", "`keep norms`: the network has no normalisation", item.span, "matches nothing")
                found |= norms
            else:
                found |= set(scope.modules_of(Selection(item, item.span)))
        called = {str(n.target) for n in network.module.graph.nodes if n.op == "call_module"}
        whole = {c for c in called for f in found if f == c or f.startswith(f"{c}.")}
        return found | {n for n in modules for c in whole if n == c or n.startswith(f"{c}.")}

    def settle(self, network: Network, choice: Choice, material: Material) -> Choice:
        """Count what rounding does to the weights; predict what it does to the outputs."""
        from netxform.core.network import samples
        from netxform.core.rounding import HALF, predict, rounding
        from netxform.core.surgery import perform

        names = list(choice.values["parameters"])
        if not names:
            return replace(choice, provisional="")
        dtype = HALF[self.dtype]
        held = dict(network.module.named_parameters(remove_duplicate=False))
        held |= dict(network.module.named_buffers(remove_duplicate=False))
        every = {id(held[n]): held[n] for n in names}
        counts = rounding(every.values(), dtype)
        if counts.overflow:
            broken = [n for n in names if rounding([held[n]], dtype).overflow]
            layer = broken[0].rpartition(".")[0]
            raise self._overflow(f"{counts.overflow} weights would become infinite", broken, layer, counts.largest)
        after = perform(network, self.rewrite(network, choice))
        seed = int(choice.values["seed"])
        try:
            found = predict(network, after, names, dtype, samples(network, seed), seed)
        except RuntimeError as error:
            raise fail("X0801", f"the network in {self.dtype} does not run: {str(error).splitlines()[0]}") from error
        if self.dtype == "float16" and found.largest > 65504:
            raise self._overflow("a value on the way would become infinite", [found.where], found.where, found.largest)
        values = choice.values | {
            "bound": found.bound,
            "numbers": counts.numbers,
            "subnormal": counts.subnormal,
            "zeroed": counts.zeroed,
            "largest weight": counts.largest,
            "largest value": found.largest,
        }
        warnings = choice.warnings
        if counts.zeroed > counts.numbers // 100:
            share = 100 * counts.zeroed / counts.numbers
            warnings += (f"{counts.zeroed} of {counts.numbers} numbers ({share:.1f} %) are too small for {self.dtype}: zero",)
        return replace(choice, values=values, provisional="", warnings=warnings)

    def _overflow(self, what: str, places: list[str], layer: str, largest: float) -> NetxformError:
        limit = "65504" if self.dtype == "float16" else "3.39e38"
        return fail(
            "X0329",
            f"{what}: the largest is {largest:.4g}, and {self.dtype} ends at {limit}",
            notes=(f"at {', '.join(places[:5])}{' …' if len(places) > 5 else ''}",),
            helps=(f"keep it: `cast {self.dtype} keep [{layer or places[0]}]`", "or `cast bfloat16`"),
        )

    def rewrite(self, network: Network, choice: Choice) -> Edit:
        """Cast the tensors; the graph follows."""
        names = tuple(choice.values["parameters"])
        return Edit((CastEdit(names, self.dtype),)) if names else Edit()

    def law(self, choice: Choice) -> tuple[Claim, ...]:
        """Every weight is rounded to nearest; the outputs stay within the bound."""
        names = tuple(choice.values["parameters"])
        if not names:
            return (SameOutputs(),)
        bound = float(choice.values.get("bound", float("inf")))
        return (Rounded(names, self.dtype), WithinBound(bound))


def _holds(module: nn.Module) -> bool:
    """Whether tensors hang on the module itself."""
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
