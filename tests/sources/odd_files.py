"""Folders and files that are odd: each is made in a folder of its own, with what becomes of it: data, or one clean refusal."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

WORKS = ""
CASES: dict[str, tuple[Callable[[Path], str], str]] = {}


def case(code: str = WORKS, name: str = "") -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Register what makes the files and gives the source, and the code of its refusal."""

    def add(make: Callable[[Path], str]) -> Callable[[Path], str]:
        CASES[name or make.__name__] = (make, code)
        return make

    return add


def pixels(i: int = 0, h: int = 9, w: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 255, (h, w, channels) if channels > 1 else (h, w), dtype=np.uint8)


def encoded(i: int = 0, mode: str = "RGB", form: str = "PNG", **more: object) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels(i)).convert(mode).save(out, form, **more)
    return out.getvalue()


def photos(folder: Path, extra: dict[str, bytes] | None = None, classes: tuple[str, ...] = ("cat", "dog")) -> str:
    """Four images a class, and further files in the first."""
    for c in classes:
        (folder / "p" / c).mkdir(parents=True)
        for i in range(4):
            (folder / "p" / c / f"{i}.png").write_bytes(encoded(i))
    for name, raw in (extra or {}).items():
        place = folder / "p" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw)
    return 'folder("p", size=8)'


def image(code: str, name: str, make: Callable[[], bytes], file: str = "x.png") -> None:
    case(code, f"folder: {name}")(lambda folder: photos(folder, {f"cat/{file}": make()}))


def _png(width: int, height: int, raw: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", raw or zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def _deep() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.arange(72, dtype=np.uint16).reshape(9, 8) * 900).save(out, "PNG")
    return out.getvalue()


def _float() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels(0)[..., 0].astype(np.float32)).save(out, "TIFF")
    return out.getvalue()


def _several(form: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    frames = [Image.fromarray(pixels(i)) for i in range(3)]
    frames[0].save(out, form, save_all=True, append_images=frames[1:])
    return out.getvalue()


def _palette() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    found = Image.fromarray(pixels()).convert("P")
    found.save(out, "PNG", transparency=bytes(range(256)))
    return out.getvalue()


image("X0862", "a file of no bytes", lambda: b"")
image("X0862", "a damaged head", lambda: b"\x89PNG\r\n\x1a\nxx")
image("X0862", "cut off", lambda: encoded()[:120])
image("X0862", "a text called .png", lambda: b"hello")
image("X0862", "html called .jpg", lambda: b"<html></html>", "x.jpg")
image(WORKS, "16 bits, gray", _deep)
image("X0862", "float numbers", _float, "x.tif")
image("X0862", "an animated GIF", lambda: _several("GIF"), "x.gif")
image(WORKS, "a GIF of one picture", lambda: encoded(form="GIF"), "x.gif")
image("X0862", "an animated WebP", lambda: _several("WEBP"), "x.webp")
image("X0862", "a TIFF of three pages", lambda: _several("TIFF"), "x.tif")
image(WORKS, "CMYK", lambda: encoded(mode="CMYK", form="JPEG"), "x.jpg")
image(WORKS, "a palette with alpha", _palette)
image(WORKS, "gray with alpha", lambda: encoded(mode="LA"))
image(WORKS, "black and white", lambda: encoded(mode="1"))
image(WORKS, "YCbCr", lambda: encoded(mode="YCbCr", form="JPEG"), "x.jpeg")
image("X0906", "huge sides", lambda: _png(60_000, 60_000))
image("X0862", "sides that the data does not fill", lambda: _png(9_000, 9_000))
image("X0862", "sides of 0", lambda: _png(0, 5))
image(WORKS, "a text beside", lambda: b"x", "notes.txt")
image(WORKS, "odd names", lambda: encoded(), "a b\n'\"$(x)ü\u202e.PNG")
image(
    WORKS,
    "turned by EXIF",
    lambda: encoded(form="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "x.jpg",
)


@case("X0817")
def an_empty_class(folder: Path) -> str:
    text = photos(folder)
    (folder / "p" / "emu").mkdir()
    return text


@case()
def nested_folders(folder: Path) -> str:
    return photos(folder, {"cat/a/b/x.png": encoded(), "dog/c/y.png": encoded()})


@case("X0817")
def images_without_folders(folder: Path) -> str:
    (folder / "p").mkdir()
    (folder / "p" / "a.png").write_bytes(encoded())
    return 'folder("p")'


@case("X0817")
def one_class_alone(folder: Path) -> str:
    return photos(folder, classes=("cat",))


@case("X0807")
def no_such_folder(folder: Path) -> str:
    return 'folder("q")'


@case("X0817")
def a_file_for_a_folder(folder: Path) -> str:
    (folder / "p").write_bytes(b"x")
    return 'folder("p")'


@case("X0901")
def a_link_that_leads_out(folder: Path) -> str:
    text = photos(folder)
    (folder / "p" / "cat" / "l.png").symlink_to("/etc/hostname")
    return text


@case("X0905")
def a_pipe(folder: Path) -> str:
    text = photos(folder)
    os.mkfifo(folder / "p" / "cat" / "x.png")
    return text


@case("X0861")
def a_folder_in_a_circle(folder: Path) -> str:
    text = photos(folder)
    (folder / "p" / "cat" / "again").symlink_to(folder / "p" / "cat")
    return text


@case()
def a_link_within(folder: Path) -> str:
    text = photos(folder)
    (folder / "p" / "cat" / "l.png").symlink_to(folder / "p" / "dog" / "1.png")
    return text


@case("X0807")
def a_link_to_nothing(folder: Path) -> str:
    text = photos(folder)
    (folder / "p" / "cat" / "l.png").symlink_to(folder / "p" / "dog" / "none.png")
    return text


@case("X0901")
def a_folder_above(folder: Path) -> str:
    return 'folder("../x")'


@case()
def given_parts(folder: Path) -> str:
    for part in ("train", "val", "test"):
        photos(folder / part)
        (folder / part / "p").rename(folder / "q" if False else folder / f"_{part}")
        (folder / part).rmdir()
    (folder / "p").mkdir()
    for part in ("train", "val", "test"):
        (folder / f"_{part}").rename(folder / "p" / part)
    return 'folder("p", size=8)'


@case("X0817")
def a_class_that_is_never_trained(folder: Path) -> str:
    text = given_parts(folder)
    (folder / "p" / "test" / "emu").mkdir()
    (folder / "p" / "test" / "emu" / "a.png").write_bytes(encoded())
    return text


@case("X0404")
def a_part_that_is_there_asked_for(folder: Path) -> str:
    return given_parts(folder).replace(")", ", val=10%)")


@case("X0861")
def an_image_without_mask(folder: Path) -> str:
    for name in ("i", "m"):
        (folder / name).mkdir()
        for i in range(3 if name == "i" else 2):
            (folder / name / f"{i}.png").write_bytes(encoded(i, "L"))
    return 'folder("i", masks="m", values=[0, 1])'


@case("X0861")
def a_mask_of_another_size(folder: Path) -> str:
    _masks(folder, np.zeros((5, 5), np.uint8))
    return 'folder("i", masks="m", values=[0, 1])'


@case("X0861")
def a_mask_of_colours(folder: Path) -> str:
    _masks(folder, np.zeros((9, 8, 3), np.uint8))
    return 'folder("i", masks="m", values=[0, 1])'


@case("X0861")
def a_mask_with_a_strange_value(folder: Path) -> str:
    _masks(folder, np.full((9, 8), 7, np.uint8))
    return 'folder("i", masks="m", values=[0, 1])'


@case("X0408")
def masks_of_unsaid_values(folder: Path) -> str:
    _masks(folder, np.eye(9, 8, dtype=np.uint8) * 255)
    return 'folder("i", masks="m")'


@case()
def masks(folder: Path) -> str:
    _masks(folder, np.eye(9, 8, dtype=np.uint8) * 255)
    return 'folder("i", masks="m", values=[0, 255], size=8)'


def _masks(folder: Path, mask: np.ndarray) -> None:
    from PIL import Image

    for name in ("i", "m"):
        (folder / name).mkdir()
    for i in range(8):
        (folder / "i" / f"{i}.png").write_bytes(encoded(i))
        Image.fromarray(mask).save(folder / "m" / f"{i}.png")


# --- tables ----------------------------------------------------------------------------------------------------------

ROWS = "file,kind,a,b\n" + "".join(f"p/cat/{i % 4}.png,{'cat' if i % 2 else 'dog chow'},{i % 2},{i}.5\n" for i in range(12))
CLASSES = 'csv("t.csv", image="file", label="kind", size=8)'
VALUES = 'csv("t.csv", columns=["a"], target="b")'


def table(code: str, name: str, raw: bytes | str, text: str = VALUES) -> None:
    def make(folder: Path) -> str:
        photos(folder)
        (folder / "t.csv").write_bytes(raw.encode() if isinstance(raw, str) else raw)
        return text

    case(code, f"csv: {name}")(make)


table(WORKS, "file names and labels with blanks", ROWS, CLASSES)
table(WORKS, "a byte-order mark", b"\xef\xbb\xbf" + ROWS.encode(), CLASSES)
table(WORKS, "lines of Windows", ROWS.replace("\n", "\r\n"), CLASSES)
table("X0807", "UTF-16", ROWS.encode("utf-16"), CLASSES)
table("X0807", "Latin-1", ROWS.replace("cat", "käfer").encode("latin-1"), CLASSES)
table("X0861", "a missing column", ROWS, CLASSES.replace("kind", "sort"))
table("X0807", "a missing file", ROWS + "p/cat/9.png,cat,0,1\n", CLASSES)
table("X0901", "a file above", ROWS + "../../etc/hostname,cat,0,1\n", CLASSES)
table("X0901", "an absolute file", ROWS + "/etc/hostname,cat,0,1\n", CLASSES)
table(WORKS, "newlines in quotes", ROWS.replace("file,kind,a,b", 'file,kind,a,"b"') + '"p/cat/0.png","cat","1","2"\n', CLASSES)
table("X0861", "a quote that does not end", ROWS + '"p/cat/0.png,cat,0,1\n', CLASSES)
table("X0861", "a field too few", ROWS + "p/cat/0.png,cat\n", CLASSES)
table("X0861", "two columns of a name", ROWS.replace("a,b", "a,a"), CLASSES)
table("X0861", "another delimiter", ROWS.replace(",", ";"), CLASSES)
table("X0861", "no line of names", "", CLASSES)
table("X0817", "no row", "file,kind,a,b\n", CLASSES)
table("X0807", "NUL bytes", ROWS.replace("dog", "d\0g").replace("cat/", "c\0t/"), CLASSES)
table("X0861", "an empty label", ROWS + "p/cat/0.png,,0,1\n", CLASSES)
table("X0817", "one label alone", ROWS.replace("dog chow", "cat"), CLASSES)
table("X0861", "NaN among numbers", ROWS + "p/cat/0.png,cat,nan,1\n")
table("X0861", "a text among numbers", ROWS + "p/cat/0.png,cat,1,much\n")
table("X0861", "infinity", ROWS + "p/cat/0.png,cat,1,inf\n")
table(WORKS, "labels of mixed kinds", ROWS + "p/cat/0.png,7,1,1\n", CLASSES)
table("X0861", "2 for a label that is there or not", ROWS, 'csv("t.csv", image="file", labels=["a", "b"])')
table("X0861", "several labels without a sign between", ROWS, 'csv("t.csv", image="file", labels="kind")')
table("X0408", "nothing to learn", ROWS, 'csv("t.csv", image="file")')
table("X0861", "numbers with a column of texts", ROWS, 'csv("t.csv", label="kind")')
table("X0861", "a field of a million signs", ROWS + f"{'x' * 20_000_000},cat,0,1\n", CLASSES)


def _parquet(folder: Path, columns: dict[str, object], **more: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / "t.parquet", **more)


NUMBERS = {"a": list(range(10)), "b": [float(i) for i in range(10)]}


def parquet(code: str, name: str, columns: dict[str, object], text: str) -> None:
    def make(folder: Path) -> str:
        _parquet(folder, columns)
        return text

    case(code, f"parquet: {name}")(make)


parquet(WORKS, "numbers", NUMBERS, 'parquet("t.parquet", target="b")')
parquet("X0861", "a nested column", NUMBERS | {"n": [{"x": 1}] * 10}, 'parquet("t.parquet", target="b")')
parquet("X0861", "a gap", NUMBERS | {"a": [1, None] * 5}, 'parquet("t.parquet", target="b")')
parquet(WORKS, "lists of one length", {"e": [[1.0, 2.0]] * 10, "y": ["u", "v"] * 5}, 'parquet("t.parquet", label="y")')
parquet("X0861", "lists of several lengths", {"e": [[1.0], [1.0, 2.0]] * 5, "y": [0, 1] * 5}, 'parquet("t.parquet", label="y")')
parquet(
    WORKS,
    "encoded images",
    {"i": [encoded(i) for i in range(8)], "y": [0, 1] * 4},
    'parquet("t.parquet", image="i", label="y", size=8)',
)
parquet("X0862", "bytes that are no image", {"i": [b"x"] * 8, "y": [0, 1] * 4}, 'parquet("t.parquet", image="i", label="y")')
parquet("X0861", "classes that are no whole numbers", NUMBERS | {"b": [0.5, 1.0] * 5}, 'parquet("t.parquet", label="b")')
parquet(
    WORKS,
    "lists of labels",
    {"a": NUMBERS["a"], "t": [["x"], ["x", "y"]] * 5},
    'parquet("t.parquet", columns=["a"], labels="t")',
)


@case("X0862")
def parquet_cut_off(folder: Path) -> str:
    _parquet(folder, NUMBERS)
    raw = (folder / "t.parquet").read_bytes()
    (folder / "t.parquet").write_bytes(raw[:-20])
    return 'parquet("t.parquet", target="b")'


@case("X0862")
def parquet_that_is_none(folder: Path) -> str:
    (folder / "t.parquet").write_bytes(b"PAR1 and nothing")
    return 'parquet("t.parquet", target="b")'


def arrays(code: str, name: str, made: dict[str, object], text: str) -> None:
    def make(folder: Path) -> str:
        np.savez(folder / "t.npz", **{k: np.asarray(v) for k, v in made.items()})
        return text

    case(code, f"npz: {name}")(make)


PLANES = {"x": pixels(0, 10, 64).reshape(10, 8, 8, 3), "y": np.arange(10) % 2}
arrays(WORKS, "images", PLANES, 'npz("t.npz", image="x", label="y")')
arrays(
    "X0903",
    "pickles",
    {"x": np.array([{"a": 1}, None] * 5, dtype=object), "y": PLANES["y"]},
    'npz("t.npz", columns=["x"], label="y")',
)
arrays("X0861", "more targets than inputs", PLANES | {"y": np.arange(11)}, 'npz("t.npz", image="x", label="y")')
arrays("X0861", "a missing array", PLANES, 'npz("t.npz", image="z", label="y")')
arrays("X0861", "images of float", PLANES | {"x": np.zeros((10, 8, 8))}, 'npz("t.npz", image="x", label="y")')
arrays("X0861", "complex numbers", PLANES | {"x": np.zeros((10, 3), complex)}, 'npz("t.npz", columns=["x"], label="y")')
arrays("X0861", "one number", PLANES | {"y": np.array(3)}, 'npz("t.npz", image="x", label="y")')
arrays("X0861", "NaN", {"x": np.full((10, 3), np.nan), "y": PLANES["y"]}, 'npz("t.npz", columns=["x"], label="y")')


@case("X0862")
def npz_that_claims_more(folder: Path) -> str:
    """An array whose header says a size that is not there."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(folder / "t.npz", "w") as file:
        file.writestr("x.npy", head.getvalue())
        file.writestr("y.npy", head.getvalue())
    return 'npz("t.npz", columns=["x"], label="y")'


@case("X0862")
def npz_that_is_none(folder: Path) -> str:
    (folder / "t.npz").write_bytes(b"no zip")
    return 'npz("t.npz", columns=["x"], label="y")'


# --- tar and saved data sets -----------------------------------------------------------------------------------------


def tar(folder: Path, members: list[tuple[str, bytes]], name: str = "t.tar", mode: str = "w") -> None:
    with tarfile.open(folder / name, mode) as file:
        for called, raw in members:
            info = tarfile.TarInfo(called)
            info.size = len(raw)
            file.addfile(info, io.BytesIO(raw))


MEMBERS = [m for i in range(8) for m in ((f"{i:03d}.png", encoded(i)), (f"{i:03d}.cls", str(i % 2).encode()))]
SHARDS = 'webdataset("t.tar", image="png", label="cls", size=8)'


def shard(code: str, name: str, members: list[tuple[str, bytes]], text: str = SHARDS, mode: str = "w") -> None:
    def make(folder: Path) -> str:
        tar(folder, members, mode=mode)
        return text

    case(code, f"tar: {name}")(make)


shard(WORKS, "samples", MEMBERS)
shard(WORKS, "names with ..", [(f"../../{n}", raw) for n, raw in MEMBERS])
shard("X0861", "a sample without a label", MEMBERS[:-1])
shard("X0861", "a sample in two places", [*MEMBERS, MEMBERS[0]])
shard("X0861", "a member twice", [*MEMBERS, MEMBERS[-1]])
shard("X0862", "compressed", MEMBERS, mode="w:gz")
shard("X0862", "a damaged image", [("000.png", b"x"), *MEMBERS[1:]])
shard("X0861", "a label that is no text", [*MEMBERS, ("9.png", encoded()), ("9.cls", b"\xff\xfe")])
shard("X0408", "no field named", MEMBERS, 'webdataset("t.tar", label="cls")')
shard("X0807", "a shard that is missing", MEMBERS, 'webdataset("t{0..1}.tar", image="png", label="cls")')
shard("X0901", "an address", MEMBERS, 'webdataset("pipe:cat t.tar", image="png", label="cls")')
shard("X0406", "a range without end", MEMBERS, 'webdataset("t-{5..1}.tar", image="png", label="cls")')
shard("X0861", "no member", [], SHARDS.replace("png", "png"))


@case("X0862")
def tar_cut_off(folder: Path) -> str:
    tar(folder, MEMBERS)
    raw = (folder / "t.tar").read_bytes()
    (folder / "t.tar").write_bytes(raw[: len(raw) // 2 + 100])
    return SHARDS


@case("X0815")
def a_folder_that_nobody_saved(folder: Path) -> str:
    photos(folder)
    return 'hf_dataset("p")'


@case("X0901")
def a_saved_set_that_names_a_file_elsewhere(folder: Path) -> str:
    (folder / "h").mkdir()
    (folder / "h" / "dataset_info.json").write_text("{}")
    (folder / "h" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../secret.arrow"}]}))
    return 'hf_dataset("h")'


@case("X0862")
def a_saved_set_that_is_damaged(folder: Path) -> str:
    (folder / "h").mkdir()
    (folder / "h" / "state.json").write_text("{")
    return 'hf_dataset("h")'


@case("X0807")
def torchvision_without_files(folder: Path) -> str:
    (folder / "r").mkdir()
    return 'torchvision.CIFAR10(root="r")'


@case("X0902")
def code_without_trust(folder: Path) -> str:
    (folder / "m.py").write_text("def make(): raise SystemExit")
    return '"m.py:make"'
