"""Adapters: nothing changes when they are put in, nothing but they moves, and merged they compute what they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import netxform as nx
from netxform.errors import NetxformError


class Varied(nn.Module):
    """Every kind of layer that can have an adapter, one of them called twice, and some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=0)
        self.line = nn.Conv1d(6, 5, 3, stride=2, padding=2, dilation=2)
        self.norm = nn.BatchNorm1d(5)
        self.grouped = nn.Conv1d(5, 5, 3, padding=1, groups=5)
        self.twice = nn.Linear(5, 5, bias=False)
        self.out = nn.Linear(5, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (N, L) → (N, 3)."""
        h = self.norm(self.line(self.words(ids).transpose(1, 2)))
        h = self.act(self.grouped(h)).mean(-1)
        return self.out(self.act(self.twice(self.act(self.twice(h)))))


def inputs() -> Tensor:
    return torch.randint(0, 11, (4, 9))


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with its adapters somewhere else than at the start."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if "_lora." in name:
            p.data = torch.randn_like(p) * 0.3
    return model


@given(st.integers(1, 4), st.floats(0.5, 8), st.sampled_from(["rank", "sqrt"]), st.integers(0, 5))
@settings(max_examples=12, deadline=None)
def test_the_start_and_the_merge(rank: int, alpha: float, scale: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Varied().double().eval(), inputs()
    spec = f"adapt ** with lora rank={rank} alpha={alpha} scale={scale} dropout=0.3"
    made = nx.apply(spec, model=model, example_inputs=x)
    assert torch.equal(made.model(x), model(x)), "nothing changes at the start"
    moving = {n for n, p in made.model.named_parameters() if p.requires_grad}
    assert moving == {f"{path}_lora.{part}.weight" for path in ("words", "line", "twice", "out") for part in ("A", "B")}
    adapted = filled(made.model, seed).eval()
    wanted = adapted(x)
    assert not torch.allclose(wanted, model(x))
    # the textbook: h = W x + s B A x
    s = alpha / (rank if scale == "rank" else rank**0.5)
    A, B = (adapted.get_parameter(f"out_lora.{p}.weight") for p in ("A", "B"))
    folded = nx.apply("merge **", model=adapted, example_inputs=x).model
    assert torch.allclose(folded.get_parameter("out.weight"), model.out.weight + s * (B @ A), rtol=0, atol=1e-12)
    assert (folded(x) - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert not any("_lora" in n for n, _ in folded.named_modules())
    assert {n: t.shape for n, t in folded.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_only_the_adapter_moves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Varied(), inputs()
    data = (torch.randint(0, 11, (64, 9)), torch.randint(0, 3, (64,)))
    spec = "adapt line | twice with lora rank=2; train ** for 2epochs using adamw(lr=1e-1) batch=16"
    result = nx.apply(spec, model=model, example_inputs=x, data={"d": data}, out=tmp_path / "b")
    after = result.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(after[name], tensor), name
    assert all(after[f"{p}_lora.B.weight"].abs().max() > 0 for p in ("line", "twice"))
    assert nx.verify(tmp_path / "b").held
    back = nx.load(tmp_path / "b")
    assert torch.equal(back.eval()(x), result.model.eval()(x))


def test_a_part_and_then_another() -> None:
    model, x = Varied().eval(), inputs()
    spec = "adapt twice with lora rank=2; adapt ** with lora rank=1; merge twice; unfreeze out"
    made = nx.apply(spec, model=model, example_inputs=x).model
    assert {n for n, _ in made.named_modules() if n.endswith("_lora")} == {"words_lora", "line_lora", "out_lora"}
    assert made.get_parameter("out.weight").requires_grad and made.get_parameter("words_lora.A.weight").requires_grad


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("adapt grouped with lora rank=2", "groups"),
        ("adapt norm with lora rank=2", "X0845"),
        ("adapt twice with lora rank=0", "X0406"),
        ("adapt twice with lora rank=2 dropout=1", "X0406"),
        ("merge twice", "X0846"),
        ("adapt twice with lora rank=2; merge out", "adapters: twice_lora"),
        ("adapt twice with lora rank=2; adapt twice with lora rank=2", "an adapter already"),
        ("adapt twice with lora", "rank"),
    ],
)
def test_what_is_refused(spec: str, said: str) -> None:
    with pytest.raises(NetxformError, match=said):
        nx.apply(spec, model=Varied().eval(), example_inputs=inputs())


def test_weights_of_two_layers_are_left() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x))) + nn.functional.linear(x, self.c.weight)

    for path in "abc":
        with pytest.raises(NetxformError, match=r"tied|read elsewhere"):
            nx.apply(f"adapt {path} with lora rank=1", model=Tied(), example_inputs=torch.randn(2, 4))


def lora_by_hand(x: Tensor, folder: Path, base: dict[str, Tensor], path: str) -> Tensor:
    """What PEFT computes for a Linear with that folder, from its documented format."""
    held, config = load_file(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())
    A, B = (held[f"base_model.model.{path}.lora_{p}.weight"] for p in "AB")
    rank = config["rank_pattern"].get(path, config["r"])
    alpha = config["alpha_pattern"].get(path, config["lora_alpha"])
    return x @ base[f"{path}.weight"].T + alpha / rank * (x @ A.T) @ B.T


def test_the_format_of_peft_in_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, x = Varied().eval(), inputs()
    made = nx.apply("adapt words | out with lora rank=2 alpha=8; adapt twice with lora rank=3", model=model, example_inputs=x)
    one = filled(made.model).eval()
    nx.apply("freeze words", model=one, example_inputs=x, out="one.bundle")
    done = nx.export("one.bundle", "adapter", to="peft")
    assert done.worst == 0.0
    h = torch.randn(3, 5)
    by_hand = lora_by_hand(h, Path("adapter"), model.state_dict(), "twice")
    assert torch.allclose(
        by_hand, one.twice(h) + one.get_submodule("twice_lora.B")(one.get_submodule("twice_lora.A")(h)), atol=1e-6
    )
    spec = 'adapt words | out with lora rank=2 alpha=8; adapt twice with lora rank=3; init ** from peft("adapter")'
    back = nx.apply(spec, model=model, example_inputs=x).model.eval()
    assert torch.equal(back(x), one(x))
    with pytest.raises(NetxformError, match=r"adapt .* with lora rank=2 alpha=8"):
        nx.apply('init ** from peft("adapter")', model=model, example_inputs=x)
    with pytest.raises(NetxformError, match="rank=3 alpha=3"):
        nx.apply('adapt ** with lora rank=2 alpha=8; init ** from peft("adapter")', model=model, example_inputs=x)
    with pytest.raises(NetxformError, match="X0846"):
        nx.apply("freeze words", model=model, example_inputs=x, out="none.bundle")
        nx.export("none.bundle", "nothing", to="peft")


def test_a_folder_that_is_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a"
    folder.mkdir()
    config: dict[str, Any] = {"peft_type": "LORA", "lora_alpha": 2, "r": 2}
    good = {f"base_model.model.out.lora_{p}.weight": t for p, t in (("A", torch.zeros(2, 5)), ("B", torch.zeros(3, 2)))}

    def attempt(more: dict[str, Any], tensors: dict[str, Tensor]) -> str:
        (folder / "adapter_config.json").write_text(json.dumps(config | more))
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(NetxformError) as caught:
            nx.apply('adapt out with lora rank=2; init ** from peft("a")', model=Varied(), example_inputs=inputs())
        return str(caught.value)

    assert "belong together" in attempt({"use_dora": True}, good)
    assert "no factor" in attempt({"peft_type": "IA3"}, good)
    assert "peft_type" in attempt({"peft_type": "LOHA"}, good)
    assert "fan_in_fan_out" in attempt({"fan_in_fan_out": True}, good)
    assert "no factor" in attempt({}, good | {"base_model.model.out.modules_to_save.weight": torch.zeros(2)})
    assert "belong together" in attempt({}, {n: t[:1] for n, t in good.items()})
    assert "X0808" in attempt({"lora_alpha": "x"}, good)
    (folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(NetxformError, match="X0808"):
        nx.apply('adapt out with lora rank=2; init ** from peft("a")', model=Varied(), example_inputs=inputs())
