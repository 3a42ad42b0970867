"""What the layers of torch.nn say about axis types, without running them: one function a family, as in `rules.py`.

Each also states which attributes of the layer are sizes, so that `in_features` and `groups` follow an edit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch import nn

from netxform.axes.algebra import Dim, Lock, concat, fresh, lock, unify
from netxform.axes.rules.operations import RULES, Context, Typed, Uncovered, batch_norm, convolve, group_norm, lookup, pool

LayerRule = Callable[..., Any]
LAYERS: dict[str, LayerRule] = {}


class LayerContext(Context, Protocol):
    """A rule of a layer may also ask for the layer's tensors and state its attributes."""

    def tensor(self, name: str) -> Typed | None:
        """The layer's parameter or buffer of that name, or None."""
        ...

    def attribute(self, name: str, *dims: Dim, item: int | None = None) -> None:
        """The layer's attribute is the sum of the sizes of these dimensions."""
        ...


def layer(names: str) -> Callable[[LayerRule], LayerRule]:
    """Register a rule under class names."""

    def register(function: LayerRule) -> LayerRule:
        for name in names.split():
            assert name not in LAYERS, name
            LAYERS[name] = function
        return function

    return register


@layer(
    """ReLU ReLU6 SiLU GELU Sigmoid Tanh Hardswish Hardsigmoid Hardtanh LeakyReLU ELU SELU CELU Mish Softplus Softsign
    Tanhshrink Hardshrink Softshrink Threshold LogSigmoid RReLU Dropout Dropout1d Dropout2d Dropout3d AlphaDropout
    FeatureAlphaDropout DropPath"""
)
def _pointwise(t: LayerContext, module: nn.Module, x: Typed) -> Typed:
    return cast(Typed, RULES["relu"](t, x))


@layer("Identity")
def _identity(t: LayerContext, module: nn.Module, x: Typed, *args: Any, **kwargs: Any) -> Typed:
    return x


@layer("PReLU")
def _prelu(t: LayerContext, module: nn.Module, x: Typed) -> Typed:
    weight = _need(t.tensor("weight"))
    made = RULES["prelu"](t, x, weight)
    t.attribute("num_parameters", weight.dims[0])
    return cast(Typed, made)


@layer("GLU")
def _glu(t: LayerContext, module: nn.Module, x: Typed) -> Typed:
    return cast(Typed, RULES["glu"](t, x, cast(Any, module).dim))


@layer("Softmax LogSoftmax Softmin")
def _softmax(t: LayerContext, module: nn.Module, x: Typed) -> Typed:
    dim = cast(Any, module).dim
    if dim is None:
        raise Uncovered
    return cast(Typed, RULES["softmax"](t, x, dim))


@layer("Softmax2d")
def _softmax2d(t: LayerContext, module: nn.Module, x: Typed) -> Typed:
    return cast(Typed, RULES["softmax"](t, x, -3))


@layer("Linear NonDynamicallyQuantizableLinear")
def _linear(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    weight = _need(t.tensor("weight"))
    made = RULES["linear"](t, input, weight, t.tensor("bias"))
    t.attribute("in_features", weight.dims[1])
    t.attribute("out_features", weight.dims[0])
    return cast(Typed, made)


@layer("Bilinear")
def _bilinear(t: LayerContext, module: nn.Module, x: Typed, y: Typed) -> Typed:
    weight = _need(t.tensor("weight"))
    made = RULES["bilinear"](t, x, y, weight, t.tensor("bias"))
    for name, i in (("out_features", 0), ("in1_features", 1), ("in2_features", 2)):
        t.attribute(name, weight.dims[i])
    return cast(Typed, made)


@layer("Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d")
def _conv(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    conv = cast(nn.Conv2d, module)
    weight = _need(t.tensor("weight"))
    made = convolve(t, input, weight, t.tensor("bias"), int(conv.groups), conv.transposed)
    channel = len(input.shape) - len(weight.shape) + 1
    if conv.groups != 1:
        groups = cast(Any, t).drop_last_statement()  # stated by `convolve` as a number of the code: here it is an attribute
        t.attribute("groups", *groups)
    t.attribute("in_channels", input.dims[channel])
    t.attribute("out_channels", made.dims[channel])
    return made


@layer("BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm FrozenBatchNorm1d FrozenBatchNorm2d FrozenBatchNorm3d")
def _batch_norm(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    norm = cast(nn.BatchNorm2d, module)
    held = [v for n in ("weight", "bias", "running_mean", "running_var") if (v := t.tensor(n)) is not None]
    made = batch_norm(t, input, held, norm.running_mean is None)
    t.attribute("num_features", input.dims[1])
    return cast(Typed, made)


@layer("BatchNormAct2d FrozenBatchNormAct2d")
def _batch_norm_act(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    if list(cast(Any, module).act.parameters()):
        raise Uncovered
    return _batch_norm(t, module, input)


@layer("InstanceNorm1d InstanceNorm2d InstanceNorm3d")
def _instance_norm(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    held = [v for n in ("weight", "bias", "running_mean", "running_var") if (v := t.tensor(n)) is not None]
    for dim in input.dims[2:]:
        t.mix(dim, "batch_norm")
    made = batch_norm(t, input, held, False)
    t.attribute("num_features", input.dims[1])
    return cast(Typed, made)


@layer("LayerNorm RMSNorm")
def _layer_norm(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    sizes = cast(nn.LayerNorm, module).normalized_shape
    t.touch(input)
    last = input.dims[len(input.dims) - len(sizes) :]
    kind = "layer_norm" if isinstance(module, nn.LayerNorm) else "rms_norm"
    for i, dim in enumerate(last):
        t.mix(dim, kind)
        t.attribute("normalized_shape", dim, item=i)
    for name in ("weight", "bias"):
        tensor = t.tensor(name)
        if tensor is not None:
            t.touch(tensor)
            for a, b in zip(last, tensor.dims, strict=True):
                unify(a, b, t.at)
    return Typed(list(input.dims), input.shape, input.dtype)


@layer("GroupNorm")
def _group_norm(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    held = [v for n in ("weight", "bias") if (v := t.tensor(n)) is not None]
    made = group_norm(t, input, held, cast(nn.GroupNorm, module).num_groups)
    stated = cast(Any, t).drop_last_statement()
    if stated is not None:
        t.attribute("num_groups", *stated)
    t.attribute("num_channels", input.dims[1])
    return made


@layer("Embedding")
def _embedding(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    weight = _need(t.tensor("weight"))
    made = lookup(t, weight, input)
    if cast(nn.Embedding, module).max_norm is not None:
        lock(weight.dims[1], Lock("renorm", t.at))
    t.attribute("embedding_dim", weight.dims[1])
    return made


@layer("Int8Linear Int8Embedding")
def _int8(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    """The steps belong to the rows as they are: what is gathered or scaled here would have to be quantized again."""
    weight, scale, bias = _need(t.tensor("weight")), _need(t.tensor("scale")), t.tensor("bias")
    for tensor in (input, weight, scale, *((bias,) if bias is not None else ())):
        t.touch(tensor)
    for dim in weight.dims:
        lock(dim, Lock("int8", t.at))
    unify(scale.dims[0], weight.dims[0], t.at)
    if bias is not None:
        unify(bias.dims[0], weight.dims[0], t.at)
    if "Embedding" in type(module).__name__:
        return Typed([*input.dims, weight.dims[1]], t.shape, scale.dtype)
    unify(input.dims[-1], weight.dims[1], t.at)
    return Typed([*input.dims[:-1], weight.dims[0]], t.shape, scale.dtype)


@layer("EmbeddingBag")
def _embedding_bag(t: LayerContext, module: nn.Module, input: Typed, *args: Any, **kwargs: Any) -> Typed:
    weight = _need(t.tensor("weight"))
    t.touch(weight)
    lock(weight.dims[0], Lock("lookup", t.at))
    if cast(nn.EmbeddingBag, module).max_norm is not None:
        lock(weight.dims[1], Lock("renorm", t.at))
    t.attribute("embedding_dim", weight.dims[1])
    return Typed([fresh(t.shape[0], Lock("input", t.at)), weight.dims[1]], t.shape, weight.dtype)


@layer("Flatten")
def _flatten(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    return cast(Typed, RULES["flatten"](t, input))


@layer("Unflatten")
def _unflatten(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    made = cast(Typed, RULES["view"](t, input))
    start = cast(Any, module).dim % len(input.shape)
    sizes = cast(Any, module).unflattened_size
    if not all(isinstance(n, int) for n in sizes):
        raise Uncovered
    for i, number in enumerate(sizes):
        if number != -1:
            t.attribute("unflattened_size", made.dims[start + i], item=i)
    return made


@layer("PixelShuffle PixelUnshuffle")
def _pixels(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    if isinstance(module, nn.PixelShuffle):
        return cast(Typed, RULES["pixel_shuffle"](t, input, module.upscale_factor))
    return cast(Typed, RULES["pixel_unshuffle"](t, input, cast(nn.PixelUnshuffle, module).downscale_factor))


@layer("ChannelShuffle")
def _channel_shuffle(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    made = cast(Typed, RULES["channel_shuffle"](t, input, cast(Any, module).groups))
    t.attribute("groups", *(cast(Any, t).drop_last_statement() or ()))
    return made


@layer("Upsample UpsamplingNearest2d UpsamplingBilinear2d")
def _upsample(t: LayerContext, module: nn.Module, input: Typed) -> Any:
    return pool(t, input, len(input.shape) - 2)


def _pools() -> None:
    for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool", "FractionalMaxPool"):
        for n in (1, 2, 3):
            layer(f"{kind}{n}d")(lambda t, module, x, _n=n: pool(t, x, _n))
    for kind in ("ReflectionPad", "ReplicationPad", "CircularPad", "ZeroPad", "ConstantPad"):
        for n in (1, 2, 3):
            layer(f"{kind}{n}d")(lambda t, module, x, _n=n: pool(t, x, _n))


_pools()


@layer("Unfold")
def _unfold(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    return cast(Typed, RULES["unfold"](t, input))


@layer("Fold")
def _fold(t: LayerContext, module: nn.Module, input: Typed) -> Typed:
    return cast(Typed, RULES["fold"](t, input))


@layer("RNN LSTM GRU")
def _recurrent(t: LayerContext, module: nn.Module, input: Typed, hx: Any = None) -> Any:
    """Gates are stacked; the state of one direction of one layer is one index set, produced, recurred and passed on."""
    cell = cast(nn.LSTM, module)
    gates = {"LSTM": 4, "GRU": 3}.get(type(module).__name__, 1)
    t.touch(input)
    inner = input.dims[-1]
    t.attribute("input_size", inner)
    final: list[Dim] = []
    cells: list[Dim] = []
    for k in range(cell.num_layers):
        ends: list[Dim] = []
        for suffix in ("", "_reverse")[: 2 if cell.bidirectional else 1]:
            w_ih, w_hh = (_need(t.tensor(f"weight_{w}_l{k}{suffix}")) for w in ("ih", "hh"))
            state = fresh(cell.hidden_size)
            stacked: Dim = fresh(gates, Lock("gates", t.at)) + state
            projected = t.tensor(f"weight_hr_l{k}{suffix}")
            end = state
            for tensor in (w_ih, w_hh, *(t.tensor(f"bias_{b}_l{k}{suffix}") for b in ("ih", "hh"))):
                if tensor is not None:
                    t.touch(tensor)
                    unify(tensor.dims[0], stacked, t.at)
            if projected is not None:
                t.touch(projected)
                end = projected.dims[0]
                t.contract(projected, 1, Typed([state], (cell.hidden_size,)), 0)
                t.attribute("proj_size", end)
            t.contract(Typed([inner], w_ih.shape[1:]), 0, w_ih, 1)
            t.contract(Typed([end], w_hh.shape[1:]), 0, w_hh, 1)
            t.attribute("hidden_size", state)
            ends.append(end)
            cells.append(state)
        final += ends
        inner = concat(ends)
    # the initial states are given from outside, or zeros
    given = [v for v in (hx if isinstance(hx, list | tuple) else [hx]) if isinstance(v, Typed)]
    for value, own in zip(given, (final, cells), strict=False):
        t.touch(value)
        for dim in own:
            unify(value.dims[-1], dim, t.at)
    shapes = t.shape
    out = Typed([*input.dims[:-1], inner], shapes[0], input.dtype)
    hidden = shapes[1] if isinstance(shapes[1][0], int) else None

    def last(shape: tuple[int, ...], dims: list[Dim]) -> Typed:
        for dim in dims[1:]:  # stacked along the first dimension: one index set for all
            if len(dims) > 1:
                unify(dims[0], dim, t.at)
        middle = [input.dims[0 if cell.batch_first else 1]] if len(shape) == 3 else []
        return Typed([fresh(shape[0], Lock("stack", t.at)), *middle, dims[0]], shape, input.dtype)

    read = cast(Any, t).read_items()
    if hidden is not None:
        return (out, last(hidden, final) if 1 in read else None)
    pair = shapes[1]
    if 1 in read:
        return (out, (last(pair[0], final), last(pair[1], cells)))
    return (out, None)


@layer("RNNCell GRUCell LSTMCell")
def _cell(t: LayerContext, module: nn.Module, input: Typed, hx: Any = None) -> Any:
    """One step: the state is produced, and summed over when it comes back."""
    cell = cast(nn.LSTMCell, module)
    gates = {"LSTMCell": 4, "GRUCell": 3}.get(type(module).__name__, 1)
    state = fresh(cell.hidden_size)
    stacked: Dim = fresh(gates, Lock("gates", t.at)) + state
    w_ih, w_hh = _need(t.tensor("weight_ih")), _need(t.tensor("weight_hh"))
    t.touch(input)
    for tensor in (w_ih, w_hh, t.tensor("bias_ih"), t.tensor("bias_hh")):
        if tensor is not None:
            t.touch(tensor)
            unify(tensor.dims[0], stacked, t.at)
    t.contract(Typed([input.dims[-1]], w_ih.shape[1:]), 0, w_ih, 1)
    t.contract(Typed([state], w_hh.shape[1:]), 0, w_hh, 1)
    t.attribute("input_size", input.dims[-1])
    t.attribute("hidden_size", state)
    for value in hx if isinstance(hx, list | tuple) else [hx]:
        if isinstance(value, Typed):
            t.touch(value)
            unify(value.dims[-1], state, t.at)

    def made(shape: tuple[int, ...]) -> Typed:
        return Typed([*input.dims[:-1], state], shape, input.dtype)

    return tuple(made(s) for s in t.shape) if type(module) is nn.LSTMCell else made(t.shape)


@layer("MultiheadAttention Attention")
def _attention(
    t: LayerContext, module: nn.Module, query: Typed, key: Typed, value: Typed, key_padding_mask: Any = None,
    need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """q, k = heads · width, v = heads · value width; the three projections stand one behind the other in one tensor."""
    own = cast(Any, module)
    if own.bias_k is not None or own.add_zero_attn or len(query.shape) != 3:
        raise Uncovered
    heads = fresh(own.num_heads)
    width = fresh(own.head_dim)
    value_width = fresh(getattr(own, "value_dim", own.head_dim))
    rows = [heads + width, heads + width, heads + value_width]
    for operand in (query, key, value):
        t.touch(operand)
    packed = t.tensor("in_proj_weight")
    if packed is not None:
        t.touch(packed)
        unify(packed.dims[0], concat(rows), t.at)
        for operand in (query, key, value):
            t.contract(operand, 2, packed, 1)
    else:
        for name, operand, dim in zip("qkv", (query, key, value), rows, strict=True):
            weight = _need(t.tensor(f"{name}_proj_weight"))
            t.touch(weight)
            unify(weight.dims[0], dim, t.at)
            t.contract(operand, 2, weight, 1)
    bias = t.tensor("in_proj_bias")
    if bias is not None:
        t.touch(bias)
        unify(bias.dims[0], concat(rows), t.at)
    cast(Any, t).inner_product(width)
    weight, shift = _need(t.tensor("out_proj.weight")), t.tensor("out_proj.bias")
    t.touch(weight)
    t.contract(Typed([heads + value_width], weight.shape[1:]), 0, weight, 1)
    if shift is not None:
        t.touch(shift)
        unify(weight.dims[0], shift.dims[0], t.at)
    for name, dim in (("num_heads", heads), ("head_dim", width), ("value_dim", value_width), ("embed_dim", weight.dims[0])):
        t.attribute(name, dim)
    batch, first, second = (query.dims[0], query.dims[1], key.dims[1])
    if not own.batch_first:
        batch, first, second = query.dims[1], query.dims[0], key.dims[0]
    t.mix(second, "softmax")
    unify(second, value.dims[1 if own.batch_first else 0], t.at)
    for mask in (key_padding_mask, attn_mask):
        if isinstance(mask, Typed):
            for dim in mask.dims:
                lock(dim, Lock("position", t.at))
    out = Typed([*query.dims[:2], weight.dims[0]], query.shape, query.dtype)
    if not need_weights:
        return (out, None)
    if average_attn_weights:
        t.mix(heads, "mean") if 1 in cast(Any, t).read_items() else None
        return (out, Typed([batch, first, second], t.shape[1]))
    return (out, Typed([batch, heads, first, second], t.shape[1]))


def _need(tensor: Typed | None) -> Typed:
    if tensor is None:
        raise Uncovered
    return tensor
