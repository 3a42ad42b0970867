"""Adapters beside LoRA: DoRA, (IA)³, bottlenecks. They begin as nothing, nothing else moves, and what is merged is exact."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import netxform as nx
from netxform.errors import NetxformError
from tests.verbs.test_adapt import Varied, inputs

QUICK = settings(max_examples=10, deadline=None, phases=[Phase.generate])
FORMS = ("lora rank=2", "lora rank=2 alpha=5 dora=true", "lora rank=3 scale=sqrt dora=true", "ia3", "ia3 side=input")


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with its adapters away from their start."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if any(s in name for s in ("_lora.", "_ia3.", "_adapter.")):
            p.data += torch.randn_like(p) * 0.3
    return model.eval()


@given(st.sampled_from(FORMS), st.integers(0, 50))
@QUICK
def test_the_start_and_the_merge(form: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Varied().double().eval(), inputs()
    made = nx.apply(f"adapt ** with {form}", model=model, example_inputs=x)
    assert torch.equal(made.model(x), model(x)), "nothing changes at the start"
    held = made.certificate["statements"][0]["claims"]
    assert held[0]["claim"] == "same outputs, bit for bit" and held[0]["measured"] == 0.0
    moving = {n for n, p in made.model.named_parameters() if p.requires_grad}
    assert moving and all("_lora." in n or "_ia3." in n for n in moving)
    adapted = moved(made.model, seed)
    wanted = adapted(x).detach()
    assert not torch.allclose(wanted, model(x))
    folded = nx.apply("merge **", model=adapted, example_inputs=x).model
    assert (folded(x) - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert {n: t.shape for n, t in folded.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_the_formula_of_dora() -> None:
    """W' = m (V + s B A) / ‖V + s B A‖ by output, and the length gets no gradient (Liu et al., 2024, equations 5 and 11)."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 4)).double(), torch.randn(7, 5).double()
    made = moved(nx.apply("adapt .`0` with lora rank=2 alpha=3 dora=true", model=model, example_inputs=x).model)
    A, B, m = (made.get_parameter(f"0_lora.{p}.weight") for p in "ABM")
    W = model[0].weight + 1.5 * B @ A
    whole = m[:, None] * W / W.norm(dim=1, keepdim=True).detach()
    wanted = nn.functional.linear(x, whole, model[0].bias)
    assert torch.allclose(made(x), wanted, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(made(x).square().sum(), (A, B, m))
    theirs = torch.autograd.grad(wanted.square().sum(), (A, B, m))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


def test_a_row_of_zeros_has_no_direction() -> None:
    model, x = nn.Sequential(nn.Linear(5, 4)).eval(), torch.randn(7, 5)
    model[0].weight.data[1] = 0
    made = nx.apply("adapt .`0` with lora rank=2 dora=true", model=model, example_inputs=x).model
    assert torch.equal(made(x), model(x))


class Block(nn.Module):
    """A residual part and an attention, with tokens last and with channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(6, 6, 3, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, 6, L) → (N, 3)."""
        h = self.line(x).transpose(1, 2)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head((h + self.mlp(h)).mean(1))


@given(st.sampled_from(["line", "mlp", "head", "mlp | head", "line | mlp"]), st.integers(1, 7), st.integers(0, 9))
@QUICK
def test_bottlenecks_are_added_behind(where: str, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Block().double().eval(), torch.randn(4, 6, 5).double()
    made = nx.apply(f"adapt {where} with bottleneck width={width} act=relu", model=model, example_inputs=x)
    first = made.certificate["statements"][0]["claims"][0]
    assert first["claim"] == "same outputs, bit for bit" and first["measured"] == 0.0
    with torch.no_grad():  # of a batch that is none of the probes, a product may be summed in another order
        assert torch.allclose(made.model(x), model(x), rtol=0, atol=1e-14)
    paths = where.split(" | ")
    assert {n.split("_adapter")[0] for n, p in made.model.named_parameters() if p.requires_grad} == set(paths)
    adapted = moved(made.model, seed)
    by_hand = copy.deepcopy(model)
    for path in paths:
        down, up = (adapted.get_submodule(f"{path}_adapter.{n}") for n in ("down", "up"))
        by_hand.get_submodule(path).register_forward_hook(
            lambda m, a, y, down=down, up=up: y + up(torch.relu(down(y)))  # Houlsby et al., 2019, figure 2
        )
    assert torch.allclose(adapted(x), by_hand(x), rtol=0, atol=1e-12)
    with pytest.raises(NetxformError, match="holds an activation"):
        nx.apply("merge **", model=adapted, example_inputs=x)


@pytest.mark.parametrize("form", [*FORMS, "bottleneck width=3"])
def test_only_the_adapter_moves(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Varied(), inputs()
    data = (torch.randint(0, 11, (64, 9)), torch.randint(0, 3, (64,)))
    spec = f"adapt line | out with {form}; train ** for 2epochs using adamw(lr=1e-1) batch=16"
    result = nx.apply(spec, model=model, example_inputs=x, data={"d": data}, out=tmp_path / "b")
    after = result.model.state_dict()
    for name, tensor in model.state_dict().items():  # running statistics among them
        assert torch.equal(after[name], tensor), name
    start = nx.apply(spec.partition(";")[0], model=model, example_inputs=x).model
    own = [n for n, p in start.named_parameters() if p.requires_grad]
    assert own and all(not torch.equal(after[n], start.get_parameter(n)) for n in own)
    assert nx.verify(tmp_path / "b").held
    assert torch.equal(nx.load(tmp_path / "b").eval()(x), result.model.eval()(x))


def test_a_chain_of_verbs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(4, 6, 5)
    for form in ("lora rank=2", "lora rank=2 dora=true", "ia3"):
        start = nx.apply(f"adapt line | mlp | head with {form}", model=model, example_inputs=x).model
        first = (
            "merge **; prune mlp.`0` by magnitude amount=30%"
            if "dora" in form
            else "prune mlp.`0` by magnitude amount=30%; merge **"
        )
        spec = f"{first}; factorize head rank=2"
        made = nx.apply(spec, model=moved(start), example_inputs=x, out=tmp_path / form.replace(" ", ""))
        assert not any("_lora" in n or "_ia3" in n for n, _ in made.model.named_modules())
        assert nx.verify(tmp_path / form.replace(" ", "")).held
    with pytest.raises(NetxformError, match="`merge` first"):
        start = nx.apply("adapt mlp with lora rank=2 dora=true", model=model, example_inputs=x).model
        nx.apply("prune mlp.`0` by magnitude amount=30%", model=start, example_inputs=x)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("adapt out with bottleneck", "width"),
        ("adapt out with bottleneck width=0", "at least 1"),
        ("adapt out with bottleneck width=2 rank=3", "`rank` belongs to `lora`"),
        ("adapt out with ia3 dora=true", "`dora` belongs to `lora`"),
        ("adapt out with lora rank=2 side=input", "`side` belongs to `ia3`"),
        ("adapt words with ia3", "a table has no channels"),
        ("adapt grouped with ia3 side=input", "in groups"),
        ("adapt twice with bottleneck width=2", "runs 2 times"),
        ("adapt out with lora rank=2 dora=true; adapt out with ia3", "an adapter already"),
        ("adapt out with bottleneck width=2; adapt out with bottleneck width=2", "an adapter already"),
        ("adapt out with bottleneck width=2; merge out", "activation"),
        ("adapt out with dora rank=2", "lora"),
    ],
)
def test_what_is_refused(spec: str, said: str) -> None:
    with pytest.raises(NetxformError, match=said):
        nx.apply(spec, model=Varied().eval(), example_inputs=inputs())


class Seen(nn.Module):
    """A convolution and dense layers, all of which PEFT knows."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.out, self.end = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, 2, H, W) → (N, 2)."""
        return self.end(torch.relu(self.out(torch.relu(self.line(x)).mean((2, 3)))))


@pytest.mark.parametrize("form", FORMS)
def test_files_of_peft(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, x = Seen().eval(), torch.randn(3, 2, 5, 5)
    spec = f"adapt line | out with {form}"
    one = moved(nx.apply(spec, model=model, example_inputs=x).model)
    nx.apply("freeze end", model=one, example_inputs=x, out="one.bundle")
    assert nx.export("one.bundle", "adapter", to="peft").worst == 0.0
    back = nx.apply(f'{spec}; init ** from peft("adapter")', model=model, example_inputs=x).model.eval()
    assert torch.equal(back(x), one(x))
    with pytest.raises(NetxformError, match=f"adapt line . out with {form.split()[0]}"):
        nx.apply('init ** from peft("adapter")', model=model, example_inputs=x)
    other = "ia3 side=output" if "input" in form else "ia3 side=input"
    with pytest.raises(NetxformError, match="X0847"):
        nx.apply(f'adapt line | out with {other}; init ** from peft("adapter")', model=model, example_inputs=x)
    peft: Any = pytest.importorskip("peft")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), "adapter", autocast_adapter_dtype=False).eval()
    assert torch.allclose(loaded(x), one(x), rtol=0, atol=1e-5)
    loaded.save_pretrained("theirs")
    again = nx.apply(f'{spec}; init ** from peft("theirs")', model=model, example_inputs=x).model.eval()
    assert torch.equal(again(x), one(x))


def test_what_peft_would_compute_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for form, said in (("lora rank=2", "dilation"), ("ia3", "one dimension")):
        nx.apply(f"adapt line with {form}", model=Varied().eval(), example_inputs=inputs(), out=f"{form[:3]}.bundle")
        with pytest.raises(NetxformError, match=said):
            nx.export(f"{form[:3]}.bundle", f"{form[:3]}.adapter", to="peft")


# --- what users of PEFT ran into -----------------------------------------------------------------------------------------


class Language(nn.Module):
    """A small language model whose words and head may be tied."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.words, self.q, self.head = nn.Embedding(9, 6), nn.Linear(6, 18), nn.Linear(6, 9, bias=False)
        self.norm = nn.BatchNorm1d(6)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (N, L) → (N, L, 9)."""
        q, k, v = self.q(self.norm(self.words(ids).transpose(1, 2)).transpose(1, 2)).chunk(3, -1)
        return self.head((q @ k.transpose(1, 2)).softmax(-1) @ v)


IDS = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["lora rank=2", "lora rank=2 dora=true", "ia3"])
def test_merged_in_half_precision_the_answers_stay(form: str) -> None:
    """Answers differed after merging, and much so in half precision: the product is formed in float64 and rounded once."""
    torch.manual_seed(0)
    for dtype, allowed in ((torch.float32, 1e-6), (torch.bfloat16, 3e-2)):
        model = Language(False).to(dtype).eval()
        adapted = moved(nx.apply(f"adapt q with {form}", model=model, example_inputs=IDS).model)
        wanted = adapted(IDS).detach().double()
        found = nx.apply("merge **", model=adapted, example_inputs=IDS).model(IDS).detach().double()
        assert (found - wanted).abs().max() <= allowed * wanted.abs().max()


def test_batch_norm_stands_still_and_the_base_comes_back() -> None:
    """Running statistics moved while an adapter was trained, and taking it away did not give the base back."""
    torch.manual_seed(0)
    model = Language(False).eval()
    adapted = nx.apply("adapt q with lora rank=2", model=model, example_inputs=IDS).model.train()
    for _ in range(3):
        adapted(IDS).square().mean().backward()
    assert torch.equal(adapted.get_buffer("norm.running_mean"), model.norm.running_mean)
    assert all(p.grad is None for n, p in adapted.named_parameters() if "_lora" not in n)
    for name, p in adapted.named_parameters():
        if name.endswith("_lora.B.weight"):
            p.data.zero_()
    assert torch.equal(nx.apply("merge **", model=adapted.eval(), example_inputs=IDS).model(IDS), model(IDS))


@pytest.mark.parametrize("form", ["lora rank=2", "lora rank=2 dora=true", "ia3"])
def test_tied_words_are_left_and_named(form: str) -> None:
    """Merged into one of two tied layers, an adapter changed both, or was lost when the model was saved."""
    for path in ("words", "head"):
        with pytest.raises(NetxformError, match=r"tied|no channels"):
            nx.apply(f"adapt {path} with {form}", model=Language(True).eval(), example_inputs=IDS)
    some = nx.apply(f"adapt ** with {form}", model=Language(True).eval(), example_inputs=IDS)
    assert {n for n, p in some.model.named_parameters() if p.requires_grad} and "tied" in str(some.plan.to_dict())


def test_what_is_frozen_stays_so_when_other_adapters_come_and_go() -> None:
    """Switching adapters off and on made parameters trainable that were not."""
    spec = "adapt q with lora rank=2; freeze q_lora; adapt head with ia3; merge head; adapt words with lora rank=1"
    made = nx.apply(spec, model=Language(False).eval(), example_inputs=IDS).model
    assert {n for n, p in made.named_parameters() if p.requires_grad} == {"words_lora.A.weight", "words_lora.B.weight"}


def test_quantized_layers_are_refused() -> None:
    pytest.importorskip("torchao")
    model = nx.apply("cast int8 keep [words, norm, head]", model=Language(False).eval(), example_inputs=IDS).model
    for form in ("lora rank=2", "lora rank=2 dora=true", "ia3"):
        with pytest.raises(NetxformError, match="X0845"):
            nx.apply(f"adapt q with {form}", model=model, example_inputs=IDS)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "vit"])
@pytest.mark.parametrize("form", ["lora rank=2 dora=true", "ia3", "bottleneck width=2"])
def test_models_of_the_libraries(name: str, form: str) -> None:
    if name == "vit":
        timm: Any = pytest.importorskip("timm")
        model = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=3, img_size=32, num_classes=3)
        x, where = torch.randn(2, 3, 32, 32), "blocks.`0`.mlp"
    else:
        t: Any = pytest.importorskip("transformers")
        sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 20, "vocab_size": 30}
        made = {"llama": (t.LlamaForCausalLM, t.LlamaConfig), "bert": (t.BertForMaskedLM, t.BertConfig)}
        x = torch.arange(12).reshape(2, 6)
        where = {"gpt2": "transformer.h.`0`.mlp", "llama": "model.layers.`0`.mlp", "bert": "bert.encoder.layer.`0`.output"}[
            name
        ]
        if name == "gpt2":
            model = t.GPT2LMHeadModel(
                t.GPT2Config(n_embd=24, n_layer=1, n_head=4, vocab_size=30, bos_token_id=0, eos_token_id=0)
            )
        else:
            model = made[name][0](made[name][1](**sizes))
    model = model.eval()
    spec = f"adapt {where} with {form}"
    if name == "gpt2" and not form.startswith(
        "bottleneck"
    ):  # its layers are of a class of the library: read elsewhere, and named
        with pytest.raises(NetxformError, match="X0845"):
            nx.apply(spec, model=model, example_inputs=x)
        return
    result = nx.apply(spec, model=model, example_inputs=x)
    outputs = [m(x) if name == "vit" else dict(m(x))["logits"] for m in (result.model, model)]
    assert torch.equal(*outputs)
    assert all(c["held"] for c in result.certificate["statements"][0]["claims"])
