"""Bad input: each kind has its own diagnostic, at its place, and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import netxform as nx
from netxform.codes import CODES, page
from netxform.zoo import build

NET = 'model net = zoo.smallcnn() input="1x1x8x8"\n'
DATA = "data d = sklearn.digits()\n"

CHECKED = {
    "X0110": "unfreez body",
    "X0211": "model other = zoo.smalcnn()",
    "X0212": "data e = sklearn.digit()",
    "X0204": "assert val_acuracy > 90%",
    "X0301": "cut at layer4 before fc",
    "X0302": DATA + "train ** for 1epochs on other",
    "X0303": "data d = sklearn.digits()\ndata d = sklearn.digits()",
    "X0401": "cut at 3",
    "X0402": "train ** for 5%",
    "X0403": "attach head classes=$n",
    "X0404": "freeze body mode=eval",
    "X0405": "param n: number = 3",
    "X0406": "param n: int = 3 in [5, 9]",
    "X0407": "freeze body bn=eval bn=train",
    "X0408": "train **",
    "X0409": "train ** for 1epochs using adamx(lr=1)",
    "X0109": "keep best by val_loss",
    "X0105": "def a(x) { a(x) }\na(fc)",
    "X0106": "def a(x) { freeze x }\na(fc, fc1)",
    "X0108": "xform 2",
}
PLANNED = {
    "X0203": "freeze conv4",
    "X0205": "let conv1 = conv2\nfreeze conv1",
    "X0206": "freeze /(/",
    "X0207": "freeze **:Conv2d[kernel_sise == 3]",
    "X0208": "freeze upsteam(fc)",
    "X0209": "freeze conv1 | conv1::weight",
    "X0210": "freeze conv1.weight",
    "X0213": DATA + "features at layer4\nattach random_florest(3)",
    "X0301": "cut at conv*",
    "X0304": "cut at layer4\nattach conv1 classes=3",
    "X0305": "cut at layer4 drops=[fc]",
    "X0307": "freeze relu",
    "X0308": "attach head classes=3",
    "X0310": DATA + "freeze **\ntrain ** for 1epochs",
    "X0311": "cut at layer4\nfreeze fc",
    "X0312": "cut at layer4\nattach head { out = Linear(7, 3) }",
    "X0314": "cut at relu",
    "X0317": "data e = sklearn.digits(classes=[1, 2])\ntrain ** for 1epochs on e",
    "X0318": "data e = sklearn.digits(channels=3)\ntrain ** for 1epochs on e",
    "X0319": DATA + "attach two after conv3 classes=10\ntrain two for 1epochs",
    "X0410": "cut at layer4\nattach head { out = Liner(auto, 3) }",
    "X0411": "cut at layer4\nattach head { out = Dropout(7) }",
    "X0601": "assert params < 10",
}


@pytest.mark.parametrize(("code", "text"), CHECKED.items(), ids=list(CHECKED))
def test_found_by_the_text_alone(code: str, text: str) -> None:
    source = text if code == "X0108" else NET + text
    with pytest.raises(nx.NetxformError) as caught:
        nx.check(source)
    first = next(d for d in caught.value.diagnostics if d.code == code)
    assert first.span.line >= 1
    assert caught.value.diagnostics == tuple(sorted(caught.value.diagnostics, key=lambda d: d.span))


@pytest.mark.parametrize(("code", "text"), PLANNED.items(), ids=list(PLANNED))
def test_found_by_the_plan(code: str, text: str) -> None:
    with pytest.raises(nx.NetxformError) as caught:
        (nx.apply if code == "X0213" else nx.plan)(NET + text)
    (first,) = caught.value.diagnostics
    assert first.code == code
    assert first.span.line >= 2
    assert first.label or first.notes or first.helps
    assert caught.value.exit_code == (3 if code == "X0601" else 1)


def test_a_use_after_removal_shows_both_places() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(NET + "cut at layer4\nfreeze fc")
    first = caught.value.diagnostics[0]
    assert [first.span.line, first.secondary[0].span.line] == [3, 2]
    assert "removed" in str(caught.value)


def test_did_you_mean() -> None:
    with pytest.raises(nx.NetxformError, match=r"did you mean `conv[123]`"):
        nx.plan(NET + "freeze conv4")


def test_everything_is_reported_at_once() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.check(NET + "unfreez a\ntrain ** for 5\ncut at a before b\nassert params < 3epochs")
    assert [d.code for d in caught.value.diagnostics] == ["X0110", "X0402", "X0301", "X0402"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    model = build("smallcnn")
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = value
    with pytest.raises(nx.NetxformError) as caught:
        nx.apply("cut at layer4", model=model, example_inputs=torch.randn(1, 1, 8, 8))
    assert caught.value.diagnostics[0].code == "X0811"


def test_missing_and_truncated_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = build("smallcnn")
    file = tmp_path / "w.safetensors"
    save_file(model.state_dict(), file)
    good = file.read_bytes()
    text = 'model net = zoo.smallcnn() weights="{}"\ncut at layer4'

    def code(name: str) -> str:
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(text.format(name), root=tmp_path)
        assert caught.value.diagnostics[0].span.line == 1
        return caught.value.diagnostics[0].code

    assert nx.plan(text.format("w.safetensors"), root=tmp_path).steps
    assert code("v.safetensors") == "X0807"
    file.write_bytes(good[:-100])
    assert code("w.safetensors") == "X0808"
    file.write_bytes(good[:20])
    assert code("w.safetensors") == "X0808"
    save_file({"fc.weight": model.fc.weight.detach()}, file)
    assert code("w.safetensors") == "X0809"


def test_control_flow_and_parameters() -> None:
    text = NET + (
        "param wide: bool = false\nparam n: int = 3 in [1, 5]\n"
        "def frozen(what, mode) { freeze what bn=mode }\n"
        "if $wide == true { cut at fc1 } else { cut at layer4 }\n"
        "each block in layer4.* { frozen(block, train) }\n"
        "if params < 1M { attach head classes=$n }\n"
        "assert params < 1Mparams and macs < 1Gmacs or not bytes > 3GiB"
    )
    steps = [s.text for s in nx.plan(text).steps]
    assert steps[0] == "cut at layer4"
    assert [s.split()[0] for s in steps] == ["cut", "freeze", "freeze", "attach"]
    assert nx.plan(text, params={"wide": True}).steps[0].text == "cut at fc1"
    with pytest.raises(nx.NetxformError, match="outside"):
        nx.check(text, params={"n": 9})
    with pytest.raises(nx.NetxformError, match="no parameter"):
        nx.check(text, params={"m": 9})


def test_use_with_a_namespace(tmp_path: Path) -> None:
    (tmp_path / "calib.xform").write_text("data train = sklearn.digits(train=50)\nlet late = layer4 | fc\n")
    text = NET + 'use "calib.xform" as calib\ntrain calib.late for 1epochs on calib.train'
    plan = nx.plan(text, root=tmp_path)
    assert plan.steps[0].choice.work.data == "calib.train"
    assert all(p.startswith(("layer4", "fc")) for p in plan.steps[0].choice.work.parameters)


def test_selections_of_every_form() -> None:
    def frozen(selection: str) -> set[str]:
        return set(nx.plan(NET + f"freeze {selection}").steps[0].choice.values.entries()["parameters"])

    everything = frozen("**")
    assert frozen("layer4") == frozen("layer4.**") == {n for n in everything if n.startswith("layer4")}
    assert frozen("conv{1..3}") == frozen("/conv[123]/") == frozen("{conv1,conv2,conv3}")
    assert frozen("conv*::weight") == {f"conv{i}.weight" for i in (1, 2, 3)}
    assert frozen("** - fc") == everything - {"fc.weight", "fc.bias"}
    assert frozen("conv1 | layer9?") == frozen("conv1")
    assert frozen(":Linear") == frozen("fc1 | fc")
    assert frozen(":Conv2d[kernel_size == 3 and index > 1]") < frozen(":Conv2d")
    assert frozen("conv1[kernel_size == 3 and out_channels in [32, 64]]") == frozen("conv1")
    assert frozen("first(:Conv2d)") == frozen("nth(:Conv2d, 0)") == frozen("conv1")
    assert frozen("last(:Linear)") == frozen("fc")
    assert frozen("upstream(conv2) & :Conv2d") == frozen("conv1")
    assert frozen("between(conv1, conv3) & :Conv2d") == frozen("conv2")
    assert frozen("downstream(fc1)") == frozen("fc")
    assert len(frozen("top(**, 2, by=params)")) >= 2
    assert frozen("net.conv1") == frozen(".conv1") == frozen("`conv1`")


def test_every_code_has_a_page() -> None:
    for code in CODES:
        assert page(code)
    used = set()
    import re

    for path in (Path(nx.__file__).parent).rglob("*.py"):
        if path.name != "codes.py":
            used |= set(re.findall(r"\"(X0\d{3})\"", path.read_text()))
    grammar = Path(nx.__file__).parent.parent / "grammar" / "mistakes.xform"
    used |= set(re.findall(r"^#: (X0\d{3})", grammar.read_text(), re.M))
    assert used == set(CODES)


class Pair(nn.Module):
    """A module whose output is two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.one(x), self.two(x)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x):
        a, b = self.pair(x)
        return a + b


def test_a_module_without_a_single_value() -> None:
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan("cut at pair", model=Twice(), example_inputs=torch.randn(1, 3, 4))
    assert caught.value.diagnostics[0].code == "X0316"
