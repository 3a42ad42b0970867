"""The configuration of a grafted model of transformers, so that `from_pretrained` reads what `save_pretrained` writes.

Where numbers of the configuration say all, they are set. Where no number does (a layer that became two, layers of different
sizes), the configuration holds what differs, as data, and a small model file that reads it is written beside the weights:
`AutoModel….from_pretrained(FOLDER, trust_remote_code=True)` reads it without netxform.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from netxform.artifacts.construct import construct
from netxform.artifacts.grafting.sizes import UNSEEN, Sizes
from netxform.errors import NetxformError
from netxform.graph.tensors import held

Told: TypeAlias = "dict[str, Any]"
"""What a model has that its configuration does not say: `layers`, `shapes`, `settings`, by path."""

_IDS = ("_token_id", "_index", "_position_embeddings")
_FILE = '''"""A {base} with the layers that config.json names under `grafted`; written by netxform, which it does not need."""

import torch
from torch import nn
from transformers import {base}, {settings}


def fit(model, told):
    """Give the model the layers, shapes and numbers that its configuration tells."""
    for path, chain in told["layers"].items():
        owner, _, last = path.rpartition(".")
        parent, made = model.get_submodule(owner), nn.Sequential()
        for name, kind, arguments in chain:
            made.add_module(name, getattr(nn, kind)(**arguments))
        if isinstance(parent, (nn.Sequential, nn.ModuleList)) and last.isdigit():
            parent[int(last)] = made
        else:
            setattr(parent, last, made)
    like = next(model.parameters())
    for names, shape in told["shapes"]:
        tensor = None if shape is None else nn.Parameter(torch.empty(shape, device=like.device, dtype=like.dtype))
        for name in names:
            owner, _, last = name.rpartition(".")
            model.get_submodule(owner)._parameters[last] = tensor
    for path, values in told["settings"].items():
        tuples = {{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}}
        vars(model.get_submodule(path)).update(tuples)


class Grafted{settings}({settings}):
    """Of a kind of its own, so that no other class reads it in part."""

    model_type = "grafted-{kind}"


class Grafted{base}({base}):
    config_class = Grafted{settings}

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        fit(self, config.grafted)
'''
_written: dict[str, type] = {}
_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def configure(
    made: Any, came: Any, taken: Mapping[int, list[int]], sizes: Sizes, still: Callable[[], bool] = lambda: True
) -> None:
    """Let the model's configuration say what the model now is, so that it is built and read again from it.

    `came`: the configuration of the model as it came; `taken`: lengths of lists of blocks → the places that went; `still`:
    whether the model gives what it shall. Where nothing can say it, a warning does.
    """
    config = getattr(made, "config", None)
    if config is None or not callable(getattr(type(made), "from_pretrained", None)):
        return
    changed = {old: set(new) for old, new in sizes.changed.items()}
    before = copy.deepcopy(vars(config))
    for length, places in taken.items():
        changed.setdefault(length, set()).add(length - len(places))
        for name, value in vars(config).items():
            if isinstance(value, list) and len(cast("list[Any]", value)) == length:
                vars(config)[name] = [v for i, v in enumerate(cast("list[Any]", value)) if i not in places]
    if _search(made, config, changed) and still():
        return
    for base in (None, came):  # as far as numbers came; else the numbers that it came with, which its class accepts
        if base is not None:
            vars(config).update(copy.deepcopy(vars(base)))
        built = _built(type(made), config)
        told = None if built is None else _apart(built, made)
        if told is not None and _tell(made, told, still):
            return
    vars(config).update(before)
    warnings.warn(
        "the configuration has no words for these layers: what `save_pretrained` writes, `from_pretrained` will not read",
        stacklevel=3,
    )


def _built(cls: Any, config: Any) -> Any:
    """A model of that configuration, without weights; None where its class refuses it."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if callable(check := getattr(config, "validate", None)):
                check()
            return cls(copy.deepcopy(config))
    except Exception:  # the class's own code
        return None


def _search(made: Any, config: Any, changed: Mapping[int, set[int]]) -> bool:
    """Set numbers of the configuration until a model that is built from it is like this one; whether that was reached.

    One number at a time, the one that brings most; two at once where none alone does.
    """
    options = [
        (name, new)
        for name, value in vars(config).items()
        if type(value) is int and value in changed and name not in UNSEEN and not name.endswith(_IDS)
        for new in sorted(changed[value])
    ]

    def score() -> float:
        built = _built(type(made), config)
        return math.inf if built is None else _gap(built, made)

    best = score()
    while best > 0:
        start = best
        for count in (1, 2):
            found: dict[str, int] | None = None
            for several in itertools.combinations(options, count):
                was = {n: vars(config)[n] for n, _ in several}
                vars(config).update(several)
                if (now := score()) < best:
                    best, found = now, dict(several)
                vars(config).update(was)
            if found is not None:
                vars(config).update(found)
                break
        if best == start:
            return False
    return True


def _gap(built: nn.Module, made: nn.Module) -> float:
    """In how many tensors and numbers two models differ."""
    a, b = held(built), held(made)
    shapes = sum(a[n].shape != b[n].shape for n in a.keys() & b.keys()) + len(a.keys() ^ b.keys())
    return shapes + sum(len(values) for _, values in _other_numbers(built, made))


def _other_numbers(built: nn.Module, made: nn.Module) -> Iterator[tuple[str, Told]]:
    """By path, the numbers of the modules that both have, as `made` has them where they differ."""
    theirs = dict(built.named_modules())
    for path, part in made.named_modules():
        other = theirs.get(path)
        if other is None or (path and not _alike(other, part)):
            continue
        values = {
            n: list(v) if isinstance(v, tuple) else v  # pyright: ignore[reportUnknownArgumentType]
            for n, v in vars(part).items()
            if not n.startswith("_") and n != "training" and _number(v) and n in vars(other) and vars(other)[n] != v
        }
        if values:
            yield path, values


def _alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules are of one class, by its name: a parametrized layer has a class of its own."""
    return (type(a).__module__, type(a).__qualname__) == (type(b).__module__, type(b).__qualname__)


def _number(value: Any) -> bool:
    return isinstance(value, int | float | bool) or (
        isinstance(value, list | tuple) and bool(value) and all(type(v) is int for v in value)  # pyright: ignore
    )


def _apart(built: nn.Module, made: nn.Module) -> Told | None:
    """What `made` has that a model of its configuration has not; None where it cannot be told in layers of torch.nn."""
    theirs = dict(built.named_modules())
    layers: dict[str, list[Any]] = {}
    for path, part in made.named_modules():
        if path and path in theirs and not _alike(theirs[path], part):
            if type(part) is not nn.Sequential:
                return None
            chain: list[Any] = []
            for name, layer in part.named_children():
                try:
                    call = construct(layer, f"{path}.{name}")
                except NetxformError:
                    return None
                if call.own:
                    return None
                chain.append([name, call.kind, call.arguments])
            layers[path] = chain
    inside = tuple(f"{p}." for p in layers)
    left = {p for p in theirs.keys() - dict(made.named_modules(remove_duplicate=False)).keys() if not p.startswith(inside)}
    if left:  # a block that no number of the configuration takes out
        return None
    mine, other = dict(made.named_parameters(remove_duplicate=False)), dict(built.named_parameters(remove_duplicate=False))
    shared: dict[int | str, tuple[list[str], list[int] | None]] = {}
    for name in sorted(mine.keys() | other.keys()):
        if name.startswith(inside):
            continue
        tensor = mine.get(name)
        if tensor is None:
            shared[name] = ([name], None)
        elif name not in other or other[name].shape != tensor.shape:
            shared.setdefault(id(tensor), ([], list(tensor.shape)))[0].append(name)
    settings = {p: v for p, v in _other_numbers(built, made) if not f"{p}.".startswith(inside)}
    return {"layers": layers, "shapes": [list(s) for s in shared.values()], "settings": settings}


def _tell(made: Any, told: Told, still: Callable[[], bool]) -> bool:
    """Put what the configuration does not say into it, give the model the class that reads it; whether that is the model."""
    cls = type(made)
    auto = _auto_class(cls, made.config)
    if auto is None or not cls.__module__.startswith("transformers."):
        return False
    config, was = made.config, type(made.config)
    grafted: Any = _class_of(cls, was)
    config.grafted, config.__class__ = told, grafted.config_class
    built = _built(grafted, config)
    if built is None or _gap(built, made) or not still():
        config.__class__ = was
        del config.grafted
        return False
    grafted.config_class.register_for_auto_class()
    grafted.register_for_auto_class(auto)
    made.__class__ = grafted
    return True


def _auto_class(cls: type, config: Any) -> str | None:
    """The `AutoModel…` that gives this class for this kind of configuration."""
    import transformers

    for name in sorted((n for n in dir(transformers) if n.startswith("AutoModel")), key=len, reverse=True):
        mapping: Any = getattr(getattr(transformers, name), "_model_mapping", None)
        names = getattr(mapping, "_model_mapping", {})
        found = names.get(getattr(config, "model_type", ""), ())
        if cls.__name__ in ((found,) if isinstance(found, str) else found):
            return name
    return None


def _class_of(cls: type, settings: Any) -> type:
    """The class that reads what a configuration tells, from a file as `save_pretrained` copies it."""
    base = cls.__name__
    if base not in _written:
        folder = tempfile.TemporaryDirectory(prefix="grafted")
        _folders.append(folder)
        name = f"modeling_grafted_{base.lower()}"
        path = Path(folder.name) / f"{name}.py"
        path.write_text(_FILE.format(base=base, settings=settings.__name__, kind=settings.model_type))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        _written[base] = getattr(module, f"Grafted{base}")
    return _written[base]
