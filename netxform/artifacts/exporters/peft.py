"""`--to peft`: the adapters alone, as PEFT reads them, in a folder; put back on the base, they compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.graph.network import Network


def _write(network: Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    from netxform.sources.peft_files import write

    write(network, path)


def _onto(path: Path, network: Network, inputs: tuple[Tensor, ...]) -> Any:
    """What the network computes with the factors that the folder holds in the place of its own."""
    import torch

    from netxform.graph.edits import Assign, Edit
    from netxform.graph.surgery import perform
    from netxform.sources.peft_files import read, tensors_for

    held = tensors_for(network, read(path))
    blank = perform(network, Edit((Assign(tuple(held)),), {n: torch.zeros_like(t) for n, t in held.items()}))
    with torch.no_grad():
        return perform(blank, Edit((Assign(tuple(held)),), held)).module.eval()(*inputs)


EXPORTERS.register("peft")(Exporter(_write, None, (), onto=_onto))
