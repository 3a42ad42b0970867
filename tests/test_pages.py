"""The manual: every verb's page says what it promises, what it refuses, and whose idea it is; what it says is what happens."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch
from torch import nn

import netxform as nx
from netxform import verbs
from netxform.cli import main
from netxform.codes import CODES
from netxform.language.verb import REGISTRY

verbs.load()

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\ndata d = sklearn.digits(train=50)\n'
TEXT = "model net = zoo.text_lstm(words=20)\n"
VIT = "model net = zoo.vit_small()\n"
OTHER = 'model other = zoo.smallcnn(classes=3) input="1x1x8x8"\n'
# what every page refuses, and a spec that asks for it
REFUSALS: dict[tuple[str, str], str] = {
    ("adapt", "X0845"): NET + "adapt bn1 with lora rank=2",
    ("adapt", "X0850"): TEXT + "adapt input channels=1",
    ("attach", "X0304"): NET + "attach fc after layer4 classes=2",
    ("attach", "X0308"): "attach head classes=2",
    ("attach", "X0312"): NET + "cut at layer4; attach head { out = Linear(7, 2) }",
    ("attach", "X0410"): NET + "cut at layer4; attach head { out = Linnear(7, 2) }",
    ("cast", "X0203"): TEXT + "cast float16 keep norms",
    ("cast", "X0329"): "cast float16",
    ("cast", "X0330"): NET + "cast int8 keep [fc1, fc]",
    ("cast", "X0814"): NET + "cast int8",
    ("compare", "X0204"): NET + "train ** for 1epochs on d; compare to scratch metric=test_beauty",
    ("compare", "X0406"): NET + "train ** for 1epochs on d; compare to scratch seeds=1",
    ("compare", "X0602"): NET + "cut at layer4; compare to scratch seeds=2",
    ("cut", "X0301"): NET + "cut at conv1 | conv2",
    ("cut", "X0305"): NET + "cut at layer4 drops=[fc]",
    ("cut", "X0314"): "model net = zoo.skipthought(words=20)\ncut at embed",
    ("cut", "X0316"): "cut at rnn",
    ("deepen", "X0312"): NET + "deepen conv1 { a = Linear(8, 8) }",
    ("deepen", "X0322"): NET + "deepen conv1 { a = Conv2d(auto, 32, 3, padding=1); b = GELU() }",
    ("deepen", "X0406"): NET + "deepen conv1 kernel=2",
    ("distill", "X0302"): NET + "distill from teacher for 1epochs on d",
    ("distill", "X0343"): NET + OTHER + "distill from other for 1epochs on d",
    ("distill", "X0345"): "\nsnapshot t; distill from t for 1epochs on d",
    ("factorize", "X0323"): NET + "factorize fc1 using cp rank=2",
    ("factorize", "X0411"): NET + "factorize fc1 using svd rank=[2, 3]",
    ("factorize", "X0604"): NET + "factorize ** until params <= 1% of base",
    ("features", "X0301"): NET + "features at conv1 | conv2",
    ("features", "X0312"): TEXT + "features at lstm",
    ("freeze", "X0306"): "freeze norm",
    ("freeze", "X0307"): VIT + "freeze blocks.0.mlp.1",
    ("init", "X0302"): NET + "init conv1 from other",
    ("init", "X0328"): NET + 'model other = zoo.smallcnn(width=8) input="1x1x8x8"\ninit conv2 from other',
    ("init", "X0807"): TEXT + 'init embed from glove("nothing.txt") vocabulary="words.txt"',
    ("keep", "X0204"): NET + "stage s { train ** for 1epochs on d; keep best by beauty }",
    ("remove", "X0406"): NET + "remove layer4.1 over d count=3",
    ("remove", "X0848"): NET + "remove conv1",
    ("merge", "X0846"): NET + "merge fc1",
    ("prune", "X0407"): NET + "prune conv1 by magnitude amount=10% granularity=weight round_to=8",
    ("prune", "X0331"): NET + "prune fc by magnitude amount=10%",
    ("prune", "X0408"): NET + "prune conv1 by magnitude",
    ("prune", "X0412"): NET + "prune conv1 by beauty amount=10%",
    ("prune", "X0603"): NET + "prune ** by magnitude until params <= 0.01% of base",
    ("record", "X0402"): NET + "stage s { train ** for 1epochs on d; record trajectory every=5steps }",
    ("record", "X0406"): NET + "stage s { train ** for 1epochs on d; record trajectory samples=0 }",
    ("snapshot", "X0303"): NET + "snapshot net",
    ("train", "X0310"): NET + "freeze **; train ** for 1epochs on d",
    ("train", "X0317"): NET.replace("smallcnn()", "smallcnn(classes=3)") + "train ** for 1epochs on d",
    ("train", "X0345"): "\ntrain ** for 1epochs on d",
    ("train", "X0351"): NET + "train ** for 1epochs on d loss=poisson_nll",
    ("train", "X0409"): NET + "train ** for 1epochs on d using adamx()",
    ("unfreeze", "X0307"): NET + "unfreeze **",
    ("widen", "X0320"): NET + "widen fc x2",
    ("widen", "X0322"): VIT + "widen patch x1.5",
    ("widen", "X0406"): NET + "widen conv1 x0.5",
}


class Odd(nn.Module):
    """Statistics that no frozen class knows, weights that float16 cannot hold, states without the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(3, track_running_stats=True)
        self.rnn = nn.LSTM(5, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)
        with torch.no_grad():
            self.fc.weight[0, 0] = 7e4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.rnn(self.norm(x))[1]
        return self.fc((h[0] if isinstance(h, tuple) else h)[-1])


class Aux(nn.Module):
    """Another output in training."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> object:
        return (self.fc(x), x) if self.training else self.fc(x)


def page(word: str) -> str:
    return " ".join(REGISTRY[word].doc.split())


@pytest.mark.parametrize("word", sorted(REGISTRY))
def test_a_page_has_its_four_parts(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = page(word)
    for part in ("Example: ", "Contract: ", "Refused: ", r"Papers?: "):
        assert re.search(part, text), f"{word}: no {part}"
    assert f"Contract: {REGISTRY[word].cls.contract.value}" in text
    paper = re.search(r"Papers?: (.*)", text)
    assert paper is not None
    assert re.search(r"\b(19|20)\d\d\b", paper.group(1))
    said = set(re.findall(r"X0\d{3}", text))
    assert said == {c for w, c in REFUSALS if w == word}
    assert said <= set(CODES)
    assert main(["explain", word]) == 0
    assert "Contract:" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "code"), sorted(REFUSALS))
def test_what_a_page_refuses_is_refused(word: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = REFUSALS[word, code]
    given = {} if "model net" in text else {"model": Odd(), "example_inputs": torch.randn(1, 3, 5)}
    if code == "X0345":
        text, data = text.partition("\n")[2], {"d": (torch.randn(20, 4), torch.arange(20) % 2)}
        given = {"model": Aux(), "example_inputs": torch.randn(2, 4), "data": data}
    if code == "X0814":
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "torchao" else found(n, *a))
    with pytest.raises(nx.NetxformError) as error:
        nx.apply(text, **given)
    assert error.value.diagnostics[0].code == code, str(error.value)
    assert main(["explain", code]) == 0
