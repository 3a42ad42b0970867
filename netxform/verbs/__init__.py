"""The verbs, one file each. `load` imports them all, so that each registers itself; plugins come by entry point."""

from __future__ import annotations

from netxform.registry import import_all


def load() -> None:
    """Import every file of this folder, and every verb that an installed package offers as `netxform.verbs`.

    Raises NetxformError X0833 for a package that fails.
    """
    import_all(__name__, "netxform.verbs")
