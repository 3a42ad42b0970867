"""Weights into a model: read without ever running what is in the file; every misfit is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from netxform.errors import NOWHERE, Span, fail
from netxform.sources.trust import Trust

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netxform.sources.state_dicts import Fit, Stored


@dataclass(frozen=True, slots=True)
class Asked:
    """How a file of weights is to be read: the key that they lie under, other names for its tensors, whether a part of them is
    enough, and whether they are matched by their order.
    """

    inside: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    partial: bool = False
    by_position: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What was done to take the weights: `notes` for what is as it should be, `warnings` for what was left out."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_weights(
    module: nn.Module, path: Path, trust: Trust, span: Span, asked: Asked | None = None, weightless: bool = False
) -> Taken:
    """Load a file of tensors into the model: all keys must fit, and every misfit is reported at once.

    The state dict is found inside what was saved, and a prefix that a wrapper put before the names is taken off where the
    names fit without it. `weightless`: names, shapes and types alone are read. Raises NetxformError X0808, X0809, X0812, X0903.
    """
    from netxform.sources.state_dicts import Stored, fit, read, renamed

    asked = asked or Asked()
    stored = read(path, trust, span, asked.inside, weightless)
    if asked.rename:
        stored = Stored(renamed(stored.tensors, asked.rename, span), stored.inside)
    wanted = module.state_dict()
    found = _by_position(stored.tensors, wanted, path, span) if asked.by_position else fit(stored.tensors, wanted)
    if not found.whole and not (asked.partial and found.taken):
        raise _misfit(path, span, found, stored, wanted)
    module.load_state_dict({own: stored.tensors[theirs] for own, theirs in found.taken.items()}, strict=False)
    return Taken(_said(path, found, stored, wanted), _left_out(path, found, stored, wanted))


def _by_position(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, span: Span) -> Fit:
    from netxform.sources.positions import not_in_order
    from netxform.sources.state_dicts import Fit

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
    pairs = list(zip(wanted, state, strict=True))
    wrong = tuple((own, theirs) for own, theirs in pairs if wanted[own].shape != state[theirs].shape)
    return Fit({own: theirs for own, theirs in pairs if (own, theirs) not in wrong}, wrong=wrong)


def _misfit(path: Path, span: Span, found: Fit, stored: Stored, wanted: Mapping[str, Tensor]) -> Exception:
    from netxform.sources.state_dicts import misfits

    helps: list[str] = []
    if (head := _other_classes(found, stored.tensors, wanted)) is not None:
        name, there, here = head
        helps.append(
            f"`{name}` has {there} outputs in the file and {here} in the model: declare the model with {there} classes, then "
            f"`cut before {name}; attach head classes={here}`"
        )
    if found.missing and len(found.missing) == len(found.unused):
        helps.append('other names for the same tensors: `rename={"old.*": "new.*"}`; or `by_position=true`, by their order')
    if found.taken:
        helps.append(f"`partial=true` takes the {len(found.taken):,} of {len(wanted):,} tensors that fit, and says so")
    return fail(
        "X0809",
        f"the weights in `{path.name}` do not fit the model",
        span,
        f"{len(found.missing)} missing, {len(found.unused)} unknown, {len(found.wrong)} of wrong shape",
        notes=misfits(found, stored.tensors, wanted),
        helps=tuple(helps) or ("these are the weights of another model: name the one that they belong to",),
    )


def _other_classes(found: Fit, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, int, int] | None:
    """The layer whose number of outputs is all that differs: its name, and the numbers in the file and in the model."""
    layers = {own.rpartition(".")[0] for own, _ in found.wrong}
    if found.missing or found.unused or len(layers) != 1:
        return None
    sizes = {(state[b].shape[:1], wanted[a].shape[:1]) for a, b in found.wrong if state[b].shape[1:] == wanted[a].shape[1:]}
    if len(sizes) != 1 or not all(state[b].dim() and state[b].shape[1:] == wanted[a].shape[1:] for a, b in found.wrong):
        return None
    (there, here) = next(iter(sizes))
    return next(iter(layers)), there[0], here[0]


def _said(path: Path, found: Fit, stored: Stored, wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    from netxform.sources.state_dicts import few

    out: list[str] = []
    if stored.inside:
        out.append(f"the weights lie under `{stored.inside}`")
    if found.stripped:
        out.append(f"`{found.stripped}` was taken off the names")
    if found.added:
        out.append(f"`{found.added}` was put before the names")
    casts = {
        (_named(stored.tensors[b]), _named(wanted[a]))
        for a, b in found.taken.items()
        if stored.tensors[b].dtype != wanted[a].dtype
    }
    out += [f"{a} became {b}" for a, b in sorted(casts)]
    if found.implied:
        out.append(f"not in the file, and not needed: {few(found.implied)}")
    return tuple(f"`{path.name}`: {text}" for text in out)


def _named(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _left_out(path: Path, found: Fit, stored: Stored, wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    from netxform.sources.state_dicts import misfits

    if found.whole:
        return ()
    left = "; ".join(misfits(found, stored.tensors, wanted))
    fresh = len(found.missing) + len(found.wrong)
    kept = f"; {fresh:,} keep the weights that the model was made with" if fresh else ""
    return (f"`{path.name}` fits in part: {len(found.taken):,} of {len(wanted):,} tensors were taken{kept}. {left}",)


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
        from netxform.sources.state_dicts import few

        raise fail(
            "X0811",
            f"{len(bad)} tensor(s) of the model hold NaN or infinite values",
            span,
            "not finite",
            notes=(few(bad, 6),),
            helps=("mend the checkpoint: nothing that is measured on it would mean anything",),
        )
