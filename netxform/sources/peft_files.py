"""Adapters in the format of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.

    our `fc1_lora.A.weight`, `fc1_lora.B.weight`   ↔   its `base_model.model.fc1.lora_A.weight`, `….lora_B.weight`
    our `fc1_lora.M.weight`                        ↔   its `base_model.model.fc1.lora_magnitude_vector`
    our `fc1_ia3.weight`                           ↔   its `base_model.model.fc1.ia3_l`

Of an Embedding both tables are stored turned: `lora_embedding_A` is (r, rows), `lora_embedding_B` is (width, r). Factors of
inputs are those of its `feedforward_modules`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from netxform.errors import NOWHERE, Span, fail
from netxform.graph.adapters import Adapter, adapters
from netxform.graph.network import Network
from netxform.sources.state_dicts import with_numbers

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BEFORE = "base_model.model."
_PARTS = r"(?:lora_(?P<table>embedding_)?(?P<part>[AB]|magnitude_vector)|(?P<factors>ia3_l))"
_NAME = re.compile(rf"(?P<path>.+)\.{_PARTS}(?:\.default)?(?:\.weight)?")
_ALONE = (("fan_in_fan_out", False), ("lora_bias", False), ("alora_invocation_tokens", None))
Parts: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Factors:
    """What is trained of one layer, as it lies in the file: `A` and `B`, with `M` for DoRA, or the factors `l` of (IA)³.

    `scale`: what the product of `A` and `B` is multiplied by.
    """

    parts: Parts
    scale: float = 1.0
    embedding: bool = False
    side: str = "output"

    @property
    def rank(self) -> int:
        """The inner size of the product."""
        return int(self.parts["A"].shape[0])

    def sentence(self) -> str:
        """The form and settings of the adapter that takes it, as a spec says them."""
        if "l" in self.parts:
            return "ia3" + (" side=input" if self.side == "input" else "")
        return f"lora rank={self.rank} alpha={self.rank * self.scale:g}" + (" dora=true" if "M" in self.parts else "")


def read(folder: Path, span: Span = NOWHERE) -> dict[str, Factors]:
    """What is trained, by the path of its layer. Raises NetxformError X0847 (no adapter of this form), X0808 (damaged)."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise fail("X0847", f"`{folder.name}` holds no `{name}`", span, "no adapter of PEFT")
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        held = with_numbers(folder / WEIGHTS)
        kind = config.get("peft_type")
        default_alpha = float(config["lora_alpha"]) if kind == "LORA" else 1.0
        root = bool(config.get("use_rslora"))
        inputs = config.get("feedforward_modules") or ()
        patterns = {str(k): float(v) for k, v in (config.get("alpha_pattern") or {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise fail("X0808", f"the adapter `{folder.name}` cannot be read: {error}", span, "damaged") from error
    if kind not in ("LORA", "IA3"):
        raise fail("X0847", f"`{folder.name}`: `peft_type` is {kind!r}", span, "read are LORA and IA3")
    for key, wanted in _ALONE:
        if config.get(key, wanted) not in (wanted, None):
            raise fail("X0847", f"`{folder.name}`: `{key}` is {config[key]!r}", span, f"read is {wanted!r} alone")
    parts: dict[str, Parts] = {}
    tables: set[str] = set()
    for name, tensor in held.items():
        found = _NAME.fullmatch(name.removeprefix(_BEFORE))
        if found is None or (kind == "IA3") != (found["factors"] is not None):
            raise fail("X0847", f"`{folder.name}` holds `{name}`, which is no factor of an adapter", span, "what is it for?")
        part = "l" if found["factors"] else "M" if len(found["part"]) > 1 else found["part"]
        parts.setdefault(found["path"], {})[part] = tensor
        if found["table"]:
            tables.add(found["path"])
    dora = bool(config.get("use_dora"))
    if kind == "IA3":
        return {p: _side(p, own["l"], inputs, span) for p, own in parts.items()}
    return {p: _factors(p, own, p in tables, _alpha(patterns, p, default_alpha), root, dora, span) for p, own in parts.items()}


def _side(path: str, factors: Tensor, inputs: Any, span: Span) -> Factors:
    """The factors of one layer, and where they belong: PEFT names modules by their ends."""
    if sum(n > 1 for n in factors.shape) > 1:
        raise fail("X0808", f"the factors of `{path}` have the shape {tuple(factors.shape)}", span, "damaged")
    if isinstance(inputs, str):
        raise fail("X0847", f"`feedforward_modules` is a regular expression: {inputs!r}", span, "read are lists of names")
    before = any(path == i or path.endswith(f".{i}") for i in map(str, inputs))
    return Factors({"l": factors}, side="input" if before else "output")


def _alpha(patterns: Mapping[str, float], path: str, default: float) -> float:
    return next((v for k, v in patterns.items() if re.fullmatch(rf"(.*\.)?{k}", path)), default)


def _factors(path: str, own: Parts, table: bool, alpha: float, root: bool, dora: bool, span: Span) -> Factors:
    """What belongs to one layer, checked. Raises NetxformError X0808."""
    wanted = {"A", "B", "M"} if dora else {"A", "B"}
    if set(own) != wanted or own["A"].shape[0] != own["B"].shape[1]:
        raise fail("X0808", f"the factors of `{path}` do not belong together", span, "damaged")
    rank = int(own["A"].shape[0])
    return Factors(own, alpha / (rank**0.5 if root else rank), table)


def tensors_for(network: Network, found: Mapping[str, Factors], span: Span = NOWHERE) -> dict[str, Tensor]:
    """The factors under the names that the network's adapters have.

    Raises NetxformError X0847 where the network has no adapter for a layer of the file, or one of another rank or scale.
    """
    known = {a.path: a for a in adapters(network)}
    lost = [p for p in found if p not in known]
    if lost:
        common = Counter(f.sentence() for f in found.values()).most_common(1)[0][0]
        paths = " | ".join(found) if len(found) <= 4 else " | ".join(sorted({f"**.{p.rpartition('.')[2]}" for p in found}))
        raise fail(
            "X0847",
            f"{len(lost)} of {len(found)} layers of the file have no adapter here: {', '.join(lost[:4])}",
            span,
            "nothing to put them into",
            helps=(f"before this statement: `adapt {paths} with {common}`",),
        )
    out: dict[str, Tensor] = {}
    for path, factors in found.items():
        own = known[path]
        mine = {n: network.module.get_parameter(n) for n in _names(own).values()}
        theirs = {n: _as_held(factors, part, mine[n]) for part, n in _names(own).items() if part in factors.parts}
        fits = theirs.keys() == mine.keys() and len(theirs) == len(factors.parts) and own.side == factors.side
        fits = fits and abs(own.scale - factors.scale) <= 1e-6 * factors.scale
        if not fits or any(t.shape != mine[n].shape for n, t in theirs.items()):
            raise fail(
                "X0847",
                f"`{path}` has another adapter in the file than here: {factors.sentence()}",
                span,
                "does not fit",
                helps=(f"adapt it so: `adapt {path} with {factors.sentence()}`",),
            )
        out |= theirs
    return out


def _names(adapter: Adapter) -> dict[str, str]:
    """The parameters of an adapter, by the part that they are."""
    if adapter.kind == "ia3":
        return {"l": f"{adapter.name}.weight"}
    return {p.rpartition(".")[2]: f"{p}.weight" for p in adapter.parts}


def _as_held(factors: Factors, part: str, mine: Tensor) -> Tensor:
    """A tensor of the file in the shape that the network holds it in."""
    tensor = factors.parts[part]
    if part == "A" and factors.embedding:
        return tensor.T.contiguous()
    return tensor.reshape(mine.shape) if part in "Ml" and tensor.numel() == mine.numel() else tensor


def write(network: Network, folder: Path) -> None:
    """Write the adapters of the network apart. Raises NetxformError X0846 where it has none."""
    known = adapters(network)
    if not known:
        raise fail("X0846", "the network has no adapters", helps=("`adapt … with lora` puts some in",))
    kinds = {a.kind for a in known}
    if len(kinds) > 1:
        raise fail(
            "X0847",
            f"a folder of PEFT holds adapters of one kind, and here are {', '.join(sorted(kinds))}",
            helps=("`merge` those of one kind first",),
        )
    module = network.module
    held: dict[str, Tensor] = {}
    for a in known:
        layer: Any = module.get_submodule(a.path)
        if why := _beyond(a, layer):
            helps = ("keep the bundle, which holds it, or `merge` it first",)
            raise fail("X0847", f"PEFT cannot hold the adapter of `{a.path}`: {why}", helps=helps)
        table = isinstance(layer, nn.Embedding)
        for part, name in _names(a).items():
            tensor, key = module.get_parameter(name).detach().cpu(), f"{_BEFORE}{a.path}"
            flat = (1, -1) if a.side == "input" else (-1, 1)
            channels = (1, -1, *[1] * (layer.weight.dim() - 2)) if layer.weight.dim() > 2 else (-1,)
            match part:
                case "l":
                    held[f"{key}.ia3_l"] = tensor.reshape(channels if layer.weight.dim() > 2 else flat)
                case "M":
                    held[f"{key}.lora_magnitude_vector"] = tensor.reshape(channels)
                case _ if table:
                    held[f"{key}.lora_embedding_{part}"] = tensor.T if part == "A" else tensor
                case _:
                    held[f"{key}.lora_{part}.weight"] = tensor
    folder.mkdir(parents=True)
    save_file({n: t.contiguous().clone() for n, t in sorted(held.items())}, folder / WEIGHTS, {"format": "pt"})
    config = _config_of_factors(known) if kinds == {"ia3"} else _config(network, known)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _beyond(adapter: Adapter, layer: Any) -> str:
    """Why PEFT (0.21) would compute something else with the file, or refuse it."""
    if adapter.kind != "ia3" and any(n != 1 for n in getattr(layer, "dilation", ())):
        return "it leaves out the dilation of convolutions"
    if adapter.kind == "ia3" and isinstance(layer, nn.Conv1d):
        return "it knows no (IA)³ of convolutions in one dimension"
    return ""


def _dropout(module: nn.Module, known: tuple[Adapter, ...]) -> float:
    held = [cast(Any, m).p for a in known if (m := dict(module.named_modules()).get(f"{a.name}.dropout")) is not None]
    return float(max(held, default=0.0))


_COMMON: dict[str, object] = {
    "task_type": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
    "fan_in_fan_out": False,
    "modules_to_save": None,
}


def _config(network: Network, known: tuple[Adapter, ...]) -> dict[str, object]:
    """The settings as PEFT reads them: the commonest rank and alpha, and for other layers their own."""
    sizes = {a.path: network.module.get_parameter(f"{a.name}.B.weight").shape[1] for a in known}
    ranks = {p: int(r) for p, r in sizes.items()}
    alphas = {a.path: a.scale * ranks[a.path] for a in known}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return _COMMON | {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": _dropout(network.module, known),
        "target_modules": sorted(ranks),
        "rank_pattern": {p: r for p, r in sorted(ranks.items()) if r != rank},
        "alpha_pattern": {p: a for p, a in sorted(alphas.items()) if a != alpha},
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": known[0].kind == "dora",
    }


def _config_of_factors(known: tuple[Adapter, ...]) -> dict[str, object]:
    """The settings of (IA)³ as PEFT reads them."""
    return _COMMON | {
        "peft_type": "IA3",
        "target_modules": sorted(a.path for a in known),
        "feedforward_modules": sorted(a.path for a in known if a.side == "input"),
        "init_ia3_weights": True,
    }
