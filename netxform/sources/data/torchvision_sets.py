"""`torchvision.CIFAR10(root="data")`: the image sets of torchvision, from files that are there; nothing is fetched.

Their own parts are kept: what torchvision calls train, val and test. A set without parts is cut by seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from netxform.errors import NetxformError, Span, fail
from netxform.sources.data.folder import SHOWN
from netxform.sources.data.found import Found, parted, seen_of
from netxform.sources.data.names import printable
from netxform.sources.data.options import at
from netxform.sources.data.pictures import Pictures, ready, survey, view_of
from netxform.sources.data.source import DATA, DataSet, DataSource, Known, Options, Seen
from netxform.sources.models.source import need
from netxform.sources.trust import Trust, no_links, read_path
from netxform.syntax import ast

_TRUE_FALSE = {"train": {"train": True}, "test": {"train": False}}


def _splits(**words: str) -> dict[str, dict[str, object]]:
    return {part: {"split": word} for part, word in words.items()}


_TWO = _splits(train="train", test="test")
_THREE = _splits(train="train", val="val", test="test")
_LETTERS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 27, "digits": 10, "mnist": 10}


@dataclass(frozen=True, slots=True)
class Kind:
    """One set: its parts, each by the arguments that give it; the number of classes; the shape of an image, where all have one;
    and what a spec may pass on. `root`: it lies in files. `masks`: the second of a pair is a mask with these classes.
    """

    parts: Mapping[str, Mapping[str, object]]
    classes: int | None = None
    shape: tuple[int, int, int] | None = None
    more: tuple[str, ...] = ()
    root: bool = True
    several: bool = False
    masks: int = 0


_GRAY, _COLOUR = (1, 28, 28), (3, 32, 32)
SETS: dict[str, Kind] = {
    "MNIST": Kind(_TRUE_FALSE, 10, _GRAY),
    "FashionMNIST": Kind(_TRUE_FALSE, 10, _GRAY),
    "KMNIST": Kind(_TRUE_FALSE, 10, _GRAY),
    "QMNIST": Kind(_TRUE_FALSE, 10, _GRAY),
    "EMNIST": Kind(_TRUE_FALSE, None, _GRAY, ("split",)),
    "USPS": Kind(_TRUE_FALSE, 10, (1, 16, 16)),
    "SEMEION": Kind({"": {}}, 10, (1, 16, 16)),
    "CIFAR10": Kind(_TRUE_FALSE, 10, _COLOUR),
    "CIFAR100": Kind(_TRUE_FALSE, 100, _COLOUR),
    "SVHN": Kind(_TWO, 10, _COLOUR),
    "STL10": Kind(_TWO, 10, (3, 96, 96)),
    "PCAM": Kind(_THREE, 2, (3, 96, 96)),
    "EuroSAT": Kind({"": {}}, 10, (3, 64, 64)),
    "Food101": Kind(_TWO, 101),
    "Flowers102": Kind(_THREE, 102),
    "DTD": Kind(_THREE, 47, None, ("partition",)),
    "GTSRB": Kind(_TWO, 43),
    "Country211": Kind(_splits(train="train", val="valid", test="test"), 211),
    "FGVCAircraft": Kind(_THREE, None, None, ("annotation_level",)),
    "RenderedSST2": Kind(_THREE, 2),
    "StanfordCars": Kind(_TWO, 196),
    "OxfordIIITPet": Kind(_splits(train="trainval", test="test"), 37),
    "Imagenette": Kind({"train": {"split": "train"}, "test": {"split": "val"}}, 10),
    "Caltech101": Kind({"": {}}, 101),
    "Caltech256": Kind({"": {}}, 257),
    "SUN397": Kind({"": {}}, 397),
    "ImageNet": Kind({"train": {"split": "train"}, "test": {"split": "val"}}, 1000),
    "Places365": Kind({"train": {"split": "train-standard"}, "test": {"split": "val"}}, 365, None, ("small",)),
    "CelebA": Kind(_splits(train="train", val="valid", test="test"), None, (3, 218, 178), several=True),
    "VOCSegmentation": Kind({"train": {"image_set": "train"}, "test": {"image_set": "val"}}, 21, None, ("year",), masks=21),
    "FakeData": Kind({"": {}}, None, None, ("size", "image_size", "num_classes", "random_offset"), root=False),
}
"""The sets that give images with a class, several labels, or a mask each."""

_TAKES = ("root", "per_class", "train", "val", "test", "seed", *(s for s in SHOWN if s != "bad"))


def describes(name: str, kind: Kind) -> Callable[[Options], Known]:
    """The number of classes and the shape, as far as the text tells."""

    def known(options: Options) -> Known:
        count, shape = kind.classes, kind.shape
        if name == "EMNIST":
            count = _LETTERS.get(str(options.more.get("split")))
        if name == "FakeData":
            count, shape = cast(int, options.more.get("num_classes", 10)), _fake_shape(options)
        if shape is None and options.size is None:
            return count, None
        channels = options.channels or (shape[0] if shape is not None else 3)
        return count, (channels, *(options.size or cast("tuple[int, int, int]", shape)[1:]))

    return known


def _fake_shape(options: Options) -> tuple[int, int, int]:
    found = options.more.get("image_size", (3, 224, 224))
    whole = isinstance(found, tuple) and len(cast("tuple[Any, ...]", found)) == 3
    if not whole or not all(isinstance(v, int) and 1 <= v <= 8192 for v in cast("tuple[Any, ...]", found)):
        raise fail(
            "X0406", "`image_size` is channels, height and width", label="three numbers", helps=("`image_size=[3, 32, 32]`",)
        )
    return cast("tuple[int, int, int]", found)


class Given:
    """The images of some sets of torchvision, one behind the other, as PIL has them."""

    def __init__(self, name: str, sets: Sequence[Any], second: bool = False) -> None:
        self.name_, self.sets, self.second = name, sets, second

    def __len__(self) -> int:
        return sum(len(s) for s in self.sets)

    def file(self, index: int) -> Any:
        """The image, or the mask that belongs to it."""
        for one in self.sets:
            if index < len(one):
                return one[index][1 if self.second else 0]
            index -= len(one)
        raise IndexError(index)

    def name(self, index: int) -> str:
        """Its number."""
        return f"{self.name_}[{index}]"


def _targets(one: Any) -> Any:
    """The targets of a set, where it keeps them; else one after the other."""
    import torch

    for key in ("targets", "labels", "_labels", "y", "attr"):
        held = getattr(one, key, None)
        if held is not None and len(held) == len(one):
            return torch.as_tensor(held)
    samples = getattr(one, "_samples", None)
    if samples is not None and len(samples) == len(one):
        return torch.tensor([s[1] for s in samples])
    return torch.tensor([int(one[i][1]) for i in range(len(one))])


def _made(name: str, kind: Kind, root: Path | None, data: ast.Data, options: Options) -> dict[str, Any]:
    """The parts of the set. Raises NetxformError X0807 (its files are not there), X0862, X0411 (an argument)."""
    sets = need("torchvision.datasets", "vision", data.span)
    cls: Any = getattr(sets, name, None)
    if cls is None:
        raise fail("X0814", f"this torchvision has no `{name}`", data.span, "needed here", helps=("update torchvision",))
    more = {k: tuple(cast(Any, v)) if isinstance(v, tuple) else v for k, v in options.more.items()}
    at_ = {} if root is None else {"root": str(root)}
    plain = {"download": False} if name in ("SEMEION",) else {}
    out: dict[str, Any] = {}
    for part, words in kind.parts.items():
        try:
            out[part] = cls(**at_, **words, **more, **plain)
        except (RuntimeError, FileNotFoundError, OSError, EOFError) as error:
            raise _absent(name, error, data.span) from error
        except ImportError as error:
            text = f"`torchvision.{name}` needs a package: {error}"
            raise fail("X0814", text, data.span, "needed here", helps=("install it",)) from error
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            text = f"`torchvision.{name}` cannot be made: {_line(error)}"
            raise fail("X0411", text, data.span, "bad arguments", helps=("look at torchvision's page of it",)) from error
        except Exception as error:
            helps = ("fetch its files again",)
            text = f"the files of `torchvision.{name}` cannot be read: {_line(error)}"
            raise fail("X0862", text, data.span, "damaged?", helps=helps) from error
    return out


def _line(error: Exception) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0][:200])


def _absent(name: str, error: Exception, span: Span) -> NetxformError:
    code = f"torchvision.datasets.{name}('ROOT', download=True)"
    notes = ("a spec fetches nothing by itself",)
    helps = (f'fetch it once: `python -c "import torchvision; {code}"`, then `torchvision.{name}(root="ROOT")`',)
    return fail("X0807", f"`torchvision.{name}` is not there: {_line(error)}", span, "no files", notes=notes, helps=helps)


def _find(name: str, kind: Kind, data: ast.Data, options: Options, trust: Trust, every: bool) -> Found:
    import numpy as np
    import torch

    root = None
    if kind.root:
        if options.root is None:
            helps = (f'write `torchvision.{name}(root="FOLDER")`',)
            raise fail("X0408", f"`torchvision.{name}` needs the folder of its files", data.span, "where?", helps=helps)
        root = read_path(options.root, trust, at(data, "root"))
        if not root.is_dir():
            raise fail("X0807", f"`{options.root}` is no folder", at(data, "root"), "no files", helps=("name the folder",))
        if not trust.outside:
            no_links(root, at(data, "root"))
    sets = _made(name, kind, root, data, options)
    count = {p: len(s) for p, s in sets.items()}
    edges = np.cumsum([0, *count.values()])
    given = {p: np.arange(edges[i], edges[i + 1]) for i, p in enumerate(sets) if p}
    files = Given(name, list(sets.values()))
    own = next(iter(sets.values()))
    if every:
        ready(data.span)
    looked = survey(_Some(files, 16), data.span, True, False)
    shape = kind.shape or (3, *looked.least)
    view = view_of(options if options.channels else replace(options, channels=shape[0]), looked, data.span)
    digest = hashlib.sha256(repr((name, count, str(options), _bytes(root))).encode()).hexdigest() if every else ""
    said = (f"{len(files):,} images",)
    if kind.masks:
        masks = Given(name, list(sets.values()), second=True)
        made = Pictures(files, view, data.span, None, masks, tuple(range(kind.masks)), 255)
        return Found(made, None, view.shape, digest, kind.masks, (), given, said)
    y = torch.cat([_targets(s) for s in sets.values()])
    if kind.several:
        names = tuple(str(n) for n in getattr(own, "attr_names", ()) if n)
        return Found(Pictures(files, view, data.span, y.float()), y.float(), view.shape, digest, None, names, given, said)
    y = y.long()
    classes = describes(name, kind)(options)[0] or int(y.max()) + 1
    names = getattr(own, "classes", None)
    labels = tuple(map(str, names)) if isinstance(names, list) and len(names) == classes else ()
    return Found(Pictures(files, view, data.span, y), y, view.shape, digest, classes, labels, given, said)


class _Some:
    """A few of the images, evenly among them."""

    def __init__(self, files: Given, most: int) -> None:
        self._files, self._count = files, min(most, len(files))

    def __len__(self) -> int:
        return self._count

    def file(self, index: int) -> Any:
        """The image."""
        return self._files.file(index * len(self._files) // self._count)

    def name(self, index: int) -> str:
        """Its number."""
        return self._files.name(index * len(self._files) // self._count)


def _bytes(root: Path | None) -> list[tuple[str, int]]:
    """The names and sizes of the files right below the folder and one below."""
    if root is None:
        return []
    found = [p for g in ("*", "*/*", "*/*/*") for p in root.glob(g) if p.is_file()]
    return sorted((str(p.relative_to(root)), p.stat().st_size) for p in found)


def _source(name: str, kind: Kind) -> DataSource:
    def load(data: ast.Data, options: Options, trust: Trust, seed: int) -> DataSet:
        return parted(data, options, _find(name, kind, data, options, trust, True), seed)

    def look(data: ast.Data, options: Options, trust: Trust, seed: int) -> Seen:
        return seen_of(data, options, _find(name, kind, data, options, trust, False), seed)

    takes = tuple(t for t in _TAKES if t not in kind.more and (kind.root or t != "root"))
    return DataSource(load, describes(name, kind), kind.more, takes, look)


for _name, _kind in SETS.items():
    DATA.register(f"torchvision.{_name}")(_source(_name, _kind))
