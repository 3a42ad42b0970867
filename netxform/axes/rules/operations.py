"""What each operation says about the axis types of its operands: the rules, by family.

A rule is a function named after nothing, registered under every name by which torch knows the operation (functional,
method and ATen), with one line that says why it is right. It gets typed values and plain arguments, and returns typed
values of the shapes in `t.shape`. What no rule covers is locked (`infer.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from netxform.axes.algebra import ONE, Dim, Lock, concat, fresh, is_locked, lock, mirrored, normal, regroup, size, split, unify

Shape = tuple[int, ...]


@dataclass(slots=True)
class Typed:
    """A tensor as the analysis sees it: a type for every dimension.

    `source` and `axes` say which tensor of the module this is a view of, and which of its axes each dimension is.
    """

    dims: list[Dim]
    shape: Shape
    dtype: Any = None
    source: str | None = None
    axes: tuple[int | None, ...] = ()


class Int(int):
    """An int argument that knows where it stands in the graph (`path`) or which dimensions it was computed from (`dims`)."""

    path: tuple[Any, ...] | None = None
    dims: tuple[Dim, ...] = ()


class Real(float):
    """A float that was computed from the sizes of dimensions."""

    dims: tuple[Dim, ...] = ()


class Uncovered(Exception):
    """No rule covers this use of the operation."""


class Context(Protocol):
    """What a rule may ask for while it runs."""

    at: str
    shape: Any
    inside: bool

    def state(self, number: Any, *dims: Dim) -> None:
        """The number in the code is the sum of the sizes of these dimensions, and must follow them."""
        ...

    def contract(self, left: Typed, i: int, right: Typed, j: int) -> None:
        """Dimension i of `left` and j of `right` are the same and are summed over."""
        ...

    def mix(self, dim: Dim, kind: str) -> None:
        """Something is computed across the dimension."""
        ...

    def touch(self, tensor: Typed) -> None:
        """The values of a tensor of the module are used here, and are not contracted away elsewhere."""
        ...

    def scaled_by_size(self, dim: Dim) -> bool:
        """The result depends on the size of `dim` through a default scale; whether that can be written out."""
        ...


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
VIEWS: set[str] = set()


def rule(names: str, view: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule under names. `view`: the result holds the operand's values, rearranged at most."""

    def register(function: Rule) -> Rule:
        for name in names.split():
            assert name not in RULES, name
            RULES[name] = function
            if view:
                VIEWS.add(name)
        return function

    return register


def locked(shape: Shape, kind: str, at: str = "", dtype: Any = None) -> Typed:
    """A value whose dimensions are all locked for one reason."""
    return Typed([fresh(n, Lock(kind, at)) for n in shape], shape, dtype)


def _axis(x: Typed, dim: int) -> int:
    return dim % len(x.shape) if x.shape else 0


def _same(t: Context, x: Typed, dims: list[Dim] | None = None) -> Typed:
    return Typed(list(dims if dims is not None else x.dims), t.shape, x.dtype)


# --- elementwise -----------------------------------------------------------------------------------------------------

POINTWISE = """add sub mul div true_divide floor_divide floordiv truediv radd rsub rmul rdiv rtruediv multiply subtract divide
    remainder fmod relu relu6 silu gelu sigmoid tanh hardswish hardsigmoid hardtanh leaky_relu elu selu celu exp exp2 expm1 neg
    negative rsqrt sqrt pow rpow clamp clip clamp_min clamp_max masked_fill ne eq lt gt le ge where maximum minimum abs
    log log2 log10 log1p sin cos tan atan2 addcmul addcdiv bitwise_not bitwise_and bitwise_or logical_not logical_and logical_or
    logical_xor mish softplus softsign tanhshrink hardshrink softshrink threshold logsigmoid erf erfc reciprocal square floor
    ceil round sign sgn frac trunc lerp isnan isinf isfinite nan_to_num invert and or xor rrelu fill zero erfinv sinh cosh asin
    acos atan hypot float_power heaviside copysign deg2rad polar  log_sigmoid_forward pos positive
    lift lift_fresh native_dropout fused_dropout dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout
    feature_dropout bernoulli"""


@rule(POINTWISE)
def _pointwise(t: Context, *args: Any, **kwargs: Any) -> Any:
    """Every element of the result depends on the elements at the same place; sizes that broadcast stay apart."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Typed)]
    for number in (*args, *kwargs.values()):
        for dim in getattr(number, "dims", ()) if isinstance(number, Int | Real) else ():
            t.mix(dim, "size")
    several = isinstance(t.shape, list) or (bool(t.shape) and not isinstance(t.shape[0], int))
    shape = cast("Shape", t.shape[0] if several else t.shape)
    result = _broadcast(t, operands, shape)
    if several:
        return (
            result,
            *[Typed(list(result.dims), result.shape) if s == shape else locked(s, "unknown", t.at) for s in t.shape[1:]],
        )
    return result


def _broadcast(t: Context, operands: Sequence[Typed], shape: Shape) -> Typed:
    out: list[Dim | None] = [None] * len(shape)
    for operand in operands:
        t.touch(operand)
        lead = len(shape) - len(operand.shape)
        for i, n in enumerate(operand.shape):
            if n == 1 or n != shape[lead + i]:
                continue
            known = out[lead + i]
            if known is None:
                out[lead + i] = operand.dims[i]
            else:
                unify(known, operand.dims[i], t.at)
    dims = [d if d is not None else fresh(n) for d, n in zip(out, shape, strict=True)]
    return Typed(dims, shape, operands[0].dtype if operands else None)


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
    _broadcast(t, [x, source], x.shape)
    return x


@rule("prelu _prelu_kernel")
def _prelu(t: Context, x: Typed, weight: Typed) -> Typed:
    """A slope for every channel, or one for all."""
    t.touch(weight)
    if weight.shape and weight.shape[-1 if len(weight.shape) == 1 else 1] != 1:
        unify(x.dims[1], weight.dims[0] if len(weight.shape) == 1 else weight.dims[1], t.at)
    return _same(t, x)


@rule("glu")
def _glu(t: Context, x: Typed, dim: int = -1) -> Typed:
    """The second half gates the first: two stacks of one index set."""
    i = _axis(x, dim)
    t.touch(x)
    halves = split(x.dims[i], [x.shape[i] // 2], t.at)
    dims = list(x.dims)
    if halves is None:
        lock(x.dims[i], Lock("shape", t.at))
        dims[i] = fresh(x.shape[i] // 2, Lock("shape", t.at))
    else:
        unify(halves[0], halves[1], t.at)
        dims[i] = halves[0]
    return _same(t, x, dims)


# --- born in the graph -----------------------------------------------------------------------------------------------


@rule("zeros ones full empty new_zeros new_ones new_full new_empty empty_permuted")
def _uniform(t: Context, *args: Any, **kwargs: Any) -> Typed:
    """The same value everywhere: any index set will do, and the size must follow."""
    made = Typed([fresh(n) for n in t.shape], t.shape)
    sizes = [a for a in args if not isinstance(a, Typed)]
    given = kwargs.get("size", sizes[0] if sizes and isinstance(sizes[0], list | tuple) else sizes)
    if isinstance(given, list | tuple) and len(cast("list[Any]", given)) >= len(t.shape):
        for number, dim in zip(cast("list[Any]", given), made.dims, strict=False):
            t.state(number, dim)
    else:
        lock(concat(made.dims) if made.dims else ONE, Lock("constant", t.at))
    return made


@rule("zeros_like ones_like full_like empty_like")
def _like(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """The same value everywhere, as large as the operand."""
    return Typed(list(x.dims), x.shape, x.dtype)


@rule(
    "arange eye scalar_tensor tensor linspace rand randn randint rand_like randn_like tril_indices triu_indices device _assert"
)
def _constant(t: Context, *args: Any, **kwargs: Any) -> Any:
    """Values that depend on the position."""
    return locked(t.shape, "constant", t.at) if isinstance(t.shape, tuple) else None


# --- contractions ----------------------------------------------------------------------------------------------------


@rule("linear")
def _linear(t: Context, x: Typed, weight: Typed, bias: Typed | None = None) -> Typed:
    """Y = x W^T + b contracts the last dimension of x with the columns of W; rows are the outputs."""
    t.touch(weight)
    t.touch(x)
    t.contract(x, len(x.shape) - 1, weight, len(weight.shape) - 1)
    rows = weight.dims[0] if len(weight.shape) == 2 else None
    if bias is not None and rows is not None:
        t.touch(bias)
        if bias.shape == weight.shape[:1]:
            unify(rows, bias.dims[0], t.at)
    return Typed([*x.dims[:-1], *([rows] if rows is not None else [])], t.shape, x.dtype)


@rule("matmul mm bmm rmatmul dot mv")
def _matmul(t: Context, x: Typed, y: Typed) -> Typed:
    """The last dimension of x is contracted with the last but one of y; the others are batches."""
    t.touch(x)
    t.touch(y)
    t.contract(x, len(x.shape) - 1, y, max(len(y.shape) - 2, 0))
    ends = [x.dims[-2]] if len(x.shape) > 1 else []
    ends += [y.dims[-1]] if len(y.shape) > 1 else []
    batch = cast("Shape", t.shape[: len(t.shape) - len(ends)])
    a, b = (Typed(v.dims[:-2], v.shape[:-2]) for v in (x, y))
    return Typed([*_broadcast(t, [a, b], batch).dims, *ends], t.shape, x.dtype)


@rule("addmm baddbmm")
def _addmm(t: Context, bias: Typed, x: Typed, y: Typed, **kwargs: Any) -> Typed:
    """A matrix product with something added."""
    made = _matmul(t, x, y)
    return _broadcast(t, [made, bias], t.shape)


@rule("outer ger")
def _outer(t: Context, x: Typed, y: Typed) -> Typed:
    """All products of the elements of two vectors."""
    t.touch(x)
    t.touch(y)
    return Typed([x.dims[0], y.dims[0]], t.shape, x.dtype)


@rule("einsum")
def _einsum(t: Context, equation: str, *operands: Any) -> Typed:
    """A letter is one index set; letters that the result lacks are summed over."""
    given = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in equation or len(terms) != len(given):
        raise Uncovered
    letters = [c for term in terms for c in term]
    if not arrow:
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    where: dict[str, tuple[Typed, int]] = {}
    for term, operand in zip(terms, given, strict=True):
        t.touch(operand)
        for i, letter in enumerate(term):
            if operand.shape[i] == 1:
                continue
            if letter in where and letter not in right:
                t.contract(*where[letter], operand, i)
            elif letter in where:
                unify(where[letter][0].dims[where[letter][1]], operand.dims[i], t.at)
            where.setdefault(letter, (operand, i))
    for letter, (operand, i) in where.items():
        if letter not in right and letters.count(letter) == 1:
            t.mix(operand.dims[i], "sum")
        elif letter not in right and letters.count(letter) > 2:
            t.mix(operand.dims[i], "product")
    return Typed([where[c][0].dims[where[c][1]] if c in where else ONE for c in right], t.shape, given[0].dtype)


@rule("bilinear")
def _bilinear(t: Context, x: Typed, y: Typed, weight: Typed, bias: Typed | None = None) -> Typed:
    """Y_o = x^T W_o y + b_o."""
    for value in (x, y, weight):
        t.touch(value)
    t.contract(x, len(x.shape) - 1, weight, 1)
    t.contract(y, len(y.shape) - 1, weight, 2)
    if bias is not None:
        t.touch(bias)
        unify(weight.dims[0], bias.dims[0], t.at)
    lead = _broadcast(t, [Typed(x.dims[:-1], x.shape[:-1]), Typed(y.dims[:-1], y.shape[:-1])], t.shape[:-1])
    return Typed([*lead.dims, weight.dims[0]], t.shape, x.dtype)


@rule("scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math")
def _attention(t: Context, query: Typed, key: Typed, value: Typed, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Softmax(q k^T · scale) v: q and k are contracted over their width, keys and values over positions."""
    several = not isinstance(t.shape[0], int)
    shape = cast("Shape", t.shape[0] if several else t.shape)
    for operand in (query, key, value):
        t.touch(operand)
    t.contract(query, len(query.shape) - 1, key, len(key.shape) - 1)
    if kwargs.get("scale") is None and not t.scaled_by_size(query.dims[-1]):
        t.mix(query.dims[-1], "size")
    unify(key.dims[-2], value.dims[-2], t.at)
    t.mix(key.dims[-2], "softmax")
    heads = query.dims[:-2]
    for other in (key, value):
        for i in range(len(shape) - 2):
            n, own = query.shape[i], other.shape[i]
            if n == own:
                unify(heads[i], other.dims[i], t.at)
            elif own != 1 and n % own == 0:  # grouped queries: each head of keys serves several heads of queries
                unify(heads[i], other.dims[i] + fresh(n // own, Lock("stack", t.at)), t.at)
            elif n != 1:
                raise Uncovered
    made = Typed([*heads, query.dims[-2], value.dims[-1]], shape, query.dtype)
    if isinstance(attn_mask, Typed):
        _broadcast(t, [Typed([*heads, query.dims[-2], key.dims[-2]], (*query.shape[:-1], key.shape[-2])), attn_mask],
                   (*shape[:-2], query.shape[-2], key.shape[-2]))  # fmt: skip
    return (made, *[locked(s, "unknown", t.at) for s in t.shape[1:]]) if several else made


# --- convolutions ----------------------------------------------------------------------------------------------------


def convolve(t: Context, x: Typed, weight: Typed, bias: Typed | None, groups: int, transposed: bool) -> Typed:
    """Channels are contracted within groups; taps and positions are locked.

    Groups are an index set of their own: of the input (groups · inputs), of the output (groups · outputs).
    """
    t.touch(x)
    t.touch(weight)
    taps = len(weight.shape) - 2
    channel = len(x.shape) - taps - 1
    for dim in weight.dims[2:]:
        lock(dim, Lock("kernel", t.at))
    for dim in x.dims[channel + 1 :]:
        lock(dim, Lock("spatial", t.at))
    into, out = (0, 1) if transposed else (1, 0)
    if groups == 1:
        t.contract(x, channel, weight, into)
        made = weight.dims[out]
    else:
        group = fresh(groups)
        t.state(groups, group)
        if transposed:
            inner = fresh(weight.shape[0] // groups)
            unify(weight.dims[0], group + inner, t.at)
            unify(x.dims[channel], weight.dims[0], t.at)
            within = Typed([inner], (weight.shape[0] // groups,))
            t.contract(within, 0, Typed([inner], within.shape, source=weight.source, axes=(_origin(weight, 0),)), 0)
            made = group + weight.dims[1]
        else:
            outer = fresh(weight.shape[0] // groups)
            unify(weight.dims[0], group + outer, t.at)
            unify(x.dims[channel], group + weight.dims[1], t.at)
            within = Typed([weight.dims[1]], weight.shape[1:2])
            t.contract(within, 0, weight, 1)
            made = weight.dims[0]
    if bias is not None:
        t.touch(bias)
        unify(made, bias.dims[0], t.at)
    dims = [*x.dims[:channel], made, *[fresh(n, Lock("spatial", t.at)) for n in t.shape[channel + 1 :]]]
    return Typed(dims, t.shape, x.dtype)


def _origin(x: Typed, i: int) -> int | None:
    return x.axes[i] if x.source is not None else None


@rule("conv1d conv2d conv3d")
def _conv(
    t: Context, input: Typed, weight: Typed, bias: Typed | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Typed:  # fmt: skip
    """See `convolve`."""
    return convolve(t, input, weight, bias, groups, False)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def _conv_transpose(
    t: Context, input: Typed, weight: Typed, bias: Typed | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Typed:  # fmt: skip
    """See `convolve`; the weight has the inputs first."""
    return convolve(t, input, weight, bias, groups, True)


@rule("convolution _convolution")
def _convolution(
    t: Context, x: Typed, weight: Typed, bias: Typed | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, *args: Any,
) -> Typed:  # fmt: skip
    """The ATen form of both."""
    return convolve(t, x, weight, bias, groups, bool(transposed))


@rule("im2col unfold")
def _unfold(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Patches: channels by taps, for every position."""
    if len(args) == 3 and all(isinstance(a, int) for a in args):
        raise Uncovered  # Tensor.unfold, a sliding window along one dimension
    t.touch(x)
    if len(x.shape) != 4:
        raise Uncovered
    for dim in x.dims[2:]:
        lock(dim, Lock("spatial", t.at))
    taps = fresh(t.shape[1] // x.shape[1], Lock("kernel", t.at))
    return Typed([x.dims[0], x.dims[1] + taps, fresh(t.shape[2], Lock("spatial", t.at))], t.shape, x.dtype)


@rule("col2im fold")
def _fold(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Patches put together again."""
    t.touch(x)
    if len(x.shape) != 3:
        raise Uncovered
    channels = t.shape[1]
    parts = regroup(x.dims[1], [channels, x.shape[1] // channels], t.at)
    if parts is None:
        raise Uncovered
    lock(parts[1], Lock("kernel", t.at))
    lock(x.dims[2], Lock("spatial", t.at))
    return Typed([x.dims[0], parts[0], *[fresh(n, Lock("spatial", t.at)) for n in t.shape[2:]]], t.shape, x.dtype)


POOLS = """max_pool avg_pool adaptive_avg_pool adaptive_max_pool lp_pool _adaptive_avg_pool"""


def pool(t: Context, x: Typed, count: int) -> Any:
    """Neighbours along the last `count` dimensions are read together; channels stay."""
    t.touch(x)
    for dim in x.dims[len(x.dims) - count :]:
        lock(dim, Lock("spatial", t.at))

    def made(shape: Shape) -> Typed:
        kept = list(x.dims[: len(x.dims) - count])
        return Typed([*kept, *[fresh(n, Lock("spatial", t.at)) for n in shape[len(kept) :]]], shape, x.dtype)

    if t.shape and not isinstance(t.shape[0], int):
        return tuple(made(s) for s in t.shape)
    return made(t.shape)


def _pool_rules() -> None:
    for kind in POOLS.split():
        for n in (1, 2, 3):
            for name in (f"{kind}{n}d", f"{kind}{n}d_with_indices", f"{kind}{n}d_with_mask"):
                rule(name)(lambda t, x, *a, _n=n, **k: pool(t, x, _n))
    for mode, dims in (("nearest", (1, 2, 3)), ("linear", (1,)), ("bilinear", (2,)), ("bicubic", (2,)), ("trilinear", (3,))):
        for n in dims:
            for name in (
                f"upsample_{mode}{n}d",
                f"_upsample_{mode}{n}d_aa",
                f"_upsample_{mode}-exact{n}d",
                f"_upsample_nearest_exact{n}d",
            ):
                if name not in RULES:
                    rule(name)(lambda t, x, *a, _n=n, **k: pool(t, x, _n))
    for name in ("reflection_pad", "replication_pad"):
        for d in (1, 2, 3):
            rule(f"{name}{d}d")(lambda t, x, *a, _n=d, **k: pool(t, x, _n))


_pool_rules()


@rule("interpolate upsample grid_sample")
def _interpolate(t: Context, input: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Everything behind the channels is resampled."""
    for other in (*args, *kwargs.values()):
        if isinstance(other, Typed):
            raise Uncovered
    return pool(t, input, len(input.shape) - 2)


# --- norms -----------------------------------------------------------------------------------------------------------


@rule("batch_norm _batch_norm_impl_index native_batch_norm cudnn_batch_norm _native_batch_norm_legit native_batch_norm_legit")
def _batch_norm(
    t: Context, input: Typed, *tensors: Any, weight: Any = None, bias: Any = None, running_mean: Any = None,
    running_var: Any = None, training: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """One statistic a channel; in training mode computed over everything else."""
    given = [a for a in (*tensors, weight, bias, running_mean, running_var) if isinstance(a, Typed)]
    flags = [a for a in tensors if isinstance(a, bool)]
    return batch_norm(t, input, given, bool(training) if training is not None else bool(flags and flags[0]))


@rule("_native_batch_norm_legit_no_training")
def _batch_norm_eval(t: Context, input: Typed, *tensors: Any, **kwargs: Any) -> Any:
    """One running statistic a channel."""
    return batch_norm(t, input, [a for a in tensors if isinstance(a, Typed)], False)


def batch_norm(t: Context, x: Typed, tensors: Sequence[Typed], batch_statistics: bool) -> Any:
    """Everything that has a channel's index has the same one."""
    t.touch(x)
    for tensor in tensors:
        t.touch(tensor)
        unify(tensor.dims[0], x.dims[1], t.at)
    if batch_statistics:
        for i, dim in enumerate(x.dims):
            if i != 1:
                t.mix(dim, "batch_norm")
    if t.shape and not isinstance(t.shape[0], int):
        rest = [Typed([x.dims[1]], s) if s == (x.shape[1],) else locked(s, "unknown") for s in t.shape[1:]]
        return (Typed(list(x.dims), x.shape, x.dtype), *rest)
    return Typed(list(x.dims), x.shape, x.dtype)


@rule("instance_norm")
def _instance_norm(
    t: Context, input: Typed, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    *args: Any, **kwargs: Any,
) -> Typed:  # fmt: skip
    """Statistics over positions, for every channel by itself."""
    for dim in input.dims[2:]:
        t.mix(dim, "batch_norm")
    return batch_norm(t, input, [a for a in (running_mean, running_var, weight, bias) if isinstance(a, Typed)], False)


@rule("layer_norm native_layer_norm rms_norm _fused_rms_norm")
def _layer_norm(
    t: Context, input: Typed, normalized_shape: Any, weight: Typed | None = None, bias: Any = None, eps: Any = None, *args: Any
) -> Any:
    """Statistics over the last dimensions together: they are mixed. Scale and shift have their index."""
    t.touch(input)
    count = len(normalized_shape)
    last = input.dims[len(input.dims) - count :]
    for number, dim in zip(normalized_shape, last, strict=True):
        t.mix(dim, "layer_norm")
        t.state(number, dim)
    for tensor in (weight, bias):
        if isinstance(tensor, Typed):
            t.touch(tensor)
            for a, b in zip(last, tensor.dims, strict=True):
                unify(a, b, t.at)
    if t.shape and not isinstance(t.shape[0], int):
        return (_typed(input), *[Typed([d if n == m else ONE for d, n, m in zip(input.dims, input.shape, s, strict=True)], s)
                                 if len(s) == len(input.shape) else locked(s, "unknown") for s in t.shape[1:]])  # fmt: skip
    return _typed(input)


def _typed(x: Typed) -> Typed:
    return Typed(list(x.dims), x.shape, x.dtype)


def group_norm(t: Context, x: Typed, tensors: Sequence[Typed], groups: int) -> Typed:
    """Statistics within a group: whole groups are free, what is inside one is mixed."""
    t.touch(x)
    for tensor in tensors:
        t.touch(tensor)
        unify(x.dims[1], tensor.dims[0], t.at)
    parts = regroup(x.dims[1], [groups, x.shape[1] // groups], t.at)
    if parts is None:
        lock(x.dims[1], Lock("shape", t.at))
    else:
        t.state(groups, parts[0])
        t.mix(parts[1], "group_norm")
    for dim in x.dims[2:]:
        t.mix(dim, "group_norm")
    return _typed(x)


@rule("group_norm")
def _group_norm(
    t: Context, input: Typed, num_groups: int, weight: Any = None, bias: Any = None, *args: Any, **kwargs: Any
) -> Typed:
    """See `group_norm`."""
    return group_norm(t, input, [a for a in (weight, bias) if isinstance(a, Typed)], num_groups)


@rule("native_group_norm")
def _native_group_norm(t: Context, x: Typed, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float) -> Any:
    """The ATen form."""
    made = group_norm(t, x, [a for a in (weight, bias) if isinstance(a, Typed)], groups)
    return (made, *[locked(s, "unknown") for s in t.shape[1:]])


@rule("_weight_norm_interface _weight_norm")
def _weight_norm(t: Context, v: Typed, g: Typed, dim: int = 0) -> Any:
    """W = g v / |v|: the norm runs over everything but `dim`."""
    t.touch(v)
    t.touch(g)
    for i, d in enumerate(v.dims):
        if i == dim and g.shape and g.shape[i] == v.shape[i]:
            unify(d, g.dims[i], t.at)
        elif i != dim:
            t.mix(d, "norm")
    if t.shape and not isinstance(t.shape[0], int):
        norms = t.shape[1]
        kept = len(norms) == len(v.shape) and norms[dim] == v.shape[dim]
        return (
            _typed(v),
            Typed([d if i == dim else ONE for i, d in enumerate(v.dims)], norms) if kept else locked(norms, "unknown"),
        )
    return _typed(v)


# --- reductions ------------------------------------------------------------------------------------------------------

REDUCTIONS = {
    "mean": "mean", "sum": "sum", "amax": "extremum", "amin": "extremum", "prod": "product", "var": "variance",
    "std": "variance", "var_mean": "variance", "std_mean": "variance", "norm": "norm", "vector_norm": "norm",
    "linalg_vector_norm": "norm", "logsumexp": "softmax", "any": "extremum", "all": "extremum", "nansum": "sum",
    "nanmean": "mean", "aminmax": "extremum",
}  # fmt: skip


def _reductions() -> None:
    for name, kind in REDUCTIONS.items():
        rule(name)(lambda t, x, *a, _kind=kind, _name=name, **k: _reduce(t, x, _kind, _name, *a, **k))


def _reduce(t: Context, x: Typed, kind: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """What is reduced is mixed; the rest keeps its type."""
    t.touch(x)
    place = 1 if "norm" in name else 0
    over = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else None))
    if isinstance(over, bool):
        over = None
    axes = list(range(len(x.shape))) if over is None else [_axis(x, d) for d in ([over] if isinstance(over, int) else over)]
    if over is not None and not isinstance(over, int) and not axes:
        axes = list(range(len(x.shape)))
    for i in axes:
        t.mix(x.dims[i], kind)

    def made(shape: Shape) -> Typed:
        if len(shape) == len(x.shape):
            return Typed([ONE if i in axes else d for i, d in enumerate(x.dims)], shape, x.dtype)
        return Typed([d for i, d in enumerate(x.dims) if i not in axes], shape, x.dtype)

    return tuple(made(s) for s in t.shape) if t.shape and not isinstance(t.shape[0], int) else made(t.shape)


_reductions()


@rule("max min")
def _extremum(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Any:
    """Of two tensors: elementwise. Of one: a reduction; which position it was is locked where it is read."""
    others = [a for a in (*args, *kwargs.values()) if isinstance(a, Typed)]
    if others:
        return _pointwise(t, x, *others)
    made = _reduce(t, x, "extremum", "amax", *args, **kwargs)
    if isinstance(made, tuple):
        axis = _axis(x, kwargs.get("dim", args[0] if args else 0))
        return (made[0], Positions(made[1].dims, made[1].shape, None, None, (), x.dims[axis]))
    return made


@dataclass(slots=True)
class Positions(Typed):
    """Positions along a dimension, as values: whoever reads them locks it."""

    of: Dim = field(default=ONE)


@rule("softmax _softmax _safe_softmax log_softmax _log_softmax softmin gumbel_softmax")
def _softmax(t: Context, x: Typed, dim: Any = -1, *args: Any, **kwargs: Any) -> Typed:
    """Normalised along one dimension."""
    t.touch(x)
    t.mix(x.dims[_axis(x, dim)], "softmax")
    return _typed(x)


@rule("normalize")
def _normalize(t: Context, x: Typed, p: Any = 2.0, dim: int = 1, *args: Any, **kwargs: Any) -> Typed:
    """Divided by a norm along one dimension."""
    t.touch(x)
    t.mix(x.dims[_axis(x, dim)], "norm")
    return _typed(x)


# --- look-ups --------------------------------------------------------------------------------------------------------


def lookup(t: Context, weight: Typed, numbers: Typed) -> Typed:
    """Rows by number: the rows are locked, their elements are not."""
    t.touch(weight)
    lock(weight.dims[0], Lock("lookup", t.at))
    return Typed([*numbers.dims, weight.dims[1]], t.shape, weight.dtype)


@rule("embedding")
def _embedding(t: Context, a: Typed, b: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Functional and ATen forms differ in the order of their arguments."""
    return lookup(t, a, b) if len(a.shape) == 2 and (*b.shape, a.shape[1]) == t.shape and _is_float(a) else lookup(t, b, a)


def _is_float(x: Typed) -> bool:
    return x.dtype is None or bool(getattr(x.dtype, "is_floating_point", True))


# --- rearranged ------------------------------------------------------------------------------------------------------


def _reshaped(t: Context, x: Typed) -> Typed:
    made = Typed(_regrouped(x, t.shape, t.at), t.shape, x.dtype)
    if x.source is not None:
        made.source = x.source
        made.axes = _followed(x, made)
    return made


@rule("flatten ravel view_as reshape_as", view=True)
def _flatten(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Neighbouring dimensions become one: no sizes stand in the code."""
    return _reshaped(t, x)


@rule("view reshape _unsafe_view _reshape_alias unflatten", view=True)
def _reshape(t: Context, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    """Elements keep their order: dimensions are taken apart and put together."""
    made = _reshaped(t, x)
    numbers: Any = kwargs.get("shape", kwargs.get("size", kwargs.get("sizes")))
    if numbers is None:
        plain: list[Any] = [a for a in args if not isinstance(a, Typed)]
        numbers = plain[0] if plain and isinstance(plain[0], list | tuple) else plain
        if len(plain) == 2 and isinstance(plain[1], list | tuple):  # unflatten(dim, sizes)
            start = _axis(x, int(cast(int, plain[0])))
            _state_sizes(t, plain[1], made.dims[start : start + len(cast("list[Any]", plain[1]))])
            numbers = ()
    if len(numbers) == len(t.shape):
        _state_sizes(t, numbers, made.dims)
    return made


def _state_sizes(t: Context, numbers: Sequence[Any], dims: Sequence[Dim]) -> None:
    for number, dim in zip(numbers, dims, strict=True):
        if not (isinstance(number, int) and number == -1):
            t.state(number, dim)


def _followed(x: Typed, made: Typed) -> tuple[int | None, ...]:
    """Which dimensions of a view are whole axes of the tensor it is a view of."""
    known = {id(d[0]): x.axes[i] for i, d in enumerate(x.dims) if len(d) == 1}
    return tuple(known.get(id(d[0])) if len(d) == 1 else None for d in made.dims)


def _regrouped(x: Typed, shape: Shape, at: str) -> list[Dim]:
    """Blocks of neighbouring dimensions with equal products, each regrouped by itself."""
    out: list[Dim] = []
    i = j = 0
    while j < len(shape) or i < len(x.shape):
        if i < len(x.shape) and j < len(shape) and x.shape[i] == shape[j]:
            out.append(x.dims[i])
            i, j = i + 1, j + 1
            continue
        left, right = i, j
        a = b = 1
        if i < len(x.shape) and (x.shape[i] == 1 or j == len(shape)):
            i += 1
            continue
        if shape[j] == 1:
            out.append(ONE)
            j += 1
            continue
        while a != b or a == 1:
            if a <= b:
                a *= x.shape[i]
                i += 1
            else:
                b *= shape[j]
                j += 1
            if a == 0 or b == 0:
                raise Uncovered
        whole: Dim = tuple(f for d in x.dims[left:i] for f in d)
        parts = regroup(whole, list(shape[right:j]), at)
        if parts is None:
            lock(whole, Lock("shape", at))
            parts = [fresh(n, Lock("shape", at)) for n in shape[right:j]]
        out += parts
    return out


def _rearranged(x: Typed, order: Sequence[int | None], t: Context) -> Typed:
    """Dimensions in another order; None is a new one of size 1."""
    dims = [ONE if i is None else x.dims[i] for i in order]
    axes = tuple(None if i is None else x.axes[i] for i in order) if x.source is not None else ()
    return Typed(dims, t.shape, x.dtype, x.source, axes)


@rule("permute movedim moveaxis permute_copy", view=True)
def _permute(t: Context, x: Typed, *order: Any, dims: Any = None, **kwargs: Any) -> Typed:
    """Another order of dimensions."""
    if kwargs or (len(order) == 2 and dims is None and len(x.shape) != 2):
        source, target = (
            kwargs.get("source", order[0] if order else None),
            kwargs.get("destination", order[-1] if order else None),
        )
        if isinstance(source, int) and isinstance(target, int):
            rest = [i for i in range(len(x.shape)) if i != _axis(x, source)]
            rest.insert(_axis(x, target), _axis(x, source))
            return _rearranged(x, rest, t)
        raise Uncovered
    given = dims if dims is not None else order[0] if len(order) == 1 and isinstance(order[0], list | tuple) else order
    return _rearranged(x, [_axis(x, i) for i in given], t)


@rule("transpose swapaxes swapdims t T mT H mH adjoint transpose_copy", view=True)
def _transpose(t: Context, x: Typed, *two: Any, dim0: Any = None, dim1: Any = None, **kwargs: Any) -> Typed:
    """Two dimensions exchanged."""
    order = list(range(len(x.shape)))
    a, b = (*two, dim0, dim1)[:2] if two else (dim0, dim1)
    a, b = (-2, -1) if a is None else (_axis(x, a), _axis(x, b if b is not None else dim1))
    if len(order) > 1:
        order[a], order[b] = order[b], order[a]
    return _rearranged(x, order, t)


@rule("unsqueeze", view=True)
def _unsqueeze(t: Context, x: Typed, dim: int) -> Typed:
    """A new dimension of size 1."""
    order: list[int | None] = list(range(len(x.shape)))
    order.insert(dim % len(t.shape), None)
    return _rearranged(x, order, t)


@rule("squeeze", view=True)
def _squeeze(t: Context, x: Typed, dim: Any = None, **kwargs: Any) -> Typed:
    """Dimensions of size 1 left out."""
    chosen = range(len(x.shape)) if dim is None else [_axis(x, d) for d in ([dim] if isinstance(dim, int) else dim)]
    return _rearranged(x, [i for i in range(len(x.shape)) if not (i in chosen and x.shape[i] == 1)], t)


@rule("expand expand_as broadcast_to", view=True)
def _expand(t: Context, x: Typed, *sizes: Any, size: Any = None, **kwargs: Any) -> Typed:
    """Repeated along dimensions of size 1: the same values everywhere, so any index set will do."""
    lead = len(t.shape) - len(x.shape)
    given = size if size is not None else sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    other: Any = sizes[0] if sizes else None
    dims: list[Dim] = []
    for j, n in enumerate(t.shape):
        kept = j >= lead and x.shape[j - lead] == n
        dims.append(x.dims[j - lead] if kept else fresh(n))
        if not kept and isinstance(other, Typed):
            unify(dims[-1], other.dims[j], t.at)
        elif not kept or (len(given) == len(t.shape) and isinstance(given[j], int) and given[j] != -1):
            if len(given) == len(t.shape):
                t.state(given[j], dims[-1])
            else:
                lock(dims[-1], Lock("stack", t.at))
    axes = tuple(x.axes[j - lead] if j >= lead else None for j in range(len(t.shape))) if x.source is not None else ()
    return Typed(dims, t.shape, x.dtype, x.source, axes)


@rule("repeat tile")
def _repeat(t: Context, x: Typed, *repeats: Any, **kwargs: Any) -> Typed:
    """Whole copies one behind the other."""
    t.touch(x)
    times = repeats[0] if len(repeats) == 1 and isinstance(repeats[0], list | tuple) else repeats
    if kwargs or len(times) != len(t.shape):
        raise Uncovered
    lead = len(times) - len(x.shape)
    dims = [fresh(int(n), Lock("stack", t.at)) + (x.dims[j - lead] if j >= lead else ONE) for j, n in enumerate(times)]
    return Typed(dims, t.shape, x.dtype)


@rule("repeat_interleave")
def _repeat_interleave(t: Context, x: Typed, repeats: Any, dim: int | None = None, **kwargs: Any) -> Typed:
    """Every element several times."""
    if not isinstance(repeats, int) or dim is None:
        raise Uncovered
    t.touch(x)
    dims = list(x.dims)
    dims[_axis(x, dim)] = dims[_axis(x, dim)] + fresh(repeats, Lock("stack", t.at))
    return Typed(dims, t.shape, x.dtype)


@rule("cat concat concatenate")
def _cat(t: Context, tensors: Sequence[Typed], dim: int = 0, axis: int | None = None, **kwargs: Any) -> Typed:
    """Segments along one dimension; the others are the same."""
    given = [x for x in tensors if x.shape != (0,)]
    i = _axis(given[0], dim if axis is None else axis)
    for x in given:
        t.touch(x)
        for k in range(len(x.shape)):
            if k != i and x is not given[0]:
                unify(given[0].dims[k], x.dims[k], t.at)
    dims = list(given[0].dims)
    dims[i] = concat([x.dims[i] for x in given])
    return Typed(dims, t.shape, given[0].dtype)


@rule("stack")
def _stack(t: Context, tensors: Sequence[Typed], dim: int = 0) -> Typed:
    """Several of a kind under a new dimension."""
    for x in tensors:
        t.touch(x)
        for a, b in zip(tensors[0].dims, x.dims, strict=True):
            unify(a, b, t.at)
    dims = list(tensors[0].dims)
    dims.insert(dim % len(t.shape), fresh(len(tensors), Lock("stack", t.at)))
    return Typed(dims, t.shape, tensors[0].dtype)


def piece(t: Context, x: Typed, i: int, start: Any, stop: Any, step: Any = 1) -> Dim:
    """The type of a slice of dimension i. Bounds in the code must follow the segments before and inside."""
    n = x.shape[i]
    first, last, stride = slice(
        None if start is None else int(start), None if stop is None else int(stop), int(step or 1)
    ).indices(n)
    count = len(range(first, last, stride))
    if count == n:
        if isinstance(stop, int) and 0 < stop < 1 << 40:
            t.state(stop, x.dims[i])
        return x.dims[i]
    varying = any(isinstance(b, Int) and b.dims and all(is_locked(d) for d in b.dims) for b in (start, stop))
    if varying or (t.inside and x.source is not None):  # what is read depends on the input, or cannot be told to
        lock(x.dims[i], Lock("position", t.at))
    if is_locked(x.dims[i]) or count == 0:
        return fresh(count, Lock("position", t.at))
    if stride != 1:
        parts = regroup(x.dims[i], [n // stride, stride], t.at) if n % stride == 0 and count == n // stride else None
        if parts is None:
            lock(x.dims[i], Lock("position", t.at))
            return fresh(count, Lock("position", t.at))
        lock(parts[1], Lock("position", t.at))
        if isinstance(stop, int) and stop >= 0 and stop < 1 << 40:
            lock(x.dims[i], Lock("position", t.at))
        return parts[0]
    cuts = [c for c in (first, last) if 0 < c < n]
    parts = split(x.dims[i], cuts, t.at)
    if parts is None:
        lock(x.dims[i], Lock("position", t.at))
        return fresh(count, Lock("position", t.at))
    taken = parts[1] if first > 0 else parts[0]
    before, after = parts[:1] if first > 0 else [], parts[-1:] if last < n else []
    if isinstance(start, int) and first > 0:
        _state_bound(t, start, before, [taken, *after])
    if isinstance(stop, int) and last < n:
        _state_bound(t, stop, [*before, taken], after)
    return taken


def _state_bound(t: Context, number: Any, ahead: list[Dim], behind: list[Dim]) -> None:
    if number >= 0:
        t.state(number, *ahead)
    else:
        t.state(_negated(number), *behind)


def _negated(number: int) -> int:
    """A bound counted from the end, as a positive number that remembers to be written with a minus."""
    made = Int(-number)
    if isinstance(number, Int):
        made.path = (*number.path, "-") if number.path is not None else None
        made.dims = number.dims
    return made


@rule("slice", view=True)
def _slice(t: Context, x: Typed, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Typed:
    """A run of one dimension."""
    i = _axis(x, dim)
    return _replaced(t, x, i, piece(t, x, i, start, end, step))


def _replaced(t: Context, x: Typed, i: int, dim: Dim) -> Typed:
    dims = list(x.dims)
    whole = dims[i] is dim
    dims[i] = dim
    axes = tuple(a if k != i or whole else None for k, a in enumerate(x.axes))
    return Typed(dims, t.shape, x.dtype, x.source, axes)


@rule("narrow", view=True)
def _narrow(t: Context, x: Typed, dim: int, start: Any, length: Any) -> Typed:
    """A run of one dimension, by start and length."""
    i = _axis(x, dim)
    made = piece(t, x, i, int(start), int(start) + int(length))
    if not is_locked(x.dims[i]):
        t.state(length, made)
        if start:
            parts = split(x.dims[i], [int(start)], t.at)
            t.state(start, *(parts[:1] if parts else []))
    return _replaced(t, x, i, made)


@rule("select select_copy", view=True)
def _select(t: Context, x: Typed, dim: int, index: Any) -> Typed:
    """One position: the dimension is locked."""
    i = _axis(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    return _rearranged(x, [k for k in range(len(x.shape)) if k != i], t)


@rule("unbind", view=True)
def _unbind(t: Context, x: Typed, dim: int = 0) -> Any:
    """Every position by itself: the dimension is locked."""
    i = _axis(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    order = [k for k in range(len(x.shape)) if k != i]
    return tuple(Typed([x.dims[k] for k in order], s, x.dtype, x.source, tuple(x.axes[k] for k in order) if x.source else ())
                 for s in t.shape)  # fmt: skip


@rule("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes", view=True)
def _split(t: Context, x: Typed, sizes: Any = None, dim: int = 0, **kwargs: Any) -> Any:
    """Runs of one dimension; their sizes in the code must follow."""
    given = next(
        (
            kwargs[k]
            for k in ("split_size_or_sections", "split_size", "split_sizes", "chunks", "sections", "indices_or_sections")
            if k in kwargs
        ),
        sizes,
    )
    i = _axis(x, kwargs.get("dim", dim))
    lengths = [s[i] for s in t.shape]
    cuts = [sum(lengths[: k + 1]) for k in range(len(lengths) - 1)]
    parts = split(x.dims[i], cuts, t.at) if all(lengths) and sum(lengths) == x.shape[i] else None
    if parts is None:
        lock(x.dims[i], Lock("position", t.at))
        parts = [fresh(n, Lock("position", t.at)) for n in lengths]
    elif isinstance(given, list | tuple):
        for number, part in zip(cast("list[Any]", given), parts, strict=False):
            t.state(number, part)
    else:
        cast(Any, t).state_split(i, parts)
    made: list[Typed] = []
    for part, shape in zip(parts, t.shape, strict=True):
        dims = list(x.dims)
        dims[i] = part
        axes = tuple(None if k == i else a for k, a in enumerate(x.axes))
        made.append(Typed(dims, shape, x.dtype, x.source, axes))
    return tuple(made)


@rule("getitem")
def _getitem(t: Context, x: Typed, index: Any) -> Typed:
    """Slices keep a run, numbers and tensors of numbers lock what they read."""
    dims = indexed(t, x, index)
    if [size(d) for d in dims] != list(t.shape):
        raise Uncovered
    return Typed(dims, t.shape, x.dtype)


def indexed(t: Context, x: Typed, index: Any) -> list[Dim]:
    """The types of `x[index]`."""
    items = list(cast("tuple[Any, ...]", index)) if isinstance(index, tuple) else [index]
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    if not any(i is Ellipsis for i in items):
        items.append(Ellipsis)
    where = next(k for k, i in enumerate(items) if i is Ellipsis)
    items[where : where + 1] = [slice(None)] * (len(x.shape) - used)
    t.touch(x)
    out: list[Dim] = []
    axis, place = 0, None
    shapes: list[Shape] = []
    apart = False
    for item in items:
        if item is None:
            out.append(ONE)
            continue
        if isinstance(item, slice):
            out.append(piece(t, x, axis, item.start, item.stop, item.step))
        elif isinstance(item, bool):
            raise Uncovered
        elif isinstance(item, int):
            lock(x.dims[axis], Lock("position", t.at))
        elif isinstance(item, Typed | list):
            lock(x.dims[axis], Lock("position", t.at))
            if isinstance(item, Typed):
                if str(item.dtype) in ("torch.bool", "torch.uint8", "None"):
                    raise Uncovered
                for dim in item.dims:
                    lock(dim, Lock("position", t.at))
                shapes.append(item.shape)
            else:
                shapes.append((len(cast("list[Any]", item)),))
            apart = apart or (place is not None and place != len(out))
            place = len(out) if place is None else place
        else:
            raise Uncovered
        axis += 1
    if shapes:
        if apart:
            raise Uncovered
        longest = max(len(s) for s in shapes)
        made = [max(s[k - longest + len(s)] if k - longest + len(s) >= 0 else 1 for s in shapes) for k in range(longest)]
        assert place is not None
        out[place:place] = [fresh(n, Lock("position", t.at)) for n in made]
    return out


@rule("setitem")
def _setitem(t: Context, x: Typed, index: Any, value: Any) -> None:
    """What is written has the type of the place that it is written to."""
    dims = indexed(t, x, index)
    if isinstance(value, Typed):
        t.touch(value)
        own = [d for d in value.dims if size(d) > 1]
        for a, b in zip(reversed([d for d in dims if size(d) > 1]), reversed(own), strict=False):
            unify(a, b, t.at) if size(a) == size(b) else (lock(a, Lock("shape", t.at)), lock(b, Lock("shape", t.at)))


@rule("index")
def _index(t: Context, x: Typed, indices: Sequence[Any]) -> Typed:
    """The ATen form of indexing by tensors."""
    return _getitem(t, x, tuple(slice(None) if i is None else i for i in indices))


@rule("index_select gather take_along_dim")
def _index_select(t: Context, x: Typed, dim: int, index: Typed, **kwargs: Any) -> Typed:
    """Positions are read from a tensor."""
    t.touch(x)
    if len(index.shape) != 1:
        raise Uncovered
    i = _axis(x, dim)
    lock(x.dims[i], Lock("position", t.at))
    for d in index.dims:
        lock(d, Lock("position", t.at))
    dims = list(x.dims)
    dims[i] = fresh(t.shape[i], Lock("position", t.at))
    return Typed(dims, t.shape, x.dtype)


@rule("flip fliplr flipud")
def _flip(t: Context, x: Typed, *dims: Any, **kwargs: Any) -> Typed:
    """Read backwards."""
    t.touch(x)
    given = kwargs.get("dims", dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)
    axes = {_axis(x, d) for d in given}
    if not axes:
        raise Uncovered
    return _same(t, x, [mirrored(normal(d)) if i in axes else d for i, d in enumerate(x.dims)])


@rule("roll")
def _roll(t: Context, x: Typed, shifts: Any, dims: Any = None) -> Typed:
    """The end is put in front."""
    t.touch(x)
    if dims is None:
        raise Uncovered
    steps, axes = (
        ([shifts], [dims]) if isinstance(shifts, int) else (list(shifts), [dims] if isinstance(dims, int) else list(dims))
    )
    out = list(x.dims)
    for step, axis in zip(steps, axes, strict=True):
        i = _axis(x, axis)
        n = x.shape[i]
        k = int(step) % n
        if k == 0:
            continue
        if is_locked(out[i]):
            out[i] = fresh(n, Lock("position", t.at))
            continue
        parts = split(out[i], [n - k], t.at)
        if parts is None or not -n < int(step) < n:
            lock(out[i], Lock("position", t.at))
            out[i] = fresh(n, Lock("position", t.at))
        else:
            _state_bound(t, step, parts[1:], parts[:1])
            out[i] = concat([parts[1], parts[0]])
    return Typed(out, t.shape, x.dtype)


@rule("pad constant_pad_nd")
def _pad(t: Context, x: Typed, pad: Any, mode: Any = "constant", value: Any = None, **kwargs: Any) -> Typed:
    """New segments of one value in front and behind; other modes copy neighbours."""
    t.touch(x)
    dims = list(x.dims)
    for k in range(len(pad) // 2):
        i = len(x.shape) - 1 - k
        front, back = int(pad[2 * k]), int(pad[2 * k + 1])
        if front == 0 and back == 0:
            continue
        if front < 0 or back < 0 or (isinstance(mode, str) and mode != "constant") or is_locked(dims[i]):
            lock(dims[i], Lock("position", t.at))
            dims[i] = fresh(t.shape[i], Lock("position", t.at))
            continue
        edge = [fresh(n, Lock("constant", t.at)) for n in (front, back)]
        dims[i] = concat([p for p, n in ((edge[0], front), (dims[i], 1), (edge[1], back)) if n])
    return Typed(dims, t.shape, x.dtype)


@rule("pixel_shuffle")
def _pixel_shuffle(t: Context, x: Typed, upscale_factor: int) -> Typed:
    """Channels (c · r · r) become positions."""
    t.touch(x)
    parts = regroup(x.dims[-3], [t.shape[-3], upscale_factor**2], t.at)
    if parts is None:
        raise Uncovered
    lock(parts[1], Lock("spatial", t.at))
    for dim in x.dims[-2:]:
        lock(dim, Lock("spatial", t.at))
    return Typed([*x.dims[:-3], parts[0], *[fresh(n, Lock("spatial", t.at)) for n in t.shape[-2:]]], t.shape, x.dtype)


@rule("pixel_unshuffle")
def _pixel_unshuffle(t: Context, x: Typed, downscale_factor: int) -> Typed:
    """Positions become channels (c · r · r)."""
    t.touch(x)
    for dim in x.dims[-2:]:
        lock(dim, Lock("spatial", t.at))
    channels = x.dims[-3] + fresh(downscale_factor**2, Lock("spatial", t.at))
    return Typed([*x.dims[:-3], channels, *[fresh(n, Lock("spatial", t.at)) for n in t.shape[-2:]]], t.shape, x.dtype)


@rule("channel_shuffle native_channel_shuffle")
def _channel_shuffle(t: Context, x: Typed, groups: int) -> Typed:
    """Channels (groups · c) in the order (c · groups)."""
    t.touch(x)
    parts = regroup(x.dims[1], [groups, x.shape[1] // groups], t.at)
    if parts is None:
        raise Uncovered
    t.state(groups, parts[0])
    return Typed([x.dims[0], parts[1] + parts[0], *x.dims[2:]], t.shape, x.dtype)


@rule("meshgrid")
def _meshgrid(t: Context, *tensors: Any, **kwargs: Any) -> Any:
    """Coordinates."""
    return tuple(locked(s, "constant", t.at) for s in t.shape)


def count(shape: Shape) -> int:
    """The number of elements."""
    return math.prod(shape)


@rule("pick")
def _pick(c: Context, training: Any, trained: Any, evaluated: Any) -> Any:
    """The one in training, the other in eval mode: they are of one type."""
    if isinstance(trained, Typed) and isinstance(evaluated, Typed):
        c.touch(trained)
        for ours, theirs in zip(evaluated.dims, trained.dims, strict=True):
            unify(ours, theirs, c.at)
    return evaluated
