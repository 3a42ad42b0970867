"""Certificates of sample specs read again by plain torch, numpy and scipy: this file does not import netxform.

    python -m benchmarks.certificate_by_hand BUNDLE …        of bundles that are there
    python -m benchmarks.certificate_by_hand --specs NAME …  applies the specs first, in a process of its own

Every claim that can be is computed here once more, from the files of the folder and textbook formulas, and compared with what
the certificate says. The table says how many claims there are, how many of them were computed, and how many differ.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

QUICK = """first half int8 heads rates obd l1 wider factorize forest low ensemble shared lora sentence decompose transfer vectors
    trajectories skipthought similar""".split()
"""The specs that run without a download or a file that the repository does not hold."""


class Elsewhere(Exception):
    """Why this file does not compute a claim."""


class Folder:
    """A bundle, as its files say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.certificate: Any = json.loads((path / "certificate.json").read_text())
        self.plan: Any = json.loads((path / "plan.json").read_text())
        self.weights = load_file(path / "model.safetensors")
        held = load_file(path / "evidence.safetensors")
        with safe_open(path / "evidence.safetensors", "pt") as file:
            self.told: Any = json.loads(file.metadata()["netxform"])
        self.evidence = {n: held[k] for n, k in self.told["index"].items()}
        self.inputs = [self.evidence[f"input.{i}"] for i in range(sum(n.startswith("input.") for n in self.evidence))]
        self.model = self.load()
        self.named = dict(self.model.named_parameters(remove_duplicate=False))
        self.named |= dict(self.model.named_buffers(remove_duplicate=False))

    def load(self) -> nn.Module:
        """The model by the file that is written for people without netxform."""
        spec = importlib.util.spec_from_file_location(f"model_{abs(hash(self.path))}", self.path / "model.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.load()

    def kept(self, place: tuple[int, int]) -> list[Tensor]:
        """The reference of a claim."""
        name = "reference.{}.{}.".format(*place)
        found = {int(n.removeprefix(name)): t for n, t in self.evidence.items() if n.startswith(name)}
        return [found[k] for k in sorted(found)]

    def inner(self) -> set[str]:
        """The hashes of what every module gives on the probe inputs."""
        seen: set[str] = set()
        hooks = [
            m.register_forward_hook(lambda _, __, y: seen.update(hash_of(t) for t in flat(y)))  # pyright: ignore
            for m in self.model.modules()
        ]
        self.outputs()
        for hook in hooks:
            hook.remove()
        return seen

    def outputs(self, inputs: list[Tensor] | None = None) -> list[Tensor]:
        """The floating-point outputs, in order."""
        with torch.no_grad():
            return flat(self.model(*[t.clone() for t in inputs or self.inputs]))


def flat(value: Any) -> list[Tensor]:
    """The floating-point tensors of a result."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    return [t for v in (value.values() if isinstance(value, dict) else value) for t in flat(v)]


def hash_of(t: Tensor) -> str:
    """sha256 of shape, dtype and bytes."""
    out = hashlib.sha256(f"{tuple(t.shape)} {t.dtype}".encode())
    out.update(t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return out.hexdigest()


def bits(folder: Folder, names: list[str]) -> str:
    """sha256 of the named tensors."""
    out = hashlib.sha256()
    for n in sorted(names):
        out.update(n.encode() + (hash_of(folder.named[n]).encode() if n in folder.named else b"?"))
    return out.hexdigest()


def far(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference over the largest wanted value."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        raise Elsewhere("other outputs by now")
    pairs = zip(found, wanted, strict=True)
    return max(
        float(np.abs(a.double().numpy() - b.double().numpy()).max() / np.abs(b.double().numpy()).max()) for a, b in pairs
    )


def near(written: Any, found: float, relative: float = 1e-6, absolute: float = 0.0) -> bool:
    """Whether a number is written as it was found."""
    written = float(written)  # "inf" is how the certificate says it
    return written == found or abs(written - found) <= max(absolute, relative * max(abs(written), abs(found)))


# --- a claim a function: whether it is as written ---------------------------------------------------------------------


def values(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """Bit-equal values, where they are those of outputs."""
    kept = [folder.evidence["value.{}.{}.{}".format(*place, n)] for n in claim["detail"]["nodes"]]
    found = {hash_of(t) for t in folder.outputs()}
    if claim["in_force"]:
        missing = [t for t in kept if hash_of(t) not in found]
        inner = folder.inner() if missing else set[str]()
        missing = [t for t in missing if hash_of(t) not in inner]
        if missing and not any(t.shape == o.shape for t in missing for o in folder.outputs()):
            raise Elsewhere("no output, and the value of no module")
        return claim["measured"] == 0.0 and not missing
    outputs = folder.outputs()
    if [t.shape for t in outputs] != [t.shape for t in kept]:
        raise Elsewhere("no output by now")
    worst = max(float((a.to(b.dtype).double() - b.double()).abs().max()) for a, b in zip(outputs, kept, strict=True))
    return near(claim["measured"], worst)


def stored(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """The outputs against those before, and the tolerance from its parts."""
    kept, detail = folder.kept(place), claim["detail"]
    half = detail.get("distance from float64")
    wanted = kept[: len(kept) // 2] if half is not None else kept
    parts = [detail["own noise"], detail["one rounding"]]
    if half is not None:
        parts.append(half)
        if not near(half, far(kept[len(kept) // 2 :], wanted)):
            return False
    measured = far(folder.outputs(), wanted)
    right = near(claim["measured"], measured) and near(claim["bound"], detail.get("times", 10.0) * max(parts))
    return right and claim["held"] == (measured <= claim["bound"])


def within(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    measured = far(folder.outputs(), folder.kept(place))
    return near(claim["measured"], measured) and claim["held"] == (measured <= claim["bound"])


def links(part: nn.Module) -> list[nn.Module]:
    """The layers of a chain; an int8 layer as the matrix that it stands for."""
    if hasattr(part, "scale") and isinstance(getattr(part, "weight", None), Tensor):
        made = nn.Linear(part.weight.shape[1], part.weight.shape[0], False)
        made.weight = nn.Parameter(part.weight.double() * part.scale.double()[:, None])
        return [made]
    return list(part.children())


def rebuilt(chain: list[nn.Module], kernel: tuple[int, ...], inputs: int) -> Tensor:
    """The kernel (outputs, inputs, *kernel) that a chain stands for, from its answer to one-hot inputs, without strides."""
    if all(isinstance(link, nn.Linear) for link in chain):
        made = torch.eye(inputs, dtype=torch.float64)
        for link in chain:
            made = made @ link.weight.detach().double().T
        return made.T
    x = torch.zeros(inputs, inputs, *(2 * k - 1 for k in kernel), dtype=torch.float64)
    for i in range(inputs):
        x[(i, i, *(k - 1 for k in kernel))] = 1.0
    for link in chain:
        if not isinstance(link, nn.Conv2d) or link.groups != 1 or set(link.dilation) != {1}:
            raise Elsewhere("a chain of another kind")
        x = F.conv2d(x, link.weight.detach().double())
    return x.flip(2, 3).transpose(0, 1)


def layers(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """Every kernel against the one that was kept; every gain below the true largest singular value, and that below its bound."""
    kept, right, top = folder.kept(place), True, 0.0
    for row in claim["detail"]["layers"]:
        size = 3 if row.get("kept", True) else 2
        parts, kept = kept[:size], kept[size:]
        before = row.get("layer before")
        if size == 2 or before is None or before.get("groups", 1) != 1 or before.get("transposed"):
            raise Elsewhere("a layer of another kind")
        chain = links(folder.model.get_submodule(row["layer"]))
        old = parts[2].double()
        if before["kind"] == "Embedding":
            raise Elsewhere("an embedding")
        error = old - rebuilt(chain, tuple(before.get("kernel", ())), before["inputs"])
        right &= near(row["kernel"], float(np.linalg.norm(error.numpy())), 1e-6)
        if before["kind"] == "Linear":
            norm = float(np.linalg.svd(error.numpy(), compute_uv=False)[0])
            right &= row["gain"] <= norm * (1 + 1e-6)
            right &= not claim["in_force"] or norm <= row["gain bound"] * (1 + 1e-6)
        top = max(top, row["kernel"] / row["kernel bound"], row["gain"] / row["gain bound"])
    return right and near(claim["measured"], top) and claim["held"] == (top <= claim["bound"])


def moved(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """The change on the probe; the quantile, the mean and the agreement on data."""
    kept, detail, now = folder.kept(place), claim["detail"], folder.outputs()
    right = near(detail["on the probe"], far(now, kept[: len(now)]))
    if "data" not in detail:
        return right and near(claim["measured"], detail["on the probe"])
    if not detail.get("kept", True) or "worst case" in detail:
        raise Elsewhere("not all of it is kept")
    gaps, same = [], []
    rest = kept[len(now) :]
    for x, old in zip(rest[::2], rest[1::2], strict=True):
        a, b = old.double().flatten(1).numpy(), folder.outputs([x])[0].double().flatten(1).numpy()
        gaps += list(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1))
        same += list(a.argmax(1) == b.argmax(1))
    count, level = len(gaps), detail["level"]
    rank = math.ceil((count + 1) * level)
    quantile = sorted(gaps)[rank - 1] if rank <= count else math.inf
    right &= (
        near(claim["measured"], quantile) and near(detail["quantile"], quantile) and near(detail["mean"], float(np.mean(gaps)))
    )
    if "agreement" in detail:
        k, least = int(sum(same)), detail["agreement at least"]
        right &= near(detail["agreement"], k / count)
        # the lower end of the interval is where so many or more right ones have the probability 1 - level
        right &= least == 0.0 if k == 0 else near(float(binom.sf(k - 1, count, least)), 1 - level, 1e-6)
    return right


def loss(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """The change of the loss on the samples that are kept."""
    x, y, z = folder.kept(place)[:3]
    detail = claim["detail"]
    if detail["loss"] != "cross_entropy" or detail["output"] is not None:
        raise Elsewhere("another loss")

    def of(logits: Tensor) -> tuple[float, float]:
        p = logits.double().numpy()
        top = p.max(1, keepdims=True)
        logs = p - top - np.log(np.exp(p - top).sum(1, keepdims=True))
        return float(-logs[np.arange(len(y)), y.numpy()].mean()), float((p.argmax(1) == y.numpy()).mean())

    before, after = of(z), of(torch.cat([folder.outputs([b])[0] for b in x.split(128)]))
    right = near(detail["change on the samples kept"], after[0] - before[0], 1e-5, 1e-7)
    if detail["kept"] == claim["samples"]:
        right &= near(claim["measured"], after[0] - before[0], 1e-5, 1e-7) and near(detail["loss before"], before[0])
        right &= near(detail["accuracy before"], before[1]) and near(detail["accuracy after"], after[1])
    return right


def hashed(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """The hash of the tensors, and what can be counted."""
    right = bits(folder, claim["tensors"]) == claim["detail"]["digest"]
    there = [folder.named[n] for n in claim["tensors"]]
    if claim["kind"] == "rounded":
        right &= all(str(t.dtype).endswith(claim["dtype"]) and bool(t.isfinite().all()) for t in there)
        right &= claim["bound"] == {"float16": 2.0**-11, "bfloat16": 2.0**-8}[claim["dtype"]]
    if claim["kind"] in ("sparse", "zeros held"):
        right &= sum(int((t == 0).sum()) for t in there) >= claim["detail"]["zeros"]
    return right and claim["held"] and claim["measured"] <= claim["bound"]


def frozen(folder: Folder, claim: Any, place: tuple[int, int]) -> bool:
    """One step in train mode."""
    model = folder.load().train()
    before = {n: b.clone() for n, b in model.named_buffers() if n in claim["detail"]["buffers"]}
    total = sum((t.float().square().mean() for t in flat(model(*folder.inputs)) if t.requires_grad), start=torch.zeros(()))
    if total.requires_grad:
        total.backward()
    after, held = dict(model.named_buffers()), dict(model.named_parameters(remove_duplicate=False))
    count = sum(not torch.equal(after[n], b) for n, b in before.items())
    count += sum(held[n].grad is not None for n in claim["detail"]["parameters"])
    return claim["measured"] == count and claim["held"] == (count == 0)


HAND: dict[str, Callable[[Folder, Any, tuple[int, int]], bool]] = {
    "same value": values,
    "same outputs": values,
    "as stored": stored,
    "within bound": within,
    "layer errors": layers,
    "output error": moved,
    "loss change": loss,
    "frozen in training": frozen,
    **dict.fromkeys(("rounded", "quantized", "taken", "untouched", "sparse", "zeros held"), hashed),
}


APART = {"teacher": "the network that taught is not in the folder"}


def whole(folder: Folder) -> dict[str, bool]:
    """What the certificate says of the folder and of the network as a whole."""
    c = folder.certificate
    out = {"files": all(hashlib.sha256((folder.path / n).read_bytes()).hexdigest() == h for n, h in c["files"].items())}
    out["tensors"] = {n: hash_of(t) for n, t in folder.weights.items()} == c["tensors"]
    out["plan"] = hashlib.sha256(json.dumps(folder.plan, sort_keys=True).encode()).hexdigest() == c["plan"]
    bare = json.dumps({k: v for k, v in c.items() if k not in ("files", "tensors")}, indent=1, sort_keys=True) + "\n"
    out["certificate"] = hashlib.sha256(bare.encode()).hexdigest() == folder.told["certificate"]
    kept = [t for n, t in folder.evidence.items() if n.startswith("output.")]
    out["outputs"] = {hash_of(t) for t in folder.outputs()} == {hash_of(t) for t in kept if t.is_floating_point()}
    params = [*folder.model.parameters()]
    buffers = [*folder.model.buffers()]
    after = c["cost"]["after"]
    out["params"] = sum(p.numel() for p in params) + sum(b.numel() for b in buffers if b.dtype == torch.int8) == after["params"]
    out["bytes"] = sum(t.numel() * t.element_size() for t in (*params, *buffers)) == after["bytes"]
    # attention as the products that it is made of: torch does not count the fused kernels of the CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        folder.model(*[t[:1] for t in folder.inputs])
    out["MACs"] = counter.get_total_flops() // 2 == after["macs"]
    for score in c["scores"]:
        part, _, what = score["metric"].partition("_")
        if score["kept"] is None or what not in ("accuracy", "loss"):
            continue
        x, y = folder.evidence[f"held_out.{part}.x"], folder.evidence[f"held_out.{part}.y"]
        z = torch.cat([folder.outputs([b])[0] for b in x.split(256)])
        found = float((z.argmax(1) == y).double().mean()) if what == "accuracy" else float(F.cross_entropy(z.double(), y))
        out[score["metric"]] = near(score["kept"], found, 1e-5) and (
            score["superseded_by"] is not None or score["samples"] < score["of"] or near(score["value"], found, 1e-5)
        )
    return out


def by_hand(path: Path) -> dict[str, Any]:
    """One bundle: the claims that were computed here, those that were not and why, and those that differ."""
    folder = Folder(path)
    done, left, wrong = Counter[str](), Counter[str](), list[str]()
    superseded = 0
    for name, right in whole(folder).items():
        done["whole"] += 1
        wrong += [] if right else [name]
    for i, statement in enumerate(folder.certificate["statements"]):
        for j, claim in enumerate(statement["claims"]):
            claim = {
                k: float(v) if v in ("inf", "-inf", "nan") else v for k, v in claim.items() if not isinstance(v, list | dict)
            } | {k: v for k, v in claim.items() if isinstance(v, list | dict)}
            superseded += claim["superseded_by"] is not None
            kind = claim["kind"]
            try:
                if claim["unmeasured"]:
                    raise Elsewhere(claim["unmeasured"])
                if kind not in HAND:
                    raise Elsewhere(
                        APART.get(kind, "measured on a float64 copy of the network before, which is not in the folder")
                    )
                right = HAND[kind](folder, claim, (i, j))
                done[kind] += 1
                wrong += [] if right else [f"{statement['statement']}: {kind}"]
            except Elsewhere as error:
                left[f"{kind}: {error}"] += 1
    return {"computed": dict(done), "not computed": dict(left), "superseded": superseded, "differ": wrong}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    out = "| bundle | computed by hand | differ | superseded | not computed here |\n|---|---|---|---|---|\n"
    for name, r in rows.items():
        done = f"{sum(r['computed'].values())}: " + ", ".join(f"{k} ({n})" for k, n in sorted(r["computed"].items()))
        left = "; ".join(f"{k} ({n})" for k, n in r["not computed"].items())
        out += f"| {name} | {done} | {', '.join(r['differ']) or 'none'} | {r['superseded']} | {left} |\n"
    return out


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--specs", action="store_true")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as held:
        paths = [Path(n) for n in options.names]
        if options.specs:
            names = options.names or QUICK
            subprocess.run([sys.executable, "-m", "benchmarks.same_certificates", "make", held, *names], check=True)
            paths = [Path(held) / n for n in names]
        for path in paths:
            if path.is_dir():
                rows[path.name] = by_hand(path)
    print(table(rows))
    return int(any(r["differ"] for r in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
