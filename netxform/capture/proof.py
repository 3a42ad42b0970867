"""What leaves it open whether a graph that was captured without weights is the one that is captured with them.

A graph is proven where it is the model's own program (`capture.equivalence`), which is found without weights either way. What
is compared by values instead is in doubt; and so is code that asks where a tensor lies, for here all lie on the meta device.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from netxform.capture.places import asked, located

_PLACES = {"device", "is_cpu", "is_meta"}  # `is_cuda` is the same on the CPU and on meta


class Places(TorchFunctionMode):
    """Notes into `doubts` where code decides by the device of a tensor without values."""

    def __init__(self, doubts: list[str]) -> None:
        super().__init__()
        self.doubts = doubts

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, and look at it."""
        if getattr(func, "__name__", "") == "__get__" and getattr(func.__self__, "__name__", "") in _PLACES:
            tensor = args[0]
            if isinstance(tensor, Tensor) and tensor.is_meta and asked() is not None:
                where, what = located()
                self.doubts.append(f"`{what}` ({where}) decides by a device")
        return func(*args, **(kwargs or {}))


def doubt_of(error: BaseException) -> str | None:
    """What a failure says of tensors without values; None where it speaks of something else."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text[:160] if "meta" in text.lower() else None
