"""deepen: more layers, the same function (Net2DeeperNet)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from netxform.errors import Diagnostic, NetxformError, Span, fail
from netxform.graph.edits import Edit, Insert, InsertBlock
from netxform.graph.layer_spec import Invocation, Layer
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, SameFunction, TrainingGap
from netxform.language.laws import Contract
from netxform.language.values import Layers, Name, Selection
from netxform.language.verb import DataInfo, Material, Scope, key, layers, operand, prep, verb

if TYPE_CHECKING:
    from torch import fx, nn

    from netxform.graph.network import Network

Start: TypeAlias = Literal["identity", "branch"]


@dataclass(frozen=True)
class New:
    """Layers behind a node, under a name, and how they begin: as the identity, or as a branch that adds nothing."""

    name: str
    node: str
    layers: tuple[Layer, ...]
    start: Start


@dataclass(frozen=True)
class NewBlock:
    """A copy of the block at `path` behind it, these of its tensors zero."""

    name: str
    path: str
    zeroed: tuple[str, ...]


@dataclass(frozen=True)
class Deeper(Values):
    """What is put in, in words too; `start` names the ways in which the parts begin.

    `norms`: for every new BatchNorm that begins as the identity its node and its name; `calibrated_on`: the data that its
    statistics are found on.
    """

    inserts: tuple[New | NewBlock, ...] = field(metadata=HIDDEN)
    new: tuple[str, ...]
    start: tuple[str, ...]
    seed: int = field(metadata=HIDDEN)
    norms: tuple[tuple[str, str], ...] = field(default=(), metadata=HIDDEN)
    calibrated_on: str | None = field(default=None, metadata=IF_KNOWN)


@verb("deepen")
@dataclass(frozen=True)
class Deepen:
    """Put a layer behind each selected Linear or convolution, such that the network computes the same function.

    `start=identity` (the default where it is possible): identity matrix or Dirac kernel, a BatchNorm that undoes itself
    if the layer has one behind it, and the layer's activation again if doing it twice is doing it once (ReLU, ReLU6,
    Hardtanh). `start=branch`: two layers with the activation between, added to the value, the last scale zero: for
    GELU, SiLU and LeakyReLU. `start=block`: behind each selected residual or transformer block a fresh one of its form, the
    last scale of each branch zero. A block in braces is taken as written, and must be the identity at birth. A new BatchNorm
    has the mean and the variance of the value that it stands behind, over `samples` of the data (`over NAME`; the only data set
    is taken by itself), so that it begins near the identity in training mode too.

    Example: model net = zoo.smallcnn(); deepen conv3

    Contract: exact in eval mode, measured in float64. In training mode a new BatchNorm uses batch statistics, as all do: what
    that changes is measured and stated. `start=branch` is exact there too.
    Refused: a block that does not fit (X0312), or is not the identity at birth (X0322); an even kernel (X0406).
    Paper: Chen, Goodfellow, Shlens, "Net2Net: accelerating learning via knowledge transfer", ICLR 2016.
    """

    selection: Selection = operand()
    start: Literal["identity", "branch", "block"] | None = key(None)
    kernel: int | None = key(None)
    name: Name | None = key(None)
    over: Name | None = prep("over")
    samples: int = key(512)
    block: Layers | None = layers(None)
    contract: ClassVar[Contract] = Contract.EXACT

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """A kernel with a middle."""
        if self.kernel is not None and self.kernel % 2 == 0:
            yield Diagnostic("X0406", "`kernel` must be odd", span, "an even kernel has no middle")
        if self.samples < 1:
            yield Diagnostic("X0406", f"`samples` is at least 1, not {self.samples}", span, "samples")

    def resolve(self, network: Network, scope: Scope) -> Choice[Deeper]:
        """For each selected layer: behind which node, and which layers."""
        from netxform.graph.activations import IDEMPOTENT
        from netxform.graph.building import settle_layers

        modules = dict(network.module.named_modules(remove_duplicate=False))
        if self.start == "block":
            return self._blocks(network, scope, modules)
        targets = self._targets(network, scope, modules)
        inserts: list[New] = []
        taken = {n for n in modules}
        for path in targets:
            node, norm, activation = _tail(network, scope, path, modules, self.selection)
            start: Start | None = self.start
            idempotent = activation is None or isinstance(activation, IDEMPOTENT)
            if self.block is not None:
                start = start or "identity"
                wanted: tuple[Layer, ...] = self.block.items
            else:
                start = start or ("identity" if idempotent else "branch")
                wanted = tuple(self._layers(modules[path], norm, activation, start))
                if start == "identity" and not idempotent:
                    wanted = tuple(w for w in wanted if w.name != "act")
            settled = settle_layers(network, node.name, wanted, scope.span)[0] if self.block is not None else wanted
            self._check(network, node, settled, start, activation, scope)
            name = _free(self.name.text if self.name is not None else f"{path}_deeper", taken)
            taken.add(name)
            inserts.append(New(name, node.name, settled, start))
        origins = {} if self.start is not None else {"start": "the activation allows it"}
        norms = tuple((i.node, f"{i.name}.{s.name}") for i in inserts if i.start == "identity" for s in i.layers if _norm(s))
        info = self._data(scope) if norms or self.over is not None else None
        if norms and info is not None:
            origins |= {"calibrated on": "the only data set"} if self.over is None else {}
        deeper = Deeper(
            tuple(inserts),
            tuple(f"{i.name} ({', '.join(s.make.name for s in i.layers)})" for i in inserts),
            tuple(sorted({i.start for i in inserts})),
            scope.seed + scope.index,
            norms,
            info.name if norms and info is not None else None,
        )
        return Choice(deeper, (str(self.selection),), origins, warnings=_said(norms, deeper.calibrated_on))

    def _data(self, scope: Scope) -> DataInfo | None:
        """What new statistics are found on: the named data set, or the only one. Raises NetxformError X0302."""
        if self.over is not None:
            return scope.data(self.over.text, self.over.span)
        try:
            return scope.data(None, scope.span)
        except NetxformError:
            return None

    def _blocks(self, network: Network, scope: Scope, modules: Mapping[str, nn.Module]) -> Choice[Deeper]:
        """For each selected block: which tensors of its copy begin at zero."""
        from netxform.graph.blocks import last_scales

        inserts: list[NewBlock] = []
        taken = set(modules)
        for path in scope.modules(self.selection):
            try:
                zeroed = last_scales(network.module, path)
            except ValueError as error:
                raise fail(
                    "X0322",
                    f"`{path}` is no residual block that could begin as the identity: {error}",
                    self.selection.span,
                    "not the identity at birth",
                    helps=("select blocks, for example `blocks(layer3)`, whose input is added to what they compute",),
                ) from None
            name = _free(self.name.text if self.name is not None else f"{path}_deeper", taken)
            taken.add(name)
            inserts.append(NewBlock(name, path, tuple(zeroed)))
        values = Deeper(tuple(inserts), tuple(i.name for i in inserts), ("block",), scope.seed + scope.index)
        return Choice(values, (str(self.selection),))

    def _targets(self, network: Network, scope: Scope, modules: Mapping[str, nn.Module]) -> list[str]:
        from torch import nn

        if self.block is not None:
            return list(scope.modules(self.selection))
        paths = scope.modules_of(self.selection)
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        found = [p for p in paths if isinstance(modules[p], kinds)]
        if not found:
            raise fail(
                "X0322",
                f"`{self.selection}` holds no Linear and no convolution",
                self.selection.span,
                "nothing to put a layer behind",
                helps=("give a block in braces: `deepen SELECTION { a = Linear(auto, 64) }`",),
            )
        return found

    def _layers(self, layer: Any, norm: Any, activation: Any, start: str) -> Iterator[Layer]:
        """One layer like the selected one, from its outputs to as many; a second one for a branch."""
        from torch import nn

        def one(suffix: str) -> Iterator[Layer]:
            if isinstance(layer, nn.Linear):
                yield Layer(f"linear{suffix}", Invocation("Linear", (layer.out_features, layer.out_features)))
            else:
                k = self.kernel or next((n for n in layer.kernel_size if n % 2), 3)
                size = int(layer.out_channels)
                kind = type(layer).__name__
                yield Layer(
                    f"conv{suffix}", Invocation(kind, (size, size), {"kernel_size": k, "padding": k // 2, "bias": norm is None})
                )
            if norm is not None:
                yield Layer(
                    f"norm{suffix}",
                    Invocation(
                        type(norm).__name__.removeprefix("Frozen").replace("NormAct", "Norm"),
                        (norm.num_features,),
                        {"eps": norm.eps},
                    ),
                )

        if start == "identity":
            yield from one("")
            if activation is not None:
                yield Layer("act", Invocation(type(activation).__name__))
        else:
            yield from one("1")
            yield Layer("act", Invocation(type(activation).__name__ if activation is not None else "ReLU"))
            yield from one("2")

    def _check(
        self, network: Network, node: fx.Node, made: tuple[Layer, ...], start: str, activation: Any, scope: Scope
    ) -> None:
        """Shape kept, and the identity at birth. Raises NetxformError X0322."""
        import torch

        from netxform.graph.activations import IDEMPOTENT
        from netxform.graph.blocks import identity_obstacle
        from netxform.graph.building import build

        meta = torch.device("meta")
        parts = [build(m, meta, node.meta.get("dtype")).eval() for m in made]
        value = torch.empty(node.meta["shape"], device="meta", dtype=node.meta["dtype"])
        with torch.no_grad():
            for part in parts:
                value = part(value)
        if not isinstance(value, torch.Tensor) or value.shape != node.meta["shape"]:
            raise fail("X0322", "the block changes the shape of what passes through it", scope.span, f"behind `{node.name}`")
        if start == "branch":
            if not any(list(p.parameters()) for p in parts):
                raise fail("X0322", "a branch needs a layer with weights, to begin at zero", scope.span, "no weights here")
            last = max(i for i, p in enumerate(parts) if list(p.parameters()))
            after = [p for p in parts[last + 1 :] if float(p(torch.zeros(1, device="cpu")).abs().max()) != 0.0]
            if after:
                raise fail(
                    "X0322",
                    f"{type(after[0]).__name__} of zero is not zero: the branch would not begin as nothing",
                    scope.span,
                    "at the end of the branch",
                )
            return
        seen = activation
        for layer, part in zip(made, parts, strict=True):
            obstacle = identity_obstacle(part)
            if obstacle is None and isinstance(part, IDEMPOTENT):
                same = seen is not None and type(seen) is type(part)
                obstacle = None if same else f"the value is not already activated by {type(part).__name__}"
            if obstacle is not None:
                raise fail(
                    "X0322",
                    f"`{layer.name} = {layer.make}` cannot begin as the identity: {obstacle}",
                    layer.make.span if layer.make.span.line else scope.span,
                    "not the identity at birth",
                    helps=("write `start=branch`: the block is added to the value, its last scale zero",),
                )

    def settle(self, network: Network, choice: Choice[Deeper], material: Material) -> Choice[Deeper]:
        """The statistics of every new BatchNorm: mean and variance of the value that it stands behind."""
        from netxform.graph.channels import channel_moments

        v = choice.values
        if not v.norms or v.calibrated_on is None:
            return choice
        given = (x for x, _ in material.batches(v.calibrated_on, self.samples))
        found = channel_moments(network, {n for n, _ in v.norms}, given)
        parts = [(f"{name}.running_mean", f"{name}.running_var", *found[node]) for node, name in v.norms]
        tensors = {n: t.float() for mean, var, m, s in parts for n, t in ((mean, m), (var, s))}
        return choice.settled(v, tensors)

    def rewrite(self, network: Network, choice: Choice[Deeper]) -> Edit:
        """One insertion for each layer."""
        made: list[Insert | InsertBlock] = []
        for seed, one in enumerate(choice.values.inserts, choice.values.seed):
            match one:
                case New():
                    made.append(Insert(one.name, one.node, one.layers, one.start, seed))
                case NewBlock():
                    made.append(InsertBlock(one.name, one.path, one.zeroed, seed))
        return Edit(tuple(made), choice.tensors)

    def law(self, choice: Choice[Deeper]) -> tuple[Claim, ...]:
        """The same function; with a new BatchNorm, what it is in training mode."""
        if not choice.values.norms:
            return (SameFunction(),)
        return (SameFunction(), TrainingGap(choice.values.calibrated_on, self.samples))


def _norm(layer: Layer) -> bool:
    return layer.make.name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")


def _said(norms: tuple[tuple[str, str], ...], data: str | None) -> tuple[str, ...]:
    """What a reader of the plan must know of training mode."""
    if not norms:
        return ()
    if data is not None:
        return (f"in train() mode a new BatchNorm uses the statistics of the batch: what that changes is measured on `{data}`",)
    return (
        "a new BatchNorm has mean 0 and variance 1, for no data are named (`over NAME`): in train() mode, where it uses the "
        "statistics of the batch, it changes what passes through it",
    )


def _tail(
    network: Network, scope: Scope, path: str, modules: Mapping[str, nn.Module], selection: Selection
) -> tuple[Any, Any, Any]:
    """The last node of layer, norm and activation as they follow each other; the norm and the activation, if there are."""
    import torch
    from torch import nn

    from netxform.axes.names import op_name
    from netxform.graph.activations import activation_of
    from netxform.graph.network import exit_nodes
    from netxform.graph.outputs import find

    several = exit_nodes(network, path)
    if len(several) != 1:
        node = find(network.module, scope.point(selection, "after"))  # says what is wrong, or which value it is
    else:
        node = several[0]
    norm: Any = None
    activation: Any = None
    while len(node.users) == 1:
        user = next(iter(node.users))
        part = modules.get(str(user.target)) if user.op == "call_module" else None
        if norm is None and activation is None and isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            norm = part
            inner = getattr(part, "act", None)  # a norm that holds its activation
            known = activation_of(inner) if inner is not None else None
            if known is not None and known.repeatable and type(inner) is known.layer:
                activation = inner
        elif activation is None and (known := activation_of(op_name(user) if part is None else part)) and known.repeatable:
            if part is not None and type(part) is not known.layer:
                break
            activation = known.layer() if part is None else part
        else:
            break
        node = user
        if activation is not None:
            break
    if not isinstance(node.meta.get("dtype"), torch.dtype):
        raise fail("X0313", f"the value behind `{path}` is not one tensor", selection.span)
    return node, norm, activation


def _free(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 2
    while name in taken:
        name = f"{wanted}{count}"
        count += 1
    return name
