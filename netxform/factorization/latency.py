"""How long a layer takes on this machine: the gate of `auto`, and the cost of a latency budget.

A time is measured once and kept in the user's cache folder, under everything it depends on (layers, shape, versions, processor,
threads): choices that rest on it are the same when the spec runs again on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from netxform.graph.building import build
from netxform.graph.layer_spec import Invocation, Layer
from netxform.graph.meta import evaluating
from netxform.graph.network import Network, example


def seconds(layers: Sequence[Invocation], shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> float:
    """The median time of one call of the layers in sequence, on an input of `shape`, with the threads that are set."""
    key = _key(layers, shape, dtype)
    known = _read(key)
    if known is not None:
        return known
    found = _measure(layers, shape, dtype)
    _write(key, found)
    return found


def whole_seconds(network: Network, batch: int) -> float:
    """The median time of one call of the whole network, in eval mode."""
    shapes = [(batch, *i.shape[1:]) for i in network.inputs]
    parts = [f"{n}:{tuple(t.shape)}" for n, t in network.module.state_dict().items()]
    code = Invocation(network.module.code, tuple(parts))
    key = _key([code], tuple(d for s in shapes for d in s), torch.float32)
    known = _read(key)
    if known is not None:
        return known
    with evaluating(network.module), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        inputs = example(network, "cpu", batch)
        found = _median(lambda: network.module(*inputs))
    _write(key, found)
    return found


def _measure(layers: Sequence[Invocation], shape: tuple[int, ...], dtype: torch.dtype) -> float:
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        chain = nn.Sequential(*(build(Layer(str(i), c), cpu, dtype) for i, c in enumerate(layers))).eval()
        whole = bool(layers) and layers[0].name == "Embedding"
        x: Tensor = torch.zeros(shape, dtype=torch.int64) if whole else torch.randn(shape, dtype=dtype)
        return _median(lambda: chain(x))


def _median(call: Callable[[], object]) -> float:
    """After one call to warm up: at least three calls, and up to fifty in a tenth of a second."""
    call()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (len(times) < 50 and time.perf_counter() - start < 0.1):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return median(times)


@lru_cache(maxsize=1)
def _machine() -> tuple[str, ...]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        processor = platform.processor()
    return platform.machine(), processor, torch.__version__, str(os.cpu_count())


def _key(layers: Sequence[Invocation], shape: tuple[int, ...], dtype: torch.dtype) -> str:
    parts = (*_machine(), str(torch.get_num_threads()), str(dtype), str(shape), *(str(c) for c in layers))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _folder() -> Path:
    return user_cache_path("netxform") / "latency"


def _read(key: str) -> float | None:
    try:
        return float(json.loads((_folder() / f"{key}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(key: str, value: float) -> None:
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{key}.{os.getpid()}.part"
        part.write_text(json.dumps(value))
        os.replace(part, folder / f"{key}.json")
    except OSError:
        return  # a cache that cannot be written costs time, not results
