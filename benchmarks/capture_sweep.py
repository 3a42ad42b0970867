"""Every torchvision classifier, the smallest model of each timm module, tiny transformers: captured, equal, another batch?

    python -m benchmarks.capture_sweep [tv] [timm] [hf] [--jobs 2]

One process a model, so that a crash or a lack of memory is a row of the table and no end of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.machine import save

LIMIT = 900
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


def one(kind: str, name: str) -> dict[str, Any]:
    """Capture one model in this process."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs: tuple[Any, ...]
    if kind == "tv":
        import torchvision

        model = torchvision.models.get_model(name, weights=None)
        size = 299 if name == "inception_v3" else 224
        inputs = (torch.randn(1, 3, size, size),)
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
    model.eval()
    from netxform.artifacts.emit import emit
    from netxform.core.capture import _leaves, capture
    from netxform.core.recorder import plain

    start = time.perf_counter()
    network = capture(model, *inputs)
    seconds = time.perf_counter() - start
    keys = list(network.module.state_dict()) == list(model.state_dict())
    row: dict[str, Any] = {"front_end": network.front_end, "islands": len(network.islands), "keys": keys, "seconds": seconds}
    row["nodes"] = len(network.module.graph.nodes)
    with torch.no_grad():
        for label, batch in (("equal", 1), ("batch", 2)):
            given = [torch.cat([t] * batch) for t in inputs]
            try:
                wanted = _leaves(plain(model(*given)))
            except Exception:
                row[label] = None
                continue
            try:
                got = _leaves(plain(network.module.eval()(*given)))
                row[label] = all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
            except Exception as error:
                row[label] = f"{type(error).__name__}"
    try:
        emit(network)
        row["emits"] = True
    except Exception as error:
        row["emits"] = str(error).split("\n")[0][:120]
    return row


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


def apart(kind: str, name: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.capture_sweep", "--one", kind, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"kind": kind, "name": name, "error": f"more than {LIMIT} s"}
    try:
        return {"kind": kind, "name": name} | json.loads(done.stdout.strip().split("\n")[-1])
    except (ValueError, IndexError):
        return {
            "kind": kind,
            "name": name,
            "error": (done.stderr.strip().split("\n") or [""])[-1][:160] or str(done.returncode),
        }


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--one"]:
        try:
            print(json.dumps(one(arguments[1], arguments[2])))
        except Exception as error:
            text = " ".join(str(error).split())
            print(json.dumps({"error": f"{type(error).__name__}: {text}"[:400]}))
        return
    jobs = int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 2
    kinds = [a for a in arguments if a in ("tv", "timm", "hf")] or ["tv", "timm", "hf"]
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        names = names_of(kind)
        with ThreadPoolExecutor(jobs) as pool:
            for row in pool.map(lambda n, k=kind: apart(k, n), names):
                rows.append(row)
                print(row, flush=True)
        mine = [r for r in rows if r["kind"] == kind]
        head = (
            "| model | front-end | nodes | equal | batch 2 | same keys | standalone | s |\n|---|---|---|---|---|---|---|---|\n"
        )
        lines = [
            f"| {r['name']} | {r['front_end']} | {r['nodes']} | {r['equal']} | {r['batch']} | {r['keys']} | {r['emits']} | {r['seconds']:.2f} |"
            if "error" not in r
            else f"| {r['name']} | {r['error']} | | | | | | |"
            for r in mine
        ]
        good = sum(r.get("equal") is True and r.get("batch") in (True, None) for r in mine)
        title = f"# Capture: {kind}\n\n{good} of {len(mine)} captured, equal to eager bit for bit, and running at another batch.\n\n"
        save(f"capture_{kind}", {"rows": mine, "good": good, "of": len(mine)}, title + head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
