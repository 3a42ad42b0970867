"""netxform: declarative graph transformations for PyTorch models, verified.

    import netxform as nx
    result = nx.apply('cut at layer4; freeze body; attach head classes=10', model=model, example_inputs=(x,))

The names below are the public ones. torch is imported when a function first needs it; `check` never does.
"""

from __future__ import annotations

from dataclasses import replace as _replace
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any
from typing import cast as _cast

# the package is bound to its name when it is first imported: before the function of that name is
from netxform import capture as _capture_package  # noqa: F401 # pyright: ignore[reportUnusedImport]
from netxform.builder import Builder as Builder
from netxform.builder import spec as spec
from netxform.errors import Diagnostic as Diagnostic
from netxform.errors import NetxformError as NetxformError
from netxform.errors import Span as Span
from netxform.syntax.format import format as format
from netxform.syntax.parse import parse as parse

if _TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from netxform.api import Result
    from netxform.artifacts.exporters import Exported
    from netxform.axes.view import Captured
    from netxform.compiler.check import Spec
    from netxform.compiler.plan import Plan
    from netxform.compiler.remeasure import Verdict
    from netxform.pipeline.subject import Inputs
    from netxform.training.fit import Progress

__version__ = "0.1.0"
__all__ = [
    "Builder",
    "Diagnostic",
    "NetxformError",
    "Span",
    "apply",
    "capture",
    "check",
    "compare",
    "export",
    "format",
    "load",
    "parse",
    "plan",
    "sign",
    "spec",
    "verify",
]


def check(text: _Any, *, params: Mapping[str, _Any] | None = None, root: str | _Path | None = None) -> Spec:
    """Check a spec by its text alone. Never imports torch.

    `text`: the text, a builder, or a `pathlib.Path`. `params`: values of its parameters. `root`: the folder that its files
    are named from. Raises NetxformError with every finding.
    """
    from netxform.compiler.check import check_source
    from netxform.sources.trust import Trust

    trust = Trust(_Path(root) if root is not None else text.parent if isinstance(text, _Path) else _Path.cwd())
    return check_source(text, dict(params or {}), trust)


def plan(
    spec: _Any,
    *,
    model: nn.Module | None = None,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    data: _Any = None,
    models: Mapping[str, _Any] | None = None,
    params: Mapping[str, _Any] | None = None,
    seed: int | None = None,
    root: str | _Path | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    allow_outside: bool = False,
    max_memory: int | None = None,
    progress: Progress | None = None,
    deep: bool = False,
    bake: bool = False,
) -> Plan:
    """Settle every statement on a weightless twin: targets, defaults and where they came from, cost before and after.

    `spec`: text, builder or `pathlib.Path`. `model`: the subject, where the spec declares none; never changed.
    `example_inputs`: a tensor, or a tuple of tensors, that the model takes; the first dimension is the batch.
    `data`: (x, y) or a DataSet, called `data` in the spec; or several by name, as a dict.
    `models`: further models by name (teachers: a module, a fitted classifier, a function).
    `params`: values of the spec's parameters. `seed`: goes before the spec's own.
    `root`: the folder that its files are named from (default: that of the spec's file, else the current one).
    `trust_code`: Python that the spec names may run. `trust_pickle`: pickled models may be loaded. `allow_outside`: files
    outside of `root` may be read. `max_memory`: bytes that one file or tensor may take (default: what the machine has).
    `progress`: who is told how long work goes (`start(title, total)`, `step(text)`, `stop()`).
    `deep`: weights and data are read too, choices that need them are made and measured; nothing is trained.
    `bake`: weights that `model` computes each time (weight norm, spectral norm, parametrizations, masks) are made tensors.

    Raises NetxformError with what cannot be done.
    """
    from netxform import api

    inputs = _inputs(
        spec,
        model=model,
        example_inputs=example_inputs,
        data=data,
        models=models,
        params=params,
        seed=seed,
        root=root,
        trust_code=trust_code,
        trust_pickle=trust_pickle,
        allow_outside=allow_outside,
        max_memory=max_memory,
        bake=bake,
    )
    return api.plan_spec(spec, inputs, deep=deep, progress=progress)


def apply(
    spec: _Any,
    *,
    model: nn.Module | None = None,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    data: _Any = None,
    models: Mapping[str, _Any] | None = None,
    params: Mapping[str, _Any] | None = None,
    seed: int | None = None,
    root: str | _Path | None = None,
    trust_code: bool = False,
    trust_pickle: bool = False,
    allow_outside: bool = False,
    max_memory: int | None = None,
    progress: Progress | None = None,
    out: str | _Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_class: bool = False,
    sign: str | _Path | None = None,
    bake: bool = False,
) -> Result:
    """Carry a spec out, and measure what it promises.

    `spec`: text, builder or `pathlib.Path`. `model`: the subject, where the spec declares none; never changed.
    `example_inputs`: a tensor, or a tuple of tensors, that the model takes; the first dimension is the batch.
    `data`: (x, y) or a DataSet, called `data` in the spec; or several by name, as a dict.
    `models`: further models by name (teachers: a module, a fitted classifier, a function).
    `params`: values of the spec's parameters. `seed`: goes before the spec's own.
    `root`: the folder that its files are named from (default: that of the spec's file, else the current one).
    `trust_code`: Python that the spec names may run. `trust_pickle`: pickled models may be loaded. `allow_outside`: files
    outside of `root` may be read. `max_memory`: bytes that one file or tensor may take (default: what the machine has).
    `progress`: who is told how long work goes (`start(title, total)`, `step(text)`, `stop()`).
    `out`: the folder of the bundle that is written. `overwrite`: replace one that is there. `resume`: go on from the last
    finished epoch of an interrupted run. `sign`: the private key (a PEM file, elliptic curve) that the bundle is signed with.
    `keep_class`: `.model` is a copy of the model's own class with the same edits (`Result.graft`), where its code can follow.
    `bake`: weights that `model` computes each time (weight norm, spectral norm, parametrizations, masks) become tensors first.

    Returns a result with `.model`, `.certificate`, `.plan`, `.estimators`. Raises NetxformError; then nothing has changed.
    """
    from netxform import api

    inputs = _inputs(
        spec,
        model=model,
        example_inputs=example_inputs,
        data=data,
        models=models,
        params=params,
        seed=seed,
        root=root,
        trust_code=trust_code,
        trust_pickle=trust_pickle,
        allow_outside=allow_outside,
        max_memory=max_memory,
        bake=bake,
    )
    folder = _Path(out) if out is not None else None
    key = _Path(sign) if sign is not None else None
    result = api.apply_spec(spec, inputs, out=folder, overwrite=overwrite, resume=resume, progress=progress, sign=key)
    return _replace(result, model=result.graft()) if keep_class else result


def verify(folder: str | _Path, *, key: str | _Path | None = None, max_memory: int | None = None) -> Verdict:
    """Measure every claim of a bundle again, from the folder alone. Raises NetxformError where it is damaged.

    `key`: the public key (a PEM file) of who must have signed it: X0907 where the signature does not hold, X0908 where there is
    none. `max_memory`: bytes that one file or tensor may take (default: what the machine has).
    """
    from netxform import api

    return api.verify_bundle(folder, key, max_memory)


def sign(folder: str | _Path, key: str | _Path) -> _Path:
    """Sign a bundle with a private key (a PEM file, elliptic curve), as OpenSSF Model Signing does. Returns the signature.

    Raises NetxformError X0907 (no such key), X0814 (`model-signing` is not installed), X0822 (the bundle is damaged).
    """
    from netxform.artifacts import signing

    return signing.sign_bundle(_Path(folder), _Path(key))


def load(folder: str | _Path, *, key: str | _Path | None = None, max_memory: int | None = None) -> nn.Module:
    """The model of a bundle, in eval mode. Nothing in the folder is run. Raises NetxformError where it is damaged.

    `key` and `max_memory` as of `verify`.
    """
    from netxform import api

    return api.load_bundle(folder, key, max_memory)


def export(folder: str | _Path, out: str | _Path, to: str | None = None) -> Exported:
    """Write the model of a bundle for another program, load the file again and compare what it computes.

    `out`: the file; `to`: the exporter (pt2, onnx, py, …), by the suffix of the file where it is None. Returns the worst
    difference beside its bound. Raises NetxformError X0834 (no such exporter), X0814 (a package is missing), X0818 (the file
    exists), X0820 (cannot be exported), X0501 (the file computes something else).
    """
    from netxform.artifacts import bundle, exporters

    network = bundle.read(_Path(folder))[0]
    return exporters.export(network, bundle.witness(_Path(folder), network).inputs, _Path(out), to)


def compare(
    *runs: _Any,
    method: str = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
    curve: str | None = None,
    out: str | _Path | None = None,
) -> Figure:
    """The picture of recorded trajectories (Erhan et al., 2010): crosses for pre-trained runs, circles for others, by epoch.

    `runs`: bundles, or results of `apply`. `method`: tsne, pca or isomap. `curve`: the metric drawn beside it. `out`: a file
    to write, .png or .svg. Raises NetxformError X0824 (no trajectory), X0825 (not of one space), X0814 (no matplotlib).
    """
    from netxform import api
    from netxform.artifacts import picture

    if method not in picture.METHODS:
        raise ValueError(f"method is one of {', '.join(picture.METHODS)}, not {method!r}")
    found = api.compare_runs(runs, method=method, perplexity=perplexity, seed=seed)
    figure = picture.draw(found, curve)
    if out is not None:
        picture.save(figure, _Path(out))
    return figure


def capture(model: nn.Module, *inputs: Tensor | None, bake: bool = False) -> Captured:
    """Capture a model as a graph: `.module` is a plain `torch.fx.GraphModule`, names as in the model, tensors of its own.

    A graph is accepted that is the same program as the model, operation by operation, or gives the same bits, at two batch
    sizes. An argument given as None stays optional, and is none of the network's inputs. `bake`: weights that the model
    computes each time are made tensors first. Raises NetxformError X0802 where there is none.
    """
    from netxform.axes.view import Captured
    from netxform.capture import bake as baked
    from netxform.capture import capture as found
    from netxform.graph.network import detached

    return Captured.of(detached(found.capture(baked.bake(model) if bake else model, *inputs)))


def _inputs(
    spec: _Any,
    *,
    model: nn.Module | None,
    example_inputs: Tensor | Sequence[Tensor] | None,
    data: _Any,
    models: Mapping[str, _Any] | None,
    params: Mapping[str, _Any] | None,
    seed: int | None,
    root: str | _Path | None,
    trust_code: bool,
    trust_pickle: bool,
    allow_outside: bool,
    max_memory: int | None,
    bake: bool,
) -> Inputs:
    from netxform.pipeline.subject import Inputs
    from netxform.sources.trust import Trust

    folder = _Path(root) if root is not None else spec.parent if isinstance(spec, _Path) else _Path.cwd()
    named = data if isinstance(data, dict) else {} if data is None else {"data": data}
    example = None
    if example_inputs is not None:
        example = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (_cast("Tensor", example_inputs),)
    trust = Trust(folder, trust_code, trust_pickle, allow_outside, max_memory)
    return Inputs(model, example, named, dict(params or {}), trust, seed, dict(models or {}), bake)
