"""Adapters in the format of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

    our `fc1_lora.A.weight`, `fc1_lora.B.weight`   ↔   its `base_model.model.fc1.lora_A.weight`, `….lora_B.weight`

Of an Embedding both tables are stored turned: `lora_embedding_A` is (r, rows), `lora_embedding_B` is (width, r).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from netxform.errors import NOWHERE, Span, fail
from netxform.graph.adapters import Adapter, adapters
from netxform.graph.network import Network

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BEFORE = "base_model.model."
_NAME = re.compile(r"(?P<path>.+)\.lora_(?P<table>embedding_)?(?P<part>[AB])(?:\.default)?(?:\.weight)?")


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of one layer as they lie in the file, and what their product is multiplied by."""

    A: Tensor
    B: Tensor
    scale: float
    embedding: bool

    @property
    def rank(self) -> int:
        """The inner size of the product."""
        return int(self.A.shape[0])


def read(folder: Path, span: Span = NOWHERE) -> dict[str, Factors]:
    """The factors by the path of their layer. Raises NetxformError X0847 (no adapter of this form), X0808 (damaged)."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise fail("X0847", f"`{folder.name}` holds no `{name}`", span, "no adapter of PEFT")
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        held = load_file(folder / WEIGHTS)
        default_alpha, root = float(config["lora_alpha"]), bool(config.get("use_rslora"))
        patterns = {str(k): float(v) for k, v in (config.get("alpha_pattern") or {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise fail("X0808", f"the adapter `{folder.name}` cannot be read: {error}", span, "damaged") from error
    for key, wanted in (("peft_type", "LORA"), ("use_dora", False), ("fan_in_fan_out", False), ("lora_bias", False)):
        if config.get(key, wanted) not in (wanted, None):
            raise fail("X0847", f"`{folder.name}`: `{key}` is {config[key]!r}", span, f"read is {wanted!r} alone")
    parts: dict[str, dict[str, Tensor]] = {}
    tables: set[str] = set()
    for name, tensor in held.items():
        found = _NAME.fullmatch(name.removeprefix(_BEFORE))
        if found is None:
            raise fail("X0847", f"`{folder.name}` holds `{name}`, which is no factor of an adapter", span, "what is it for?")
        parts.setdefault(found["path"], {})[found["part"]] = tensor
        if found["table"]:
            tables.add(found["path"])
    out: dict[str, Factors] = {}
    for path, pair in parts.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise fail("X0808", f"the factors of `{path}` do not belong together", span, "damaged")
        alpha = next((v for k, v in patterns.items() if re.fullmatch(rf"(.*\.)?{k}", path)), default_alpha)
        rank = int(pair["A"].shape[0])
        out[path] = Factors(pair["A"], pair["B"], alpha / (rank**0.5 if root else rank), path in tables)
    return out


def tensors_for(network: Network, found: Mapping[str, Factors], span: Span = NOWHERE) -> dict[str, Tensor]:
    """The factors under the names that the network's adapters have.

    Raises NetxformError X0847 where the network has no adapter for a layer of the file, or one of another rank or scale.
    """
    known = {a.path: a for a in adapters(network)}
    lost = [p for p in found if p not in known]
    if lost:
        ranks = Counter((f.rank, f.scale) for f in found.values()).most_common(1)[0][0]
        paths = " | ".join(found) if len(found) <= 4 else " | ".join(sorted({f"**.{p.rpartition('.')[2]}" for p in found}))
        raise fail(
            "X0847",
            f"{len(lost)} of {len(found)} layers of the file have no adapter here: {', '.join(lost[:4])}",
            span,
            "nothing to put them into",
            helps=(f"before this statement: `adapt {paths} with lora rank={ranks[0]} alpha={ranks[0] * ranks[1]:g}`",),
        )
    out: dict[str, Tensor] = {}
    for path, factors in found.items():
        own = known[path]
        pair = _own(factors)
        for part, tensor in pair.items():
            mine = network.module.get_parameter(f"{own.name}.{part}.weight")
            if mine.shape != tensor.shape or abs(own.scale - factors.scale) > 1e-6 * factors.scale:
                raise fail(
                    "X0847",
                    f"`{path}` has an adapter of rank {factors.rank} and scale {factors.scale:g} in the file, and another here",
                    span,
                    "does not fit",
                    helps=(f"adapt it with `rank={factors.rank} alpha={factors.rank * factors.scale:g}`",),
                )
            out[f"{own.name}.{part}.weight"] = tensor
    return out


def _own(factors: Factors) -> dict[str, Tensor]:
    return {"A": factors.A.T.contiguous() if factors.embedding else factors.A, "B": factors.B}


def write(network: Network, folder: Path) -> None:
    """Write the adapters of the network apart. Raises NetxformError X0846 where it has none."""
    known = adapters(network)
    if not known:
        raise fail("X0846", "the network has no adapters", helps=("`adapt … with lora` puts some in",))
    module = network.module
    held: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for a in known:
        A, B = (module.get_parameter(f"{a.name}.{part}.weight").detach().cpu() for part in ("A", "B"))
        embedding = isinstance(module.get_submodule(a.path), nn.Embedding)
        ranks[a.path] = int(A.shape[1] if embedding else A.shape[0])
        if embedding:
            held |= {f"{_BEFORE}{a.path}.lora_embedding_A": A.T, f"{_BEFORE}{a.path}.lora_embedding_B": B}
        else:
            held |= {f"{_BEFORE}{a.path}.lora_A.weight": A, f"{_BEFORE}{a.path}.lora_B.weight": B}
    folder.mkdir(parents=True)
    save_file({n: t.contiguous().clone() for n, t in sorted(held.items())}, folder / WEIGHTS, {"format": "pt"})
    config = _config(known, ranks, _dropout(module, known))
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _dropout(module: nn.Module, known: tuple[Adapter, ...]) -> float:
    held = [cast(Any, m).p for a in known if (m := dict(module.named_modules()).get(f"{a.name}.dropout")) is not None]
    return float(max(held, default=0.0))


def _config(known: tuple[Adapter, ...], ranks: Mapping[str, int], dropout: float) -> dict[str, object]:
    """The settings as PEFT reads them: the commonest rank and alpha, and for other layers their own."""
    alphas = {a.path: a.scale * ranks[a.path] for a in known}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": dropout,
        "target_modules": sorted(ranks),
        "rank_pattern": {p: r for p, r in sorted(ranks.items()) if r != rank},
        "alpha_pattern": {p: a for p, a in sorted(alphas.items()) if a != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
