"""What the verbs that train have in common: their clauses, and how these become an objective. No torch at the top.

selection, clauses ─planned→ Training and what the plan shows of it
"""

# Long: the clauses that every training takes, and what becomes of each.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from netxform.errors import Diagnostic, Label, Span, did_you_mean, fail
from netxform.graph.layer_spec import Invocation
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.choice import named as keyed
from netxform.language.claims import Claim, Untouched, ZerosHeld
from netxform.language.methods import OPTIMIZERS, TRANSFORMS, Loss, MetricName, Schedule, Vision, loss
from netxform.language.regularizer import Regularizer
from netxform.language.settings import asked_metrics, decayed, installed
from netxform.language.targets import UNLABELLED
from netxform.language.values import Count, Name, Selection
from netxform.language.verb import DataInfo, Scope, key, lines, operand, prep
from netxform.language.work import Group, Penalty, Recording, Soft, Term, Training

if TYPE_CHECKING:
    from netxform.graph.guards import Lost
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Rates:
    """`group SELECTION lr=1e-5 weight_decay=0`: settings of some of the parameters."""

    selection: Selection = operand()
    lr: float | None = key(None)
    weight_decay: float | None = key(None)


@dataclass(frozen=True)
class Head:
    """`head NAME loss=mse weight=0.5 target=1`: one output's share of the loss, by its name or place, and its column of the
    targets, or the one of that name.
    """

    name: Name | int | str = operand()
    loss: Loss = key(loss("cross_entropy"))
    weight: float = key(1.0)
    target: int | str | None = key(None)


@dataclass(frozen=True, kw_only=True)
class Lesson(Values):
    """What the plan shows of a training: how many tensors are trained and stand still, on what, how long and how."""

    trained: int
    frozen: int
    data: str
    length: str
    optimizer: str
    batch: int
    learns: str | None = field(default=None, metadata=IF_KNOWN | keyed("loss"))
    schedule: str | None = field(default=None, metadata=IF_KNOWN)
    metrics: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)
    drawn: str | None = field(default=None, metadata=IF_KNOWN)
    average: str | None = field(default=None, metadata=IF_KNOWN)
    seed: int = field(metadata=HIDDEN)
    zeros_held: str | None = field(default=None, metadata=IF_KNOWN)
    penalised_values: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)
    lost: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The clauses that all verbs that train take."""

    on: Name | None = prep("on")
    using: Invocation = prep("using", Invocation("adamw", (), {"lr": 1e-3}))
    regularize: tuple[Regularizer, ...] = prep("regularize", ())
    batch: int | None = key(None)
    accumulate: int = key(1)
    schedule: Schedule = key(Schedule("constant"))
    warmup: int = key(0)
    clip: float | None = key(None)
    precision: Literal["float32", "bfloat16", "float16"] = key("float32")
    patience: int | None = key(None)
    label_smoothing: float = key(0.0)
    augment: tuple[Invocation, ...] = key(())
    mixup: float = key(0.0)
    cutmix: float = key(0.0)
    draw: Literal["shuffled", "balanced"] = key("shuffled")
    metrics: tuple[MetricName, ...] = key(())
    ema: float | None = key(None)
    layer_decay: float | None = key(None)
    device: str = key("auto")
    output: int | str | None = key(None)
    seed: int | None = key(None)
    zeros: Literal["free", "hold"] = key("free")
    lost: Literal["refuse", "accept"] = key("refuse")
    processes: int | None = key(None)
    strategy: Literal["ddp", "fsdp"] = key("ddp")
    compile: bool = key(False)
    groups: tuple[Rates, ...] = lines("group", Rates)

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Values that the text alone shows to be wrong."""
        if self.using.name not in OPTIMIZERS:
            helps = did_you_mean(self.using.name, OPTIMIZERS) or (f"optimizers: {', '.join(OPTIMIZERS)}",)
            yield Diagnostic("X0409", f"`{self.using.name}` is no optimizer", self.using.span, "unknown", helps=helps)
        if self.using.arguments:
            helps = (f"write `{self.using.name}(lr={self.using.arguments[0]})`",)
            yield Diagnostic("X0401", "optimizer settings are named", self.using.span, "without a name", helps=helps)
        rate = self.using.keywords.get("lr", 1.0)
        if not isinstance(rate, int | float) or rate <= 0:
            yield Diagnostic("X0406", f"a learning rate is above 0, not {rate}", self.using.span, "lr")
        for group in self.groups:
            if group.lr is not None and not group.lr > 0:
                helps = (f"`freeze {group.selection}` keeps it as it is",)
                yield Diagnostic(
                    "X0406", f"a learning rate is above 0, not {group.lr:g}", group.selection.span, "lr", helps=helps
                )
        lows = (
            ("batch", 1),
            ("warmup", 0),
            ("patience", 1),
            ("clip", 0.0),
            ("accumulate", 1),
            ("mixup", 0.0),
            ("cutmix", 0.0),
            ("processes", 1),
        )
        for name, low in lows:
            value = getattr(self, name)
            if value is not None and value < low:
                yield Diagnostic("X0406", f"`{name}` is at least {low}, not {value}", span, name)
        if not 0 <= self.label_smoothing < 1:
            yield Diagnostic("X0406", f"`label_smoothing` is in [0, 1), not {self.label_smoothing}", span, "")
        if self.ema is not None and not 0 <= self.ema < 1:
            yield Diagnostic("X0406", f"`ema` is in [0, 1), not {self.ema:g}", span, "ema", helps=("write `ema=0.999`",))
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            yield Diagnostic("X0406", f"`layer_decay` is above 0 and at most 1, not {self.layer_decay:g}", span, "layer_decay")
        if self.mixup and self.cutmix:
            yield Diagnostic("X0404", "`mixup` and `cutmix` both mix samples: one of them", span, "both")
        if self.ema is not None and self.strategy == "fsdp":
            yield Diagnostic("X0404", "an average of weights needs them whole: `strategy=ddp`", span, "with `fsdp`")
        for call in self.augment:
            yield from _augmentation(call)
        if self.strategy == "fsdp" and any(r.of == "parameters" and r.kind != "weight_decay" for r in self.regularize):
            yield Diagnostic("X0404", "penalties on parameters need them whole: `strategy=ddp`", span, "with `fsdp`")


def _augmentation(call: Invocation) -> Iterator[Diagnostic]:
    if call.name not in TRANSFORMS:
        helps = did_you_mean(call.name, TRANSFORMS) or (f"augmentations: {', '.join(TRANSFORMS)}",)
        yield Diagnostic("X0401", f"`{call.name}` is no augmentation", call.span, "unknown", helps=helps)
        return
    known = TRANSFORMS.find(call.name, call.span)
    if isinstance(known, Vision):
        return
    amount = call.arguments[0] if call.arguments else known.amount
    wrong = not isinstance(amount, int | float) or not 0 <= amount <= known.most
    if call.keywords or len(call.arguments) > 1 or wrong:
        form = f"write `{call.name}({known.amount:g})`"
        yield Diagnostic("X0401", f"`{call}` takes one number", call.span, "arguments", helps=(form,))


def planned(
    verb: Learning,
    network: Network,
    scope: Scope,
    selection: Selection,
    length: Count,
    loss: Loss,
    heads: tuple[Head, ...] = (),
    soft: Soft | None = None,
) -> tuple[Training, Lesson, dict[str, str]]:
    """The objective of a verb, what the plan shows of it, and where each default came from.

    Raises NetxformError X0310 (nothing to train), X0317–X0319 (the data does not fit), X0407 (a parameter in two groups),
    X0345 (the model does more in training than the graph holds).
    """
    from netxform.graph.frozen import frozen_norms, modules_in_training
    from netxform.language.fits import input_fits

    chosen = set(scope.tensors(selection))
    named = dict(network.module.named_parameters(remove_duplicate=False))
    parameters = tuple(n for n, p in named.items() if n in chosen and p.requires_grad)
    frozen = [n for n, p in named.items() if n in chosen and not p.requires_grad]
    if not parameters:
        reason = "all of it is frozen" if frozen else "it has no parameters"
        raise fail(
            "X0310",
            f"nothing to train in `{selection}`: {reason}",
            selection.span,
            "nothing to train",
            helps=(f"write `unfreeze {selection}` first",) if frozen else (),
        )
    still = set(frozen_norms(network))
    owners = {n.rpartition(".")[0] for n in chosen}
    buffers = tuple(
        n for n, _ in network.module.named_buffers(remove_duplicate=False) if n in chosen and n.rpartition(".")[0] not in still
    )
    data = scope.data(verb.on.text if verb.on else None, scope.span)
    input_fits(network, data, scope.span)
    if not data.labelled and (soft is None or soft.hard > 0):
        raise fail("X0351", f"`{data.name}` has no labels", scope.span, "nothing to learn from", helps=UNLABELLED)
    training = modules_in_training(network, scope.modules_of(selection), owners)
    lost = _lost(verb, network, training, selection)
    terms, output = _terms(verb, network, scope, data, loss, heads)
    used = [t.loss for t in terms] or [loss]
    metrics = asked_metrics(verb.metrics, scope, used)
    if verb.label_smoothing and not any(one.kind.smooth for one in used):
        raise fail("X0404", f"`{used[0].name}` has no labels to be smoothed", scope.span, "with `label_smoothing`")
    installed(verb, scope.span)
    keep = scope.settings.get("keep")
    batch = verb.batch or data.batch or 32
    seed = scope.seed + scope.index if verb.seed is None else verb.seed
    using = Invocation(verb.using.name, (), {"lr": OPTIMIZERS.find(verb.using.name).lr} | verb.using.keywords, verb.using.span)
    work = Training(
        parameters=parameters,
        buffers=buffers,
        training_modules=training,
        data=data.name,
        length=length.value,
        unit="epochs" if length.unit == "epochs" else "steps",
        optimizer=using,
        loss=loss,
        batch=batch,
        seed=seed,
        outputs=() if output is None else (output,),
        groups=_groups(verb, network, scope, parameters, using),
        schedule=verb.schedule,
        warmup=verb.warmup,
        clip=verb.clip,
        precision=verb.precision,
        device=verb.device,
        keep=keep.by.text if keep is not None else None,
        patience=verb.patience,
        label_smoothing=verb.label_smoothing,
        terms=terms,
        penalties=_penalties(verb.regularize, network, scope, set(parameters)),
        augment=verb.augment,
        mixup=verb.mixup,
        cutmix=verb.cutmix,
        draw=verb.draw,
        metrics=metrics,
        ema=verb.ema,
        accumulate=verb.accumulate,
        compile=verb.compile,
        strategy=verb.strategy,
        processes=verb.processes,
        soft=soft,
        held=tuple(n for n in parameters if named[n].dim() > 1) if verb.zeros == "hold" else (),
        record=_recording(scope, data.name),
    )
    origins = {} if verb.on is not None else {"data": "the only data set"}
    if verb.batch is None and data.batch is not None:
        origins["batch"] = f"as `{data.name}` comes"
    if verb.seed is None:
        origins["seed"] = "seed of the spec"
    if "lr" not in verb.using.keywords:
        origins["lr"] = f"default of {verb.using.name}"
    lesson = Lesson(
        trained=len(parameters),
        frozen=len(frozen),
        data=data.name,
        length=f"{work.length} {work.unit}",
        optimizer=str(using),
        batch=batch,
        learns=None if len(terms) or str(loss) == "cross_entropy" else str(loss),
        schedule=None if verb.schedule.name == "constant" else str(verb.schedule),
        metrics=metrics or None,
        drawn="every class equally often" if verb.draw == "balanced" else None,
        average=f"of the weights, {verb.ema:g} kept a step" if verb.ema is not None else None,
        seed=seed,
        zeros_held=f"in {len(work.held)} tensors" if work.held else None,
        penalised_values=tuple(n for p in work.penalties for n in p.nodes) or None,
        lost=tuple(f"{one.name} ({one.where})" for one in lost) or None,
    )
    return work, lesson, origins


def _lost(verb: Learning, network: Network, training: tuple[str, ...], selection: Selection) -> tuple[Lost, ...]:
    """What the model would do in this training and the graph does not. Raises NetxformError X0345 unless told to accept it."""
    lost = tuple(one for one in network.lost if one.path in training)
    if not lost or verb.lost == "accept":
        return lost
    owners = tuple(dict.fromkeys(one.name for one in lost))
    raise fail(
        "X0345",
        f"`{owners[0]}` does more in training than the captured graph holds",
        selection.span,
        "would be trained without it",
        notes=tuple(f"{one.where}: `{one.what}`" for one in lost[:6]),
        helps=(
            "write `lost=accept` to train what eval mode computes",
            *(("train what does not decide by its mode: select less",) if "" in training else ()),
            "or let the model give the same outputs in both modes",
        ),
    )


def trained_law(choice: Choice[Values]) -> tuple[Claim, ...]:
    """What every training promises: whatever it did not train has the same bits; zeros that it holds are zeros."""
    work = choice.work
    assert isinstance(work, Training)
    held = (ZerosHeld(work.held),) if work.held else ()
    return (Untouched((*work.parameters, *work.buffers)), *held)


def _terms(
    verb: Learning, network: Network, scope: Scope, data: DataInfo, loss: Loss, heads: tuple[Head, ...]
) -> tuple[tuple[Term, ...], str | None]:
    """The loss head by head, and the name of the one output where there are no heads."""
    from netxform.graph.outputs import chosen, outputs
    from netxform.language.fits import labels_fit

    if not heads:
        return (), labels_fit(network, data, None if verb.output is None else str(verb.output), loss, scope.span)
    known = outputs(network.module)
    out: list[Term] = []
    for head in heads:
        span = head.name.span if isinstance(head.name, Name) else scope.span
        name = chosen(known, str(head.name), span)
        if head.target is None:
            labels_fit(network, data, name, head.loss, span)
        out.append(Term(name, head.loss, head.target, head.weight))
    return tuple(out), None


def _groups(verb: Learning, network: Network, scope: Scope, trained: tuple[str, ...], using: Invocation) -> tuple[Group, ...]:
    """Parameters by their settings: `group` lines, `weight_decay(SELECTION, …)`, and a rate that falls from layer to layer."""
    settings: dict[str, dict[str, float]] = {}
    places: dict[tuple[str, str], Span] = {}

    def give(selection: Selection, given: dict[str, float | None]) -> None:
        names = [t for t in scope.tensors(selection) if t in set(trained)]
        if not names:
            raise fail("X0310", f"no trained parameter in `{selection}`", selection.span, "empty group")
        for name in names:
            held = settings.setdefault(name, {})
            for key_, value in given.items():
                if value is None:
                    continue
                if (name, key_) in places:
                    raise fail(
                        "X0407",
                        f"`{key_}` of `{name}` is given by two groups",
                        selection.span,
                        "second group",
                        secondary=(Label(places[name, key_], "first group"),),
                    )
                places[name, key_] = selection.span
                held[key_] = value

    for rates in verb.groups:
        give(rates.selection, {"lr": rates.lr, "weight_decay": rates.weight_decay})
    for one in verb.regularize:
        if one.kind == "weight_decay":
            give(one.target, {"weight_decay": one.weight})
    if verb.layer_decay is not None:
        for name, share in decayed(network, trained, verb.layer_decay).items():
            held = settings.setdefault(name, {})
            held["lr"] = share * held.get("lr", float(using.keywords["lr"]))
    grouped: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for name in trained:
        if name in settings:
            grouped.setdefault(tuple(sorted(settings[name].items())), []).append(name)
    return tuple(Group(tuple(names), dict(key_)) for key_, names in grouped.items())


def _penalties(wanted: tuple[Regularizer, ...], network: Network, scope: Scope, trained: set[str]) -> tuple[Penalty, ...]:
    from netxform.graph.activations import activation_nodes
    from netxform.graph.network import exit_nodes

    out: list[Penalty] = []
    for one in wanted:
        if one.kind == "weight_decay":
            continue
        if one.of == "parameters":
            names = tuple(t for t in scope.tensors(one.target) if t in trained)
            if not names:
                raise fail("X0310", f"no trained parameter in `{one.target}`", one.target.span, "nothing to penalise")
            out.append(Penalty(one.kind, one.weight, parameters=names))
            continue
        if one.of == "activations":
            nodes = activation_nodes(network, scope.modules_of(one.target))
        else:
            tops = scope.modules(one.target)
            nodes = tuple(dict.fromkeys(n.name for t in tops for n in exit_nodes(network, t)))
        if not nodes:
            raise fail(
                "X0341",
                f"`{one.target}` has no {one.of}",
                one.target.span,
                "nothing to penalise",
                notes=("an activation is the value behind a nonlinearity that follows a layer, its norm or its residual sum",),
                helps=(f"write `outputs({one.target})` for the values of the layers as they are",)
                if one.of == "activations"
                else (),
            )
        out.append(Penalty(one.kind, one.weight, nodes=nodes))
    return tuple(out)


def _recording(scope: Scope, data: str) -> Recording | None:
    """What `record trajectory` in the stage asks for."""
    wanted = scope.settings.get("record")
    if wanted is None:
        return None
    on = data if wanted.on is None else scope.data(wanted.on.text, wanted.on.span).name
    return Recording(wanted.what, on, wanted.part, wanted.samples, wanted.every.value)
