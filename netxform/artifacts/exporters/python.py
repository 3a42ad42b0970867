"""`.py`: the network as a readable module of plain PyTorch, its weights beside it as safetensors; the same bits come out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.graph.network import Network


def _write(network: Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    from safetensors.torch import save_file

    from netxform.artifacts.emit import emit
    from netxform.artifacts.graph import ties
    from netxform.compiler.measure import tensors

    weights = path.with_suffix(".safetensors")
    path.write_text(emit(network).replace("model.safetensors", weights.name).replace("import model\n", f"import {path.stem}\n"))
    tied = ties(network.module)
    save_file({n: t.cpu().contiguous().clone() for n, t in tensors(network.module).items() if n not in tied}, weights)


def _run(path: Path, inputs: tuple[Tensor, ...]) -> Any:
    import torch

    spec = importlib.util.spec_from_file_location(f"netxform_written_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    code: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    with torch.no_grad():
        return code.load()(*inputs)


EXPORTERS.register("py")(Exporter(_write, _run, (".py",)))
