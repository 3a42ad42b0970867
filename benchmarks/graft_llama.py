"""A Llama-shaped model of 135 M parameters, its heads and MLPs pruned, as its own class: time, peak memory, and whether all agree.

    python -m benchmarks.graft_llama [--layers 30] [--amount 20]

Random weights. The sizes are those of SmolLM-135M. Seconds are of the processor (user and system); memory is the peak of the process, after
each step. Written to results/graft_llama.json and .md.
"""

from __future__ import annotations

import argparse
import copy
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import netxform as nx
from benchmarks.machine import save

SIZES = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
         "max_position_embeddings": 2048, "tie_word_embeddings": True}  # fmt: skip


class Steps:
    """Steps with their seconds and the peak of memory after each."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        out = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.rows.append({"step": name, "cpu_s": round(time.process_time() - start, 1), "peak_mib": round(peak)})
        print(self.rows[-1], flush=True)
        return out


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--amount", type=int, default=20)
    given = parser.parse_args()
    import transformers

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps = Steps()
    config = transformers.LlamaConfig(num_hidden_layers=given.layers, **SIZES)
    model = steps("made", lambda: transformers.LlamaForCausalLM(config).eval())
    ids = torch.randint(0, SIZES["vocab_size"], (2, 16))
    spec = "; ".join(f"prune ** by magnitude amount={given.amount}% along={kind}" for kind in ("heads", "mlp"))
    result = steps(f"applied: {spec}", lambda: nx.apply(spec, model=model, example_inputs=ids))
    made: Any = steps("grafted", result.graft)
    ask = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    words = steps("generate, 16 words for 2", lambda: made.generate(ids, **ask))
    with tempfile.TemporaryDirectory() as folder:
        steps("save_pretrained", lambda: made.save_pretrained(folder))
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
        read = lambda: transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)  # noqa: E731
        back: Any = copy.deepcopy(steps("from_pretrained", read).eval())
    with torch.no_grad():
        found = {
            "graph_is_graft": torch.equal(result.model(ids).logits, made(ids).logits),
            "tensors_read_again": all(torch.equal(t, back.state_dict()[n]) for n, t in made.state_dict().items()),
            "logits_read_again": torch.equal(made(ids).logits, back(ids).logits),
            "words_read_again": torch.equal(words, back.generate(ids, **ask)),
            "words_without_cache": torch.equal(words, made.generate(ids, use_cache=False, **ask)),
        }
    heads = [p.q_proj.out_features // p.head_dim for n, p in made.named_modules() if n.endswith("self_attn")]
    facts = {
        "parameters": [parameters(model), parameters(made)],
        "heads": heads,
        "folder_mib": round(size / 2**20),
        "class": type(made).__name__,
    }
    rows = [f"| {r['step']} | {r['cpu_s']} | {r['peak_mib']:,} |" for r in steps.rows]
    table = ["# A Llama-shaped model, pruned, as its own class", "",
             f"{facts['parameters'][0]:,} → {facts['parameters'][1]:,} parameters; query heads by layer: {', '.join(map(str, heads))} (of 9).", "",
             "| step | CPU s | peak MiB |", "|---|---|---|", *rows, "", "| the same | |", "|---|---|",
             *(f"| {k.replace('_', ' ')} | {'yes' if v else '**no**'} |" for k, v in found.items())]  # fmt: skip
    print(found, facts)
    save("graft_llama", {"steps": steps.rows, "same": found} | facts, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
