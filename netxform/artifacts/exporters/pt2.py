"""`.pt2`: a program of torch.export, for AOTInductor and whatever else reads ATen; of any batch size where the network is.

The same operations run on the same weights: what is left is the order of sums where torch takes them apart differently.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netxform.graph.network import Network


def program_of(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The program of torch.export, in eval mode."""
    import torch

    free = tuple({0: torch.export.Dim.AUTO} if t.dim() else None for t in inputs)
    with torch.no_grad():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=free)


def _write(network: Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    import torch

    held = io.BytesIO()  # torch's own writer of files ends the whole process where the disk is full
    torch.export.save(program_of(network.module, inputs), held)
    with path.open("wb") as file:
        file.write(held.getbuffer())


def _run(path: Path, inputs: tuple[Tensor, ...]) -> Any:
    import torch

    loaded: Any = torch.export.load(path).module()
    with torch.no_grad():
        return loaded(*inputs)


EXPORTERS.register("pt2")(Exporter(_write, _run, (".pt2",), slack=16))
