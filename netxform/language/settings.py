"""What the clauses of a training settle beside the loss: what is measured, which packages it needs, rates by depth."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from netxform.errors import Span, fail
from netxform.graph.layer_spec import Invocation
from netxform.language.methods import METRICS, OPTIMIZERS, TRANSFORMS, Library, Loss, Vision, base_name, kinds_of
from netxform.language.verb import Scope

if TYPE_CHECKING:
    from netxform.graph.network import Network

_EXTRA = {"torchmetrics": "metrics", "timm": "vision", "torchvision": "vision"}


class _Clauses(Protocol):
    @property
    def using(self) -> Invocation: ...
    @property
    def augment(self) -> tuple[Invocation, ...]: ...


def asked_metrics(named: Sequence[str], scope: Scope, losses: Sequence[Loss]) -> tuple[str, ...]:
    """What is measured beside what always is: what the statement names, and what `keep best by`, `assert` and `compare` need.

    Raises NetxformError X0204 for a metric that is of other targets than the losses have, X0814 where torchmetrics is missing.
    """
    keep = scope.settings.get("keep")
    wanted = [(n, True) for n in named]
    wanted += [(base_name(keep.by.text), True)] if keep is not None else []
    wanted += [(base_name(n), False) for n in scope.asked]
    kinds = {k for one in losses for k in kinds_of(one)}
    out: list[str] = []
    for name, stated in wanted:
        if name not in METRICS or name in out:
            continue
        metric = METRICS.find(name)
        on = metric.on if isinstance(metric, Library) else (metric.on, *(("labels",) if name == "accuracy" else ()))
        if not kinds & set(on):
            if stated:
                known = [n for n, m in METRICS.items() if kinds & set(m.on if isinstance(m, Library) else (m.on,))]
                text = f"`{name}` is of {' or '.join(on)}, and `{losses[0].name}` learns {' or '.join(sorted(kinds))}"
                raise fail("X0204", text, scope.span, "not measured here", helps=(f"metrics: {', '.join(known)}",))
            continue
        if isinstance(metric, Library):
            if isinstance(metric.make, str):
                needed("torchmetrics", f"the metric `{name}`", scope.span)
            out.append(name)
        elif metric.asked:
            out.append(name)
    return tuple(out)


def installed(verb: _Clauses, span: Span) -> None:
    """Raises NetxformError X0814 where a package is missing that has the optimizer or a transform."""
    optimizer = OPTIMIZERS.find(verb.using.name, verb.using.span)
    if optimizer.needs is not None:
        needed(optimizer.needs, f"the optimizer `{verb.using.name}`", verb.using.span)
    for call in verb.augment:
        if isinstance(TRANSFORMS.find(call.name, call.span), Vision):
            needed("torchvision", f"the transform `{call.name}`", call.span)


def needed(package: str, what: str, span: Span) -> None:
    """Raises NetxformError X0814 where the package is not installed."""
    if importlib.util.find_spec(package) is None:
        extra = _EXTRA.get(package)
        helps = (f"pip install 'netxform[{extra}]'",) if extra else (f"pip install {package}",)
        raise fail("X0814", f"`{package}` is not installed: it has {what}", span, "needed here", helps=helps)


def decayed(network: Network, trained: Sequence[str], decay: float) -> dict[str, float]:
    """For each trained parameter, decay to the power of how many layers stand between it and the last.

    A layer is what a number names (`blocks.3`, `layer2.0`), else a module of the top level; parts without a matrix (norms) go
    with the layer before them. Layers are counted in the order in which they run.
    Clark et al., "ELECTRA", 2020; Bao et al., "BEiT", 2021.
    """
    shapes = {n: p.dim() for n, p in network.module.named_parameters(remove_duplicate=False)}
    wanted = set(trained)
    owners = dict.fromkeys(n.rpartition(".")[0] for n in shapes)
    order: dict[str, None] = {}
    for node in network.module.graph.nodes:
        if node.op == "call_module":
            path = str(node.target)
            order |= dict.fromkeys(o for o in owners if o == path or o.startswith(f"{path}."))
        elif node.op == "get_attr":
            order.setdefault(str(node.target).rpartition(".")[0])
    order |= dict.fromkeys(o for o in owners if o not in order)
    layers: dict[str, list[str]] = {}
    for owner in order:
        layers.setdefault(_layer(owner), []).extend(n for n in shapes if n.rpartition(".")[0] == owner)
    groups: list[list[str]] = []
    for names in layers.values():
        if groups and all(shapes[n] < 2 for n in names):
            groups[-1] += names
        else:
            groups.append(list(names))
    groups = [g for g in groups if any(n in wanted for n in g)]
    return {n: decay ** (len(groups) - 1 - i) for i, names in enumerate(groups) for n in names if n in wanted}


def _layer(path: str) -> str:
    """The part of a path up to its first number, else its first word."""
    found = re.match(r"(?:[^.]*[^.\d][^.]*\.)*\d+(?=\.|$)", path)
    return found.group(0) if found else path.partition(".")[0]
