"""What may be used while a choice is settled on the real network: data, models, and a place to say how it goes. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from netxform.errors import Span
    from netxform.graph.network import Network
    from netxform.language.work import Training

HeldOut: TypeAlias = Literal["test samples", "validation samples", "other training samples"]


class Material(Protocol):
    """What is at hand while a choice is settled."""

    def batches(
        self, data: str, samples: int | None = None, *, skip: int = 0, batch: int = 128, shared: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """Batches (x, y) of the training part of the data set; x is one tensor (N, …), or a tuple with one for each argument of
        the network; y (N, …), or None where there are no labels. They come in an order that is a function of the seed alone.

        The first `skip` samples are left out, so that two calls give samples that are disjoint. With `shared` each of
        several processes is given its share of every batch, and `total` adds up what they found.
        """
        ...

    def size(self, data: str) -> int:
        """How many samples `batches` can give."""
        ...

    def held_out(self, data: str) -> HeldOut:
        """What `fresh` gives, in words."""
        ...

    def fresh(self, data: str, samples: int, *, skip: int, batch: int = 128, shared: bool = False) -> Iterator[tuple[Any, Any]]:
        """Batches of samples that nothing is calibrated on: of the test part, or of the validation part where there is none;
        of the training part behind the first `skip` where there is neither.
        """
        ...

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Sums over the samples, added up over all processes."""
        ...

    def train(self, network: Network, work: Training, title: str) -> tuple[Network, dict[str, float]]:
        """Train a copy of the network, and report metrics on data that was not trained on."""
        ...

    def vocabulary(self, data: str) -> tuple[str, ...]:
        """The words of a data set by their number; empty where it has none."""
        ...

    def model(self, name: str) -> nn.Module:
        """A further model, or a snapshot, with its weights."""
        ...

    def file(self, text: str, span: Span) -> Path:
        """The existing file that the spec names."""
        ...

    def start(self, title: str, total: int) -> None:
        """Long work of so many steps begins."""
        ...

    def step(self, text: str) -> None:
        """A step of it is done."""
        ...

    def stop(self) -> None:
        """It is over."""
        ...
