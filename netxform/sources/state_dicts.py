"""State dicts as people store them: found inside what was saved, under the names that a wrapper gave them, in one file or many.

file ─read→ Stored ─fit→ Fit: which tensor of the file each tensor of the model takes, and what is left over on both sides
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from netxform.errors import Span, closest, fail
from netxform.graph.shape_cache import memory
from netxform.graph.shapes import times
from netxform.sources.trust import Trust

Tensors: TypeAlias = "dict[str, Tensor]"

# what training scripts call the state of the model among all that they save; an average of the weights is asked for by name
INSIDE = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
AVERAGES = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "teacher")
# what wrappers put before every name: DataParallel, Lightning, torch.compile, timm, FSDP, self-supervised training
PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.", "net.", "network.", "encoder.", "_fsdp_wrapped_module.")
_COUNTER = "num_batches_tracked"
_MOST = 10


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors of a file by name. `inside`: under which key of the file they lay, empty for none."""

    tensors: Tensors
    inside: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """`taken`: name in the model → name in the file. `missing`: of the model, without one; `unused`: of the file; `wrong`: of
    another shape, as (model's name, file's name). `stripped` and `added`: what was taken off the file's names, and put before
    them. `implied`: of the model, not in the file and not needed: counters, and further names of one tensor.
    """

    taken: dict[str, str]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    wrong: tuple[tuple[str, str], ...] = ()
    stripped: str = ""
    added: str = ""
    implied: tuple[str, ...] = field(default=())

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, left over, or of another shape."""
        return not (self.missing or self.unused or self.wrong)


def read(path: Path, trust: Trust, span: Span, inside: str | None = None, weightless: bool = False) -> Stored:
    """The tensors of a `.safetensors` file, of a state dict in a file of `torch.save`, or of all files that an index names.

    `inside`: the key that they lie under, for files with several; by itself one is found. `weightless`: tensors on the meta
    device, of which no number is read. Nothing in a file is run.
    Raises NetxformError X0808 (damaged), X0809 (no such key), X0812 (compressed), X0903 (needs trust).
    """
    if path.is_dir():
        path = _index_of(path, span)
    if path.name.endswith(".index.json"):
        found: Any = _sharded(path, trust, span, weightless)
    elif path.suffix == ".safetensors":
        found = _safetensors(path, span, weightless)
    else:
        found = _pickled(path, trust, span, "meta" if weightless else "cpu")
    return _inner(found, path, span, inside)


def _safetensors(path: Path, span: Span, weightless: bool) -> Tensors:
    try:
        return without_numbers(path) if weightless else with_numbers(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise fail(
            "X0808",
            f"`{path.name}` cannot be read: {error}",
            span,
            "truncated or damaged",
            helps=("fetch the file again and compare its size",),
        ) from error


def with_numbers(path: Path) -> Tensors:
    """The tensors of a safetensors file, each in memory of its own, aligned as PyTorch aligns.

    In the file they lie at any place, and sums of the same numbers differ in their last digits by where these begin: a claim
    that was measured before the file was written would be another one when it is measured again. Raises SafetensorError,
    OSError.
    """
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def without_numbers(path: Path) -> Tensors:
    """The tensors of a `.safetensors` file on the meta device: their names, shapes and types stand at its beginning.

    Raises SafetensorError, OSError, ValueError for what is damaged.
    """
    with safe_open(path, "pt") as file:  # the file is mapped: no page of a tensor is touched
        return {name: file.get_tensor(name).to("meta") for name in file.keys()}


def _pickled(path: Path, trust: Trust, span: Span, where: str) -> Any:
    no_bomb(path, span)
    try:
        return torch.load(path, weights_only=True, map_location=where)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        if not trust.pickle:
            raise fail(
                "X0903",
                f"`{path.name}` holds more than tensors, or is damaged",
                span,
                "not loaded",
                notes=(_why(error),),
                helps=("store the weights as safetensors; or, if you trust the file, add `--trust-pickle`",),
            ) from error
    try:
        return torch.load(path, weights_only=False, map_location=where)
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise fail("X0808", f"`{path.name}` cannot be read: {text}", span, "truncated or damaged") from error


def _why(error: Exception) -> str:
    """What a file of torch.save holds beside tensors, in words."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is not None:
        return f"it holds a `{named.group(1)}`, which is made by running code"
    return "it is no file of torch.save" if isinstance(error, EOFError) else f"torch says: {type(error).__name__}"


def _index_of(folder: Path, span: Span) -> Path:
    """The index, or the one file of weights, of a folder as `save_pretrained` writes it."""
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json", "model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise fail(
        "X0808",
        f"no weights in the folder `{folder.name}`",
        span,
        "neither an index nor one file",
        helps=('name the file itself: `weights="folder/model.safetensors"`',),
    )


def _sharded(path: Path, trust: Trust, span: Span, weightless: bool) -> Tensors:
    """All tensors of the files that an index names; each lies in the file that the index says."""
    try:
        where: Any = json.loads(path.read_text())["weight_map"]
        places = {str(n): str(f) for n, f in where.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise fail("X0808", f"`{path.name}` is no index of weights: {error}", span, "no `weight_map`") from error
    out: Tensors = {}
    for file in sorted(set(places.values())):
        part = path.parent / file
        if Path(file).name != file or not part.is_file():
            raise fail("X0808", f"`{path.name}` names `{file}`, which is not beside it", span, "a part is missing")
        held = read(part, trust, span, None, weightless).tensors
        for name in (n for n, f in places.items() if f == file):
            if name not in held:
                raise fail("X0808", f"`{file}` does not hold `{name}`, as the index says", span, "index and parts differ")
            out[name] = held[name]
    return out


def _inner(found: Any, path: Path, span: Span, wanted: str | None) -> Stored:
    """The state dict in what was stored: the object's own, or the one under a usual key, at most two levels down."""
    if isinstance(found, nn.Module):
        found = found.state_dict()
    nested = dict(_nested(found))
    if wanted is not None:
        if wanted not in nested:
            keys = ", ".join(f"`{k}`" for k in nested) or "none"
            raise fail(
                "X0809",
                f"`{path.name}` holds no tensors under `{wanted}`",
                span,
                "no such key",
                notes=(f"keys with tensors: {keys}",),
                helps=tuple(f"did you mean `{n}`?" for n in closest(wanted, nested)),
            )
        return Stored(nested[wanted], wanted)
    if (own := _tensors(found)) and len(own) == len(cast("Mapping[str, object]", found)):
        return Stored(own)
    for key in (*INSIDE, *(f"{a}.{b}" for a in INSIDE for b in INSIDE), *AVERAGES):
        if key in nested:
            return Stored(nested[key], key)
    if len(nested) == 1:
        key, only = next(iter(nested.items()))
        return Stored(only, key)
    if own and not nested:
        return Stored(own)
    raise fail(
        "X0808",
        f"`{path.name}` holds no state dict" if not nested else f"`{path.name}` holds {len(nested)} state dicts",
        span,
        "which one?" if nested else "no tensors by name",
        helps=tuple(f'`inside="{k}"`' for k in list(nested)[:_MOST]) or ("store `model.state_dict()`",),
    )


def _nested(found: Any, depth: int = 2, before: str = "") -> Iterator[tuple[str, Tensors]]:
    """The dicts of tensors below a dict, by the keys that lead to them."""
    if not isinstance(found, Mapping) or not depth:
        return
    for key, value in cast("Mapping[object, Any]", found).items():
        held = value.state_dict() if isinstance(value, nn.Module) else value
        if isinstance(key, str) and isinstance(held, Mapping):
            if own := _tensors(held):
                yield before + key, own
            else:
                yield from _nested(held, depth - 1, f"{before}{key}.")


def _tensors(found: Any) -> Tensors:
    if not isinstance(found, Mapping):
        return {}
    items = cast("Mapping[object, object]", found).items()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}


def no_bomb(path: Path, span: Span) -> None:
    """Raises NetxformError X0812 for a file of torch.save with compressed members."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise fail("X0812", f"`{path.name}` has compressed members", span, "torch.save never compresses")


def renamed(state: Tensors, rules: Mapping[str, str], span: Span) -> Tensors:
    """The tensors under the names that the rules give: `{"old.*": "new.*"}`, the first rule that matches, `*` for any text.

    Raises NetxformError X0809 where a rule matches nothing, or two tensors come to one name.
    """
    out: Tensors = {}
    used: Counter[str] = Counter()
    patterns = {old: re.compile("(.*)".join(re.escape(p) for p in old.split("*"))) for old in rules}
    for name, tensor in state.items():
        new = name
        for rule, pattern in patterns.items():
            if (match := pattern.fullmatch(name)) is not None:
                used[rule] += 1
                new = _filled(rules[rule], match.groups(), rule, span)
                break
        if new in out:
            raise fail("X0809", f"two tensors of the file would be called `{new}`", span, "renamed")
        out[new] = tensor
    for rule in rules:
        if not used[rule]:
            near = closest(rule.replace("*", ""), state)
            raise fail(
                "X0809",
                f"`rename`: no tensor of the file is called `{rule}`",
                span,
                "matches nothing",
                helps=tuple(f"there is `{n}`" for n in near),
            )
    return out


def _filled(text: str, parts: tuple[str, ...], rule: str, span: Span) -> str:
    pieces = text.split("*")
    if len(pieces) - 1 > len(parts):
        raise fail("X0809", f"`rename`: `{text}` has more `*` than `{rule}`", span, "more of them than it matches")
    return "".join(p + (parts[i] if i < len(pieces) - 1 else "") for i, p in enumerate(pieces))


def fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Fit:
    """How the tensors of a file go into a model: by their names; a common prefix is taken off, or put before them, where more
    names fit so, on at least half of the model's tensors.
    """
    best = _by_name(state, wanted, "", "")
    if best.whole:
        return best
    for off, on in _affixes(state, wanted):
        made = _by_name(state, wanted, off, on)
        if len(made.taken) > len(best.taken) and 2 * len(made.taken) >= len(wanted):
            best = made
    return best


def _affixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """What may be taken off the file's names, and put before them: usual prefixes in any order, and what all names share."""
    off = _strippable(state)
    for text in off:
        yield text, ""
    for text in _strippable(wanted):
        yield "", text


def _strippable(names: Iterable[str]) -> list[str]:
    """Prefixes that some names begin with: chains of usual ones, and what every name begins with."""
    every = list(names)
    found: list[str] = []
    open_ = [""]
    while open_ and len(found) < 64:
        before = open_.pop(0)
        for prefix in PREFIXES:
            text = before + prefix
            if any(n.startswith(text) for n in every):
                found.append(text)
                open_.append(text)
    first = every[0].split(".")[:-1] if every else []
    for i in range(len(first)):
        text = ".".join(first[: i + 1]) + "."
        if text not in found and all(n.startswith(text) for n in every):
            found.append(text)
    return found


def _by_name(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], off: str, on: str) -> Fit:
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in wanted.items():
        alike.setdefault(_memory(name, tensor), []).append(name)
    bare = {on + n.removeprefix(off): n for n in state if n.startswith(off)}
    taken: dict[str, str] = {}
    wrong: list[tuple[str, str]] = []
    missing: list[str] = []
    implied: list[str] = []
    for name, tensor in wanted.items():
        if name not in bare:
            # counters are younger than many files; a tied tensor is stored once
            tied = any(other in bare for other in alike[_memory(name, tensor)])
            (implied if name.rpartition(".")[2] == _COUNTER or tied else missing).append(name)
        elif state[bare[name]].shape == tensor.shape:
            taken[name] = bare[name]
        else:
            wrong.append((name, bare[name]))
    used = {*taken.values(), *(n for _, n in wrong)}
    unused = tuple(n for n in state if n not in used)
    return Fit(taken, tuple(missing), unused, tuple(wrong), off, on, tuple(implied))


def _memory(name: str, tensor: Tensor) -> tuple[object, ...]:
    """What two names of one tensor share."""
    return (memory(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)


def misfits(fit: Fit, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What does not fit, a line a kind, the first ten of each."""
    shapes = [
        f"{own}: {times(state[theirs].shape)} in the file, {times(wanted[own].shape)} in the model" for own, theirs in fit.wrong
    ]
    kinds = (("not in the file", fit.missing), ("not in the model", fit.unused), ("wrong shape", shapes))
    return tuple(f"{len(names)} {what}: {few(names)}" for what, names in kinds if names)


def few(names: Iterable[str], most: int = _MOST) -> str:
    """The first names, and how many there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if len(listed) > most else "")
