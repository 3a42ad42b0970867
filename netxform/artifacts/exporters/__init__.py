"""Files for other programs: an exporter a file. What is written is loaded and run again, and compared with the network.

Network, example inputs ─export→ Exported
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exchange import put, staged
from netxform.artifacts.lock import locked
from netxform.errors import NetxformError, fail
from netxform.registry import Registry
from netxform.sources.parts import cannot_write, of_the_disk

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.graph.network import Network


@dataclass(frozen=True, slots=True)
class Exporter:
    """`write`: (network, example inputs, path) writes the file, and whatever it needs beside it under the same stem.

    `run`: (path, inputs) → what the written file computes, in the structure of the network's output or as a flat list.
    `onto`, in the place of `run`: what the network computes with what was written, for files that hold a part of it.
    `suffixes`: of its files, with the dot. `needs`: packages that it imports, and the `extra` of netxform that brings them.
    `slack`: how far the file may be from the network, in units of the rounding step at the largest output.
    """

    write: Callable[[Network, tuple[Tensor, ...], Path], None]
    run: Callable[[Path, tuple[Tensor, ...]], Any] | None
    suffixes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = "export"
    slack: float = 0.0
    onto: Callable[[Path, Network, tuple[Tensor, ...]], Any] | None = None


EXPORTERS: Registry[Exporter] = Registry("netxform.exporters", "exporter", "X0834", __name__)


@dataclass(frozen=True)
class Exported:
    """What was written, by which exporter, and how far it is from the network: `worst` ≤ `bound` on `samples` samples."""

    path: Path
    exporter: str
    bound: float
    worst: float
    samples: int


def exporter_of(out: Path, to: str | None) -> tuple[str, Exporter]:
    """The exporter that is named, or that has the suffix of the file.

    Raises NetxformError X0834 (there is none), X0814 (a package is missing).
    """
    name = to
    if name is None:
        plain = out.suffix.removeprefix(".")
        name = plain if plain in EXPORTERS else next((n for n, e in EXPORTERS.items() if out.suffix in e.suffixes), None)
    if name is None:
        known = ", ".join(EXPORTERS)
        helps = (f"name one: `--to NAME`, of {known}",)
        raise fail("X0834", f"no exporter writes `{out.name}`", helps=helps)
    found = EXPORTERS.find(name)
    missing = [p for p in found.needs if importlib.util.find_spec(p) is None]
    if missing:
        helps = (f"pip install 'netxform[{found.extra}]'",)
        raise fail("X0814", f"`{missing[0]}` is not installed; the exporter `{name}` needs it", helps=helps)
    return name, found


def export(network: Network, inputs: tuple[Tensor, ...], out: Path, to: str | None = None) -> Exported:
    """Write the network for another program, load it again and run it on the inputs.

    Raises NetxformError X0834 (unknown exporter), X0814 (package missing), X0818 (the file exists), X0819 (cannot be written),
    X0820 (the network cannot be exported), X0501 (the file computes something else). Then nothing is left behind.
    """
    name, exporter = exporter_of(out, to)
    if os.path.lexists(out):
        raise fail("X0818", f"`{out.name}` exists", helps=("nothing is overwritten: remove it, or name another file",))
    with locked(out):
        try:
            with staged(out) as folder:
                part = folder / out.name
                try:
                    exporter.write(network, inputs, part)
                    found = _run(exporter, part, network, inputs)
                except (NetxformError, OSError):
                    raise
                except Exception as error:
                    if of_the_disk(error):
                        raise cannot_write(f"`{out}`", error) from error
                    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise fail("X0820", f"`{name}` cannot export this network: {text}") from error
                worst, bound = _apart(network, inputs, found, exporter.slack)
                if not worst <= bound:
                    said = f"`{out.name}` computes something else: {worst:.3g} apart, {bound:.3g} allowed"
                    raise NetxformError(fail("X0501", said).diagnostics, exit_code=3)
                _moved(sorted(folder.iterdir(), key=lambda p: p == part), out)
        except OSError as error:
            raise cannot_write(f"`{out}`", error) from error
    return Exported(out, name, bound, worst, int(inputs[0].shape[0]) if inputs and inputs[0].dim() else 0)


def _moved(files: Sequence[Path], out: Path) -> None:
    """Put the files beside each other, the named one last: all of them, or none where one is in the way or cannot be put."""
    for file in files:
        if os.path.lexists(out.parent / file.name):
            raise fail("X0818", f"`{file.name}` exists", helps=("nothing is overwritten: remove it, or name another file",))
    done: list[Path] = []
    try:
        for file in files:
            put(file, out.parent / file.name)
            done.append(out.parent / file.name)
    except BaseException:
        for path in done:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _run(exporter: Exporter, part: Path, network: Network, inputs: tuple[Tensor, ...]) -> Any:
    if exporter.onto is not None:
        return exporter.onto(part, network, inputs)
    assert exporter.run is not None
    return exporter.run(part, inputs)


def _apart(network: Network, inputs: tuple[Tensor, ...], found: Any, slack: float) -> tuple[float, float]:
    """The largest difference of the outputs, and what is allowed: `slack` times the rounding step at the largest value."""
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        wanted = [t for t in tree_leaves(network.module.eval()(*inputs)) if isinstance(t, torch.Tensor)]
    given = [t for t in tree_leaves(found) if isinstance(t, torch.Tensor)]
    if [t.shape for t in given] != [t.shape for t in wanted]:
        return float("inf"), 0.0
    worst = bound = 0.0
    for a, b in zip(given, wanted, strict=True):
        worst = max(worst, float((a.double() - b.double()).abs().max()) if a.numel() else 0.0)
        step = torch.finfo(b.dtype).eps if b.dtype.is_floating_point else 0.0
        bound = max(bound, slack * step * max(1.0, float(b.abs().max()) if b.numel() else 0.0))
    return worst, bound
