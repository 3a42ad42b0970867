"""What each operation does to axes; a file an op family, the layer's rule beside the operation's. `load` imports them all."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.metadata import entry_points


@functools.cache
def load() -> None:
    """Import every file of this folder, and every file of rules that an installed package offers as `netxform.rules`."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    for point in entry_points(group="netxform.rules"):
        point.load()
