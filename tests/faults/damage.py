"""Files that are damaged at random: data, sentences, images and word vectors. What reads them gives data, or one clean error.

`python -m tests.faults.damage 1000` tries that many; the suite tries a few of each kind.
"""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from netxform.errors import NetxformError
from netxform.sources.data import load_data
from netxform.sources.trust import Trust
from netxform.sources.vectors import read_vectors, width_of
from netxform.syntax import ast
from netxform.syntax.parse import parse

WORDS = ("a", "bee", "sea", "tree", "süß")


def declared(text: str) -> ast.Data:
    found = parse(f"data d = {text}").statements[0]
    assert isinstance(found, ast.Data)
    return found


def read_all(folder: Path, source: str) -> None:
    """Load a data set and every sample of it."""
    made = load_data(declared(source), Trust(folder), 0)
    for part in (made.train, made.val, made.test):
        for i in range(len(part)):
            _ = part[i]


def vectors(folder: Path, name: str, kind: str) -> None:
    width_of(folder / name, kind)
    words = folder / "words.txt" if kind in ("npy", "safetensors") else None
    read_vectors(folder / name, kind, WORDS, words_file=words)


def make(folder: Path) -> None:
    """One file or folder of each kind, whole."""
    from PIL import Image
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    (folder / "labelled.tsv").write_text("".join(f"{i % 2}\tthe {WORDS[i % 5]} is {i}\n" for i in range(12)), encoding="utf-8")
    (folder / "story.txt").write_text("one is.\ntwo are.\n\nthree were.\nfour too.\n\nfive.\nsix.\n", encoding="utf-8")
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    for i in range(6):
        for kind, suffix in (("x", "png"), ("y", "jpg")):
            (folder / "images" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(folder / "images" / kind / f"{i}.{suffix}")
    table = rng.normal(size=(len(WORDS), 4)).astype("<f4")
    lines = [w + " " + " ".join(f"{v:.5f}" for v in row) for w, row in zip(WORDS, table, strict=True)]
    (folder / "glove.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "text.vec").write_text("5 4\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = (w.encode() + b" " + row.tobytes() + b"\n" for w, row in zip(WORDS, table, strict=True))
    (folder / "binary.bin").write_bytes(b"5 4\n" + b"".join(rows))
    np.save(folder / "matrix.npy", table)
    save_file({"m": table}, folder / "matrix.safetensors")


READERS: dict[str, Callable[[Path], None]] = {
    "labelled.tsv": lambda f: read_all(f, 'text("labelled.tsv")'),
    "story.txt": lambda f: read_all(f, 'neighbours("story.txt")'),
    "words.txt": lambda f: read_all(f, 'text("labelled.tsv", vocabulary="words.txt")'),
    "images": lambda f: read_all(f, 'folder("images", size=8)'),
    "glove.txt": lambda f: vectors(f, "glove.txt", "glove"),
    "text.vec": lambda f: vectors(f, "text.vec", "word2vec"),
    "binary.bin": lambda f: vectors(f, "binary.bin", "word2vec"),
    "matrix.npy": lambda f: vectors(f, "matrix.npy", "npy"),
    "matrix.safetensors": lambda f: vectors(f, "matrix.safetensors", "safetensors"),
}


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Bits flipped, an end cut off, a stretch gone, doubled or made of something else, lines changed."""
    out = bytearray(raw)
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0 | 1:
            for _ in range(rng.choice((1, 1, 3, 20))):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 2:
            del out[rng.randrange(len(out)) :]
        case 3:
            start = rng.randrange(len(out))
            del out[start : start + rng.randrange(1, 30)]
        case 4:
            start = rng.randrange(len(out))
            out[start:start] = out[: rng.randrange(1, 40)]
        case 5:
            start = rng.randrange(len(out))
            junk = (
                b"\x00" * 9,
                b"\xff" * 9,
                b"nan",
                b"inf",
                b"-1",
                b"9" * 25,
                b"\t",
                b"\n\n",
                b" ",
                b"'",
                b"1e999",
                b"PK\x03\x04",
                b"",
            )
            out[start : start + 3] = rng.choice(junk)
        case 6:
            lines[at] = rng.choice((b"", lines[at] * 3, b"\xff\xfe", b"a b c", b"9999999999 9", b"0 0", b"-1 -1", lines[-1]))
            out = bytearray(b"\n".join(lines))
        case _:
            rng.shuffle(lines)
            out = bytearray(b"\n".join(lines))
    return bytes(out)


def read_damaged(folder: Path, name: str, rng: random.Random, damage: Callable[[bytes, random.Random], bytes]) -> None:
    """Read a file, or one of a folder, with damage done to it; it is whole again afterwards."""
    file = folder / name
    if file.is_dir():
        file = rng.choice(sorted(p for p in file.rglob("*") if p.is_file()))
    whole = file.read_bytes()
    file.write_bytes(damage(whole, rng))
    try:
        READERS[name](folder)
    finally:
        file.write_bytes(whole)


def trials(count: int, seed: int = 0) -> dict[str, int]:
    """Damage and read so often; how many were read, refused, and ended in anything else (which is printed)."""
    rng = random.Random(seed)
    seen = {"read": 0, "refused": 0, "uncaught": 0}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        for number in range(count):
            name = list(READERS)[number % len(READERS)]
            try:
                read_damaged(folder, name, rng, damaged)
                seen["read"] += 1
            except NetxformError as error:
                assert all(d.helps for d in error.diagnostics), str(error)
                seen["refused"] += 1
            except Exception:
                seen["uncaught"] += 1
                print(f"trial {number}, seed {seed}: {name}")
                traceback.print_exc()
    return seen


if __name__ == "__main__":
    found = trials(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(found)
    sys.exit(1 if found["uncaught"] else 0)
