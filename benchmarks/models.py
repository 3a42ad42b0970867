"""The models of the sweeps: every torchvision classifier, the smallest of each timm module, tiny transformers, and more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LIMIT = 900
SEGMENTERS = (
    "fcn_resnet50 deeplabv3_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large fasterrcnn_mobilenet_v3_large_320_fpn "
    "retinanet_resnet50_fpn ssdlite320_mobilenet_v3_large"
).split()
HF = (
    "Bert Albert Roberta DistilBert Electra MobileBert Deberta DebertaV2 Camembert XLMRoberta MPNet Funnel RoFormer "
    "SqueezeBert ConvBert Ernie Nystromformer GPT2 GPTNeo GPTNeoX GPTJ OPT Bloom Llama Mistral Qwen2 Qwen3 Gemma Gemma2 Phi "
    "Phi3 StableLm Olmo Cohere Falcon Mpt T5 MT5 Bart ViT DeiT Beit Swin ConvNext ResNet"
).split()


def usable(name: str, key: str) -> bool:
    """Whether a model's configuration takes this key at the small size."""
    if name in ("Swin", "ConvNext", "ResNet"):
        return key == "image_size"
    return (name, key) not in (("Funnel", "num_hidden_layers"), ("Falcon", "head_dim"))


def tiny(name: str) -> Any:
    """A transformers model with random weights, made small by its configuration."""
    import transformers

    small = {
        "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32, "num_hidden_layers": 2, "n_layer": 2,
        "n_layers": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "d_kv": 8, "hidden_dim": 64,
        "vocab_size": 99, "max_position_embeddings": 64, "n_positions": 64, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "image_size": 32, "patch_size": 8, "head_dim": 8, "word_embed_proj_dim": 32,
        "rotary_dim": 4, "attention_types": [[["global", "local"], 1]], "use_cache": False, "true_hidden_size": 32,
        "intra_bottleneck_size": 32, "num_feedforward_networks": 1,
    }  # fmt: skip
    cls = getattr(transformers, f"{name}Config")
    known = cls().to_dict() | {k: None for k in dir(cls())}
    config = cls(**{k: v for k, v in small.items() if k in known and usable(name, k)})
    return getattr(transformers, f"{name}Model")(config)


def make(kind: str, name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model with random weights, in eval mode, and inputs for it."""
    import torch

    inputs: tuple[Any, ...]
    if kind == "tv":
        import torchvision

        more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model: Any = torchvision.models.get_model(name, weights=None, **more)
        size = 299 if name == "inception_v3" else 224
        inputs = (torch.randn(1, 3, size, size),)
    elif kind == "dense":
        import torchvision

        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        inputs = (
            (torch.randn(1, 3, 128, 128),)
            if "rcnn" not in name and "net" in name.split("_")[0]
            else ([torch.randn(3, 128, 128)],)
        )
        if hasattr(model, "classifier") and not hasattr(model, "rpn"):
            inputs = (torch.randn(1, 3, 128, 128),)
    elif kind == "timm":
        import timm

        model = timm.create_model(name)
        inputs = (torch.randn(1, *model.default_cfg["input_size"]),)
    else:
        model = tiny(name)
        picture = name in ("ViT", "DeiT", "Beit", "Swin", "ConvNext", "ResNet")
        size = 224 if name in ("Swin", "ConvNext", "ResNet") else 32
        inputs = (torch.randn(1, 3, size, size),) if picture else (torch.arange(3, 15)[None],)
        if name in ("T5", "MT5"):
            inputs = (inputs[0], torch.ones(1, 12, dtype=torch.long), inputs[0][:, :7])
            model = ByName(model, ("input_ids", "attention_mask", "decoder_input_ids"))
    return model.eval(), inputs


def ByName(model: Any, names: tuple[str, ...]) -> Any:
    """A model whose inputs are given by position."""
    from torch import nn

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, a: Any, b: Any, c: Any) -> Any:
            return self.model(**dict(zip(names, (a, b, c), strict=True)))

    return Named()


def names_of(kind: str) -> list[str]:
    if kind == "tv":
        import torchvision

        return torchvision.models.list_models(module=torchvision.models)
    if kind == "hf":
        return HF
    if kind == "dense":
        return SEGMENTERS
    import timm
    import torch

    out = []
    for module in timm.list_modules():
        best: tuple[int, str] | None = None
        for name in timm.list_models(module=module):
            try:
                with torch.device("meta"):
                    size = sum(p.numel() for p in timm.create_model(name).parameters())
            except Exception:
                continue
            if best is None or (size, name) < best:
                best = (size, name)
        if best is not None:
            out.append(best[1])
    return sorted(out)


def apart(script: str, kind: str, name: str, *more: str) -> dict[str, Any]:
    """One model in a process of its own, so that a crash or a lack of memory is a row of the table and no end of it."""
    command = [sys.executable, "-m", f"benchmarks.{script}", "--one", kind, name, *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"kind": kind, "name": name, "error": f"more than {LIMIT} s"}
    try:
        return {"kind": kind, "name": name} | json.loads(done.stdout.strip().split("\n")[-1])
    except (ValueError, IndexError):
        error = (done.stderr.strip().split("\n") or [""])[-1][:160] or str(done.returncode)
        return {"kind": kind, "name": name, "error": error}


def sweep(script: str, kind: str, jobs: int, *more: str) -> Iterator[dict[str, Any]]:
    """The rows of all models of a kind, in order."""
    only = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv else None
    names = names_of(kind) if only is None else only
    with ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(lambda n: apart(script, kind, n, *more), names):
            print(row, flush=True)
            yield row


def answer(one: Any) -> bool:
    """Serve `--one KIND NAME`: print what `one` finds, or its error, as a line of JSON. False where that is not asked for."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["--one"]:
        return False
    try:
        print(json.dumps(one(*arguments[1:])))
    except Exception as error:
        text = " ".join(str(error).split())
        print(json.dumps({"error": f"{type(error).__name__}: {text}"[:400]}))
    return True


def asked(default: list[str]) -> tuple[list[str], int]:
    """The kinds and the number of jobs of the command line."""
    arguments = sys.argv[1:]
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    return [a for a in arguments if a in ("tv", "timm", "hf", "dense")] or default, jobs
