"""init: what is taken has the source's bits and the rest its own; word vectors come through every kind of file."""

from __future__ import annotations

import copy
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import netxform as nx
from netxform.sources.text import SPECIAL, encode, neighbours, tokenize, vocabulary
from netxform.sources.vectors import read_vectors, width_of
from tests.strategies import networks

WORDS = st.lists(st.from_regex(r"[a-zé][a-z0-9'.é]{0,8}", fullmatch=True), min_size=1, max_size=12, unique=True)


def write(folder: Path, kind: str, words: list[str], table: np.ndarray) -> tuple[Path, str, dict[str, Path]]:
    """A file of that kind, the name of its reader, and what belongs to it."""
    path, words_file = folder / f"v.{kind}", folder / "words.txt"
    rows = "".join(f"{w} {' '.join(repr(float(v)) for v in row)}\n" for w, row in zip(words, table, strict=True))
    match kind:
        case "text":
            path.write_text(f"{len(words)} {table.shape[1]}\n{rows}")
            return path, "word2vec", {}
        case "glove":
            path.write_text(rows)
            return path, "glove", {}
        case "binary" | "binary with newlines":
            end = b"\n" if "newlines" in kind else b""
            body = b"".join(w.encode() + b" " + struct.pack(f"<{len(r)}f", *r) + end for w, r in zip(words, table, strict=True))
            path.write_bytes(f"{len(words)} {table.shape[1]}\n".encode() + body)
            return path, "word2vec", {}
        case "npy":
            with path.open("wb") as file:
                np.save(file, table)
        case _:
            save_file({"table": torch.from_numpy(table)}, path)
    words_file.write_text("".join(f"{w}\n" for w in words))
    return path, kind, {"words_file": words_file}


KINDS = ["text", "binary", "binary with newlines", "glove", "npy", "safetensors"]


@given(WORDS, st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=25)
def test_vectors_come_back_from_every_kind_of_file(tmp_path_factory, words: list[str], width: int, seed: int) -> None:
    table = np.random.default_rng(seed).standard_normal((len(words), width)).astype(np.float32)
    folder = tmp_path_factory.mktemp("v")
    for kind in KINDS:
        path, reader, more = write(folder, kind, words, table)
        assert width_of(path, reader) == width
        found = read_vectors(path, reader, words[::2], **more)
        assert (found.width, found.size, sorted(found.words)) == (width, len(words), sorted(words[::2])), kind
        assert all(np.array_equal(found.words[w], table[words.index(w)]) for w in words[::2])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(kind: str, tmp_path: Path) -> None:
    words = ["one", "two", "three"]
    table = np.ones((3, 4), dtype=np.float32)
    path, reader, more = write(tmp_path, kind, words, table)
    raw = path.read_bytes()
    path.write_bytes(raw[:-9])
    with pytest.raises(nx.NetxformError, match="X0826"):
        read_vectors(path, reader, words, **more)
    table[1, 1] = np.nan
    path, reader, more = write(tmp_path, kind, words, table)
    with pytest.raises(nx.NetxformError, match="not finite"):
        read_vectors(path, reader, words, **more)


class Reader(nn.Module):
    def __init__(self, rows: int = 9, width: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, width)
        self.fc = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.embed(x).mean(1))


@pytest.mark.parametrize("missing", ["normal", "mean", "zero", "keep"])
def test_words_find_their_rows_and_others_are_filled(missing: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("<pad>\ncat\nDog\nunheard\nbird\n")
    (tmp_path / "v.txt").write_text("3 3\ncat 1 2 3\ndog 3 2 1\nbird 5 5 5\n")
    model = Reader()
    before = copy.deepcopy(model.state_dict())
    text = f'init embed from word2vec("v.txt") vocabulary="words.txt" missing={missing}'
    result = nx.apply(text, model=model, example_inputs=torch.zeros(1, 4, dtype=torch.long), root=tmp_path)
    after = result.model.state_dict()
    table, old = after["embed.weight"], before["embed.weight"]
    assert table[[1, 2, 4]].tolist() == [[1, 2, 3], [3, 2, 1], [5, 5, 5]]  # `Dog` is found in lower case
    assert torch.equal(table[[0, 5, 6, 7, 8]], old[[0, 5, 6, 7, 8]])  # special words and rows without a word
    assert all(torch.equal(after[n], before[n]) for n in before if n != "embed.weight")
    mean = torch.tensor([3.0, 3.0, 3.0])
    match missing:
        case "keep":
            assert torch.equal(table[3], old[3])
        case "normal":
            assert float((table[3] - mean).abs().max()) < 10
            assert not torch.equal(table[3], mean)
        case _:
            assert torch.equal(table[3], mean if missing == "mean" else torch.zeros(3))
    values = result.plan.steps[0].choice.values.entries()
    assert (values["words"], values["found"], values["lacking"]) == (4, 3, ("unheard",))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('init fc from word2vec("v.txt") vocabulary="words.txt"', "X0328"),
        ('init embed from word2vec("wide.txt") vocabulary="words.txt"', "X0328"),
        ('init embed from word2vec("absent.txt") vocabulary="words.txt"', "X0807"),
        ('init embed from glove("other.txt") vocabulary="words.txt"', "X0328"),
        ('init embed from word2vec("v.txt") vocabulary="long.txt"', "X0328"),
        ('init embed from word2vec("../v.txt") vocabulary="words.txt"', "X0901"),
        ('init embed from npy("v.npy")', "X0408"),
        ("init embed from nobody", "X0302"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    (tmp_path / "long.txt").write_text("".join(f"w{i}\n" for i in range(10)))
    (tmp_path / "v.txt").write_text("1 3\ncat 1 2 3\n")
    (tmp_path / "wide.txt").write_text("1 4\ncat 1 2 3 4\n")
    (tmp_path / "other.txt").write_text("else 1 2 3\n")
    model = Reader()
    with pytest.raises(nx.NetxformError) as error:
        nx.apply(text, model=model, example_inputs=torch.zeros(1, 4, dtype=torch.long), root=tmp_path)
    assert error.value.diagnostics[0].code == code


@given(networks(), st.sampled_from(["stem", "parts", "parts.0", "stem | parts.0.1"]))
@settings(max_examples=15)
def test_what_is_taken_has_the_bits_and_the_rest_its_own(tmp_path_factory, model: nn.Module, place: str) -> None:
    """From a bundle of the same network with other weights."""
    folder = tmp_path_factory.mktemp("b")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.add_(1)
    x = torch.randn(2, 2, 5, 5)
    nx.apply("freeze stem", model=other, example_inputs=x[:1], out=folder / "other")
    source = " | ".join(f"other.{p}" for p in place.split(" | "))
    text = f'model net = "other"\nmodel other = "other"\ninit {place} from {source}'
    result = nx.apply(text, model=model, example_inputs=x[:1], root=folder, out=folder / "out")
    for name, tensor in result.model.state_dict().items():
        chosen = any(name.startswith(f"{p}.") for p in place.split(" | "))
        assert torch.equal(tensor, (other if chosen else model).state_dict()[name]), name
    assert nx.verify(folder / "out").held


def test_names_can_be_mapped_and_shapes_are_compared() -> None:
    head = "model net = zoo.text_gru()\nmodel other = zoo.skipthought()\n"
    result = nx.apply(head + "init gru from other.encoder.gru; init embed from other.embed")
    assert result.plan.steps[0].choice.values.entries()["taken"] == 4
    mapped = nx.apply(head + "init net - fc from other.embed | other.encoder { map encoder.gru to gru }")
    assert mapped.plan.steps[0].choice.values.entries()["not taken"] == ()
    assert all(
        torch.equal(a, b) for a, b in zip(result.model.state_dict().values(), mapped.model.state_dict().values(), strict=True)
    )
    with pytest.raises(nx.NetxformError, match="do not fit"):
        nx.apply(head + "init gru from other.before.gru")
    with pytest.raises(nx.NetxformError, match="partner"):
        nx.apply(head + "init gru from other.out")
    part = nx.plan(head + "init net from other { map encoder.gru to gru }").steps[0].choice
    assert part.values.entries()["not taken"] == ("fc.weight", "fc.bias")
    assert "fc.weight" in part.warnings[0]


# --- text ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_tokens_hold_every_word_in_order(text: str) -> None:
    tokens = tokenize(text)
    assert tokenize(" ".join(tokens)) == tokens
    assert "".join(text.lower().split()).replace("_", "") == "".join(tokens)


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9), min_size=2, max_size=5), st.integers(4, 8))
def test_neighbours_are_the_sentences_around(document: list[list[str]], length: int) -> None:
    words = vocabulary(document, None)
    known = {w: i for i, w in enumerate(words)}
    x, y, of = neighbours([document], known, length)
    assert x.shape == (len(document), 3 * length)
    assert y.shape == (len(document), 2, length - 1)
    assert of.tolist() == [0] * len(document)
    for i, sentence in enumerate(document):
        assert x[i, :length].tolist() == encode(sentence, known, length)
        for side, j in ((0, i - 1), (1, i + 1)):
            said = [words[t] for t in y[i, side] if t >= 0]
            around = document[j] if 0 <= j < len(document) else None
            assert said == ([] if around is None else [*around[: length - 2], "</s>"])
            fed = x[i, (1 + side) * length :][:length]
            assert [t for t in y[i, side] if t >= 0] == [t for t in fed[1:] if t > 0]
    assert words[: len(SPECIAL)] == SPECIAL


def test_labelled_sentences_as_data(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text("".join(f"{'good' if i % 2 else 'bad'}\tword{i} is here\n" for i in range(40)))
    text = 'model net = zoo.text_mean(words=50)\ndata r = text("r.tsv", length=16)\ntrain ** for 1epochs on r'
    result = nx.apply(text, root=tmp_path)
    assert 0 <= result.metrics["test_accuracy"] <= 1
    (tmp_path / "r.tsv").write_text("no tab here\n")
    with pytest.raises(nx.NetxformError, match="line 1"):
        nx.apply(text, root=tmp_path)
