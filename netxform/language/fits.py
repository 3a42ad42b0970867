"""Does a data set fit a network? Asked while planning, from shapes and class counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netxform.errors import Label, Span, fail
from netxform.graph.outputs import outputs
from netxform.graph.shapes import times
from netxform.language.verb import DataInfo

if TYPE_CHECKING:
    from netxform.graph.network import Network


def input_fits(network: Network, data: DataInfo, span: Span) -> None:
    """Raises NetxformError X0318 where the samples have another rank or other channels than the network takes."""
    if data.shape is None or not network.inputs:
        return
    wanted = network.inputs[0].shape[1:]
    if len(data.shape) == len(wanted) and (len(wanted) != 3 or data.shape[0] == wanted[0]):
        return
    helps: tuple[str, ...] = ()
    if len(data.shape) == len(wanted) == 3:
        helps = (f"write `channels={wanted[0]}` on the data, or build the model with {data.shape[0]} channel(s)",)
    raise fail(
        "X0318",
        f"samples of `{data.name}` are {times(data.shape)}; the network takes {times(wanted)}",
        span,
        "does not fit",
        secondary=(Label(data.span, "the data"),) if data.span.line else (),
        helps=helps,
    )


def classes_fit(network: Network, data: DataInfo, output: str | None, span: Span) -> str | None:
    """The name of the output that is trained, None for the only one.

    Raises NetxformError X0317 (another number of classes), X0319 (several outputs and none named, or an unknown one).
    """
    known = outputs(network.module)
    if output is None and len(known) == 1:
        name = next(iter(known))
    elif output in known:
        name = output
    else:
        names = ", ".join(str(n) for n in known if n is not None) or "one without a name"
        message = f"the network has no output `{output}`" if output is not None else f"the network has {len(known)} outputs"
        raise fail("X0319", message, span, "which one?", notes=(f"outputs: {names}",), helps=("write `output=NAME`",))
    shape = known[name].meta.get("shape")
    if isinstance(shape, tuple) and len(shape) == 2 and data.classes is not None and shape[1] != data.classes:
        raise fail(
            "X0317",
            f"`{data.name}` has {data.classes} classes, the network has {shape[1]} outputs",
            span,
            "does not match",
            secondary=(Label(data.span, "the data"),) if data.span.line else (),
            helps=("attach a head for this data: `cut before HEAD; attach head`",),
        )
    return name
