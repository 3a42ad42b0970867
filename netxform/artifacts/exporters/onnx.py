"""`.onnx`: one file for ONNX runtimes.

It is run again by onnxruntime, whose kernels sum in other orders: a thousand rounding steps are allowed at the largest output.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.artifacts.exporters import EXPORTERS, Exporter
from netxform.artifacts.exporters.pt2 import program_of

if TYPE_CHECKING:
    from torch import Tensor

    from netxform.graph.network import Network


def _write(network: Network, inputs: tuple[Tensor, ...], path: Path) -> None:
    import torch

    with warnings.catch_warnings():  # of what torch's exporter uses itself
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            made: Any = torch.onnx.export(program_of(network.module, inputs), dynamo=True, verbose=False)
        finally:
            logging.disable(logging.NOTSET)
    made.save(path, external_data=False)


def _run(path: Path, inputs: tuple[Tensor, ...]) -> list[Any]:
    import torch

    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    given = {i.name: t.contiguous().numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(v) for v in session.run(None, given)]


EXPORTERS.register("onnx")(Exporter(_write, _run, (".onnx",), ("onnx", "onnxscript", "onnxruntime"), slack=1024))
