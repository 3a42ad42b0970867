"""Arguments of the public functions: each of the kind that its function takes, or an error that says what was handed in."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.door import ArgumentError
from netxform.errors import Diagnostic, fail

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_SEED = 2**63 - 1


def wrong(name: str, value: Any, wanted: str, *helps: str) -> ArgumentError:
    """The error for an argument of another kind."""
    return ArgumentError(
        [Diagnostic("X0002", f"`{name}` is {wanted}, not {shown(value)}", helps=helps or (f"hand in {wanted}",))]
    )


def shown(value: Any) -> str:
    """A value in few words: a short one as it is, else its type."""
    if value is None or isinstance(value, bool | int | float):
        return f"`{str(value)[:40]}`"
    if isinstance(value, str):
        return f'the text "{value[:40]}{"…" if len(value) > 40 else ""}"'
    if isinstance(value, type):
        return f"the class `{value.__name__}`"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} `{name}`"


def spec_of(value: Any, name: str = "spec") -> Any:
    """A spec as it may be handed in: a text, a builder, a Program, a checked spec, or a path."""
    from netxform.builder import Builder
    from netxform.compiler.check import Spec
    from netxform.syntax.ast import Program

    if isinstance(value, Path | Builder | Program | Spec):
        return value
    if isinstance(value, str):
        if value.endswith(".xform") and "\n" not in value and "=" not in value:
            helps = (f'a text is the spec itself; for the file write `pathlib.Path("{value}")`',)
            raise ArgumentError([Diagnostic("X0002", f'`{name}` is the text "{value}", which looks like a file', helps=helps)])
        return value
    if isinstance(value, os.PathLike):
        return Path(cast("os.PathLike[str]", value))
    raise wrong(name, value, "a spec: a text, a builder, or a `pathlib.Path`")


def path_of(value: Any, name: str) -> Path:
    """A path, of a text or a `Path`."""
    if isinstance(value, str | os.PathLike):
        found: Any = os.fspath(cast("str | os.PathLike[Any]", value))
        if isinstance(found, str) and found and "\x00" not in found:
            return Path(found)
    raise wrong(name, value, "the path of a file or folder", f"hand in a text or a `pathlib.Path` as `{name}`")


def folder_of(value: Any, name: str) -> Path:
    """A path of a folder that is there. Raises NetxformError X0807."""
    path = path_of(value, name)
    if not path.is_dir():
        helps = ("name the folder that the files of the spec are named from",)
        raise fail("X0807", f"`{name}` is `{path}`, which is no folder", helps=helps)
    return path


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")
    return value


def whole(value: Any, name: str, low: int = 0, high: int = MOST_SEED) -> int:
    """A whole number in a range."""
    try:
        found = operator.index(value)
    except TypeError:
        raise wrong(name, value, "a whole number") from None
    if isinstance(value, bool) or not low <= found <= high:
        raise wrong(name, value, f"a whole number from {low} to {high}")
    return found


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        raise wrong(name, value, f"one of {', '.join(known)}")
    return value


def text(value: Any, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    return value


def named(value: Any, name: str) -> dict[str, Any]:
    """Things by name."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong(name, value, "a dict of things by name", f'write `{name}={{"NAME": …}}`')
    for key in cast("Mapping[Any, Any]", value):
        if not isinstance(key, str) or not key.replace(".", "_").isidentifier():
            raise wrong(f"a name in {name}", key, "a plain word")
    return dict(cast("Mapping[str, Any]", value))


def params_of(value: Any) -> dict[str, Any]:
    """Values of parameters: numbers, texts, bools and lists of them."""
    from netxform.compiler.expand import literal

    found = named(value, "params")
    for key, one in found.items():
        try:
            literal(one)
        except TypeError:
            wanted = "a number, a text, a bool or a list of them"
            raise wrong(f'params["{key}"]', one, wanted) from None
    return found


def data_of(value: Any) -> dict[str, Any]:
    """Data by name; one alone is called `data`. A mapping with `train` and nothing but parts is one."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and not _one_in_parts(cast("Mapping[Any, Any]", value)):
        return named(cast("Any", value), "data")
    return {"data": value}


def _one_in_parts(value: Mapping[Any, Any]) -> bool:
    from netxform.sources.data.parts import NAMES

    return "train" in value and len(value) > 1 and all(k in NAMES for k in value)


def model_of(value: Any, name: str = "model") -> nn.Module:
    """A module of torch."""
    from torch import nn

    if isinstance(value, nn.Module):
        return value
    if isinstance(value, str):
        helps = (f"name it in the spec: `model net = {value[:40]}`", "or make the module first, and hand that in")
        raise wrong(name, value, "a `torch.nn.Module`", *helps)
    if isinstance(value, type) and issubclass(value, nn.Module):
        raise wrong(name, value, "a `torch.nn.Module`", f"make one: `{value.__name__}(…)`")
    if isinstance(value, dict):
        raise wrong(name, value, "a `torch.nn.Module`", "load the weights into a module first: `module.load_state_dict(…)`")
    raise wrong(name, value, "a `torch.nn.Module`")


def images_of(model: Any, value: Any) -> Any:
    """Images for a detector as the batch that its layers get; anything else as it is."""
    from netxform.capture.detectors import batch_of

    return batch_of(model, value)


def inputs_of(value: Any, name: str = "example_inputs") -> tuple[Tensor, ...]:
    """Tensors that a model takes: one, or several; None among them for an argument that is left out.

    Raises NetxformError X0838 for NaN and infinity.
    """
    from torch import Tensor

    from netxform.sources.data.parts import finite

    several = tuple(cast("list[Any]", value)) if isinstance(value, tuple | list) else (value,)
    if not several:
        raise wrong(
            name, value, "a tensor, or a tuple of tensors", "hand in what the model takes: `(torch.randn(2, 3, 32, 32),)`"
        )
    for i, one in enumerate(several):
        if one is None and len(several) > 1:  # an argument that is left out
            continue
        if not isinstance(one, Tensor):
            helps = ("make a tensor of it: `torch.as_tensor(…)`",)
            raise wrong(name if len(several) == 1 else f"{name}[{i}]", one, "a tensor, or a tuple of tensors", *helps)
        if one.numel() == 0:
            helps = ("hand in at least one sample",)
            raise ArgumentError([Diagnostic("X0002", f"`{name}` holds no numbers: {tuple(one.shape)}", helps=helps)])
        finite(one, f"`{name}`" if len(several) == 1 else f"`{name}[{i}]`", masks=True)
    return several


def progress_of(value: Any) -> Any:
    """Someone who is told how long work goes."""
    if value is not None and (
        isinstance(value, type) or not all(callable(getattr(value, n, None)) for n in ("start", "step", "stop"))
    ):
        raise wrong("progress", value, "an object with `start(title, total)`, `step(text)` and `stop()`")
    return value
