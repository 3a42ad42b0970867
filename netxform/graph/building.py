"""Layers as a spec names them, made: classes of torch.nn, and the sizes that are left to be found from what arrives."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from netxform.errors import Span, closest, fail
from netxform.graph import layers as own_layers
from netxform.graph.layer_spec import AUTO, Invocation, Layer
from netxform.graph.network import Network
from netxform.graph.outputs import find

# which argument of a layer is the size that arrives, and along which dimension it arrives
_AUTO_DIM: dict[str, int] = {"Linear": -1, "LazyLinear": -1, "LayerNorm": -1, "RMSNorm": -1, "GRU": -1, "LSTM": -1, "RNN": -1}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def layer_class(name: str) -> type[nn.Module] | None:
    """The layer of `torch.nn` that a spec may name, or None. Containers and losses are no layers."""
    found = getattr(nn, name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        return None
    if issubclass(found, _CONTAINERS) or name.endswith("Loss") or found is nn.Module or name.startswith("Lazy"):
        return None
    return found


def layer_names() -> list[str]:
    """The names of all layers that a spec may use."""
    return [n for n in dir(nn) if layer_class(n) is not None]


def build(layer: Layer, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """The layer as a module, initialised by PyTorch's own default under the current seed.

    Initialised on the CPU and then moved, so that the device does not change the numbers.
    """
    cls = layer_class(layer.make.name) or getattr(own_layers, layer.make.name)
    on = torch.device("meta") if device.type == "meta" else torch.device("cpu")
    try:
        with on:
            made = cls(*layer.make.arguments, **layer.make.keywords)
    except Exception as error:  # a class of torch raises what it likes for arguments that it does not take
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        helps = (f"look at the names, kinds and ranges of its arguments: `torch.nn.{layer.make.name}`",)
        raise fail("X0411", f"`{layer.make}` cannot be made: {text}", layer.make.span, "bad arguments", helps=helps) from error
    if dtype is not None and dtype.is_floating_point:
        made = made.to(dtype)
    return made if on.type == "meta" else made.to(device)


def flattening(network: Network, node: str, pool: str) -> list[Layer]:
    """The layers that turn the value of `node` into one flat vector of features a sample."""
    shape = _shape(network, node)
    if len(shape) == 2:
        return []
    if len(shape) == 4 and pool != "none" and shape[2:] != (1, 1):
        kind = "AdaptiveAvgPool2d" if pool == "avg" else "AdaptiveMaxPool2d"
        return [Layer("pool", Invocation(kind, (1,))), Layer("flat", Invocation("Flatten"))]
    if len(shape) == 3 and pool != "none":
        raise fail(
            "X0312",
            f"a sequence arrives here (shape {times(shape)}): pooling it is a choice",
            helps=("cut where one vector a sample is left, or give the head a block of layers",),
        )
    return [Layer("flat", Invocation("Flatten"))]


def _lets_through(layer: Layer, span: Span) -> None:
    """Raises NetxformError X0411 for a dropout that drops everything: behind it nothing can be learnt."""
    make = layer.make
    share = make.keywords.get("p", make.arguments[0] if make.arguments else 0)
    if make.name.endswith("Dropout") and isinstance(share, int | float) and share == 1:
        message, helps = f"`{make}` drops everything in training", ("write a share below 1: `Dropout(0.5)`",)
        raise fail("X0411", message, span, "lets nothing through", helps=helps)


def settle_layers(network: Network, node: str, wanted: Iterable[Layer], span: Span) -> tuple[tuple[Layer, ...], list[str]]:
    """The layers with every `auto` settled, tried on the twin in turn; and notes on what was put between.

    Raises NetxformError X0312 (does not fit), X0410 (unknown layer), X0411 (bad arguments).
    """
    source = find(network.module, node)
    value = torch.empty(_shape(network, node), device="meta", dtype=source.meta.get("dtype", torch.float32))
    settled: list[Layer] = []
    notes: list[str] = []
    for layer in wanted:
        place = layer.make.span if layer.make.span.line else span
        if layer_class(layer.make.name) is None:
            near = closest(layer.make.name, layer_names())
            raise fail(
                "X0410",
                f"`{layer.make.name}` is no layer of torch.nn",
                place,
                "unknown layer",
                helps=tuple(f"did you mean `{n}`?" for n in near),
            )
        if layer.make.name == "Linear" and value.dim() == 4:
            if tuple(value.shape[2:]) != (1, 1):
                raise fail(
                    "X0312",
                    f"a map of {times(tuple(value.shape[1:]))} arrives at `{layer.name}`; Linear takes vectors",
                    place,
                    "does not fit",
                    helps=("put `pool = AdaptiveAvgPool2d(1)` or `flat = Flatten()` before it",),
                )
            flat = Layer(f"{layer.name}_flat", Invocation("Flatten"))
            value = torch.flatten(value, 1)
            settled.append(flat)
            notes.append(f"Flatten before `{layer.name}`: a 1 x 1 map arrives")
        _lets_through(layer, place)
        made = _settle(layer, value, place)
        try:
            module = build(made, torch.device("meta"), value.dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise fail("X0411", f"`{made.make}` cannot be made: {first_line(error)}", place, "bad arguments") from None
        try:
            with torch.no_grad():
                result: Any = module.eval()(value)
        except (RuntimeError, ValueError, IndexError) as error:
            raise fail(
                "X0312",
                f"a value of {times(tuple(value.shape))} arrives at `{layer.name}`, which does not fit `{made.make}`",
                place,
                "does not fit",
                notes=(first_line(error),),
                helps=("write `auto` for the size that arrives",) if AUTO not in layer.make.arguments else (),
            ) from None
        value = cast(torch.Tensor, result[0] if isinstance(result, tuple) else result)
        settled.append(made)
    return tuple(settled), notes


def _settle(layer: Layer, value: torch.Tensor, span: Span) -> Layer:
    name = layer.make.name
    dim = _AUTO_DIM.get(name, 1)
    if AUTO in layer.make.arguments or AUTO in layer.make.keywords.values():
        if value.dim() <= 1:
            raise fail("X0312", "a scalar arrives here", span, "does not fit")
        size = value.shape[dim]
        arguments = tuple(size if a == AUTO else a for a in layer.make.arguments)
        keywords = {k: size if v == AUTO else v for k, v in layer.make.keywords.items()}
        return Layer(layer.name, Invocation(name, arguments, keywords, layer.make.span))
    return layer


def _shape(network: Network, node: str) -> tuple[int, ...]:
    shape = find(network.module, node).meta["shape"]
    if not (isinstance(shape, tuple) and all(isinstance(n, int) for n in cast("tuple[Any, ...]", shape))):
        raise fail("X0313", f"the value at `{node}` is not one tensor")
    return cast("tuple[int, ...]", shape)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message."""
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 160 else text[:157] + "…"


def times(shape: tuple[int, ...]) -> str:
    """A shape as text: `3 x 8 x 8`."""
    return " x ".join(str(n) for n in shape)
