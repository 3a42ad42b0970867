"""What each operation does to axes; a file an op family, the layer's rule beside the operation's. `load` imports them all."""

from __future__ import annotations

import functools

from netxform.registry import import_all


@functools.cache
def load() -> None:
    """Import every file of this folder, and every file of rules that an installed package offers as `netxform.rules`."""
    import_all(__name__, "netxform.rules")
