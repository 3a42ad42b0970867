"""Which models take a spec's edits as their own class: prune, widen, factorize and remove on models of torchvision, timm and transformers.

    python -m benchmarks.graft_sweep [--libs FOLDER] [--only GLOB]

A cell is `same` (the graft gives the graph's bits in eval and in train mode), `refused` with the reason, `spec refused` (the statement
itself does not go on this model) or `failed`. Random weights, small inputs, one thread.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import netxform as nx
from benchmarks.machine import save

STATEMENTS = ("prune ** by magnitude amount=30%", "widen {layer} x2", "factorize ** using svd rank=0.5", "freeze **")
Made = tuple[str, Callable[[], nn.Module], Callable[[], Tensor]]


def models() -> Iterator[Made]:
    """Names, and how to make model and input."""
    import timm
    import torchvision

    picture = {n: (2, 3, 64, 64) for n in torchvision.models.list_models(torchvision.models)}
    for name in ("alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "mobilenet_v2",
                 "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5", "regnet_y_400mf", "regnet_x_400mf",
                 "shufflenet_v2_x0_5", "squeezenet1_0", "convnext_tiny"):  # fmt: skip
        yield (
            f"torchvision/{name}",
            lambda n=name: torchvision.models.get_model(n, weights=None),
            lambda n=name: torch.randn(picture[n]),
        )
    yield "torchvision/vit_b_16", lambda: torchvision.models.vit_b_16(weights=None), lambda: torch.randn(2, 3, 224, 224)
    for name in ("resnet26", "resnetv2_50", "seresnet50", "skresnet18", "ecaresnet26t", "resnest14d", "res2net50_26w_4s", "dla34", "vgg11",
                 "mobilenetv3_small_050", "mobilenetv4_conv_small", "efficientnet_lite0", "mixnet_s", "ghostnet_050", "fbnetc_100",
                 "hardcorenas_a", "lcnet_050", "repvgg_a0", "regnety_002", "convnext_atto", "convnextv2_atto", "hrnet_w18_small",
                 "cspresnet50", "cspdarknet53", "dpn48b", "tinynet_e", "rexnet_100", "spnasnet_100", "semnasnet_050", "inception_next_atto"):  # fmt: skip
        yield f"timm/{name}", lambda n=name: timm.create_model(n), lambda: torch.randn(2, 3, 64, 64)
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s16_224", "resmlp_12_224", "gmlp_ti16_224", "cait_xxs24_224",
                 "xcit_nano_12_p16_224", "poolformer_s12", "pit_ti_224", "beit_base_patch16_224"):  # fmt: skip
        yield f"timm/{name}", lambda n=name: timm.create_model(n), lambda: torch.randn(1, 3, 224, 224)
    yield from language_models()


def language_models() -> Iterator[Made]:
    """Small configurations of the families of transformers."""
    import transformers as hf

    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 60}
    plain = wide | {"max_position_embeddings": 64}
    kinds: dict[str, dict[str, Any]] = {
        "BertModel": plain, "RobertaModel": plain, "ElectraModel": plain, "LlamaForCausalLM": plain | {"num_key_value_heads": 2},
        "MistralForCausalLM": plain | {"num_key_value_heads": 2}, "Qwen2ForCausalLM": plain | {"num_key_value_heads": 2},
        "GemmaForCausalLM": plain | {"num_key_value_heads": 2, "head_dim": 8}, "OlmoForCausalLM": plain | {"num_key_value_heads": 2},
        "GPTNeoXForCausalLM": plain, "PhiForCausalLM": plain | {"num_key_value_heads": 4}, "StableLmForCausalLM": plain | {"num_key_value_heads": 4},
        "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 64},
        "DistilBertModel": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 60},
        "OPTForCausalLM": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 60, "word_embed_proj_dim": 32},
        "BloomForCausalLM": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60},
        "MPNetModel": plain, "AlbertModel": plain | {"embedding_size": 16}, "ErnieModel": plain, "Starcoder2ForCausalLM": plain | {"num_key_value_heads": 2},
    }  # fmt: skip
    for name, sizes in kinds.items():
        cls = getattr(hf, name)
        yield f"transformers/{name}", lambda c=cls, s=sizes: c(c.config_class(**s)), lambda: torch.randint(3, 60, (2, 7))


def cell(model: nn.Module, x: Tensor, statement: str) -> tuple[str, str]:
    """What became of one statement, and why."""
    layer = next((n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and n.count(".") >= 1), "")
    try:
        result = nx.apply(statement.format(layer=layer), model=model, example_inputs=x)
    except nx.NetxformError as error:
        return "spec refused", str(error).splitlines()[0]
    try:
        result.graft()
    except nx.NetxformError as error:
        return "refused", error.diagnostics[0].notes[0] if error.diagnostics[0].notes else error.diagnostics[0].message
    return "same", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", help="a folder with the libraries")
    parser.add_argument("--only", default="*")
    given = parser.parse_args()
    if given.libs:
        sys.path.append(given.libs)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, make, inputs in models():
        if not fnmatch.fnmatch(name, given.only):
            continue
        row: dict[str, Any] = {"model": name}
        for statement in STATEMENTS:
            torch.manual_seed(0)
            try:
                row[statement], why = cell(make().eval(), inputs(), statement)
            except Exception as error:
                row[statement], why = "failed", f"{type(error).__name__}: {error}"
            if why:
                row[f"why {statement}"] = why[:200]
        rows.append(row)
        print(name, *(row[s] for s in STATEMENTS), sep="  ", flush=True)
    counts = {s: Counter(r[s] for r in rows) for s in STATEMENTS}
    every = sum(any(r[s] == "same" for s in STATEMENTS[:3]) for r in rows)
    table = ["# Grafts: a spec's edits on a model's own class", "", f"{len(rows)} models; {every} take at least one of the changes of size.", "",
             "| model | " + " | ".join(STATEMENTS) + " |", "|---" * (len(STATEMENTS) + 1) + "|"]  # fmt: skip
    table += ["| " + " | ".join([r["model"], *(r[s] for s in STATEMENTS)]) + " |" for r in rows]
    save("graft_sweep", {"counts": counts, "rows": rows}, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
