"""The verbs, one file each. `load` imports them all, so that each registers itself; plugins come by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points


def load() -> None:
    """Import every file of this folder, and every verb that an installed package offers as `netxform.verbs`."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    for point in entry_points(group="netxform.verbs"):
        point.load()
