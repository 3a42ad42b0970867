"""Models that are no networks of torch, as modules that answer with logits: ONNX files, classifiers, plain functions.

They teach (`distill from …`); they cannot be changed. Each knows its `fingerprint`, so that it can be proven untouched.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netxform.errors import NOWHERE, Span, fail

# the least probability that a classifier is taken to give: log p stays finite, and no answer is quite certain
_LEAST = 1e-6


class Foreign(nn.Module):
    """A model that is asked as a whole. x (N, …) → logits (N, C)."""

    shapes: tuple[tuple[tuple[int, ...], str], ...] | None = None

    def fingerprint(self) -> str:
        """A hash of what decides the answers; empty where there is none."""
        return ""


_ONE_FILE = "save it as one file: `onnx.save_model(model, path, save_as_external_data=False)`"


def _points_outside(model: bytes) -> bool:
    """Whether tensors of an ONNX model lie in other files, which onnxruntime would look for in the current folder."""
    return b"\x0a\x08location" in model  # the key of an entry of `external_data`, as protobuf writes it


class OnnxModel(Foreign):
    """An ONNX file, run by onnxruntime on the CPU; its first output is the answer."""

    def __init__(self, path: Path, span: Span = NOWHERE) -> None:
        super().__init__()
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise fail(
                "X0814", "`onnxruntime` is not installed", span, "needed here", helps=("pip install 'netxform[export]'",)
            ) from error
        self._bytes = path.read_bytes()
        if _points_outside(self._bytes):
            raise fail("X0901", f"`{path.name}` keeps its weights in other files", span, "not followed", helps=(_ONE_FILE,))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session: Any = runtime.InferenceSession(self._bytes, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise fail("X0808", f"`{path.name}` cannot be read: {text}", span, "damaged, or no ONNX model") from error
        self._input = self._session.get_inputs()[0]
        sizes = [1 if i == 0 or not isinstance(n, int) else n for i, n in enumerate(self._input.shape)]
        self.shapes = ((tuple(sizes), "f32"),)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …) → the first output."""
        fixed = self._input.shape[0]
        parts = x.detach().cpu().split(fixed) if isinstance(fixed, int) and fixed > 0 else (x.detach().cpu(),)
        found = [torch.from_numpy(self._session.run(None, {self._input.name: p.contiguous().numpy()})[0]) for p in parts]
        return torch.cat(found).to(x.device)

    def fingerprint(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self._bytes).hexdigest()


class Classifier(Foreign):
    """A classifier with `predict_proba`, asked with flat samples: log-probabilities are its logits.

    `classes_` must be the class numbers 0 … C−1; a class that it never saw has the least probability.
    """

    def __init__(self, estimator: Any, span: Span = NOWHERE) -> None:
        super().__init__()
        if not callable(getattr(estimator, "predict_proba", None)) or not hasattr(estimator, "classes_"):
            raise fail(
                "X0816",
                f"`{type(estimator).__name__}` gives no probabilities, or is not fitted",
                span,
                "cannot teach",
                helps=("a teacher needs `predict_proba` and `classes_`: fit it first",),
            )
        self._estimator = estimator
        self._classes = [int(c) for c in estimator.classes_]
        if min(self._classes) < 0 or [float(c) for c in estimator.classes_] != [float(c) for c in self._classes]:
            raise fail("X0816", "the classes of a teaching classifier are numbers from 0 on", span, "other classes")
        self.count = max(self._classes) + 1

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …) → log-probabilities (N, C)."""
        found = torch.as_tensor(self._estimator.predict_proba(x.detach().cpu().flatten(1).numpy()), dtype=torch.float32)
        p = torch.zeros(len(x), self.count)
        p[:, self._classes] = found
        return p.clamp_min(_LEAST).log().to(x.device)

    def fingerprint(self) -> str:
        """The hash of the fitted state."""
        import joblib

        return str(joblib.hash(self._estimator))


class Function(Foreign):
    """A function x (N, …) → logits (N, C), given from Python or named by a spec under trust."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        """X (N, …) → logits. Raises NetxformError X0816 where the function gives something else."""
        found = self._function(x)
        if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != len(x):
            raise fail("X0816", "the teaching function does not give logits (N, C) for x (N, …)")
        return found


def as_model(value: Any, span: Span = NOWHERE) -> nn.Module:
    """What Python hands in as a model: a module, a fitted classifier, or a function. Raises NetxformError X0816."""
    if isinstance(value, nn.Module):
        return value
    if hasattr(value, "predict_proba"):
        return Classifier(value, span)
    if callable(value):
        return Function(value)
    raise fail("X0816", f"a {type(value).__name__} is no model", span, "module, classifier or function")


def stored_classifier(path: Path, span: Span, most: int | None = None) -> Classifier:
    """A classifier stored by skops: scikit-learn's own estimators alone. `most`: bytes that it may take.

    Raises NetxformError X0904 (something else in it), X0906 (too large), X0808 (damaged), X0816 (gives no probabilities).
    """
    from netxform.sources.stored_classifiers import read

    return Classifier(read(path, span, most), span)
