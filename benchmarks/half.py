"""EfficientNet-Lite0 with its real weights in half precision, and with its classifier in int8: size, the bound that was stated, what was measured on photos.

    python -m benchmarks.half [--crops 200]

Needs `python -m benchmarks.fetch_lite0`. Photos: those of scikit-image or scikit-learn that are installed; crops of them, and
Fashion-MNIST where it is installed (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import netxform as nx
from benchmarks.machine import save

WEIGHTS = Path(__file__).parent.parent / "specs" / "lite0.safetensors"
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


def photos() -> list[np.ndarray]:
    found: list[np.ndarray] = []
    try:
        from skimage import data

        found += [data.chelsea(), data.coffee(), data.astronaut()]
    except ImportError:
        pass
    from sklearn.datasets import load_sample_images

    return found + [np.asarray(i) for i in load_sample_images().images]


def prepared(image: np.ndarray, size: int = 224) -> Tensor:
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    edge = min(x.shape[2:])
    top, left = (x.shape[2] - edge) // 2, (x.shape[3] - edge) // 2
    x = x[:, :, top : top + edge, left : left + edge]
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True)
    return (x.clamp(0, 1) - 0.5) / 0.5


def inputs(crops: int) -> dict[str, Tensor]:
    images = photos()
    rng = np.random.default_rng(0)
    out = {"photos": torch.cat([prepared(i) for i in images])}
    cut: list[Tensor] = []
    for k in range(crops):
        image = images[k % len(images)]
        side = int(min(image.shape[:2]) * rng.uniform(0.35, 0.9))
        y, x = (int(rng.integers(n - side + 1)) for n in image.shape[:2])
        cut.append(prepared(image[y : y + side, x : x + side]))
    out["crops of photos"] = torch.cat(cut)
    if FASHION.exists():
        with gzip.open(FASHION) as file:
            raw = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28, 28)[:crops]
        out["Fashion-MNIST"] = torch.cat([prepared(np.repeat(i[:, :, None], 3, 2)) for i in raw])
    return out


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crops", type=int, default=200)
    options = parser.parse_args()
    head = 'model net = timm.tf_efficientnet_lite0() weights="lite0.safetensors"\n'
    original: Any = nx.apply(head + "freeze conv_stem", root=WEIGHTS.parent).model.eval()
    given = inputs(options.crops)
    rows: list[dict[str, Any]] = []
    exact = {name: torch.cat([original(part) for part in x.split(16)]) for name, x in given.items()}
    for statement in ("cast float16", "cast float16 keep [norms, classifier]", "cast bfloat16", "cast int8"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "b"
            result = nx.apply(head + statement, root=WEIGHTS.parent, out=out)
            size = (out / "model.safetensors").stat().st_size
            held = nx.verify(out).held
        entry = result.certificate["statements"][0]
        values = result.plan.steps[0].choice.values.entries()
        bound = next(c["bound"] for c in entry["claims"] if c["kind"] == "within bound")
        row: dict[str, Any] = {
            "statement": statement,
            "verified": held,
            "file": size,
            "file of float32": WEIGHTS.stat().st_size,
            "share": size / WEIGHTS.stat().st_size,
            "subnormal": values.get("subnormal"),
            "zeroed": values.get("zeroed"),
            "numbers": values["numbers"],
            "bound": bound,
            "measured on probes": next(c["measured"] for c in entry["claims"] if c["kind"] == "within bound"),
        }
        for name, x in given.items():
            found, wanted = torch.cat([result.model.eval()(part) for part in x.split(16)]), exact[name]
            row[name] = {
                "samples": len(x),
                "relative change": float((found - wanted).abs().max() / wanted.abs().max()),
                "top-1 agreement": float((found.argmax(1) == wanted.argmax(1)).float().mean()),
            }
        rows.append(row)
        print(row, flush=True)
    names = list(given)
    table = "EfficientNet-Lite0, ImageNet weights; relative change of the logits, and top-1 agreement with float32.\n\n"
    table += f"| statement | file | bound | probes | {' | '.join(names)} | below normal, zero |\n|{'---|' * (5 + len(names))}\n"
    for r in rows:
        seen = " | ".join(f"{r[n]['relative change']:.1e}, {r[n]['top-1 agreement']:.3f} of {r[n]['samples']}" for n in names)
        small = "" if r["zeroed"] is None else f"{r['subnormal']}, {r['zeroed']} of {r['numbers']:,}"
        table += f"| {r['statement']} | {100 * r['share']:.1f} % | {r['bound']:.1e} | {r['measured on probes']:.1e} | {seen} | {small} |\n"
    save("half", {"rows": rows}, table)


if __name__ == "__main__":
    main()
