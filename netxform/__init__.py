"""netxform: declarative graph transformations for PyTorch models, verified.

    import netxform as nx
    result = nx.apply('cut at layer4; freeze body; attach head classes=10', model=model, example_inputs=(x,))

The names below are the public ones. torch is imported when a function first needs it; `check` never does.
"""

# Long: every public function with its whole signature.

from __future__ import annotations

from dataclasses import replace as _replace
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any
from typing import cast as _cast

# the package is bound to its name when it is first imported: before the function of that name is
from netxform import capture as _capture_package  # noqa: F401 # pyright: ignore[reportUnusedImport]
from netxform.builder import Builder as Builder
from netxform.builder import spec as _spec
from netxform.door import door as _door
from netxform.errors import Diagnostic as Diagnostic
from netxform.errors import NetxformError as NetxformError
from netxform.errors import Span as Span
from netxform.sources.data.source import DataSet as DataSet
from netxform.syntax.format import format as _format
from netxform.syntax.parse import parse as _parse

if _TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from netxform.api import Result
    from netxform.artifacts.exporters import Exported
    from netxform.axes.view import Captured
    from netxform.compiler.check import Spec
    from netxform.compiler.plan import Plan
    from netxform.compiler.remeasure import Verdict
    from netxform.pipeline.subject import Inputs
    from netxform.syntax.ast import Program
    from netxform.training.fit import Progress

__version__ = "0.1.0"
__all__ = [
    "Builder",
    "DataSet",
    "Diagnostic",
    "NetxformError",
    "Span",
    "apply",
    "capture",
    "check",
    "compare",
    "dataset",
    "export",
    "format",
    "load",
    "parse",
    "plan",
    "sign",
    "spec",
    "verify",
]


@_door("parsing a spec")
def parse(text: str, file: str = "<spec>") -> Program:
    """The tree of a text. `file`: the name of the place in errors. Raises NetxformError with every syntax error (X01xx)."""
    from netxform import arguments

    return _parse(arguments.text(text, "text"), arguments.text(file, "file"))


@_door("formatting a spec")
def format(program: Program) -> str:
    """The canonical text of a program: one statement a line, blocks indented by two, blank lines kept as single ones."""
    from netxform import arguments
    from netxform.syntax.ast import Program

    if not isinstance(_cast("object", program), Program):
        raise arguments.wrong("program", program, "a Program", "parse the text first: `nx.format(nx.parse(text))`")
    return _format(program)


@_door("beginning a spec")
def spec(source: str | None = None) -> Builder:
    """A new builder, or one that begins with the statements of a text."""
    from netxform import arguments

    return _spec(None if source is None else arguments.text(source, "source"))


@_door("checking the spec")
def check(text: _Any, *, params: Mapping[str, _Any] | None = None, root: str | _Path | None = None) -> Spec:
    """Check a spec by its text alone. Never imports torch.

    `text`: the text, a builder, or a `pathlib.Path`. `params`: values of its parameters. `root`: the folder that its files
    are named from. Raises NetxformError with every finding.
    """
    from netxform import arguments
    from netxform.compiler.check import check_source
    from netxform.sources.trust import Trust

    text = arguments.spec_of(text, "text")
    return check_source(text, arguments.params_of(params), Trust(_root(text, root)))


@_door("planning the spec")
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
    `example_inputs`: a tensor, or a tuple of tensors, that the model takes; the first dimension is the batch. For a detector of
    torchvision: a list of images, or the batch that its layers get.
    `data`: (x, y) or a DataSet, called `data` in the spec; or several by name, as a dict.
    `models`: further models by name (teachers: a module, a fitted classifier, a function).
    `params`: values of the spec's parameters. `seed`: goes before the spec's own.
    `root`: the folder that its files are named from (default: that of the spec's file, else the current one).
    `trust_code`: Python that the spec names may run. `trust_pickle`: pickled models may be loaded. `allow_outside`: files
    outside of `root` may be read. `max_memory`: bytes that a file, tensor or network may take (default: the machine's memory).
    `progress`: who is told how long work goes (`start(title, total)`, `step(text)`, `stop()`).
    `deep`: weights and data are read too, choices that need them are made and measured; nothing is trained.
    `bake`: weights that `model` computes each time (weight norm, spectral norm, parametrizations, masks) are made tensors.

    Raises NetxformError with what cannot be done.
    """
    from netxform import api, arguments

    spec = arguments.spec_of(spec)
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
    with _memory(max_memory):
        return api.plan_spec(spec, inputs, deep=arguments.flag(deep, "deep"), progress=arguments.progress_of(progress))


@_door("carrying out the spec")
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
    `example_inputs`: a tensor, or a tuple of tensors, that the model takes; the first dimension is the batch. For a detector of
    torchvision: a list of images, or the batch that its layers get.
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
    from netxform import api, arguments

    spec = arguments.spec_of(spec)
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
    key = None if sign is None else arguments.path_of(sign, "sign")
    with _memory(max_memory):
        result = api.apply_spec(
            spec,
            inputs,
            out=arguments.path_of(out, "out") if out is not None else None,
            overwrite=arguments.flag(overwrite, "overwrite"),
            resume=arguments.flag(resume, "resume"),
            progress=arguments.progress_of(progress),
            sign=key,
        )
    return _replace(result, model=result.graft()) if arguments.flag(keep_class, "keep_class") else result


@_door("verifying the bundle")
def verify(folder: str | _Path, *, key: str | _Path | None = None, max_memory: int | None = None) -> Verdict:
    """Look at every claim of a bundle again, from the folder alone. Raises NetxformError where it is damaged.

    `key`: the public key (a PEM file) of who must have signed it: X0907 where the signature does not hold, X0908 where there is
    none. `max_memory`: bytes that one file or tensor may take (default: what the machine has).
    """
    from netxform import api, arguments

    known = None if key is None else arguments.path_of(key, "key")
    return api.verify_bundle(arguments.path_of(folder, "folder"), known, _bytes(max_memory))


@_door("signing the bundle")
def sign(folder: str | _Path, key: str | _Path) -> _Path:
    """Sign a bundle with a private key (a PEM file, elliptic curve), as OpenSSF Model Signing does. Returns the signature.

    Raises NetxformError X0907 (no such key), X0814 (`model-signing` is not installed), X0822 (the bundle is damaged).
    """
    from netxform import arguments
    from netxform.artifacts import signing

    return signing.sign_bundle(arguments.path_of(folder, "folder"), arguments.path_of(key, "key"))


@_door("reading the data")
def dataset(
    value: _Any,
    *,
    name: str = "data",
    target: str | int | None = None,
    inputs: str | Sequence[str | int] | None = None,
    classes: int | Sequence[str] | None = None,
    collate: Callable[[list[_Any]], _Any] | None = None,
    workers: int = 0,
    val: float = 0.15,
    test: float = 0.2,
    seed: int = 0,
    text: str | None = None,
    pair: str | None = None,
    tokenizer: _Any = None,
    length: int = 128,
) -> DataSet:
    """Data as `data=` takes it, with what the value does not say by itself; `docs/data.md` has a table of what is understood.

    `value`: (x, y) of arrays, tensors, lists, memory maps or frames, x alone for data without labels; a data set of torch or
    torchvision, a list of samples, a Hugging Face `Dataset`; a `DataLoader`, whose collate function, workers and batch size are
    kept; a frame; a dict of columns; an `IterableDataset`; or `{"train": …, "val": …, "test": …}` of any of these.
    `target`, `inputs`: the fields (or parts) of a sample that are the label and that go into the model, by the names of its
    arguments. `classes`: how many there are, or their names in order. `collate`: a list of samples → a batch. `workers`:
    processes that load samples. `val`, `test`: the shares that are cut off, `seed`: of the cut. `text`, `pair`: the fields that
    hold texts, `tokenizer`: what makes numbers of them (a tokenizer, or the folder of a model), padded and cut to `length`
    tokens. Raises NetxformError X0401 (no data, or of a form that says nothing), X0805 (a sample that cannot be read), X0817
    (no samples, or not as many targets), X0838 (NaN or infinity), X0406 (a setting out of range), X0826 (no tokenizer).
    """
    from netxform import arguments
    from netxform.sources import data

    more: dict[str, _Any] = {"target": target, "inputs": inputs, "classes": classes, "collate": collate, "workers": workers}
    more |= {"text": text, "pair": pair, "tokenizer": tokenizer, "length": length}
    return data.dataset(value, name=arguments.text(name, "name"), **more, val=val, test=test, seed=seed)


@_door("loading the bundle")
def load(folder: str | _Path, *, key: str | _Path | None = None, max_memory: int | None = None) -> nn.Module:
    """The model of a bundle, in eval mode. Nothing in the folder is run. Raises NetxformError where it is damaged.

    `key` and `max_memory` as of `verify`.
    """
    from netxform import api, arguments

    known = None if key is None else arguments.path_of(key, "key")
    return api.load_bundle(arguments.path_of(folder, "folder"), known, _bytes(max_memory))


@_door("exporting the bundle")
def export(folder: str | _Path, out: str | _Path, to: str | None = None) -> Exported:
    """Write the model of a bundle for another program, load the file again and compare what it computes.

    `out`: the file; `to`: the exporter (pt2, onnx, py, …), by the suffix of the file where it is None. Returns the worst
    difference beside its bound. Raises NetxformError X0834 (no such exporter), X0814 (a package is missing), X0818 (the file
    exists), X0820 (cannot be exported), X0501 (the file computes something else).
    """
    from netxform import arguments
    from netxform.artifacts import bundle, exporters
    from netxform.sources.files import writable

    path, held = arguments.path_of(out, "out"), arguments.path_of(folder, "folder")
    exporters.exporter_of(path, None if to is None else arguments.text(to, "to"))
    writable(path, new=True)
    network = bundle.read(held)[0]
    return exporters.export(network, bundle.witness(held, network).inputs, path, to)


@_door("comparing the runs")
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
    from netxform import api, arguments
    from netxform.artifacts import picture
    from netxform.language.trajectory import Trajectory
    from netxform.sources.files import writable

    way = _cast("picture.Method", arguments.one_of(method, "method", picture.METHODS))
    number: _Any = perplexity
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < perplexity < float("inf"):
        raise arguments.wrong("perplexity", perplexity, "a number above 0")
    arguments.whole(seed, "seed")
    if curve is not None:
        arguments.text(curve, "curve")
    several = [r if isinstance(r, api.Result | Trajectory) else arguments.path_of(r, f"run {i}") for i, r in enumerate(runs)]
    path = None if out is None else writable(arguments.path_of(out, "out"))
    found = api.compare_runs(several, method=way, perplexity=perplexity, seed=seed)
    figure = picture.draw(found, curve)
    if path is not None:
        picture.save(figure, path)
    return figure


@_door("capturing the model")
def capture(model: nn.Module, *inputs: Tensor | None, bake: bool = False) -> Captured:
    """Capture a model as a graph: `.module` is a plain `torch.fx.GraphModule`, names as in the model, tensors of its own.

    A graph is accepted that is the same program as the model, operation by operation, or gives the same bits, at two batch
    sizes. An argument given as None stays optional, and is none of the network's inputs. `bake`: weights that the model
    computes each time are made tensors first. Raises NetxformError X0802 where there is none.
    """
    from netxform import arguments
    from netxform.axes.view import Captured
    from netxform.capture import bake as baked
    from netxform.capture import capture as found
    from netxform.graph.network import detached

    arguments.model_of(model)
    given = arguments.inputs_of(arguments.images_of(model, inputs), "inputs")
    return Captured.of(detached(found.capture(baked.bake(model) if arguments.flag(bake, "bake") else model, *given)))


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
    from netxform import arguments
    from netxform.pipeline.subject import Inputs
    from netxform.sources.trust import Trust

    trust = Trust(
        _root(spec, root),
        arguments.flag(trust_code, "trust_code"),
        arguments.flag(trust_pickle, "trust_pickle"),
        arguments.flag(allow_outside, "allow_outside"),
        _bytes(max_memory),
    )
    return Inputs(
        None if model is None else arguments.model_of(model),
        None if example_inputs is None else arguments.inputs_of(arguments.images_of(model, example_inputs)),
        arguments.data_of(data),
        arguments.params_of(params),
        trust,
        None if seed is None else arguments.whole(seed, "seed"),
        arguments.named(models, "models"),
        arguments.flag(bake, "bake"),
    )


def _bytes(max_memory: int | None) -> int | None:
    from netxform import arguments

    return None if max_memory is None else arguments.whole(max_memory, "max_memory", 1)


def _memory(max_memory: int | None) -> _Any:
    from netxform import limits

    return limits.memory(_bytes(max_memory))


def _root(spec: _Any, root: str | _Path | None) -> _Path:
    from netxform import arguments

    if root is not None:
        return arguments.folder_of(root, "root")
    return spec.parent if isinstance(spec, _Path) else _Path.cwd()
