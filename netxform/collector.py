"""The garbage collector waits while many objects are made that all stay: trees, graphs, copies of modules."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def paused() -> Generator[None]:
    """What is made inside makes every pass of the collector longer and leaves it nothing to find."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
