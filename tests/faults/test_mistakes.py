"""Mistakes that people make: at the command line, in Python, in specs. Each gives one page with a code and a repair."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import netxform as nx
from netxform.cli import main
from netxform.codes import CODES
from netxform.sources.data import DataSet
from netxform.sources.data.source import DATA

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\n'
SMALL = NET + "freeze conv1\n"
DIGITS = NET + "data d = sklearn.digits(train=40)\n"


def clean(text: str, code: str | None = None) -> None:
    """One page: no trace, a known code, a repair."""
    assert "Traceback" not in text
    assert "error[X0" in text, text
    found = text.split("error[")[1][:5]
    assert found in CODES
    assert found != "X0004", text
    assert "help: " in text, text
    if code is not None:
        assert found == code, text


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.xform").write_text(SMALL)
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.xform").write_bytes("# gr\xfc\xdfe\nfreeze a\n".encode("latin-1"))
    (tmp_path / "wide.xform").write_bytes("freeze conv1\n".encode("utf-16"))
    (tmp_path / "nul.xform").write_bytes(b"freeze \x00conv1\n")
    (tmp_path / "plan.json").write_text("[]")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "certificate.json").write_text("{}")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe.xform")
    (tmp_path / "dangling.xform").symlink_to("nowhere")
    (tmp_path / "own.xform").write_text('use "own.xform"')
    (tmp_path / "dot.xform").write_text('use "."')
    return tmp_path


COMMANDS = [c for c in """
chek s.xform|chek|PLAN s.xform|plan|check|apply|verify|export|compare|ls|fmt|check s.xform t.xform|plan s.xform extra
check --sed 1 s.xform|check s.xform --seed|check s.xform --seed x|check s.xform --seed -1|check s.xform --seed 1.5
check s.xform --seed 99999999999999999999|check s.xform --seed 1 --seed 2|check s.xform -p|check s.xform -p a
check s.xform -p =1|check s.xform -p a=|check s.xform -p a=1|check s.xform -p a=1 -p a=2|check s.xform -p a=(
check s.xform --params a=1
check nothing.xform|check empty|check latin.xform|check wide.xform|check nul.xform|check pipe.xform|check dangling.xform
check own.xform|check dot.xform|check /dev/null/x|check /dev/zero|check s.xform/x|check bundle|check plan.json
plan nothing.xform|plan empty|plan pipe.xform|plan s.xform -o nodir/p.json|plan s.xform -o empty|plan s.xform -o s.xform/p.json
plan s.xform -o|plan s.xform -o a -o b|plan s.xform --model|plan s.xform --input 1x1x8x8
plan s.xform --deeep|plan s.xform --detailed|plan s.xform --max-memory 5|plan s.xform --max-memory 0GiB
plan s.xform --max-memory x
plan s.xform --max-memory 1kB --model zoo.mlp()|plan s.xform --model zoo.nothing() --input 1x1|plan s.xform --model ( --input 1
apply nothing.xform|apply empty|apply s.xform -o taken|apply s.xform -o taken --overwrite|apply s.xform -o s.xform --overwrite
apply s.xform -o s.xform|apply s.xform -o s.xform/b|apply s.xform -o|apply s.xform --plan nothing.json
apply s.xform --plan plan.json
apply s.xform --plan empty|apply s.xform --plan s.xform|apply s.xform --processes 0|apply s.xform --processes x
apply s.xform --processes 2|apply s.xform --ovewrite|apply s.xform --resume yes|apply s.xform --quiet=1|apply s.xform -o bundle
verify nothing|verify empty|verify s.xform|verify bundle|verify taken|verify pipe.xform|verify a b|verify --all
export nothing out.onnx|export empty out.py|export bundle out.py|export bundle out.nothing|export bundle nodir/out.py
export bundle empty|export bundle s.xform --to py|export bundle out --to nothing|export bundle|export bundle out.py --to
compare nothing|compare empty|compare s.xform|compare bundle|compare bundle --method x|compare bundle --perplexity 0
compare bundle --perplexity nan|compare bundle --perplexity x|compare bundle --seed -1|compare bundle -o nodir/x.png
compare bundle -o empty|compare bundle --curve|compare
ls nothing.xform|ls empty|ls zoo.nothing()|ls zoo.smallcnn( **|ls zoo.smallcnn() nothing|ls zoo.smallcnn() (
ls s.xform --svg nodir/x.svg
ls s.xform --svg empty|ls s.xform '|ls torch.load|ls nothing.pt|ls bundle|ls pipe.xform|ls s.xform ** more
fmt nothing.xform|fmt empty|fmt latin.xform|fmt wide.xform|fmt pipe.xform|fmt dangling.xform|fmt s.xform -w -x|fmt
explain nothing|explain X0000|explain X9999|explain freez|explain a b|explain --verb cut
""".replace("\n", "|").split("|") if c]  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_a_mistake_at_the_command_line(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(p for p in here.rglob("*"))
    assert main(line.split(" ")) == 1
    clean(capsys.readouterr().err)
    assert sorted(p for p in here.rglob("*")) == before


SPECS: list[str] = [
    *((NET + line).replace(NET + "MODEL", "freeze conv1\nmodel") for line in """
model net = zoo.smallcnn()|MODEL b = zoo.smallcnn(width=0)|MODEL b = zoo.smallcnn(width=-3)|MODEL b = zoo.smallcnn(width=1.5)
MODEL b = zoo.smallcnn(width="a")|MODEL b = zoo.smallcnn(1, 2, 3, 4, 5, 6)|MODEL b = zoo.smallcnn(colour=3)|MODEL b = 3
MODEL b = zoo.smallcnn(width=8, width=9)|MODEL b = zoo.smallcnn() weights=["a", "b"]|MODEL b = zoo.smallcnn() weights=3
MODEL b = zoo.smallcnn() weights="nothing.pt"|MODEL b = zoo.smallcnn() weights="."|MODEL b = zoo.smallcnn() input=3
MODEL b = zoo.smallcnn() input="0x1"|MODEL b = zoo.smallcnn() input="axb"|MODEL b = zoo.smallcnn() input="1x1" input="1x2"
MODEL b = zoo.smallcnn() by_position=3|MODEL b = "."|MODEL b = ""|MODEL b = "nothing.pt"|MODEL b = torch.load("x")
freeze|freeze nothing|freeze conv1 conv2|freeze 3|freeze "conv1"|freeze conv1 x2|freeze conv1 lr=3|freeze conv1 { }
freeze conv1 - conv1|freeze conv1 & conv2|freeze **:Nothing|freeze conv1::nothing|freeze conv1[nothing == 1]
freeze conv1[weight == 3]
freeze conv1[forward == 3]|freeze conv1[out_channels < "a"]|freeze /(/|freeze /(a+)+b/|freeze nth(**, 99)
freeze top(**, -1, by=x)
freeze between(conv1)|freeze nowhere(conv1)|freeze op:nothing|freeze layer{1..99999999999}|freeze `layer{1`|freeze $x
widen conv1|widen conv1 x0|widen conv1 x-1|widen conv1 x1.37|widen conv1 to 0|widen conv1 x1000000|widen conv1 x2 to 64
widen conv1 x2 mode=nothing|widen conv1 to 1e99999|widen fc x2|cut at|cut at nothing|cut at conv1 at conv2|cut at conv1 | conv2
factorize conv1|factorize fc1 using svd rank=1e99999|factorize fc1 using svd rank=-1|factorize fc1 using svd rank=0
factorize fc1 using svd rank=1.5|factorize fc1 using svd rank="a"|factorize fc1 using nothing rank=3
factorize fc1 using svd rank=2 rank=3
factorize ** until params <= 0|factorize ** until params <= 1%|factorize ** until params <= 1e99999
factorize ** until beauty < 3
prune conv1 by magnitude amount=-10%|prune conv1 by magnitude amount=110%|prune conv1 by magnitude amount=1e99999
prune conv1 by magnitude|prune conv1 by nothing amount=10%|prune conv1 amount=abc by magnitude
prune ** by magnitude until params <= 0
attach head classes=3|cut at layer4; attach head classes=0|cut at layer4; attach head classes=-1
cut at layer4; attach head classes=1e30
cut at layer4; attach head { }|cut at layer4; attach head { a = Nothing(3) }|cut at layer4; attach head { a = Linear(3) }
cut at layer4; attach head { a = Linear(-1, 3) }|cut at layer4; attach head { a = Linear(auto, "x") }
cut at layer4; attach "a b" classes=2
cast|cast float8|cast float16 keep nothing|snapshot|snapshot 3|snapshot net|compare to nothing seeds=2|keep best by val_loss
deepen conv1 kernel=0|deepen conv1 kernel=-1|deepen nothing|init conv1 from nothing|unfreeze nothing
assert|assert params|assert params <|assert beauty > 3|assert params < "a"|assert params < 3epochs|assert params < 5% of nothing
if beauty > 3 { freeze conv1 }|if val_accuracy > 3% { freeze conv1 }|each a in nothing { freeze a }
each a in ** { data b = sklearn.digits() }
stage a { stage b { freeze conv1 } }|stage { freeze conv1 }|else { freeze conv1 }|use "."|use "nothing.xform"|use ""
use "../../etc/passwd"
def f() { f() }; f()|def f(a) { freeze a }; f()|def f(a) { freeze a }; f(conv1, conv2)|def f() { }; def f() { }
let a = nothing|let conv1 = 3
param a|param a = 3 in [1]|param a = 3 in [4, 5]|param a: int = "x"|param a: number = 3|param a = 1; param a = 2|param seed = -1
param seed = "a"|param seed = 1.5|freez conv1|freeze conv1 at 3 at 4|freeze conv1)|freeze (conv1|freeze 'conv1'
freeze "conv1|freeze conv1 }
freeze conv1; ; freeze|freeze conv1 in 3|train fc for 1epochs|train fc for 1 on d|xform 2|xform 1; xform 1
freeze conv1 = 3|= 3|{ }
""".replace("\n", "|").replace("conv1 | conv2", "conv1 ¦ conv2").split("|") if line),
    *(NET + f"data d = {line}\ntrain fc for 1epochs on d\n" for line in """
nothing()|sklearn.nothing()|3|"x"|sklearn.digits(3)|sklearn.digits("a", "b")|sklearn.digits(train=0)|sklearn.digits(train=-1)
sklearn.digits(train=1.5)|sklearn.digits(train="a")|sklearn.digits(train=99999999)|sklearn.digits(val="a")
sklearn.digits(val=-1)
sklearn.digits(val=true)|sklearn.digits(val=5epochs)|sklearn.digits(val=60%, test=60%)|sklearn.digits(val=1)
sklearn.digits(test=[1, 2])
sklearn.digits(normalize=[0.5])|sklearn.digits(normalize=[0.5, 0])|sklearn.digits(normalize=0.5)
sklearn.digits(normalize=[1, 2, 3])
sklearn.digits(normalize="a")|sklearn.digits(classes=[1])|sklearn.digits(classes=[1, 1])
sklearn.digits(classes=[1, 99])|sklearn.digits(classes="a")
sklearn.digits(classes=[1.5, 2])|sklearn.digits(omit=99)|sklearn.digits(omit=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
sklearn.digits(per_class=0)
sklearn.digits(per_class=9999)|sklearn.digits(per_class="a")|sklearn.digits(size=0)|sklearn.digits(size=-5)
sklearn.digits(size=99999)
sklearn.digits(channels=0)|sklearn.digits(seed=-1)|sklearn.digits(seed="a")|sklearn.digits(words=5)
sklearn.digits(train=5, train=6)
sklearn.digits(train=5) train=6|sklearn.digits(nothing=3)|sklearn.digits() trian=3|folder()|folder("nothing")|folder(3)
folder("s.xform")
folder("empty")|text("nothing.tsv")|text()|text("s.xform")|text("empty")|text("s.xform", length=1)
text("s.xform", vocabulary="empty")
neighbours("s.xform")|neighbours("empty")|neighbours("s.xform", per_class=3)|folder("empty", train=3)
fashion_mnist(root="empty")
""".replace("\n", "|").split("|") if line),
]  # fmt: skip


@pytest.mark.parametrize("text", SPECS)
def test_a_mistake_in_a_spec(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "s.xform").write_text(text.replace("¦", "|"))
    code = main(["apply", "s.xform", "-o", "out", "--quiet"])
    said = capsys.readouterr().err
    assert code in (1, 3), text
    clean(said)
    assert not (here / "out").exists()
    assert not list(here.glob(".out*"))
    code = said.split("error[")[1][:5]
    assert "-->" in said or code in ("X0107",), f"no place: {said}"


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


X, Y = torch.randn(40, 4), torch.arange(40) % 2
TEXT = "train fc for 1epochs on data using sgd(lr=0.1)"
JUNK: tuple[Any, ...] = (3, 1.5, b"x", object(), [1], {1: 2}, len, nn.Linear, float("nan"))
GOOD: dict[str, Any] = {"model": Odd(), "example_inputs": (torch.randn(2, 4),), "data": (X, Y)}


def wrong(**more: Any) -> Callable[[], Any]:
    return lambda: nx.apply(TEXT, **{**GOOD, **more})


def with_value(value: Any, at: Any = (3, 1)) -> torch.Tensor:
    made = X.clone()
    made[at] = value
    return made


def of_pairs(pairs: list[Any]) -> DataSet:
    return DataSet("d", pairs, pairs, pairs, 2, (4,), "")


PYTHON: dict[str, Callable[[], Any]] = {
    "no arguments": lambda: nx.apply(),  # type: ignore[call-arg]
    "a misspelt keyword": lambda: nx.apply(TEXT, modle=Odd()),  # type: ignore[call-arg]
    "too many arguments": lambda: nx.plan(TEXT, Odd()),  # type: ignore[misc]
    "a file as text": lambda: nx.plan("nothing.xform"),
    "a path that is not there": lambda: nx.plan(Path("nothing.xform")),
    "a folder as spec": lambda: nx.plan(Path()),
    "a source as model": wrong(model="zoo.smallcnn()"),
    "a class as model": wrong(model=Odd),
    "a state dict": wrong(model=Odd().state_dict()),
    "no inputs": wrong(example_inputs=()),
    "an array as inputs": wrong(example_inputs=np.zeros((2, 4))),
    "an empty batch": wrong(example_inputs=torch.zeros(0, 4)),
    "inputs that do not fit": wrong(example_inputs=torch.randn(2, 5)),
    "NaN in the inputs": wrong(example_inputs=torch.full((2, 4), float("nan"))),
    "infinity in the inputs": wrong(example_inputs=torch.full((2, 4), float("inf"))),
    "NaN in the data": wrong(data=(with_value(float("nan")), Y)),
    "infinity in the data": wrong(data=(with_value(float("-inf")), Y)),
    "NaN in the targets": wrong(data=(X, torch.full((40, 2), float("nan")))),
    "labels of -100": wrong(data=(X, torch.full((40,), -100))),
    "labels from -1": wrong(data=(X, Y - 1)),
    "one name for all labels": wrong(data=(X, ["a"] * 40)),
    "more names than outputs": wrong(data=(X, np.array(["a", "b", "c", "d"] * 10))),
    "an object array": wrong(data=(np.array([None] * 40), Y)),
    "ragged lists": wrong(data=([[1.0, 2.0], [1.0]], [0, 1])),
    "texts as x": wrong(data=(["a"] * 40, Y)),
    "fewer labels": wrong(data=(X, Y[:30])),
    "no samples": wrong(data=(X[:0], Y[:0])),
    "one number": wrong(data=(torch.tensor(1.0), torch.tensor(1))),
    "three things": wrong(data=(X, Y, Y)),
    "a dict of one": wrong(data={"data": X}),
    "x alone": wrong(data=X),
    "a data set of torch without labels": wrong(data=TensorDataset(X)),
    "complex numbers": wrong(data=(X.to(torch.complex64), Y)),
    "a sparse tensor": wrong(data=(X.to_sparse(), Y)),
    "a tensor on meta": wrong(data=(X.to("meta"), Y)),
    "samples that are no pairs": wrong(data=of_pairs([X[0]] * 10)),
    "samples of several shapes": wrong(data=of_pairs([(torch.zeros(4), 0), (torch.zeros(5), 1)] * 10)),
    "samples with texts": wrong(data=of_pairs([(torch.zeros(4), "a")] * 10)),
    "a data set that raises": wrong(data=of_pairs([(torch.zeros(4), 0), None] * 10)),
    "parts that are no data": wrong(data=DataSet("d", 3, 3, 3, 2, (4,), "")),
    "another name": wrong(data={"other": (X, Y)}),
    "a name that is none": wrong(data={"a b": (X, Y)}),
    "other classes": wrong(data=(X, torch.arange(40))),
    "a list as params": wrong(params=["a"]),
    "a param that is not there": wrong(params={"a": 1}),
    "an object as param": wrong(params={"a": object()}),
    "a name of a param": wrong(params={3: 1}),
    "a negative seed": wrong(seed=-1),
    "a seed with a point": wrong(seed=1.0),
    "a seed as text": wrong(seed="a"),
    "a huge seed": wrong(seed=2**80),
    "a root that is not there": wrong(root="nothing"),
    "a flag as text": wrong(trust_code="no"),
    "a flag as number": wrong(overwrite=1),
    "progress without methods": wrong(progress=print),
    "progress as a class": wrong(progress=type("P", (), {"start": 1})),
    "models as a list": wrong(models=[Odd()]),
    "an empty out": wrong(out=""),
    "a NUL in out": wrong(out="a\0b"),
    "capture nothing": lambda: nx.capture(Odd()),
    "capture a function": lambda: nx.capture(len, X),  # type: ignore[arg-type]
    "capture with a list": lambda: nx.capture(Odd(), [X]),  # type: ignore[arg-type]
    "capture with NaN": lambda: nx.capture(Odd(), torch.full((1, 4), float("nan"))),
    "verify a folder that is none": lambda: nx.verify("nothing"),
    "load None": lambda: nx.load(None),  # type: ignore[arg-type]
    "export to nothing": lambda: nx.export("nothing", "out.nothing"),
    "export to a number": lambda: nx.export("nothing", 3),  # type: ignore[arg-type]
    "export by a number": lambda: nx.export("nothing", "out.py", 3),  # type: ignore[arg-type]
    "compare nothing": lambda: nx.compare(),
    "compare a number": lambda: nx.compare(3),
    "compare by magic": lambda: nx.compare("a", method="magic"),
    "compare with a perplexity below 0": lambda: nx.compare("a", perplexity=-1),
    "check a number": lambda: nx.check(3),
    "check with a list": lambda: nx.check("freeze a", params=[1]),  # type: ignore[arg-type]
    "parse bytes": lambda: nx.parse(b"freeze a"),  # type: ignore[arg-type]
    "format a text": lambda: nx.format("freeze a"),  # type: ignore[arg-type]
    "a builder of a number": lambda: nx.spec(3),  # type: ignore[arg-type]
    "a builder with an object": lambda: nx.spec().freeze(object()),
    "a builder with a factor of text": lambda: nx.spec().widen("conv1", x="2"),
    "a builder with a block of lists": lambda: nx.spec().attach("head", block=[1]),
}  # fmt: skip
for _name in (
    "model",
    "example_inputs",
    "params",
    "models",
    "seed",
    "root",
    "trust_code",
    "progress",
    "out",
    "resume",
    "overwrite",
):
    for _number, _value in enumerate(JUNK):
        if not (_name in ("params", "models") and _value is None) and not (_name == "seed" and _value == 3):
            PYTHON[f"{_name} {_number}"] = wrong(**{_name: _value})
for _number, _value in enumerate(JUNK):
    PYTHON[f"data {_number}"] = wrong(data=_value)
    for _function in (nx.verify, nx.load, nx.check, nx.parse, nx.format, nx.compare, nx.capture, nx.plan):
        PYTHON[f"{_function.__name__} {_number}"] = lambda f=_function, v=_value: f(v)


@pytest.mark.parametrize("name", PYTHON)
def test_a_mistake_in_python(name: str, here: Path) -> None:
    with pytest.raises(nx.NetxformError) as error:
        PYTHON[name]()
    clean(str(error.value))


def test_every_data_source_says_what_it_takes() -> None:
    for name, source in DATA.items():
        assert source.takes is not None or "demo" in name


def test_counts_of_mistakes() -> None:
    assert len(COMMANDS) + len(SPECS) + len(PYTHON) > 300
