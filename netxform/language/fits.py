"""Does a data set fit a network? Asked while planning, from shapes and class counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from netxform.errors import Label, Span, fail
from netxform.graph.outputs import chosen, outputs
from netxform.graph.shapes import times
from netxform.language.methods import Loss
from netxform.language.methods import loss as named_loss
from netxform.language.targets import targets_fit
from netxform.language.verb import DataInfo

if TYPE_CHECKING:
    from torch.fx import Node

    from netxform.graph.network import Network


def input_fits(network: Network, data: DataInfo, span: Span) -> None:
    """Raises NetxformError X0318 where the samples have another rank or other channels than the network takes."""
    if data.inputs or (len(network.inputs) > 1 and data.shape is not None):
        _fields_fit(network, data, span)
        return
    if data.shape is None or not network.inputs:
        return
    wanted = network.inputs[0].shape[1:]
    if len(data.shape) == len(wanted) and (len(wanted) != 3 or data.shape[0] == wanted[0]):
        return
    helps: tuple[str, ...] = (f"hand in samples of {times(wanted)}, or example inputs of {times(data.shape)}",)
    if len(data.shape) == len(wanted) == 3:
        helps = (f"write `channels={wanted[0]}` on the data, or build the model with {data.shape[0]} channel(s)",)
        if data.shape[-1] == wanted[0]:
            helps = ("channels come first: hand in `x.transpose(0, 3, 1, 2)`",)
    raise fail(
        "X0318",
        f"samples of `{data.name}` are {times(data.shape)}; the network takes {times(wanted)}",
        span,
        "does not fit",
        secondary=(Label(data.span, "the data"),) if data.span.line else (),
        helps=helps,
    )


def _fields_fit(network: Network, data: DataInfo, span: Span) -> None:
    """Raises NetxformError X0318 where the network takes inputs that a sample does not have, or has of another rank."""
    wanted = {i.name: i.shape[1:] for i in network.inputs}
    have = dict(data.inputs)
    known = f"the network takes {', '.join(wanted)}; a sample has " + (", ".join(have) or "one x")
    missing = [n for n in wanted if n not in have]
    if missing:
        helps = ("name the fields as the arguments of the model: `nx.dataset(…, inputs=[…])`",)
        message = f"samples of `{data.name}` have no `{missing[0]}`" if have else f"samples of `{data.name}` have one input"
        raise fail("X0318", message, span, "does not fit", notes=(known,), helps=helps)
    for name, shape in wanted.items():
        found = have[name]
        if found is not None and len(found) != len(shape):
            message = f"`{name}` of `{data.name}` is {times(found)}; the network takes {times(shape)}"
            raise fail("X0318", message, span, "does not fit")


def labels_fit(network: Network, data: DataInfo, output: str | None, loss: Loss, span: Span) -> str | None:
    """The name of the output that is trained, None for the only one, whose targets fit the loss as far as they are known.

    Raises NetxformError X0317 (another number of classes), X0319 (several outputs and none named, or an unknown one), X0351
    (targets of another shape or kind).
    """
    known = outputs(network.module)
    name = chosen(known, output, span)
    shape = known[name].meta.get("shape")
    if not isinstance(shape, tuple):
        return name
    if data.targets is not None:
        targets_fit(loss, cast("tuple[int, ...]", shape), data.targets, data.name, span)
        return name
    if len(shape) == 2 and data.classes is not None and not _room(loss, cast(int, shape[1]), data.classes):
        one = shape[1] == 1 and data.classes == 2
        raise fail(
            "X0317",
            f"`{data.name}` has {data.classes} classes, the network has {shape[1]} output{'s' if shape[1] != 1 else ''}",
            span,
            "does not match",
            secondary=(Label(data.span, "the data"),) if data.span.line else (),
            helps=("one output for two classes: write `loss=bce`",)
            if one
            else ("attach a head for this data: `cut before HEAD; attach head`",),
        )
    return name


def settled_loss(
    network: Network, data: DataInfo | None, stated: str | None, output: str | None, span: Span
) -> Literal["cross_entropy", "mse", "bce"]:
    """The loss that a statement measures on data: as stated, else cross-entropy; without labels the mean square change of the
    outputs.

    Raises NetxformError X0351 where a stated loss needs labels that are not there, and what `labels_fit` does.
    """
    if data is not None and not data.labelled:
        if stated not in (None, "mse"):
            helps = ("leave `loss` out: what is measured is how far the outputs move",)
            raise fail("X0351", f"`{stated}` needs labels, and `{data.name}` has none", span, "no labels", helps=helps)
        return "mse"
    name = stated or "cross_entropy"
    if data is not None and data.targets is not None:
        labels_fit(network, data, output, named_loss(name), span)
    return cast('Literal["cross_entropy", "mse", "bce"]', name)


def _room(loss: Loss, width: int, classes: int) -> bool:
    """Whether class numbers fit so many outputs: one score a class; for other losses a unit vector, or the number itself."""
    if loss.kind.takes == "classes":
        return width == classes
    return classes <= (width if width > 1 else 2 if loss.kind.takes == "units" else classes)


_KEEP = frozenset({"view", "reshape", "flatten", "squeeze", "unsqueeze", "contiguous", "Flatten", "Identity", "Dropout", "to"})
_TWICE = {
    "classes": ("softmax", "Softmax", "Softmax2d", "sigmoid", "Sigmoid"),
    "units": ("softmax", "Softmax", "sigmoid", "Sigmoid"),
}
_LOG = ("log_softmax", "LogSoftmax")


def said_twice(network: Network, output: str | None, loss: Loss) -> tuple[str, ...]:
    """A warning where the network ends in what the loss applies again, or lacks what the loss counts on."""
    node = outputs(network.module).get(output)
    modules = dict(network.module.named_modules())

    def kind(one: Node) -> str:
        if one.op == "call_module":
            return type(modules[str(one.target)]).__name__
        return str(one.target if isinstance(one.target, str) else getattr(one.target, "__name__", ""))

    while node is not None and kind(node) in _KEEP and node.all_input_nodes:
        node = node.all_input_nodes[0]
    if node is None or node.op in ("placeholder", "output"):
        return ()
    last, name = kind(node), f"{loss.name}"
    if name == "nll":
        text = f"`nll` takes log-probabilities, and the network ends in {last}: write `loss=cross_entropy`"
        return () if last in _LOG else (text,)
    if last not in _TWICE.get(loss.kind.takes, ()):
        return ()
    again = "softmax" if loss.kind.takes == "classes" else "sigmoid"
    return (f"the network ends in {last}, and `{name}` applies a {again} itself: train on the values before it",)
