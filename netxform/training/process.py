"""One process or many: who takes part, and what must be the same for any number of them.

Under `torchrun` each process takes its share of every global batch and DDP (or FSDP2) averages the gradients. Two kinds of
layer look beyond one sample and would see the share alone: BatchNorm, whose statistics are then taken over all processes, and
dropout, whose mask is drawn for the global batch. With both, n processes compute what one does, up to the order of sums.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import is_available, is_initialized

from netxform.errors import fail
from netxform.graph.layers import BatchNormAct2d, DropPath
from netxform.training.data import Batch


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's number, and how many there are."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def join() -> Processes:
    """Take part in the group that `torchrun` announced; alone where it announced none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and is_available() and not is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if is_available() and is_initialized():
        return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return Processes()


def leave() -> None:
    """End the group that `join` took part in, if there is one."""
    if is_available() and is_initialized():
        torch.distributed.destroy_process_group()


def require(wanted: int | None, processes: Processes) -> None:
    """Raises NetxformError X0841 where another number of processes runs than the spec asks for."""
    if wanted is None or wanted == processes.world:
        return
    raise fail(
        "X0841",
        f"{processes.world} process(es) run, {wanted} are asked for",
        notes=("each of them would train alone on the whole batch, or on another share than was meant",),
        helps=(f"torchrun --nproc-per-node {wanted} -m netxform apply SPEC",),
    )


def wait(processes: Processes) -> None:
    """Until all processes are here."""
    if processes.world > 1:
        torch.distributed.barrier()


def total(values: dict[str, float], processes: Processes) -> dict[str, float]:
    """Sums over all processes, in float64; the keys must be the same everywhere."""
    if processes.world == 1:
        return values
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    held = torch.tensor([values[k] for k in sorted(values)], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(held)
    return dict(zip(sorted(values), held.tolist(), strict=True))


# --- layers that look beyond one sample ------------------------------------------------------------------------------


@dataclass
class _Step:
    """The share that is being computed; layers of several processes read it."""

    rows: Tensor | None = None
    total: int = 0
    live: int = 0
    world: int = 1


_STEP = _Step()


@contextlib.contextmanager
def sharing(batch: Batch, processes: Processes) -> Generator[None]:
    """While one share of a global batch is computed."""
    if processes.world > 1:
        _STEP.rows, _STEP.total, _STEP.live, _STEP.world = batch.rows, batch.total, batch.live, processes.world
    try:
        yield
    finally:
        _STEP.rows = None


def _norm_over_all(norm: Any, x: Tensor) -> Tensor:
    """BatchNorm in training over the rows of all processes: sums are added up, and their gradients as well."""
    dims = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    live = x[: _STEP.live]
    count = float(_STEP.total * x[0, 0].numel())
    mean = cast(Tensor, _AllSum.apply(live.sum(dims))) / count
    # around the common mean, so that no digits are lost
    var = cast(Tensor, _AllSum.apply((live - mean.view(shape)).square().sum(dims))) / count
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.detach(), share)
            norm.running_var.lerp_(var.detach() * count / max(count - 1, 1), share)
    y = (x - mean.view(shape)) * torch.rsqrt(var + norm.eps).view(shape)
    return y if norm.weight is None else y * norm.weight.view(shape) + norm.bias.view(shape)


class _AllSum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The sum."""
        summed = x.detach().clone()
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The sum again."""
        summed = grads[0].clone()
        torch.distributed.all_reduce(summed)
        return summed


class _Shared:
    """Marks the classes below: `unshared` gives a layer its own class back."""


class _SharedBatchNorm(_Shared):
    def forward(self, x: Tensor) -> Tensor:
        norm = cast(Any, self)
        if not norm.training or _STEP.rows is None:
            return super().forward(x)  # type: ignore[misc]
        y = _norm_over_all(norm, x)
        return norm.act(norm.drop(y)) if isinstance(self, BatchNormAct2d) else y


class _SharedDropout(_Shared):
    def forward(self, x: Tensor) -> Tensor:
        drop = cast(Any, self)
        if not drop.training or _STEP.rows is None or len(x) != len(_STEP.rows):
            return super().forward(x)  # type: ignore[misc]
        ones = x.new_ones((_STEP.total, *x.shape[1:]))
        return x * super().forward(ones)[_STEP.rows]  # type: ignore[misc]


_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, DropPath)


def share_layers(module: nn.Module, processes: Processes) -> None:
    """Give BatchNorm and dropout the forms that see the global batch. Nothing where there is one process."""
    if processes.world == 1:
        return
    for part in module.modules():
        base = _SharedBatchNorm if type(part) in _BATCHNORMS else _SharedDropout if type(part) in _DROPOUTS else None
        if base is not None:
            part.__class__ = type(f"Shared{type(part).__name__}", (base, type(part)), {})


def own_layers(module: nn.Module) -> None:
    """Take the forms of `share_layers` back."""
    for part in module.modules():
        if isinstance(part, _Shared):
            part.__class__ = type(part).__bases__[1]


# --- parallel training -----------------------------------------------------------------------------------------------


def parallel(module: nn.Module, strategy: str, processes: Processes) -> nn.Module:
    """The module as it is trained by several processes: DDP around it, or FSDP2 on the lists of its leaves."""
    if processes.world == 1:
        return module
    if strategy == "fsdp":
        return _sharded(module)
    if not any(p.requires_grad for p in module.parameters()):
        return module
    ddp: Any = nn.parallel.DistributedDataParallel
    name = "forward_sync_buffers" if "forward_sync_buffers" in inspect.signature(ddp).parameters else "broadcast_buffers"
    return ddp(module, **{name: False})


_GROUP = 1_000_000  # parameters that are gathered at once


def _sharded(module: nn.Module) -> nn.Module:
    """FSDP2. Containers of a graph are never called, so what is sharded are leaves, in lists, and the root with the rest."""
    from torch.distributed.fsdp import fully_shard

    group: list[nn.Module] = []
    size = 0
    for leaf in module.modules():
        if next(leaf.children(), None) is not None or next(leaf.parameters(), None) is None:
            continue
        group.append(leaf)
        size += sum(p.numel() for p in leaf.parameters())
        if size >= _GROUP:
            fully_shard(group)
            group, size = [], 0
    if group:
        fully_shard(group)
    fully_shard(module)
    return module


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process holds a part, put together; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return cast(Tensor, gather()) if callable(gather) else tensor


def like_it(tensor: Tensor, model: Tensor | None) -> Tensor:
    """The tensor laid out as `model` is: on its device, in parts where each process holds a part; as it is where none fits."""
    if model is None or model.shape != tensor.shape:
        return tensor
    parts: Any = model
    if not hasattr(model, "device_mesh"):
        return tensor.to(model.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(model.device), parts.device_mesh, parts.placements)


def unsynced(model: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients of a piece that is not the last of its step are kept to themselves."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext() if last else model.no_sync()
    if callable(sync := getattr(type(model), "set_requires_gradient_sync", None)):
        sync(model, last)
    return contextlib.nullcontext()
