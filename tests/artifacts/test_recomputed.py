"""Random statements one after the other: every claim of the certificate computed again by plain torch, and in force or not
as the tensors say.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import netxform as nx
from benchmarks.certificate_by_hand import Folder, by_hand

HEAD = 'model net = zoo.smallcnn(width=4) input="1x1x8x8"\ndata d = sklearn.digits(train=120)\n'
STATEMENTS = (
    "train ** for 1epochs on d",
    "train fc1 for 1epochs on d",
    "widen conv{} x2",
    "widen conv{} x2 mode=copy",
    "deepen conv{}",
    "factorize fc1 rank=3",
    "factorize conv3 rank=2 over d samples=64",
    "prune conv{} amount=25% by magnitude over d samples=64",
    "prune ** amount=30% by magnitude granularity=weight",
    "freeze conv{}",
    "snapshot s",
    "cast float16 keep fc1",
    "init fc1 using scratch",
)


def drawn(seed: int) -> list[str]:
    """Statements that can follow one another: those that are refused are left out."""
    draw = random.Random(seed)
    kept: list[str] = []
    while len(kept) < 3:
        text = draw.choice(STATEMENTS).format(draw.randint(1, 3))
        try:
            nx.plan(HEAD + "\n".join([*kept, text]))
        except nx.NetxformError:
            continue
        kept.append(text)
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_every_claim_is_what_is_computed_again(seed: int, tmp_path: Path) -> None:
    texts = drawn(seed)
    try:
        result = nx.apply(HEAD + "\n".join(texts), out=tmp_path / "b")
    except nx.NetxformError as error:
        pytest.skip(f"{texts}: {error.diagnostics[0].message}")
    found = by_hand(tmp_path / "b")
    assert not found["differ"], (texts, found)
    verdict = nx.verify(tmp_path / "b")
    assert verdict.held, (texts, [(c.what, c.why) for c in verdict.claims if not c.held])
    assert sum(verdict.counts.values()) == len(verdict.claims)
    assert all(c.why for c in verdict.claims if c.state in ("not measurable", "superseded"))
    last = Folder(tmp_path / "b").named
    for i, statement in enumerate(result.certificate["statements"]):
        named = [c for c in statement["claims"] if c["tensors"]]
        if named:
            there = state(nx.apply(HEAD + "\n".join(texts[: i + 1])).model)
        for claim in named:
            same = all(n in last and equal(there[n], last[n]) for n in claim["tensors"])
            assert claim["in_force"] == same, (texts, claim["kind"])


def state(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
