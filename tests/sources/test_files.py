"""Data from files: what is shown is what torchvision shows, masks follow images, parts and classes are those of the data."""

from __future__ import annotations

import csv
import inspect
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netxform as nx
from netxform.sources.data import DataSet, check_data_source, load_data, look
from netxform.sources.data.given.samples import source_of
from netxform.sources.data.images import MaskOf, View, seen
from netxform.sources.data.shards import shards
from netxform.sources.data.source import IMAGENET, Stated
from netxform.sources.data.stated import stated
from netxform.sources.data.torchvision_sets import SETS
from netxform.sources.trust import Trust
from tests.sources.odd_files import MEMBERS, encoded, photos, pixels, tar

pil = pytest.importorskip("PIL.Image")


def declared(text: str):
    found = nx.parse(f"data d = {text}").statements[0]
    assert not check_data_source(found), check_data_source(found)
    return found


def load(text: str, root: Path, **more: object) -> DataSet:
    return load_data(declared(text), Trust(root), 0, **more)


def refused(text: str) -> nx.Diagnostic:
    (found,) = check_data_source(nx.parse(f"data d = {text}").statements[0])
    return found


# --- images ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.sampled_from(["bilinear", "bicubic", "nearest"]))
@settings(max_examples=40, deadline=None)
def test_an_image_is_what_the_transforms_of_torchvision_make_of_it(h: int, w: int, size: int, how: str) -> None:
    from torchvision.transforms import InterpolationMode, v2

    image = pil.fromarray(pixels(0, h, w))
    steps = [v2.Resize(size, InterpolationMode(how)), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    wanted = v2.Compose([*steps, v2.Normalize(IMAGENET.mean, IMAGENET.std)])(image)
    view = View((size, size), 3, "crop", how, IMAGENET.mean, IMAGENET.std)
    assert torch.allclose(seen(image, view, "x"), wanted, atol=1e-6)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(1, 24), st.integers(1, 24), st.sampled_from(["crop", "stretch"]))
@settings(max_examples=40, deadline=None)
def test_a_mask_is_cut_and_scaled_with_its_image(h: int, w: int, height: int, width: int, fit: str) -> None:
    plane = np.random.default_rng(h * w).integers(0, 2, (h, w), dtype=np.uint8) * 255
    view = View((height, width), 1, fit, "nearest")
    x, y = seen(pil.fromarray(plane), view, "x", mask=MaskOf(pil.fromarray(plane), "m", (0, 255)))
    assert y.dtype == torch.int64 and torch.equal(x[0], y.float())


def test_what_is_ignored_in_a_mask_is_not_counted() -> None:
    plane = np.array([[0, 7], [255, 7]], dtype=np.uint8)
    mask = MaskOf(pil.fromarray(plane), "m", (7, 0), 255)
    _, y = seen(pil.fromarray(pixels(0, 2, 2)), View((2, 2)), "x", mask=mask)
    assert y.tolist() == [[1, 0], [-100, 0]]


def test_sixteen_bits_keep_their_range() -> None:
    deep = np.array([[0, 65_535], [32_768, 300]], dtype=np.uint16)
    x = seen(pil.fromarray(deep), View((2, 2), 3), "x")
    assert torch.allclose(x, torch.from_numpy(deep / 65_535).float().expand(3, 2, 2), atol=1e-6)


def test_a_turned_photo_stands_upright() -> None:
    out = io.BytesIO()
    plain = np.zeros((4, 8, 3), np.uint8)
    plain[:, 4:] = 255
    exif = pil.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    pil.fromarray(plain).save(out, "PNG", exif=exif)
    x = seen(out.getvalue(), View((8, 4)), "x")
    assert x[0, :3].max() == 0 and x[0, 5:].min() == 1


def test_channels(tmp_path: Path) -> None:
    text = photos(tmp_path)
    for channels in (1, 3, 4):
        data = load(text.replace(")", f", channels={channels})"), tmp_path)
        assert data.shape == (channels, 8, 8) == tuple(data.train[0][0].shape)


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('folder("p", normalize=[0.485, 0.456, 0.406])', "X0406"),
        ('folder("p", normalize=[[0.5, 0.5, 0.5], [0.2, 0.2]])', "X0406"),
        ('folder("p", normalize=[[0.5], [0]])', "X0406"),
        ('folder("p", normalize=[0.5, 0])', "X0406"),
        ('folder("p", normalize=imagnet)', "X0401"),
        ('folder("p", normalize=imagenet, channels=1)', "X0406"),
        ('folder("p", size=[1, 2, 3])', "X0406"),
        ('folder("p", size=0)', "X0406"),
        ('folder("p", workers=-1)', "X0406"),
        ('folder("p", fit=squash)', "X0401"),
        ('folder("p", bad=ignore)', "X0401"),
        ('folder("p", values=[0, 1])', "X0404"),
        ('csv("t", label="a", target="b")', "X0407"),
        ('csv("t", image="a", columns="b", label="c")', "X0407"),
        ('csv("t", labels=["a", "a"])', "X0406"),
        ('csv("t", label=a)', "X0401"),
        ('csv("t", label="a", separator="|")', "X0404"),
        ('csv("t", label="a", delimiter=";;")', "X0401"),
        ('torchvision.CIFAR10(root="r", year=2)', "X0404"),
        ('"photos"', "X0212"),
        ('"t.csv"', "X0212"),
    ],
)
def test_what_the_text_alone_shows_to_be_wrong(text: str, code: str) -> None:
    found = refused(text)
    assert found.code == code
    assert found.helps and found.span.column > 8


def test_three_means_are_refused_with_what_to_write() -> None:
    assert any("[[0.485, 0.456, 0.406], [" in h for h in refused('folder("p", normalize=[0.485, 0.456, 0.406])').helps)


@pytest.mark.parametrize("text", ["imagenet", "[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]", "[0.5, 0.25]", "none"])
def test_normalisation(text: str, tmp_path: Path) -> None:
    source = photos(tmp_path)
    plain, shown = (load(source.replace(")", f", normalize={n})"), tmp_path).train[0][0] for n in ("none", text))
    numbers = {"none": ([0.0], [1.0]), "[0.5, 0.25]": ([0.5], [0.25])}.get(text, (list(IMAGENET.mean), list(IMAGENET.std)))
    mean, std = (torch.tensor(n).view(-1, 1, 1) for n in numbers)
    assert torch.allclose(shown, (plain - mean) / std, atol=1e-6)


# --- what a model's weights state ------------------------------------------------------------------------------------


def test_what_timm_states() -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    found = stated(module, {"source": "timm.tf_efficientnet_lite0"})
    assert found is not None and found.normal.mean == (0.5, 0.5, 0.5) and found.interpolation == "bicubic"


def test_what_torchvision_states() -> None:
    from torch import nn

    found = stated(nn.Identity(), {"source": "torchvision.resnet18", "weights": "IMAGENET1K_V1"})
    assert found is not None and found.normal == IMAGENET
    assert stated(nn.Identity(), {"source": "torchvision.resnet18", "weights": "None"}) is None


def test_what_a_folder_of_transformers_states(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from torch import nn

    module = nn.Identity()
    module.config = SimpleNamespace(_name_or_path=str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 3}'
    )
    assert stated(module, {"source": "hf.AutoModel"}) == Stated(
        nx.sources.data.source.Normal((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), "`preprocessor_config.json` states", "bicubic"
    )
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": "x"}')
    assert stated(module, {"source": "hf.AutoModel"}) is None


# --- parts and classes -----------------------------------------------------------------------------------------------


def test_the_parts_that_a_folder_has_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "p" / part / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "p" / part / name / f"{i}.png").write_bytes(encoded(i))
    data = load('folder("p")', tmp_path)
    assert [len(p) for p in (data.train, data.val, data.test)] == [10, 6, 4]
    assert any("as the data has them" in s for s in data.said)
    (tmp_path / "p" / "test").rename(tmp_path / "gone")
    data = load('folder("p", test=20%)', tmp_path)
    assert [len(p) for p in (data.train, data.val, data.test)] == [8, 6, 2]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = load(photos(tmp_path, classes=("bus", "train")), tmp_path)
    assert data.labels == ("bus", "train")


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["C"], exclude_characters="\0"), min_size=1, max_size=9),
                       st.floats(-9, 9)), min_size=6, max_size=30)
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_text_is_a_label_as_it_stands(rows: list[tuple[str, float]]) -> None:
    import tempfile

    names = [t.strip() for t, _ in rows]
    with tempfile.TemporaryDirectory() as held:
        with (Path(held) / "t.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["kind", "x"], *rows])
        text = 'csv("t.csv", label="kind", columns=["x"], val=0, test=0)'
        if len(set(names)) < 2 or any(n.lower() in ("", "nan") for n in names):
            with pytest.raises(nx.NetxformError):
                load(text, Path(held))
            return
        data = load(text, Path(held))
        seen_ = look(declared(text), Trust(Path(held)), 0)
    assert set(data.labels) == set(names) and data.classes == seen_.classes == len(set(names))
    found = sorted((data.labels[int(y)], float(x)) for x, y in (data.train[i] for i in range(len(data.train))))
    assert found == sorted((n, float(np.float32(v))) for n, (_, v) in zip(names, rows, strict=True))


def test_class_numbers_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("k,x\n" + "".join(f"{k},{k}\n" for k in (10, 9, 2, 10, 9, 2)))
    data = load('csv("t.csv", label="k", val=0, test=0)', tmp_path)
    assert data.labels == ("2", "9", "10")
    assert all(data.labels[int(y)] == str(int(x)) for x, y in data.train)


def test_several_labels_by_columns_and_by_lists(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,tags,x\n1,0,a,1\n1,yes,a|b,2\nfalse,0,,3\n0,true,b,4\n")
    two = load('csv("t.csv", labels=["a", "b"], columns=["x"], val=0, test=0)', tmp_path)
    one = load('csv("t.csv", labels="tags", separator="|", columns=["x"], val=0, test=0)', tmp_path)
    assert one.labels == two.labels == ("a", "b")
    wanted = {1.0: [1, 0], 2.0: [1, 1], 3.0: [0, 0], 4.0: [0, 1]}
    for data in (one, two):
        assert {float(x): y.tolist() for x, y in data.train} == wanted


def test_numbers_in_units_of_the_training_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", x=rng.normal(5, 3, (50, 4)) * [1, 10, 100, 0], y=rng.normal(size=50))
    data = load('npz("t.npz", columns=["x"], target="y", normalize=own)', tmp_path)
    x = torch.stack([x for x, _ in data.train]).double()
    assert torch.allclose(x.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(x[:, :3].std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-5)
    test = torch.stack([x for x, _ in data.test])
    assert test.mean().abs() > 1e-4, "the test part is measured by the training part"


def test_rows_say_their_part(tmp_path: Path) -> None:
    parts = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    (tmp_path / "t.csv").write_text("x,y,part\n" + "".join(f"{i},{i % 2},{p}\n" for i, p in enumerate(parts)))
    data = load('csv("t.csv", label="y", split="part")', tmp_path)
    found = [sorted(int(x) for x, _ in p) for p in (data.train, data.val, data.test)]
    assert found == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]


def test_the_same_images_by_any_source(tmp_path: Path) -> None:
    """A folder, a table, a parquet file, shards and a saved data set of the same images give the same samples."""
    datasets, pa = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    raw = [encoded(i) for i in range(8)]
    labels = [i % 2 for i in range(8)]
    for i, (b, k) in enumerate(zip(raw, labels, strict=True)):
        (tmp_path / "p" / f"k{k}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / f"k{k}" / f"{i}.png").write_bytes(b)
    table = "".join(f"p/k{k}/{i}.png,k{k}\n" for i, k in enumerate(labels))
    (tmp_path / "t.csv").write_text("f,k\n" + table)
    images = [{"bytes": b, "path": None} for b in raw]
    pq.write_table(pa.table({"i": images, "k": [f"k{k}" for k in labels]}), tmp_path / "t.parquet")
    tar(tmp_path, [m for i, b in enumerate(raw) for m in ((f"{i}.png", b), (f"{i}.cls", f"k{labels[i]}".encode()))])
    features = datasets.Features({"i": datasets.Image(), "k": datasets.ClassLabel(names=["k0", "k1"])})
    datasets.Dataset.from_dict({"i": images, "k": labels}, features=features).save_to_disk(tmp_path / "h")
    found = {}
    for text in (
        'folder("p", {})',
        'csv("t.csv", image="f", label="k", {})',
        'parquet("t.parquet", image="i", label="k", {})',
        'webdataset("t.tar", image="png", label="cls", {})',
        'hf_dataset("h", {})',
    ):
        data = load(text.format("size=6, val=0, test=0, normalize=imagenet"), tmp_path)
        assert data.labels == ("k0", "k1")
        found[text] = sorted((x.numpy().tobytes(), int(y)) for x, y in (data.train[i] for i in range(8)))
    first, *others = found.values()
    assert all(o == first for o in others)


def test_shards_by_their_numbers() -> None:
    from netxform.errors import NOWHERE

    assert shards("a-{08..11}-{0..1}.tar", NOWHERE) == [f"a-{i:02d}-{j}.tar" for i in range(8, 12) for j in (0, 1)]


def test_a_saved_data_set_with_parts(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_dict({"x": [float(i) for i in range(10)], "y": [0, 1] * 5})
    datasets.DatasetDict({"train": one, "validation": one.select([0, 1]), "test": one.select([2, 3, 4])}).save_to_disk(
        tmp_path / "h"
    )
    data = load('hf_dataset("h", label="y")', tmp_path)
    assert [len(p) for p in (data.train, data.val, data.test)] == [10, 2, 3]
    assert [float(x) for x, _ in data.test] == [2, 3, 4]


@pytest.mark.parametrize("name", SETS)
def test_torchvision_takes_what_the_table_passes_on(name: str) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    taken = inspect.signature(getattr(datasets, name).__init__).parameters
    kind = SETS[name]
    free = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    for key in {*(k for words in kind.parts.values() for k in words), *kind.more, *(["root"] if kind.root else [])}:
        assert key in taken or free, key
    needed = [n for n, p in taken.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    given = {"self", "root", *kind.more, *(k for words in kind.parts.values() for k in words)}
    assert set(needed) <= given


def test_a_set_of_torchvision_from_its_files(tmp_path: Path) -> None:
    """Files in the format of MNIST, read by torchvision: its own test part is kept."""
    import struct

    raw = tmp_path / "r" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 12)):
        images, labels = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    text = 'torchvision.MNIST(root="r", val=20%)'
    data, told = load(text, tmp_path), look(declared(text), Trust(tmp_path), 0)
    assert (len(data.train) + len(data.val), len(data.test)) == (30, 12)
    assert (told.classes, told.shape, told.train) == (10, (1, 28, 28), len(data.train))
    x, y = source_of(data.test)[3]
    assert int(y) == 3 and torch.equal((x[0] * 255).round().to(torch.uint8), torch.from_numpy(images[3]))


def test_members_keep_their_samples(tmp_path: Path) -> None:
    tar(tmp_path, MEMBERS[:8], "a-0.tar")
    tar(tmp_path, MEMBERS[8:], "a-1.tar")
    data = load('webdataset("a-{0..1}.tar", image="png", label="cls", val=0, test=0)', tmp_path)
    wanted = sorted((seen(raw, View((9, 8)), "x").numpy().tobytes(), i % 2) for i, (_, raw) in enumerate(MEMBERS[::2]))
    assert sorted((x.numpy().tobytes(), int(y)) for x, y in (data.train[i] for i in range(8))) == wanted
