"""Weights into a model: read without ever running what is in the file; every misfit is reported at once."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import NOWHERE, Span, fail
from netxform.graph.shapes import times
from netxform.sources.trust import Trust

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_weights(module: nn.Module, path: Path, trust: Trust, span: Span, by_position: bool = False) -> None:
    """Load a file of tensors into the model: all keys must fit, and every misfit is reported at once."""
    state = read_tensors(path, trust, span)
    wanted = module.state_dict()
    if by_position:
        from netxform.sources.positions import not_in_order

        if len(state) != len(wanted):
            raise fail("X0809", f"{len(state)} tensors in the file, {len(wanted)} in the model", span, "by position")
        why = not_in_order(state, wanted)
        if why is not None:
            raise fail(
                "X0809",
                f"`{path.name}` is not in the order of the model: {why}",
                span,
                "by position",
                notes=("tensors of equal shape would change places, and nothing would say so",),
                helps=("name the tensors in the file as the model does, and leave `by_position` out",),
            )
        state = dict(zip(wanted, state.values(), strict=True))
    missing = [k for k in wanted if k not in state]
    extra = [k for k in state if k not in wanted]
    wrong = [
        f"{k}: {times(state[k].shape)}, not {times(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    if missing or extra or wrong:
        notes = [
            f"{what}: {_few(names)}"
            for what, names in (("missing", missing), ("not in the model", extra), ("wrong shape", wrong))
            if names
        ]
        raise fail(
            "X0809",
            f"the weights in `{path.name}` do not fit the model",
            span,
            f"{len(missing)} missing, {len(extra)} unknown, {len(wrong)} of wrong shape",
            notes=tuple(notes),
            helps=("`by_position=true` matches tensors by their order",) if missing and len(missing) == len(extra) else (),
        )
    module.load_state_dict(state)


def read_tensors(path: Path, trust: Trust, span: Span) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a state dict in a `.pt` file. Nothing in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise fail(
                "X0808",
                f"`{path.name}` cannot be read: {error}",
                span,
                "truncated or damaged",
                helps=("fetch the file again and compare its size",),
            ) from error
    no_bomb(path, span)
    try:
        found: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        if not trust.pickle:
            raise fail(
                "X0903",
                f"`{path.name}` holds more than tensors, or is damaged",
                span,
                "not loaded",
                notes=(str(error).strip().splitlines()[0][:160],),
                helps=("store the weights as safetensors; or, if you trust the file, add `--trust-pickle`",),
            ) from error
        found = torch.load(path, weights_only=False, map_location="cpu")
    if isinstance(found, dict) and "state_dict" in found:
        found = cast("dict[str, object]", found)["state_dict"]
    state: Any = cast(Any, found).state_dict() if hasattr(cast(Any, found), "state_dict") else found
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def no_bomb(path: Path, span: Span) -> None:
    """Raises NetxformError X0812 for a file of torch.save with compressed members."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                raise fail("X0812", f"`{path.name}` has compressed members", span, "torch.save never compresses")


def check_finite(module: nn.Module, span: Span = NOWHERE) -> None:
    """Raises NetxformError X0811 where a weight is NaN or infinite. Masks are added to scores and may hold −inf: buffers, and
    parameters that belong to no layer of torch.nn.
    """
    layers = {n for n, m in module.named_modules(remove_duplicate=False) if type(m).__module__.startswith("torch.nn.")}
    named = module.named_parameters(remove_duplicate=False)
    weights = {n for n, _ in named if n.rpartition(".")[0] in layers}
    bad: list[str] = []
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta:
            sound = tensor.isfinite() if name in weights else tensor.isfinite() | tensor.isneginf()
            if not bool(sound.all()):
                bad.append(name)
    if bad:
        raise fail(
            "X0811",
            f"{len(bad)} tensor(s) of the model hold NaN or infinite values",
            span,
            "not finite",
            notes=(_few(bad),),
            helps=("mend the checkpoint: nothing that is measured on it would mean anything",),
        )


def _few(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if len(listed) > most else "")
