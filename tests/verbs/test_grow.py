"""widen and deepen as a user meets them: exact or refused with the reason, and what comes out is an ordinary module."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.axes.reindex import axes_of, reindex
from netxform.cli import main
from tests.strategies import networks

EXACT = 1e-10


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def chain(activation: type[nn.Module], norm: bool, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(2, 6, 3, padding=1),
        *([nn.BatchNorm2d(6)] if norm else []),
        activation(),
        nn.Conv2d(6, 4, 3),
        activation(),
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 5)).double().eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


@given(
    st.sampled_from([nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.Sigmoid, nn.PReLU]),
    st.booleans(),
    st.sampled_from(["", " start=identity", " start=branch", " kernel=5", " kernel=1"]),
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_deeper_networks_compute_the_same_function(activation: type[nn.Module], norm: bool, how: str, seed: int) -> None:
    model = chain(activation, norm, seed)
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    result = nx.apply(f"deepen **{how}", model=model, example_inputs=x)
    count = len(list(model.parameters()))
    assert len(list(result.model.parameters())) >= count + 6
    with torch.no_grad():
        assert gap(result.model(x), model(x)) <= EXACT
        if " start=branch" in how and not norm:  # the branch adds zero in train() too
            assert gap(result.model.train()(x), model.train()(x)) <= EXACT


@given(
    networks(), st.sampled_from(["widen parts x2", "widen stem x3 mode=copy", "deepen stem", "widen stem to 7; deepen stem"])
)
@settings(max_examples=15)
def test_growing_float32_networks(model: nn.Module, text: str) -> None:
    x = torch.randn(3, 2, 5, 5)
    try:
        result = nx.apply(text, model=model, example_inputs=x)
    except nx.NetxformError as error:
        assert error.diagnostics[0].code in ("X0203", "X0320", "X0322", "X0401", "X0406", "X0102")
        return
    with torch.no_grad():
        assert gap(result.model(x), model(x)) <= 1e-5
    claims = [c for s in result.certificate["statements"] for c in s["claims"] if c["kind"] == "same function"]
    assert claims
    assert all((c["held"] or c["vacuous"]) and c["dtype"] == "float64" and c["bound"] == EXACT for c in claims)


def test_a_block_in_braces_must_be_the_identity_at_birth() -> None:
    spec = "model net = zoo.smallcnn()\ndeepen conv3 "
    good = ["{ a = Conv2d(auto, 64, kernel_size=3, padding=1); b = BatchNorm2d(auto) }", "{ d = Dropout(0.1); r = ReLU() }"]
    good += ["{ a = Conv2d(auto, 16, kernel_size=1); r = GELU(); b = Conv2d(auto, 64, kernel_size=1) } start=branch"]
    for block in good:
        held = [
            c["held"]
            for s in nx.apply(spec.replace("deepen conv3 ", f"deepen conv3 {_before(block)}")).certificate["statements"]
            for c in s["claims"]
        ]
        assert held
        assert all(held)
    bad = {
        "{ a = Conv2d(auto, 32, kernel_size=3, padding=1) }": "shape",
        "{ a = Conv2d(auto, 64, kernel_size=3) }": "shape",
        "{ g = GELU() }": "GELU",
        "{ t = Tanh() }": "Tanh",
        "{ g = GroupNorm(4, auto) }": "GroupNorm",
    }
    for block, word in bad.items():
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(spec + block)
        assert caught.value.diagnostics[0].code == "X0322"
        assert word in str(caught.value)


def _before(block: str) -> str:
    """Options stand before the block."""
    inside, _, option = block.rpartition("}")
    return f"{option.strip()} {inside}}}" if option.strip() else block


@pytest.mark.parametrize(
    ("source", "selection"),
    [
        ("zoo.resnet_small()", "layer2.1"),
        ("zoo.resnet_small()", "layer1.0 | layer3.1"),
        ("zoo.vit_small()", "blocks.1"),
        ("zoo.vit_small()", "blocks.*"),
    ],
)
def test_residual_and_transformer_blocks_begin_as_the_identity(source: str, selection: str) -> None:
    before = nx.plan(f"model net = {source}\nfreeze **")
    result = nx.apply(f"model net = {source}\ndeepen {selection} start=block")
    assert result.certificate["statements"][0]["claims"][0]["held"]
    assert result.plan.final.params > before.final.params
    result.model.train()
    x = torch.randn(4, 1, 28, 28)
    result.model(x).square().mean().backward()
    new = [p for n, p in result.model.named_parameters() if "_deeper" in n]
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in new)


def test_a_block_that_is_not_residual_is_refused() -> None:
    for text in ("zoo.resnet_small()\ndeepen layer2.0 start=block", "zoo.smallcnn()\ndeepen layer4 start=block"):
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(f"model net = {text}")
        assert caught.value.diagnostics[0].code == "X0322"


def test_an_edited_network_is_ordinary() -> None:
    text = "model net = zoo.resnet_small()\nwiden layer2 x2; deepen layer1.0.conv1; widen layer3.0.conv1 x1.5"
    module = nx.apply(text).model
    x = torch.randn(2, 1, 28, 28)
    copied = copy.deepcopy(module)
    copied.load_state_dict(module.state_dict())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(copied(x), module(x))
        exported = torch.export.export(module, (x,))
        assert torch.allclose(exported.module()(x), module(x), atol=1e-6)
        compiled = torch.compile(module, backend="eager")
        assert torch.allclose(compiled(x), module(x), atol=1e-6)
    optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1)
    before = [p.clone() for p in module.parameters()]
    module(x).square().mean().backward()
    optimizer.step()
    assert all(p.grad is not None for p in module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    module.eval()
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert all((m.out_channels, m.in_channels // m.groups) == tuple(m.weight.shape[:2]) for m in convs)


def test_an_optimizer_goes_with_the_network() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(8, 4), torch.randn(8, 3)
    network = nx.capture(model, x)
    optimizer = torch.optim.Adam(network.module.parameters(), lr=0.01)
    (network.module(x) - y).square().mean().backward()
    optimizer.step()
    axis = next(a for a in axes_of(network) if a.locked is None)
    old = {n: optimizer.state[p]["exp_avg"].clone() for n, p in network.module.named_parameters()}
    changed = reindex(network, {axis: [4, 1, 5]}, optimizer=optimizer)
    state = {n: optimizer.state[p]["exp_avg"] for n, p in changed.module.named_parameters()}
    assert torch.equal(state["0.weight"], old["0.weight"][[4, 1, 5]])
    assert torch.equal(state["2.weight"], old["2.weight"][:, [4, 1, 5]])
    optimizer.zero_grad()
    changed.module(x).sum().backward()
    optimizer.step()


def test_refusals_say_why_and_what_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "model net = zoo.vit_small()\nwiden patch x1.5": ("LayerNorm", "x2"),
        "model net = zoo.smallcnn()\nwiden fc x2": ("output of the network",),
        "model net = zoo.smallcnn()\nwiden conv3 x1.01": ("whole number", "nearest"),
        "model net = zoo.smallcnn()\nwiden conv3 to 10": ("already",),
        "model net = zoo.smallcnn()\nwiden conv3": ("how wide",),
    }
    for text, words in cases.items():
        with pytest.raises(nx.NetxformError) as caught:
            nx.plan(text)
        assert all(w in str(caught.value) for w in words), str(caught.value)


def test_locked_axes_and_bad_maps_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    network = nx.capture(model, torch.randn(2, 4))
    bits = copy.deepcopy(network.module.state_dict())
    by = {a.sites[0]: a for a in axes_of(network)}
    for axis, index in ((by["0.weight", 1], [0, 1]), (by["0.weight", 0], []), (by["0.weight", 0], [6]), ("c9", [0])):
        with pytest.raises(nx.NetxformError) as caught:
            reindex(network, {axis: index})
        assert caught.value.diagnostics[0].code == "X0320"
    assert by["0.weight", 1].locked is not None
    assert "input" in by["0.weight", 1].locked
    assert all(torch.equal(a, b) for a, b in zip(bits.values(), network.module.state_dict().values(), strict=True))


def test_cut_then_type() -> None:
    """What was an inner axis is locked when it has become the output."""
    text = "model net = zoo.resnet_small()\ncut at layer2\n"
    with pytest.raises(nx.NetxformError) as caught:
        nx.plan(text + "widen layer2 x2")
    assert "output" in str(caught.value)
    assert nx.apply(text + "widen layer1 x2").certificate["statements"][-1]["claims"][0]["held"]


def test_listing_axes_and_coupled_selections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "zoo.resnet_small()", "layer2.0", "--axes", "--svg", str(tmp_path / "a.svg")]) == 0
    text = capsys.readouterr().out
    assert "coupled by add in layer2.0" in text
    assert "taps of a kernel" in text
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert main(["ls", "zoo.resnet_small()", "coupled(layer2)"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"layer2.0.conv2", "layer2.1.bn2", "layer2.0.downsample.0"} <= names
    assert "layer2.0.conv1" not in names
    assert "layer3.0.conv1" not in names
    assert main(["ls", "zoo.resnet_small()", "blocks(layer2)", "--json"]) == 0
    assert '"layer2.1"' in capsys.readouterr().out
    assert main(["explain", "locks"]) == 0
    assert "kernel" in capsys.readouterr().out


def test_a_new_norm_begins_near_the_identity_in_training_where_there_are_data() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = 2 * torch.randn(600, 2, 5, 5, generator=g) + 1, torch.randint(0, 5, (600,), generator=g)
    model = chain(nn.ReLU, True, 1).float()
    with torch.no_grad():  # running statistics that are those of the data, as after training
        model[1].running_mean.copy_(model[0](x).mean((0, 2, 3)))
        model[1].running_var.copy_(model[0](x).var((0, 2, 3)))
    told: dict[str, float] = {}
    for name, held in (("calibrated", {"d": (x, y)}), ("not", {})):
        result = nx.apply("deepen **:Conv2d", model=copy.deepcopy(model), example_inputs=x[:2], data=held)
        exact, _, gap_in_training = result.certificate["statements"][0]["claims"]
        assert exact["held"]
        assert gap_in_training["kind"] == "training mode"
        told[name] = gap_in_training["measured"]
        (norm,) = [m for n, m in result.model.named_modules() if n.endswith("deeper.norm")]
        if held:  # the textbook: mean and variance of the very value, over samples and places
            with torch.no_grad():
                value = model.eval()[2](model[1](model[0](x)))
            seen = value.transpose(0, 1).flatten(1)
            part = 1e-1 * seen.std(1).max()  # 512 of the 480 training samples and the others differ by sampling alone
            assert float((norm.running_mean - seen.mean(1)).abs().max()) < part
            assert float((norm.running_var - seen.var(1, correction=0)).abs().max()) < 2e-1 * float(seen.var(1).max())
            torch.testing.assert_close(norm.weight, (norm.running_var + norm.eps).sqrt())
        else:
            assert float(norm.running_mean.abs().max()) == 0.0
        with torch.no_grad():
            assert gap(result.model.eval()(x), model.eval()(x)) <= 1e-5
    assert told["calibrated"] < 0.1 < told["not"]
    said = [
        nx.plan("deepen **:Conv2d", model=model, example_inputs=x[:2], data=d).steps[0].choice.warnings[0]
        for d in ({"d": (x, y)}, {})
    ]
    assert "is measured on `d`" in said[0]
    assert "no data are named" in said[1]
    (step,) = nx.plan("deepen **:Conv2d", model=model, example_inputs=x[:2], data={"d": (x, y)}, deep=True).steps
    assert [e.kind for e in step.measured] == ["same function", "as stored", "training mode"]


def test_a_norm_that_holds_its_activation_is_followed_by_it() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model, x = timm.create_model("test_byobnet").eval(), torch.randn(1, 3, 64, 64)
    result = nx.apply("deepen stem.conv", model=model, example_inputs=x)
    with torch.no_grad():
        assert gap(result.model(x), model(x)) <= 1e-5
    names = {type(m).__name__ for n, m in result.model.named_modules() if "deeper" in n or "deepen" in n}
    assert "BatchNormAct2d" not in names
