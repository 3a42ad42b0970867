"""Element by element: arithmetic, comparison, activations, dropout, and what only moves or casts values."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Lock, fresh, lock, split, unify
from netxform.axes.rules.context import (
    Context,
    Int,
    Real,
    Shape,
    Typed,
    Uncovered,
    axis_of,
    broadcast,
    need,
    same,
    several,
    unknown,
)
from netxform.axes.rules.registry import layer, rule
from netxform.graph.activations import ACTIVATIONS

_ARITHMETIC = """add sub mul div true_divide floor_divide floordiv truediv radd rsub rmul rdiv rtruediv multiply subtract divide
    remainder fmod exp exp2 expm1 neg negative rsqrt sqrt pow rpow clamp clip clamp_min clamp_max masked_fill ne eq lt
    gt le ge where maximum minimum abs log log2 log10 log1p sin cos tan atan2 addcmul addcdiv bitwise_not bitwise_and
    bitwise_or logical_not logical_and logical_or logical_xor erf erfc reciprocal square floor ceil round sign sgn
    frac trunc lerp isnan isinf isfinite nan_to_num invert and or xor fill zero erfinv sinh cosh asin acos atan hypot
    float_power heaviside copysign deg2rad polar log_sigmoid_forward pos positive lift lift_fresh native_dropout
    fused_dropout dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout bernoulli"""
_ACTIVATIONS = " ".join(n for a in ACTIVATIONS for n in a.names if n != "prelu")  # its slopes are a tensor
_LAYERS = " ".join(a.layer.__name__ for a in ACTIVATIONS if a.layer is not nn.PReLU)


@rule(f"{_ARITHMETIC} {_ACTIVATIONS}")
def pointwise(t: Context, *args: Any, **kwargs: Any) -> Any:
    """Every element of the result depends on the elements at the same place; sizes that broadcast stay apart."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Typed)]
    for number in (*args, *kwargs.values()):
        for dim in getattr(number, "dims", ()) if isinstance(number, Int | Real) else ():
            t.mix(dim, "size")
    if t.shape is None:
        raise Uncovered("the result is no tensor")
    shape = cast("Shape", t.shape[0] if several(t) else t.shape)
    if any(len(a.shape) > len(shape) for a in operands):
        raise Uncovered("the result has fewer dimensions than an operand")
    result = broadcast(t, operands, shape)
    if several(t):
        return (
            result,
            *[Typed(list(result.dims), result.shape) if s == shape else unknown(t, s) for s in t.shape[1:]],
        )
    return result


@rule(
    """clone alias detach to _to_copy contiguous float double half bfloat16 type requires_grad_ cpu cuda data identity
    lift_fresh_copy detach_copy alias_copy long int bool type_as conj resolve_conj resolve_neg""",
    view=True,
)
def _identity(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """The same values in another place or precision."""
    return Typed(list(x.dims), x.shape, x.dtype, x.source, x.axes)


@rule("copy copy_")
def _copy(t: Context, x: Typed, source: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Writing makes two values the same; the written one keeps its type, so that a view of a tensor types the tensor."""
    broadcast(t, [x, source], x.shape)
    return x


@rule("prelu _prelu_kernel")
def _prelu(t: Context, x: Typed, weight: Typed) -> Typed:
    """A slope for every channel, or one for all."""
    t.touch(weight)
    if weight.shape and weight.shape[-1 if len(weight.shape) == 1 else 1] != 1:
        unify(x.dims[1], weight.dims[0] if len(weight.shape) == 1 else weight.dims[1], t.at)
    else:
        lock(tuple(f for d in weight.dims for f in d), Lock("one", t.at))
    return same(t, x)


@rule("glu")
def _glu(t: Context, x: Typed, dim: int = -1) -> Typed:
    """The second half gates the first: two stacks of one axis."""
    i = axis_of(x, dim)
    t.touch(x)
    halves = split(x.dims[i], [x.shape[i] // 2], t.at)
    dims = list(x.dims)
    if halves is None:
        lock(x.dims[i], Lock("shape", t.at))
        dims[i] = fresh(x.shape[i] // 2, Lock("shape", t.at))
    else:
        unify(halves[0], halves[1], t.at)
        dims[i] = halves[0]
    return same(t, x, dims)


@layer(f"{_LAYERS} Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout DropPath")
def _pointwise_layer(t: Context, module: nn.Module, x: Typed) -> Typed:
    return cast(Typed, pointwise(t, x))


@layer("Identity")
def _identity_layer(t: Context, module: nn.Module, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    return x


@layer("PReLU")
def _prelu_layer(t: Context, module: nn.Module, x: Typed) -> Typed:
    weight = need(t, "weight")
    made = _prelu(t, x, weight)
    t.attribute("num_parameters", weight.dims[0])
    return made


@layer("GLU")
def _glu_layer(t: Context, module: nn.Module, x: Typed) -> Typed:
    return _glu(t, x, cast(nn.GLU, module).dim)
