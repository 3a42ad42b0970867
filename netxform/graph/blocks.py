"""Residual and transformer blocks: where they begin and end, and how a copy of one begins as the identity."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx, nn

from netxform.graph.activations import IDEMPOTENT, activation_of


def block_nodes(module: fx.GraphModule, path: str) -> tuple[list[fx.Node], fx.Node, fx.Node]:
    """The nodes of a block in order, the one value that it reads, and its output.

    Raises ValueError where it reads several values, reads tensors from outside, or has no single output.
    """
    inside, entry, end = passed_by(module, path)
    known = set(inside)
    others = {s for n in inside for s in n.all_input_nodes if s not in known} - {entry}
    if others:
        raise ValueError(f"it reads {len(others) + 1} values and has 1 outputs")
    return inside, entry, end


def passed_by(module: fx.GraphModule, path: str) -> tuple[list[fx.Node], fx.Node, fx.Node]:
    """The nodes of a block in order, the first value that it is given, and its output; it may read others beside it.

    Raises ValueError where it is called several times or not at all, or has no single output.
    """
    inside = [n for n in module.graph.nodes if _runs_in(n, path)]
    known = set(inside)
    read = dict.fromkeys(s for n in inside for s in n.all_input_nodes if s not in known)
    entries = list(read) if len(read) == 1 else [n for n in module.graph.nodes if path in n.meta.get("entries", ())]
    exits = [n for n in module.graph.nodes if path in n.meta.get("exits", ())]
    if len(entries) != 1 or len(exits) != 1 or exits[0] not in known or entries[0] in known:
        raise ValueError(f"it reads {len(read)} values and has {len(exits)} outputs")
    return inside, entries[0], exits[0]


def _runs_in(node: fx.Node, path: str) -> bool:
    if node.op in ("placeholder", "output"):
        return False
    scope = str(node.target) if node.op in ("call_module", "get_attr") else node.meta.get("scope", "")
    return scope == path or scope.startswith(path + ".")


def last_scales(module: fx.GraphModule, path: str) -> tuple[str, ...]:
    """The tensors that, at zero, make a residual block the identity: the last ones of each branch that is added to the stream.

    Raises ValueError where the block is not residual: where its output is not its input plus branches, up to a ReLU that its
    input has passed already.
    """
    inside, entry, end = block_nodes(module, path)
    modules: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    stream = {entry}
    zeroed: list[str] = []
    for node in inside:
        name = getattr(node.target, "__name__", str(node.target)).strip("_")
        part = modules.get(str(node.target)) if node.op == "call_module" else None
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if name in ("add", "iadd") and len(operands) == 2 and (operands[0] in stream) != (operands[1] in stream):
            branch = operands[1] if operands[0] in stream else operands[0]
            zeroed += _last_tensors(branch, modules, path)
            stream = {node}
        elif (
            operands
            and operands[0] in stream
            and node is end
            and (known := activation_of(name if part is None else part))
            and known.idempotent
        ):
            stream = {node}  # the block before ended with it too, or the claim that the function is the same will say so
    if end not in stream or not zeroed:
        raise ValueError("its output is not its input plus what its branches add")
    return tuple(zeroed)


def _last_tensors(node: fx.Node, modules: dict[str, nn.Module], path: str) -> list[str]:
    while True:
        if node.op == "call_module":
            target, part = str(node.target), modules[str(node.target)]
            if hasattr(part, "out_proj"):
                target, part = f"{target}.out_proj", cast(nn.Module, part.out_proj)
            held = [n for n, _ in part.named_parameters(recurse=False)]
            if held:
                return [f"{target}.{n}"[len(path) + 1 :] for n in held]
        scales = [
            a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr" and str(a.target).startswith(path + ".")
        ]
        if scales and getattr(node.target, "__name__", "") in ("mul", "imul"):
            return [str(scales[0].target)[len(path) + 1 :]]
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if len(operands) != 1:
            raise ValueError(f"the last scale of the branch at `{node.name}` cannot be told")
        node = operands[0]


def identity_obstacle(part: nn.Module) -> str | None:
    """Why the layer cannot start as the identity, or None (for activations: where the value is already activated by it)."""
    if isinstance(part, nn.Linear):
        return None if part.in_features == part.out_features else "it changes the number of features"
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if part.in_channels != part.out_channels:
            return "it changes the number of channels"
        if any(k % 2 == 0 for k in part.kernel_size):
            return "its kernel has no middle"
        if any(s != 1 for s in part.stride):
            return "its stride is not 1"
        same = [d * (k - 1) // 2 for k, d in zip(part.kernel_size, part.dilation, strict=True)]
        if part.padding != "same" and list(cast("tuple[int, ...]", part.padding)) != same:
            return "its padding does not keep the size"
        return None
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return None if part.affine and part.track_running_stats else "it has no scale or no running statistics"
    if isinstance(part, (*IDEMPOTENT, nn.Identity, nn.Dropout)):
        return None
    return f"{type(part).__name__} changes what passes through it"


def start_as_identity(part: nn.Module) -> None:
    """Set a layer that `identity_obstacle` admits to compute its input (Net2DeeperNet; Chen et al., 2016)."""
    with torch.no_grad():
        if isinstance(part, nn.Linear):
            part.weight.copy_(torch.eye(part.out_features, dtype=part.weight.dtype, device=part.weight.device))
        elif isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.dirac_(part.weight, part.groups)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.weight.copy_((part.running_var + part.eps).sqrt())
            part.bias.copy_(part.running_mean)
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.bias is not None:
            part.bias.zero_()


def start_as_nothing(part: nn.Module) -> None:
    """Set scale and shift of the last layer of a branch to zero."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.zero_()
