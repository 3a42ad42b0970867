"""A network in the forms that it is kept in: as it is, from its stored graph, and as plain Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from torch import nn

from netxform.artifacts.emit import emit
from netxform.artifacts.graph import from_json, to_json
from netxform.graph.network import Network


def imported(path: Path) -> ModuleType:
    """The module in a file of Python, run anew."""
    spec = importlib.util.spec_from_file_location("emitted", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def as_python(network: Network, name: str, folder: Path) -> nn.Module:
    """The network as emitted Python, whose class has this name, with its weights."""
    (folder / "emitted.py").write_text(emit(network))
    alone = getattr(imported(folder / "emitted.py"), name)()
    alone.load_state_dict(network.module.state_dict())
    return alone


def forms(network: Network, name: str, folder: Path) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The network, the one that its stored graph gives, and the one that plain Python gives."""
    again = from_json(to_json(network), dict(network.module.state_dict())).module
    return network.module, again, as_python(network, name, folder)
