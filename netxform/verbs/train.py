"""train: minimise a loss over data by changing the selected parameters, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from netxform.core.edit import Choice, Claim, Edit, Untouched
from netxform.core.law import Contract
from netxform.core.objective import Group, Recording, Training
from netxform.core.values import Count, Invocation, Name, Selection
from netxform.core.verb import Scope, key, lines, operand, prep, verb
from netxform.errors import Diagnostic, Label, Span, did_you_mean, fail

if TYPE_CHECKING:
    from netxform.core.network import Network

OPTIMIZERS = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "rmsprop": 1e-3, "adagrad": 1e-2, "nadam": 1e-3, "radam": 1e-3}


@dataclass(frozen=True)
class Rates:
    """`group SELECTION lr=1e-5 weight_decay=0`: settings of some of the parameters."""

    selection: Selection = operand()
    lr: float | None = key(None)
    weight_decay: float | None = key(None)


@verb("train")
@dataclass(frozen=True)
class Train:
    """Train the selected parameters: `train SELECTION for 5epochs on DATA using adamw(lr=1e-3)`.

    Frozen tensors stay frozen, whatever is selected. Modules outside the selection keep their parameters *and* their
    running statistics. Optimizers: adamw, adam, sgd, rmsprop, adagrad, nadam, radam, with PyTorch's arguments. In a
    block, `group SELECTION lr=1e-5` gives some parameters settings of their own (discriminative learning rates).

    `batch` is the global batch, over all processes. `output` names the head that is trained, where there are several.
    `schedule` runs from the given rate to 0 (`cosine`, `linear`) or up and down (`onecycle`), after `warmup` steps. `clip`
    bounds the norm of the gradient. `patience` stops after so many epochs without a better validation loss.
    `keep best by …` in the stage puts the best epoch back.

    Example: model net = zoo.smallcnn(); data d = sklearn.digits(); train ** for 1epochs on d using adamw(lr=1e-3)

    Contract: training. Everything that was not trained has the same bits afterwards; metrics are reported on data that was
    not trained on. Refused: nothing to train; data whose classes or shape do not fit the network.
    Papers: Howard, Ruder, "Universal language model fine-tuning", 2018 (discriminative rates); Loshchilov, Hutter,
    "Decoupled weight decay regularization", 2019 (AdamW).
    """

    selection: Selection = operand()
    length: Count = prep("for", MISSING)
    on: Name | None = prep("on")
    using: Invocation = prep("using", Invocation("adamw", (), {"lr": 1e-3}))
    batch: int = key(32)
    loss: Literal["cross_entropy", "mse"] = key("cross_entropy")
    schedule: Literal["constant", "cosine", "linear", "onecycle"] = key("constant")
    warmup: int = key(0)
    clip: float | None = key(None)
    precision: Literal["float32", "bfloat16", "float16"] = key("float32")
    patience: int | None = key(None)
    label_smoothing: float = key(0.0)
    device: str = key("auto")
    output: str | None = key(None)
    seed: int | None = key(None)
    groups: tuple[Rates, ...] = lines("group", Rates)
    contract: ClassVar[Contract] = Contract.TRAINING

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
        for name, low in (("batch", 1), ("warmup", 0), ("patience", 1), ("clip", 0.0)):
            value = getattr(self, name)
            if value is not None and value < low:
                yield Diagnostic("X0406", f"`{name}` is at least {low}, not {value}", span, name)
        if not 0 <= self.label_smoothing < 1:
            yield Diagnostic("X0406", f"`label_smoothing` is in [0, 1), not {self.label_smoothing}", span, "")

    def resolve(self, network: Network, scope: Scope) -> Choice:
        """Name the tensors that will change, and settle every setting."""
        from netxform.core.fits import classes_fit, input_fits
        from netxform.core.surgery import frozen_norms, modules_in_training

        chosen = set(scope.tensors(self.selection))
        named = dict(network.module.named_parameters(remove_duplicate=False))
        parameters = tuple(n for n, p in named.items() if n in chosen and p.requires_grad)
        frozen = [n for n, p in named.items() if n in chosen and not p.requires_grad]
        if not parameters:
            reason = "all of it is frozen" if frozen else "it has no parameters"
            raise fail(
                "X0310",
                f"nothing to train in `{self.selection}`: {reason}",
                self.selection.span,
                "nothing to train",
                helps=(f"write `unfreeze {self.selection}` first",) if frozen else (),
            )
        still = set(frozen_norms(network))
        owners = {n.rpartition(".")[0] for n in chosen}
        buffers = tuple(
            n
            for n, _ in network.module.named_buffers(remove_duplicate=False)
            if n in chosen and n.rpartition(".")[0] not in still
        )
        data = scope.data(self.on.text if self.on else None, scope.span)
        input_fits(network, data, scope.span)
        output = None
        if self.loss == "cross_entropy" or self.output is not None:
            output = classes_fit(network, data, self.output, scope.span)
        keep = scope.settings.get("keep")
        seed = scope.seed + scope.index if self.seed is None else self.seed
        using = Invocation(self.using.name, (), {"lr": OPTIMIZERS[self.using.name]} | self.using.keywords, self.using.span)
        work = Training(
            parameters=parameters,
            buffers=buffers,
            training_modules=modules_in_training(network, scope.modules_of(self.selection), owners),
            data=data.name,
            length=self.length.value,
            unit="epochs" if self.length.unit == "epochs" else "steps",
            optimizer=using,
            loss=self.loss,
            batch=self.batch,
            seed=seed,
            outputs=() if output is None else (output,),
            groups=self._groups(scope, set(parameters)),
            schedule=self.schedule,
            warmup=self.warmup,
            clip=self.clip,
            precision=self.precision,
            device=self.device,
            keep=keep.by.text if keep is not None else None,
            patience=self.patience,
            label_smoothing=self.label_smoothing,
            record=_recording(scope, data.name),
        )
        origins = {} if self.on is not None else {"data": "the only data set"}
        if self.seed is None:
            origins["seed"] = "seed of the spec"
        if "lr" not in self.using.keywords:
            origins["lr"] = f"default of {self.using.name}"
        values = {
            "trained": len(parameters),
            "frozen": len(frozen),
            "data": data.name,
            "length": f"{work.length} {work.unit}",
            "optimizer": str(using),
            "batch": self.batch,
            "seed": seed,
        }
        return Choice(targets=(str(self.selection),), values=values, origins=origins, work=work)

    def _groups(self, scope: Scope, trained: set[str]) -> tuple[Group, ...]:
        out: list[Group] = []
        taken: dict[str, Span] = {}
        for rates in self.groups:
            names = [t for t in scope.tensors(rates.selection) if t in trained]
            twice = next((n for n in names if n in taken), None)
            if twice is not None:
                raise fail(
                    "X0407",
                    f"`{twice}` is in two groups",
                    rates.selection.span,
                    "second group",
                    secondary=(Label(taken[twice], "first group"),),
                )
            if not names:
                raise fail("X0310", f"no trained parameter in `{rates.selection}`", rates.selection.span, "empty group")
            taken |= dict.fromkeys(names, rates.selection.span)
            given = {"lr": rates.lr, "weight_decay": rates.weight_decay}
            out.append(Group(tuple(names), {k: v for k, v in given.items() if v is not None}))
        return tuple(out)

    def rewrite(self, network: Network, choice: Choice) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice) -> tuple[Claim, ...]:
        """Whatever was not trained has the same bits."""
        return (Untouched((*choice.work.parameters, *choice.work.buffers)),)


def _recording(scope: Scope, data: str) -> Recording | None:
    """What `record trajectory` in the stage asks for."""
    wanted = scope.settings.get("record")
    if wanted is None:
        return None
    on = data if wanted.on is None else scope.data(wanted.on.text, wanted.on.span).name
    return Recording(wanted.what, on, wanted.part, wanted.samples, wanted.every.value)
