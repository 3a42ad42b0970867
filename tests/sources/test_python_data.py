"""Data from Python: every form of the page is taken as it says, odd objects get one clear page, nothing is copied or
guessed.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

import netxform as nx
from netxform.sources.data.given.samples import Items, Stream, Table, column, source_of

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")

PAGE = Path(__file__).parent.parent.parent / "docs" / "data.md"
G = torch.Generator().manual_seed(0)
X = torch.randn(40, 4, generator=G)
Z = torch.randn(40, 3, generator=G)
Y = torch.arange(40) % 2
NAMES = ["dog" if y else "cat" for y in Y.tolist()]
PAIRS = [(X[i], int(Y[i])) for i in range(40)]
DICTS = [{"x": X[i], "label": int(Y[i])} for i in range(40)]


class Net(nn.Module):
    """One input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(16, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(torch.relu(torch.cat([self.a(left), self.b(right)], 1)))


class Heads(nn.Module):
    """Two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.size = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(x), "size": self.size(x)}


class Map(Dataset[Any]):
    """A map-style data set."""

    def __init__(self, samples: Any, length: Any = None, broken: int = -1) -> None:
        self.samples, self.length, self.broken = samples, length, broken

    def __len__(self) -> int:
        return len(self.samples) if self.length is None else self.length

    def __getitem__(self, index: int) -> Any:
        if index == self.broken:
            raise OSError("the disk is gone")
        return self.samples[index]


class Endless(Dataset[Any]):
    """A data set that does not say how long it is."""

    def __getitem__(self, index: int) -> Any:
        return PAIRS[index % 40]


class Flow(IterableDataset[Any]):
    """A stream."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)


TRAIN = "train ** for 1epochs on data"


def train(data: Any, model: nn.Module | None = None, text: str = TRAIN, **more: Any) -> Any:
    return nx.apply(text, model=model or Net(), data=data, **more)


def padded(samples: list[Any]) -> Any:
    return nn.utils.rnn.pad_sequence([s[0] for s in samples], batch_first=True)[:, :4], torch.tensor([s[1] for s in samples])


def mapped_file(folder: Path) -> Any:
    np.save(folder / "x.npy", X.numpy())
    return np.load(folder / "x.npy", mmap_mode="r")


def frame(label: str = "label") -> Any:
    made = pandas.DataFrame(X.numpy(), columns=list("abcd"))
    made[label] = NAMES
    return made


def vision() -> Any:
    tv = pytest.importorskip("torchvision")
    return tv.datasets.FakeData(12, (1, 8, 8), 2, tv.transforms.Compose([tv.transforms.Grayscale(), tv.transforms.ToTensor()]))


IMAGES = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
HEADS = TRAIN + " { head kind target=kind; head size loss=mse target=size }"
DISTILL = "distill from teacher for 1epochs on data"
TEACHER = {"models": {"teacher": Net()}}
PointT = namedtuple("PointT", "x y")
BUNCH = {"data": X.numpy(), "target": Y.numpy(), "DESCR": "", "feature_names": list("abcd")}

FORMS: dict[str, Callable[[Path], Any]] = {
    "a pair of tensors": lambda p: train((X, Y)),
    "a pair of numpy arrays": lambda p: train((X.double().numpy(), Y.numpy())),
    "a pair of lists": lambda p: train((X.tolist(), Y.tolist())),
    "memory-mapped arrays": lambda p: train((mapped_file(p), Y.numpy())),
    "names of classes": lambda p: train((X, NAMES)),
    "inputs without labels": lambda p: train(X, text=DISTILL, **TEACHER),
    "several inputs by place": lambda p: train(((X, Z), Y), Two()),
    "several inputs by name": lambda p: train(({"right": Z, "left": X}, Y), Two()),
    "several targets": lambda p: train((X, {"kind": Y, "size": Z[:, :1]}), Heads(), HEADS),
    "a dict of columns": lambda p: train({"data": {"left": X, "right": Z, "labels": Y}}, Two()),
    "a frame with a label column": lambda p: train(frame()),
    "a frame with another label column": lambda p: train(nx.dataset(frame("animal"), target="animal")),
    "a pair of frames": lambda p: train((frame()[list("abcd")], frame()["label"])),
    "a TensorDataset": lambda p: train(TensorDataset(X, Y)),
    "a map-style data set of pairs": lambda p: train(Map(PAIRS)),
    "a map-style data set of dicts": lambda p: train(Map(DICTS)),
    "samples of three parts": lambda p: train(
        nx.dataset([(X[i], Z[i], int(Y[i])) for i in range(40)], inputs=[0, 1], target=2), Two()
    ),
    "samples of several lengths": lambda p: train(
        nx.dataset([(x[: 3 + i % 2], y) for i, (x, y) in enumerate(PAIRS)], collate=padded)
    ),
    "a torchvision data set": lambda p: train(vision(), IMAGES),
    "a part of a data set": lambda p: [
        train(part)
        for part in (
            Subset(Map(PAIRS), range(20)),
            random_split(TensorDataset(X, Y), [30, 10])[0],
            ConcatDataset([Map(PAIRS)] * 2),
        )
    ],
    "a list of samples": lambda p: [train(PAIRS), train(DICTS), train([PointT(*s) for s in PAIRS])],
    "a DataLoader": lambda p: train(DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)),
    "a DataLoader of dicts": lambda p: train(DataLoader(DICTS, batch_size=8, num_workers=1)),  # pyright: ignore
    "a Hugging Face Dataset": lambda p: train(datasets.Dataset.from_dict({"x": X.tolist(), "label": NAMES})),
    "a Hugging Face DatasetDict": lambda p: train(
        datasets.DatasetDict(
            train=datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()}),
            validation=datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()}),
        )
    ),
    "texts and a tokenizer": lambda p: train(
        nx.dataset({"a": NAMES, "label": Y.tolist()}, text="a", tokenizer=letters(), length=6), Words()
    ),
    "train, val and test": lambda p: train({"train": (X, Y), "val": PAIRS, "test": TensorDataset(X, Y)}),
    "an IterableDataset": lambda p: train(Flow(PAIRS)),
    "a Bunch of scikit-learn": lambda p: train({"data": BUNCH}),
    "a generator": lambda p: train(s for s in PAIRS),
    "a sparse matrix": lambda p: train((pytest.importorskip("scipy.sparse").csr_matrix(X.numpy()), Y)),
    "a path": lambda p: train(p),
    "texts without a tokenizer": lambda p: train((NAMES, Y)),
}


class Words(nn.Module):
    """A reader of letters, with their mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.fc = nn.Embedding(32, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.fc((self.embed(input_ids) * attention_mask[..., None]).sum(1))


def letters() -> Any:
    """A tokenizer whose words are letters."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    known = {c: i for i, c in enumerate(["<pad>", *"abcdefghijklmnopqrstuvwxyz"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<pad>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")


def rows_of_page() -> dict[str, tuple[str, str]]:
    found = re.findall(r"^\| ([^|]+) \| (as is|one line|refused) \| (.*) \|$", PAGE.read_text(), re.M)
    return {name.strip(): (how, cell) for name, how, cell in found}


def test_the_page_has_every_form_once() -> None:
    assert set(rows_of_page()) == set(FORMS) and len(FORMS) >= 30


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.filterwarnings("ignore")
def test_every_form_is_taken_as_the_page_says(name: str, tmp_path: Path) -> None:
    how, cell = rows_of_page()[name]
    if how == "refused":
        with pytest.raises(nx.NetxformError) as caught:
            FORMS[name](tmp_path)
        first = caught.value.diagnostics[0]
        assert first.code == "X0401" and first.helps
        return
    found = FORMS[name](tmp_path)
    assert ("nx.dataset(" in cell) == (how == "one line")
    for one in found if isinstance(found, list) else [found]:
        assert one.metrics["train_loss"] >= 0


# --- odd objects -----------------------------------------------------------------------------------------------------

CLOSED: dict[str, Any] = {
    "None for every sample": lambda: Map([None] * 10),
    "None for a label": lambda: Map([*PAIRS[:5], (X[0], None)]),
    "ragged samples": lambda: Map([(torch.zeros(4 + i % 2), i % 2) for i in range(20)]),
    "ragged lists": lambda: ([[1.0, 2.0], [1.0]], [0, 1]),
    "an iterator": lambda: iter(PAIRS),
    "bytes": lambda: b"abc",
    "a text": lambda: "folder",
    "a set": lambda: {1, 2},
    "a number": lambda: 3,
    "a function": lambda: len,
    "a module": Net,
    "a class": lambda: Net,
    "an object array": lambda: (np.array([None, X], dtype=object), [0, 1]),
    "objects as labels": lambda: (X, [object()] * 40),
    "objects as samples": lambda: Map([object()] * 10),
    "dates as labels": lambda: (X, pandas.date_range("2020", periods=40)),
    "nothing in a pair": lambda: (X[:0], Y[:0]),
    "an empty list": lambda: [],
    "an empty dict": lambda: {"data": {}},
    "an empty data set": lambda: Map([]),
    "an empty stream": lambda: Flow([]),
    "an empty loader": lambda: DataLoader(TensorDataset(X[:0], Y[:0])),
    "no length": Endless,
    "a length below 0": lambda: Map(PAIRS, -3),
    "a length that is a text": lambda: Map(PAIRS, "x"),
    "a length of ten thousand billions": lambda: Map(PAIRS, 10**13),
    "a length that lies": lambda: Map(PAIRS, 100),
    "a sample that raises": lambda: Map(PAIRS, broken=7),
    "a sample that raises in a worker": lambda: DataLoader(Map(PAIRS, broken=7), batch_size=4, num_workers=1),
    "a stream that raises": lambda: Flow(Map(PAIRS, broken=7)),
    "bytes as samples": lambda: Map([b"abc"] * 10),
    "samples of three parts": lambda: Map([(X[0], X[0], 1)] * 10),
    "fields of text": lambda: Map([{"text": "a b", "label": 1}] * 10),
    "two targets": lambda: Map([{"x": X[0], "label": 1, "labels": 1}] * 10),
    "no fields": lambda: Map([{}] * 10),
    "an empty tuple": lambda: Map([()] * 10),
    "other fields later": lambda: Map([*DICTS[:3], {"y": X[0], "label": 1}]),
    "a text later": lambda: Map([*PAIRS[:9], ("oops", 1)]),
    "names and numbers": lambda: Map([(X[0], 1), (X[0], "a")] * 10),
    "names and None": lambda: (X, [*NAMES[:-1], None]),
    "a nest of objects": lambda: Map([(X[0], {"a": object()})] * 10),
    "complex numbers": lambda: (X.to(torch.complex64), Y),
    "a sparse tensor": lambda: (X.to_sparse(), Y),
    "a tensor on meta": lambda: (X.to("meta"), Y),
    "NaN": lambda: (X * float("nan"), Y),
    "infinity": lambda: (X / 0, Y),
    "NaN in a memory map": lambda: (np.full((40, 4), np.nan, dtype=np.float32), Y),
    "several labels at once": lambda: (X, torch.ones(40, 2)),
    "float labels": lambda: (X, Y.float()),
    "labels (N, 1)": lambda: (X, Y[:, None]),
    "labels that none count": lambda: (X, torch.full((40,), -100)),
    "five classes": lambda: (X, torch.arange(40) % 5),
    "forty names": lambda: (X, [str(i) for i in range(40)]),
    "texts": lambda: (["a"] * 40, Y),
    "fewer labels": lambda: (X, Y[:3]),
    "one number": lambda: (torch.tensor(1.0), torch.tensor(1)),
    "three things": lambda: (X, Y, Y),
    "another rank": lambda: (torch.randn(40, 3, 4), Y),
    "columns of several lengths": lambda: {"data": {"x": X, "labels": Y[:3]}},
    "fields of no argument": lambda: Map([{"a": X[0], "b": X[0], "label": 1}] * 10),
    "a frame without a label": lambda: frame().drop(columns="label"),
    "a frame with a column of text": lambda: frame().assign(city="x"),
    "x alone, to learn labels from": lambda: X,
    "a loader that makes no batches": lambda: DataLoader(TensorDataset(X, Y), batch_size=None),
    "a collate function that raises": lambda: DataLoader(PAIRS, batch_size=8, collate_fn=lambda s: 1 / 0),  # pyright: ignore
    "a collate function of nothing": lambda: DataLoader(PAIRS, batch_size=8, collate_fn=lambda s: 7),  # pyright: ignore
    "parts that do not match": lambda: {"train": (X, Y), "test": (torch.randn(40, 5), Y)},
    "a part twice": lambda: {"train": (X, Y), "val": (X, Y), "valid": (X, Y)},
    "parts without train": lambda: {"data": {"val": (X, Y), "test": (X, Y)}},
    "labels in one part": lambda: {"train": (X, Y), "test": X},
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.filterwarnings("ignore")
def test_an_odd_object_gets_one_clear_page(name: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        train(CLOSED[name](), example_inputs=X[:2])
    assert len(caught.value.diagnostics) == 1
    first = caught.value.diagnostics[0]
    assert first.code not in ("X0004", "X0001") and first.code.startswith("X0") and first.helps
    assert "Traceback" not in str(caught.value)


def test_a_picture_alone_and_a_set_of_one_sample() -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray((np.random.default_rng(0).random((8, 8)) * 255).astype("uint8"))
    made = nx.dataset([(picture, i % 2) for i in range(20)])
    assert made.shape == (1, 8, 8) and made.classes == 2
    assert train((X[:1], Y[:1])).metrics.keys() == {"train_loss"}


# --- laws ------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.sampled_from(["f8", "f4", ">f4", "f2", "u1", "i2", ">i8", "?"]), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_rows_of_a_column_are_those_of_numpy(count: int, dtype: str, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    values = (drawn.random((count, 3)) * 5).astype(dtype)
    places = drawn.integers(0, count, 7)
    for held in (values, torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))):
        found = column(held, torch.from_numpy(places))
        np.testing.assert_array_equal(found.numpy(), values[places].astype(values.dtype.newbyteorder("=")))


def test_a_memory_map_is_not_read_whole(tmp_path: Path) -> None:
    held = mapped_file(tmp_path)
    made = nx.dataset((held, Y))
    assert isinstance(made.train, Table) and made.train.x is held
    x, y = made.train.take(torch.arange(5))
    assert isinstance(x, Tensor) and x.shape == (5, 4) and y is not None


@pytest.mark.parametrize("form", ["tensors", "memory map", "pairs", "loader", "dicts"])
@pytest.mark.filterwarnings("ignore")
def test_one_data_set_in_every_form_trains_to_the_same_bytes(form: str, tmp_path: Path) -> None:
    made: dict[str, Any] = {
        "tensors": (X, Y), "memory map": (mapped_file(tmp_path), Y), "pairs": PAIRS,
        "loader": DataLoader(TensorDataset(X, Y), batch_size=32, num_workers=1), "dicts": nx.dataset(Map(DICTS), workers=2),
    }  # fmt: skip
    expected, found = train((X, Y)), train(made[form])
    assert all(torch.equal(a, b) for a, b in zip(expected.model.parameters(), found.model.parameters(), strict=True))
    assert expected.metrics == found.metrics


class Noisy(Dataset[Any]):
    """What it gives is drawn anew each time, by every generator that people use."""

    targets = Y

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        import random

        return X[index] + torch.randn(4) + random.random() + float(np.random.rand()), int(Y[index])


@pytest.mark.filterwarnings("ignore")
def test_what_a_data_set_draws_is_the_same_with_any_number_of_workers() -> None:
    weights = [
        next(train(nx.dataset(Noisy(), workers=n), text="train ** for 2epochs on data").model.parameters()) for n in (0, 1, 3)
    ]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    source = source_of(Noisy())
    assert isinstance(source, Items)
    one, again, later = (source.take(torch.arange(4), salt)[0] for salt in ((0, 1), (0, 1), (0, 2)))
    assert isinstance(one, Tensor) and isinstance(again, Tensor) and isinstance(later, Tensor)
    assert torch.equal(one, again) and not torch.equal(one, later)


def test_the_generators_of_the_caller_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    source_of(Noisy()).take(torch.arange(4))
    assert torch.equal(before, torch.get_rng_state())


def test_casts_are_said_and_nothing_else_is() -> None:
    bytes_ = (X[:, :, None, None].expand(-1, -1, 2, 2) * 20 + 100).to(torch.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    notes = nx.plan(TRAIN, model=net, data=(bytes_, Y), example_inputs=torch.rand(2, 4, 2, 2)).notes
    assert any("images of bytes: as float32 in [0, 1]" in n for n in notes)
    assert any(
        "float64: as float32" in n for n in nx.plan(TRAIN, model=Net(), data=(X.double(), Y), example_inputs=X[:2]).notes
    )
    assert not any(n.startswith("data") for n in nx.plan(TRAIN, model=Net(), data=(X, Y)).notes)


def test_images_of_bytes_are_shown_in_0_to_1() -> None:
    from netxform.graph.network import Input
    from netxform.sources.data.given.binding import bind

    data = bind(
        nx.dataset((torch.full((20, 1, 4, 4), 255, dtype=torch.uint8), Y[:20])), [Input("x", (1, 1, 4, 4), torch.float32)]
    )
    x, _ = data.train[0]
    assert x.dtype == torch.float32 and float(x.max()) == 1.0


def test_fields_go_to_the_arguments_of_their_names() -> None:
    by_name = train(({"right": Z, "extra": Z, "left": X}, Y), Two())
    by_place = train(((X, Z), Y), Two())
    assert all(torch.equal(a, b) for a, b in zip(by_name.model.parameters(), by_place.model.parameters(), strict=True))
    assert any("left out: extra" in n for n in by_name.plan.notes)


def test_names_of_classes_are_kept() -> None:
    made = nx.dataset((X, NAMES))
    assert (made.labels, made.classes) == (("cat", "dog"), 2)
    other = nx.dataset((X, NAMES), classes=["dog", "cat"])
    assert other.labels == ("dog", "cat")
    assert sorted(int(y) for _, y in made.train) == sorted(1 - int(y) for _, y in other.train)


def test_a_loader_is_heeded_or_said_not_to_be() -> None:
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 40, 40)
    plan = nx.plan(TRAIN, model=Net(), data=DataLoader(TensorDataset(X, Y), batch_size=7, sampler=sampler, drop_last=True))
    assert "batch 7" in str(plan) or plan.steps[0].choice.work.batch == 7  # pyright: ignore
    notes = " ".join(plan.notes)
    assert "WeightedRandomSampler" in notes and "drop_last" in notes and "order of the spec's seed" in notes


def test_a_stream_says_what_it_cannot_keep_and_learns_all_of_it() -> None:
    found = train(Flow(PAIRS), text="train ** for 3epochs on data")
    assert any("the same bytes in two runs depend on the source" in n for n in found.plan.notes)
    assert any("nothing says how good" in str(w) for w in found.certificate["statements"][0]["warnings"])
    held = train({"train": Flow(PAIRS), "val": (X, Y)}, text="train ** for 3epochs on data")
    assert "val_accuracy" in held.metrics
    whole = train({"train": (X, Y), "val": (X, Y)}, text="train ** for 3epochs on data")
    assert held.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"], rel=0.3)
    with pytest.raises(nx.NetxformError, match="number of steps"):
        train(Flow(PAIRS), text="train ** for 3epochs on data schedule=cosine")


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_stream_is_gone_through_once_in_its_order(count: int, batch: int, world: int) -> None:
    from netxform.training.data import shares

    made = Stream(lambda: ((torch.tensor([float(i)]), torch.tensor(i)) for i in range(count)))
    found = sorted(int(y) for r in range(world) for b in shares(made, batch, rank=r, world=world) for y in b.y[: b.live])
    assert found == list(range(count))
