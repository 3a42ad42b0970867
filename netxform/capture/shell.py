"""What a graph module holds of the model that it was captured from: every name, in the model's order."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, fx, nn

from netxform.graph.tensors import held


class Shell(nn.Module):
    """A root that holds what the model held, under the same names."""

    def __init__(self, model: nn.Module, constants: dict[str, Tensor]) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model._parameters.items():  # pyright: ignore[reportPrivateUsage]
            self.register_parameter(name, parameter)
        loose = model._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        for name, buffer in model._buffers.items():  # pyright: ignore[reportPrivateUsage]
            self.register_buffer(name, buffer, persistent=name not in loose)
        for name, value in vars(model).items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=True)


def keep_everything(model: nn.Module, module: fx.GraphModule) -> None:
    """Give the graph module what the graph does not read but the model holds, and the model's order of names."""
    have = {n for n, _ in module.named_modules(remove_duplicate=False)}
    for name, part in model.named_modules(remove_duplicate=False):
        if name and name not in have:
            owner, _, last = name.rpartition(".")
            module.get_submodule(owner).add_module(last, part)
            have |= {f"{name}.{n}" if n else name for n, _ in part.named_modules(remove_duplicate=False)}
    _restore_tensors(model, module)
    _keep_containers(model, module)


def _restore_tensors(model: nn.Module, module: fx.GraphModule) -> None:
    """Parameters and buffers that hang on containers and that the graph does not read."""
    have = held(module)
    for name, part in model.named_modules(remove_duplicate=False):
        target = module.get_submodule(name)
        for key, parameter in part._parameters.items():  # pyright: ignore[reportPrivateUsage]
            if (f"{name}.{key}" if name else key) not in have:
                target.register_parameter(key, parameter)
        loose = part._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        for key, buffer in part._buffers.items():  # pyright: ignore[reportPrivateUsage]
            if (f"{name}.{key}" if name else key) not in have:
                target.register_buffer(key, buffer, persistent=key not in loose)
            elif key in loose:
                target._non_persistent_buffers_set.add(key)  # pyright: ignore[reportPrivateUsage]


def _keep_containers(model: nn.Module, module: fx.GraphModule) -> None:
    """Order children as in the model, so that `state_dict` has the same order."""
    for name, part in model.named_modules(remove_duplicate=False):
        target = module.get_submodule(name)
        order = list(part._modules)  # pyright: ignore[reportPrivateUsage]
        held = target._modules  # pyright: ignore[reportPrivateUsage]
        for key in [k for k in order if k in held] + [k for k in held if k not in order]:
            held[key] = held.pop(key)
        for mine, theirs in ((target._parameters, part._parameters), (target._buffers, part._buffers)):  # pyright: ignore[reportPrivateUsage]
            for key in [k for k in theirs if k in mine] + [k for k in list(mine) if k not in theirs]:
                mine[key] = cast(Any, mine.pop(key))
