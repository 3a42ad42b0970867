"""What data sets of sentences share: where the words come from, and how the parts are cut short."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netxform.errors import fail
from netxform.sources.data.source import DataSet, Known, Options
from netxform.sources.text import SPECIAL, read_documents, read_vocabulary, vocabulary
from netxform.sources.trust import TEXT, Trust, read_path
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np


def rows(count: int) -> Callable[[Options], Known]:
    """`describe` of samples of `count` sentences, each of `length` words."""
    return lambda options: (None, (count * options.length,))


def file_of(data: ast.Data, name: str, options: Options, trust: Trust) -> Path:
    """The file of sentences. Raises NetxformError X0408 (none named), X0406 (`length`)."""
    if options.path is None:
        raise fail("X0408", f"`{name}` needs the name of a file", data.span, "which?", helps=(f'write `{name}("FILE")`',))
    if options.length < 3:
        raise fail(
            "X0406",
            f"`length` is at least 3, not {options.length}",
            data.span,
            "too short",
            helps=("sentences are cut to so many words",),
        )
    return read_path(options.path, trust, data.span, TEXT)


def words_of(data: ast.Data, options: Options, trust: Trust, heard: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The words by their number: those of the file `vocabulary`, of the file `corpus`, or those that are heard in training."""
    span = data.span
    if options.vocabulary is not None:
        words = read_vocabulary(read_path(options.vocabulary, trust, span, TEXT), span)
        return (*SPECIAL, *(w for w in words if w not in SPECIAL))
    if options.corpus is not None:
        found = read_documents(read_path(options.corpus, trust, span, TEXT), span)
        return vocabulary((s for d in found for s in d), options.words)
    return vocabulary(heard, options.words)


def made(
    data: ast.Data, options: Options, seed: int, x: np.ndarray, y: np.ndarray, parts: Sequence[Any],
    labels: tuple[str, ...] | None, words: tuple[str, ...],
) -> DataSet:  # fmt: skip
    """The data set of x (N, L) and y (N, …), its parts cut to the numbers of samples that are asked for."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    train, val, test = parts
    if options.train is not None:
        if options.train > len(train):
            message = f"data `{data.name}`: {options.train} training samples asked for, {len(train)} there"
            raise fail("X0817", message, data.span, "too many", helps=(f"ask for at most {len(train)}",))
        train = np.random.default_rng([seed, 18]).permutation(train)[: options.train]
    if isinstance(options.val, int) and options.val > 1:
        val = val[: options.val]
    if isinstance(options.test, int) and options.test > 1:
        test = test[: options.test]
    if not len(train):
        helps = ("take fewer for `val` and `test`, or more sentences",)
        raise fail("X0817", f"data `{data.name}` leaves nothing to train on", data.span, "no training samples", helps=helps)
    sets = [TensorDataset(torch.from_numpy(x[p]), torch.from_numpy(y[p])) for p in (train, val, test)]
    digest = hashlib.sha256(x.tobytes() + y.tobytes() + repr((words, options)).encode()).hexdigest()
    count = None if labels is None else len(labels)
    return DataSet(data.name, sets[0], sets[1], sets[2], count, tuple(x.shape[1:]), digest, labels or (), words)
