"""A folder of many images through the training loop's loader, beside a bare DataLoader: throughput and memory.

    python -m benchmarks.loading [FILES [WORKERS [PASSES]]]

Both decode the same JPEG files (their content differs, their sizes too) to 3 x 64 x 64 with the normalisation of ImageNet in as many
workers, in turn, in one process: `training.data.steps` on `folder(…)` as a spec declares it, and `DataLoader(ImageFolder(…))` of
torchvision, shuffled. Per pass images a second, by the clock; the ratio is the median over pairs of passes. Memory: the resident
set of the process and its workers, before and at most during the passes, and what a tenth of the files takes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import save
from netxform.sources.data import load_data
from netxform.sources.data.source import IMAGENET
from netxform.sources.trust import Trust
from netxform.syntax.parse import parse
from netxform.training.data import steps

BATCH = 64


def make(folder: Path, files: int) -> None:
    """Ten classes of JPEG files, each of its own size and content."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(files):
        place = folder / f"class{i % 10}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96 + i % 32, 88 + i % 24)).save(place, quality=85)


def ours(folder: Path, workers: int) -> tuple[Any, str]:
    text = f'data d = folder("{folder.name}", size=64, normalize=imagenet, workers={workers}, val=0, test=0)'
    data = load_data(parse(text).statements[0], Trust(folder.parent), 0)  # type: ignore[arg-type]
    return data, "; ".join(data.said)


def theirs(folder: Path, workers: int) -> Any:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    seen = v2.Compose([v2.Resize(64), v2.CenterCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize(IMAGENET.mean, IMAGENET.std)])  # fmt: skip
    return DataLoader(ImageFolder(str(folder), seen), BATCH, shuffle=True, num_workers=workers)


def resident() -> int:
    """Bytes that this process and its children hold for themselves (proportional set size: what is shared is counted once)."""
    total = 0
    for pid in [os.getpid(), *_children(os.getpid())]:
        try:
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(r.split()[1]) * 1024 for r in rows if r.startswith("Pss:"))
    return total


def _children(pid: int) -> list[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(p) for p in found]


class Watch:
    """The most memory while it is open."""

    def __enter__(self) -> Watch:
        self.most, self._open = resident(), True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while self._open:
            self.most = max(self.most, resident())
            time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._thread.join()


def timed(run: Callable[[], int]) -> float:
    start = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - start)


def through(data: Any, epoch: int) -> int:
    return sum(batch.x.shape[0] for (batch,) in steps(data.train, BATCH, shuffle=(0, epoch)))


def main(files: int = 10_000, workers: int = 2, passes: int = 3) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "images"
        make(folder, files)
        start = time.perf_counter()
        data, said = ours(folder, workers)
        opened = time.perf_counter() - start
        before = resident()
        bare = theirs(folder, workers)
        rows: list[tuple[float, float]] = []
        most = {"netxform": 0, "bare": 0}
        for epoch in range(passes):
            speeds = []
            for name, run in (("netxform", lambda e=epoch: through(data, e)), ("bare", lambda: sum(len(x) for x, _ in bare))):
                with Watch() as watch:
                    speeds.append(timed(run))
                most[name] = max(most[name], watch.most)
            rows.append((speeds[0], speeds[1]))
            print([round(v) for v in speeds], flush=True)
        few = Path(held) / "few"
        make(few, files // 10)
        small = ours(few, workers)[0]
        with Watch() as watch:
            through(small, 0)
        found = {
            "files": files, "workers": workers, "images_per_second": [{"netxform": a, "bare": b} for a, b in rows],
            "ratio": statistics.median(a / b for a, b in rows), "seconds_to_open": opened, "said": said,
            "memory": {"before": before, "most": most, "most_of_a_tenth": watch.most},
        }  # fmt: skip
    mb = {k: round(v / 1e6) for k, v in {"before": before, **most, "tenth": watch.most}.items()}
    text = (
        f"# {files:,} image files\n\n{said}\n\n{workers} workers, {passes} passes each: netxform / bare DataLoader = "
        f"{found['ratio']:.3f} in images a second. Opened (every header read) in {opened:.1f} s. Memory of the process and its "
        f"workers: {mb['before']} MB before, at most {mb['netxform']} MB (bare: {mb['bare']} MB); {mb['tenth']} MB with a tenth "
        "of the files.\n"
    )
    save("loading", found, text)
    print(text)


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:4]))
