"""Grafts of transformers' models: `generate`, and `save_pretrained` → `from_pretrained`, whatever the configuration can say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import netxform as nx

transformers = pytest.importorskip("transformers")
WIDE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 30}
PAIR = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
}
HEADS = "prune ** by magnitude amount=30% along=heads; prune ** by magnitude amount=25% along=mlp"


def of(name: str, **sizes: Any) -> Any:
    cls = getattr(transformers, name)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    known = cls.config_class().to_dict()
    return cls(
        cls.config_class(**sizes, **{k: v for k, v in ids.items() if k in known or k != "decoder_start_token_id"})
    ).eval()


MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": WIDE | {"num_key_value_heads": 2}, "Qwen2ForCausalLM": WIDE | {"num_key_value_heads": 2},
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 30, "n_positions": 32},
    "T5ForConditionalGeneration": {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 30},
    "BartForConditionalGeneration": PAIR | {"d_model": 16, "vocab_size": 30, "max_position_embeddings": 9},
    "BertForSequenceClassification": WIDE,
}  # fmt: skip


def ids(length: int = 7) -> Tensor:
    return torch.randint(3, 30, (2, length))


def given(name: str) -> tuple[Tensor, ...]:
    return (ids(), torch.ones(2, 7, dtype=torch.long), ids(5)) if "Conditional" in name else (ids(),)


def logits(model: Any, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    return model(**dict(zip(names, inputs, strict=False))).logits


def words(model: Any, start: Tensor, **how: Any) -> Tensor:
    return model.generate(
        start, attention_mask=torch.ones_like(start), max_new_tokens=4, do_sample=False, pad_token_id=0, **how
    )


@pytest.mark.parametrize(("name", "spec"), [
    *((n, HEADS) for n in MODELS), *((n, "widen {layer} x2") for n in ("LlamaForCausalLM", "BartForConditionalGeneration")),
    *((n, "factorize ** using svd rank=0.5") for n in MODELS if not n.startswith("T5")),
])  # fmt: skip
def test_they_generate_and_are_read_again(name: str, spec: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = of(name, **MODELS[name]), given(name)
    layer = "model.layers.0.mlp.up_proj" if name.startswith("Llama") else "model.encoder.layers.0.fc1"
    result = nx.apply(spec.format(layer=layer), model=model, example_inputs=inputs)
    made: Any = result.graft()
    assert isinstance(made, type(model))
    made.save_pretrained(tmp_path)
    back: Any = type(made).from_pretrained(tmp_path).eval()
    mine, theirs = made.state_dict(), back.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
    with torch.no_grad():  # what is read lies elsewhere in memory: a kernel may round otherwise
        torch.testing.assert_close(logits(back, name, inputs), logits(made, name, inputs), rtol=1e-6, atol=1e-6)
    if hasattr(made, "lm_head"):
        found = words(made, inputs[0])
        assert torch.equal(found, words(back, inputs[0])) and torch.equal(found, words(made, inputs[0], use_cache=False))


OUTSIDE = """
import sys
sys.modules["netxform"] = None
import torch, transformers
made = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
torch.save(made(torch.load(sys.argv[2])).logits, sys.argv[3])
made.save_pretrained(sys.argv[4])
"""


def test_a_stranger_reads_it_without_netxform(tmp_path: Path) -> None:
    """Layers of different sizes, and some that became two: by AutoModel under trust, and written again from there."""
    torch.manual_seed(0)
    model, start = of("LlamaForCausalLM", **MODELS["LlamaForCausalLM"]), ids()
    made: Any = nx.apply(
        f"{HEADS}; factorize model.layers.0.mlp.up_proj using svd rank=2", model=model, example_inputs=start
    ).graft()
    made.save_pretrained(tmp_path / "a")
    torch.save(start, tmp_path / "x.pt")
    places = [str(tmp_path / n) for n in ("a", "x.pt", "y.pt", "b")]
    done = subprocess.run([sys.executable, "-c", OUTSIDE, *places], capture_output=True, text=True, env=None)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), made(start).logits, rtol=1e-6, atol=1e-6)
    again: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", trust_remote_code=True)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in made.state_dict().items())
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a", trust_remote_code=False)


def test_what_numbers_can_say_needs_no_code(tmp_path: Path) -> None:
    """One size for every layer, a block less: the class stays transformers' own."""
    torch.manual_seed(0)
    model, start = of("LlamaForCausalLM", **MODELS["LlamaForCausalLM"]), ids()
    spec = "remove model.layers.1; prune model.layers.*.mlp.up_proj by magnitude amount=25% ranking=layer"
    made: Any = nx.apply(spec, model=model, example_inputs=start, keep_class=True).model
    assert type(made) is transformers.LlamaForCausalLM
    assert (made.config.num_hidden_layers, made.config.intermediate_size) == (2, 18)
    made.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    back: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(words(back, start), words(made, start))


def test_widths_that_the_configuration_refuses(tmp_path: Path) -> None:
    """A stream that its heads do not divide: the numbers stay valid, and what differs is told."""
    torch.manual_seed(0)
    model, start = of("LlamaForCausalLM", **MODELS["LlamaForCausalLM"]), ids()
    made: Any = nx.apply("prune ** by magnitude amount=30% along=residual", model=model, example_inputs=start).graft()
    made.save_pretrained(tmp_path)
    back: Any = type(made).from_pretrained(tmp_path).eval()
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in made.state_dict().items())
    assert torch.equal(words(back, start), words(made, start))


def test_numbers_that_no_shape_shows(tmp_path: Path) -> None:
    """Four heads of four pruned to three of four have the shapes of four heads of three: the configuration says which."""
    torch.manual_seed(0)
    model, start = of("LlamaForCausalLM", **MODELS["LlamaForCausalLM"] | {"num_key_value_heads": 4}), ids()
    spec = "prune ** by magnitude amount=25% along=heads ranking=layer"
    made: Any = nx.apply(spec, model=model, example_inputs=start).graft()
    assert made.model.layers[0].self_attn.q_proj.out_features == 12
    made.save_pretrained(tmp_path)
    back: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert torch.equal(words(back, start), words(made, start))
    with torch.no_grad():
        torch.testing.assert_close(back(start).logits, made(start).logits, rtol=1e-6, atol=1e-6)
