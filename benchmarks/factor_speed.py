"""CPU seconds and error of the factorizations beside torch, scipy and tensorly, in one process on one thread.

python -m benchmarks.factor_speed [--small] [--only svd tucker cp tt] [--table]

`--only` puts its rows in the place of those that stand in the result; `--table` writes the table from them again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import tensorly as tl
import torch
from tensorly.decomposition import parafac, partial_tucker, tensor_train_matrix
from torch import Tensor

from benchmarks.machine import RESULTS, save, save_table
from netxform.linalg.svd import spectrum, tails, truncate
from netxform.linalg.tensor import cp, modes_of, tt_matrix, tucker2


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    out = work()
    return time.process_time() - start, out


def decaying(n: int, power: float) -> Tensor:
    left, right = (torch.linalg.qr(torch.randn(n, n))[0] for _ in range(2))
    return (left * torch.arange(1, n + 1).float() ** -power) @ right


def kernel(o: int, i: int) -> Tensor:
    """Decaying spectra in both channel modes, and noise."""
    core = (
        torch.randn(o, i, 3, 3)
        * (torch.arange(1, o + 1) ** -0.7)[:, None, None, None]
        * (torch.arange(1, i + 1) ** -0.7)[:, None, None]
    )
    U, V = (torch.linalg.qr(torch.randn(n, n))[0] for n in (o, i))
    return torch.einsum("abhw,oa,ib->oihw", core, U, V) + 1e-3 * torch.randn(o, i, 3, 3)


def rows(task: str, reference: float, timed: dict[str, tuple[float, float]], peer: str) -> list[dict[str, Any]]:
    base = timed[peer][0]
    out = [
        {"task": task, "method": m, "cpu_s": s, "error_ratio": e / reference, "faster": base / s} for m, (s, e) in timed.items()
    ]
    for row in out:
        print(
            f"{row['task']:32} {row['method']:34} {row['cpu_s']:8.2f} s  error x{row['error_ratio']:.7f}  {row['faster']:.1f}x of {peer}",
            flush=True,
        )
    return out


def svd(small: bool) -> list[dict[str, Any]]:
    n, out = (1024 if small else 4096), []
    rank = n // 16
    for name, W in (("decay 1/i", decaying(n, 1.0)), ("decay 1/sqrt(i)", decaying(n, 0.5)), ("flat", torch.randn(n, n))):
        timed: dict[str, tuple[float, float]] = {}
        seconds, (U, S, V) = clock(lambda W=W: torch.linalg.svd(W))

        def error(A: Tensor, B: Tensor, W: Tensor = W) -> float:
            return float((W.double() - A.double() @ B.double()).norm())

        timed["torch.linalg.svd"] = (seconds, error(U[:, :rank] * S[:rank], V[:rank]))
        seconds, (u, s, v) = clock(lambda W=W: scipy.sparse.linalg.svds(W.numpy(), k=rank))
        timed["scipy svds"] = (seconds, error(torch.from_numpy(u * s), torch.from_numpy(v.copy())))
        seconds, (U, S, V) = clock(lambda W=W: torch.svd_lowrank(W, q=rank, niter=2))
        timed["torch.svd_lowrank"] = (seconds, error(U * S, V.mT))
        for label, exact in (("truncate", False), ("truncate exact", True)):
            seconds, found = clock(lambda W=W, exact=exact: truncate(W, rank, exact=exact))
            timed[f"netxform {label} ({found.method})"] = (seconds, error(found.U_OR, found.V_RI))
        best = float(tails(spectrum(W))[rank])
        out += rows(f"svd {n} rank {rank}, {name}", best, timed, "torch.linalg.svd")
    return out


def tucker(small: bool) -> list[dict[str, Any]]:
    o, i = (128, 64) if small else (512, 256)
    out: list[dict[str, Any]] = []
    K = kernel(o, i)
    for ranks in ((o // 4, i // 4), (o // 2, i // 2)):
        seconds, ((core, (U, V)), _) = clock(lambda ranks=ranks: partial_tucker(K, list(ranks), modes=[0, 1]))
        peer = float((K.double() - torch.einsum("abhw,oa,ib->oihw", core.double(), U.double(), V.double())).norm())
        ours, found = clock(lambda ranks=ranks: tucker2(K, ranks))
        fast, plain = clock(lambda ranks=ranks: tucker2(K, ranks, sweeps=0))
        timed = {
            "tensorly partial_tucker": (seconds, peer),
            "netxform tucker2": (ours, found.error),
            "netxform tucker2 sweeps=0": (fast, plain.error),
        }
        out += rows(f"tucker {o}x{i}x3x3 {ranks[0]}/{ranks[1]}", peer, timed, "tensorly partial_tucker")
    return out


def canonical(small: bool) -> list[dict[str, Any]]:
    o, i = (64, 32) if small else (512, 256)
    K, out = kernel(o, i), list[dict[str, Any]]()
    for rank in (16, 32) if small else (64, 256):
        seconds, found = clock(lambda rank=rank: parafac(K, rank, n_iter_max=50, init="svd", random_state=0))
        peer = float((K - tl.cp_to_tensor(found)).double().norm())
        with tl.tenalg_backend("einsum") if hasattr(tl, "tenalg_backend") else _einsum():
            quick, again = clock(lambda rank=rank: parafac(K, rank, n_iter_max=50, init="svd", random_state=0))
        ours, mine = clock(lambda rank=rank: cp(K, rank, iterations=50))
        timed = {
            "tensorly parafac": (seconds, peer),
            "tensorly parafac, einsum": (quick, float((K - tl.cp_to_tensor(again)).double().norm())),
            f"netxform cp ({mine.iterations} sweeps)": (ours, mine.error),
        }
        out += rows(f"cp {o}x{i}x3x3 R={rank}", peer, timed, "tensorly parafac")
    return out


class _einsum:
    def __enter__(self) -> None:
        tl.tenalg.set_backend("einsum")

    def __exit__(self, *_: object) -> None:
        tl.tenalg.set_backend("core")


def train(small: bool) -> list[dict[str, Any]]:
    n = 1024 if small else 4096
    W, modes = decaying(n, 1.0), modes_of(n, 4)
    seconds, found = clock(lambda: tensor_train_matrix(W.reshape(*modes, *modes), [1, 16, 16, 16, 1]))
    peer = float((W - found.to_tensor().reshape(n, n)).double().norm())
    ours, mine = clock(lambda: tt_matrix(W, modes, modes, 16))
    return rows(
        f"tt-matrix {n}x{n} rank 16", peer, {"tensorly": (seconds, peer), "netxform tt_matrix": (ours, mine.error)}, "tensorly"
    )


QUESTIONS = {"svd": svd, "tucker": tucker, "cp": canonical, "tt": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    held = RESULTS / "factor_speed.json"
    old = json.loads(held.read_text())["rows"] if held.exists() else []
    if asked.table:
        return save_table("factor_speed", table(old))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    tl.set_backend("pytorch")
    found = [row for name in asked.only for row in QUESTIONS[name](asked.small)]
    made = {row["task"].split()[0] for row in found}
    rows = [*(r for r in old if r["task"].split()[0] not in made), *found]
    if not asked.small:
        save("factor_speed", {"rows": rows}, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {r['task']} | {r['method']} | {r['cpu_s']:.2f} | {r['error_ratio']:.7f} | {r['faster']:.1f} |" for r in rows]
    head = [
        "# Factorizations: CPU seconds, one thread",
        "",
        "| task | method | CPU s | error / reference | times faster |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
