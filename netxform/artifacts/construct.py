"""How a leaf module is made: its class and constructor arguments, read off the module and proven by making it again."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from netxform.artifacts.allowed import is_layer
from netxform.errors import fail
from netxform.graph import frozen, layers

OWN: dict[str, type[nn.Module]] = {
    c.__name__: c
    for c in (
        layers.Attention,
        layers.DropPath,
        layers.BatchNormAct2d,
        layers.Factored,
        layers.Scaled,
        layers.Magnitude,
        layers.TTLinear,
        layers.Int8Linear,
        layers.Int8Embedding,
        layers.FrozenBatchNormAct2d,
        frozen.FrozenBatchNorm1d,
        frozen.FrozenBatchNorm2d,
        frozen.FrozenBatchNorm3d,
    )
}
_SKIP = ("device", "dtype", "_weight", "_freeze")
_PRESENCE = {"bias": "bias", "add_bias_kv": "bias_k"}


@dataclass(frozen=True, slots=True)
class Made:
    """A call that makes the module: `nn.Conv2d(3, 64, kernel_size=(7, 7))`, and the children that are put in afterwards."""

    kind: str
    own: bool
    arguments: dict[str, object]


def class_of(kind: str, own: bool) -> type[nn.Module]:
    """The class of that name. Raises NetxformError X0904 for one that no artifact may hold."""
    found: Any = OWN.get(kind) if own else getattr(nn, kind, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module) and (own or is_layer(found))):
        raise fail("X0904", f"`{kind}` is no layer that a bundle may name")
    return found


_REPEATED = ("num_layers", "num_encoder_layers", "num_decoder_layers")
_LAYERS = 1024


def make(kind: str, own: bool, arguments: dict[str, Any]) -> nn.Module:
    """The layer of a stored graph, on the default device. Raises NetxformError X0904 (no such layer), X0906 (too many)."""
    if any(isinstance(arguments.get(k), int) and arguments[k] > _LAYERS for k in _REPEATED):
        raise fail("X0906", f"a `{kind}` of more than {_LAYERS} layers in one", notes=("each would be made on its own",))
    return class_of(kind, own)(**arguments)


def construct(module: nn.Module, path: str) -> Made:
    """The call that makes `module` again. Raises NetxformError X0820 where it cannot be told."""
    cls = type(module)
    own = cls.__name__ in OWN and OWN[cls.__name__] is cls
    if not own and getattr(nn, cls.__name__, None) is not cls:
        raise fail(
            "X0820",
            f"`{path}` is a `{cls.__module__}.{cls.__name__}`, which cannot be written to a standalone file",
            notes=("an artifact holds layers of torch.nn",),
            helps=("cut it off, or take the result from Python: `nx.apply(…).model`",),
        )
    arguments = _arguments(module, cls)
    try:
        with torch.device("meta"):
            again = cls(**arguments)
    except Exception as error:
        raise fail("X0820", f"`{path}` ({cls.__name__}) cannot be made again: {error}") from error
    ours, theirs = _shape_of(module), _shape_of(again)
    extra = {k: v for k, v in ours.items() if theirs.get(k) != v}
    if extra and not _children_of(module):
        raise fail("X0820", f"`{path}` ({cls.__name__}) is not what its arguments say: {', '.join(extra)}")
    settings = vars(again)
    for key, value in vars(module).items():
        if key not in settings:  # hung on from outside: the layer does not read it
            continue
        made = getattr(again, key, value)
        plain = all(isinstance(v, int | float | str | bool | tuple) for v in (value, made))  # a label may bear a method's name
        if plain and made != value and not key.startswith("_") and key != "training":
            raise fail("X0820", f"`{path}` ({cls.__name__}): `{key}` is {value!r}, which its arguments do not give")
    return Made(cls.__name__, own, arguments)


def _arguments(module: nn.Module, cls: type[nn.Module]) -> dict[str, object]:
    out: dict[str, object] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in ("self", *_SKIP):
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            if name == "args" and isinstance(module, nn.RNNBase):
                out |= {k: getattr(module, k) for k in ("input_size", "hidden_size", "num_layers", "bias", "batch_first")}
                out |= {k: getattr(module, k) for k in ("dropout", "bidirectional")}
                if isinstance(module, nn.LSTM):
                    out["proj_size"] = module.proj_size
                if isinstance(module, nn.RNN):
                    out["nonlinearity"] = module.nonlinearity
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if name in _PRESENCE and not isinstance(getattr(module, name, None), bool):
            value: Any = getattr(module, _PRESENCE[name], getattr(module, "in_proj_bias", None)) is not None
            if isinstance(module, nn.MultiheadAttention) and name == "bias":
                value = cast(Any, module.in_proj_bias) is not None
        elif name == "_random_samples":
            continue
        elif hasattr(module, name):
            value = getattr(module, name)
        else:
            continue
        if isinstance(value, Tensor | nn.Module):
            continue
        if parameter.default is not inspect.Parameter.empty and _same(value, parameter.default):
            continue
        if isinstance(value, list):
            value = tuple(cast("list[Any]", value))
        out[name] = value
    return out


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, tuple) and isinstance(default, int):
        return bool(value) and all(v == default for v in cast("tuple[Any, ...]", value))
    return type(value) is type(default) and value == default


def _shape_of(module: nn.Module) -> dict[str, object]:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {n: tuple(t.shape) for n, t in tensors}


def _children_of(module: nn.Module) -> list[str]:
    return [n for n, _ in module.named_children()]
