"""`net.whole`: the module as torch.save stores it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.graph.network import Network


def _write(network: Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    import torch

    torch.save(network.module, path)


def _run(path: Path, inputs: tuple[Tensor, ...]) -> Any:
    import torch

    with torch.no_grad():
        return torch.load(path, weights_only=False)(*inputs)


EXPORTERS.register("demo-whole")(Exporter(_write, _run, (".whole",)))
