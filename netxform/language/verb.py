"""What a verb is: a frozen dataclass whose fields are its syntax, with a law, a `resolve` and a `rewrite`.

The compiler knows no verb and the verbs know no compiler; they meet here. `@verb` registers a class and refuses, at
import, one that lacks a duty or that has a field without a slot. No torch here.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from netxform.errors import Span
from netxform.graph.edits import Edit
from netxform.language.choice import Choice
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.material import Material as Material
from netxform.language.values import Selection, describe
from netxform.language.work import Sight

if typing.TYPE_CHECKING:
    from pathlib import Path

    from netxform.graph.cost import Cost
    from netxform.graph.network import Network
    from netxform.language.targets import Targets


@dataclass(frozen=True, slots=True)
class Slot:
    """Where in the sentence a field is filled: `kind` and, for a preposition or an inner line, its word."""

    kind: typing.Literal["operand", "prep", "key", "factor", "comparison", "layers", "lines", "nested"]
    word: str = ""
    of: type | None = None


def operand(default: Any = MISSING) -> Any:
    """The field is what follows the verb: `freeze body`. Several operands are filled in the order of the fields."""
    return _slot(Slot("operand"), default)


def prep(word: str, default: Any = None) -> Any:
    """The field is what follows a preposition: `for 5epochs`."""
    return _slot(Slot("prep", word), default)


def factor(default: Any = None) -> Any:
    """The field is a factor: `x2`, `x1.5`."""
    return _slot(Slot("factor"), default)


def key(default: Any = MISSING) -> Any:
    """The field is an option under its own name: `rank=256`."""
    return _slot(Slot("key"), default)


def comparison(default: Any = None) -> Any:
    """The field is a comparison behind the verb: `prune saliency < 1e-3`."""
    return _slot(Slot("comparison"), default)


def layers(default: Any = None) -> Any:
    """The field is a block of layers: `{ out = Linear(auto, 10) }`."""
    return _slot(Slot("layers"), default)


def lines(word: str, of: type) -> Any:
    """The field is all lines in the block that begin with `word`; each fills the fields of `of`."""
    return _slot(Slot("lines", word, of), ())


def nested(word: str) -> Any:
    """The field is a tuple of statements, bound to their verbs: `recover { train … }` inside the block."""
    return _slot(Slot("nested", word), ())


def _slot(slot: Slot, default: Any) -> Any:
    return field(default=default, metadata={"slot": slot})


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What is known of a data set before it is loaded; None where it is not.

    `shape` is that of one x; `inputs` those of several, by name; `labelled`: whether there are targets; `batch`: the size of
    the batches that it comes in.
    """

    name: str
    classes: int | None
    train: int | None
    shape: tuple[int, ...] | None
    span: Span
    targets: Targets | None = None
    inputs: tuple[tuple[str, tuple[int, ...] | None], ...] = ()
    labelled: bool = True
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a further model while a plan is made.

    `network`: its graph without weights, None for what is no network. `output`: the shape of its one output for one sample
    (the first number is the batch), None where it has several; `outputs`: those of all, by name or place. `params`: its number
    of parameters, 0 where it has none. `sight`: how it is to be shown images.
    """

    name: str
    network: Network | None
    output: tuple[int, ...] | None
    params: int
    span: Span
    description: str = ""
    outputs: Mapping[str | None, tuple[int, ...]] = field(default_factory=dict["str | None", "tuple[int, ...]"])
    sight: Sight = Sight()


class Scope(Protocol):
    """What a verb may ask of its surroundings while it resolves."""

    @property
    def span(self) -> Span:
        """The place of the statement."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the spec."""
        ...

    @property
    def index(self) -> int:
        """The number of the statement, from 0."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the stage, by their word."""
        ...

    @property
    def base(self) -> Cost:
        """What the subject cost as it came."""
        ...

    @property
    def current(self) -> Cost:
        """What the network costs before this statement."""
        ...

    @property
    def asked(self) -> tuple[str, ...]:
        """Metrics that an `assert` or a `compare` of the spec speaks of."""
        ...

    @property
    def untrained(self) -> tuple[str, ...]:
        """Parts of the network that were drawn at random and that nothing has trained, by name; "" for all as it came."""
        ...

    def modules(self, selection: Selection) -> tuple[str, ...]:
        """The paths of the selected modules, in the order of the network. Raises X02xx, X03xx."""
        ...

    def modules_of(self, selection: Selection) -> tuple[str, ...]:
        """As `modules`, with every module below; for a selection of tensors, the modules that they hang on."""
        ...

    def tensors(self, selection: Selection) -> tuple[str, ...]:
        """The names of all parameters and buffers of the selected modules (or of the tensors named by `::`)."""
        ...

    def point(self, selection: Selection, side: typing.Literal["after", "before"]) -> str:
        """The one graph node whose value lies after (before) the selected module or operation."""
        ...

    def data(self, name: str | None, span: Span) -> DataInfo:
        """The data set of that name, or the only one declared."""
        ...

    def model(self, name: str, span: Span) -> ModelInfo:
        """A declared model, or a snapshot of this one. Raises X0302, and what loading it raises."""
        ...

    def weights(self, name: str, span: Span) -> Network:
        """A further model, or a snapshot, that weights are taken from: its graph, without them. Raises X0302."""
        ...

    def file(self, text: str, span: Span) -> Path:
        """The existing file that the spec names. Raises NetxformError X0807 (missing), X0901 (outside the spec's folder)."""
        ...

    def closing(self) -> str | None:
        """The node of the loose end that the last cut left, if there is one."""
        ...

    def cost(self, name: str) -> int | None:
        """What the subject cost as it came: `params`, `macs`, `flops` or `bytes`; None for anything else."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A further duty of the verbs whose choice needs weights or data.

    `resolve` then gives a choice that fits the twin (`provisional` says what is left open); `settle` makes it final on
    the real network, before the Edit is made. Statements behind it are resolved again on what came out.
    """

    def settle(self, network: Network, choice: Choice[Any], material: Material) -> Choice[Any]:
        """The final choice. Raises NetxformError where it cannot be done soundly; then nothing has changed."""
        ...


class Role(enum.Enum):
    """What a statement does in the course of a spec, for who runs a variant of it: `role: ClassVar[Role]` of a verb."""

    CUTS = "takes the network apart: what is learnt before it is pre-training"
    BUILDS = "puts something new on what was there: pre-training is over"
    CARRIES = "carries learnt weights over from elsewhere"
    TRAINS = "trains: pre-training, where it stands before the structure changes"
    FREEZES = "says which parameters are trained"
    OTHER = "none of these"


Control: typing.TypeAlias = typing.Literal["scratch", "random", "alone"]
"""A control run of `compare`: fresh weights and nothing frozen; fresh weights; without teachers."""


@runtime_checkable
class Controlled(Protocol):
    """A further duty of the verbs whose statement is another one in a control run."""

    def control(self, kind: Control) -> Transform | None:
        """The statement in a control run of this kind; None where it is left out."""
        ...


@runtime_checkable
class Transform(Protocol):
    """The duties of a verb."""

    contract: ClassVar[Contract]

    def resolve(self, network: Network, scope: Scope) -> Choice[Any]:
        """Settle on the twin what will be done, or refuse with a diagnostic."""
        ...

    def rewrite(self, network: Network, choice: Choice[Any]) -> Edit:
        """The change of structure for that choice; empty for verbs that change none."""
        ...

    def law(self, choice: Choice[Any]) -> tuple[Claim, ...]:
        """What shall hold afterwards, to be measured on the user's own network."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered verb: its word, class, slots by field name, and whether it is a setting of its stage."""

    word: str
    cls: type
    slots: dict[str, Slot]
    types: dict[str, object]
    required: frozenset[str]
    setting: bool

    @property
    def doc(self) -> str:
        """The page of `explain`."""
        return inspect.cleandoc(self.cls.__doc__ or "")

    @property
    def role(self) -> Role:
        """What its statements do in the course of a spec."""
        return getattr(self.cls, "role", Role.OTHER)

    def signature(self) -> str:
        """The shape of the sentence in one line, for help and `explain`."""
        parts = [self.word]
        tail = ""
        for name, slot in self.slots.items():
            what = describe(self.types[name])
            match slot.kind:
                case "operand":
                    text = f"<{name}: {what}>"
                case "prep":
                    text = f"{slot.word} <{what}>"
                case "key":
                    text = f"{name}=<{what}>"
                case "factor":
                    text = "x<number>"
                case "comparison":
                    text = "<score> < <number>"
                case "layers":
                    tail = " [{ NAME = LAYER(…) … }]"
                    continue
                case "lines":
                    tail = f" [{{ {slot.word} … }}]"
                    continue
                case "nested":
                    tail = f" [{{ {slot.word} {{ … }} }}]"
                    continue
            parts.append(text if name in self.required else f"[{text}]")
        return " ".join(parts) + tail


REGISTRY: dict[str, Entry] = {}
T = TypeVar("T", bound=type)
_DUTIES = ("resolve", "rewrite", "law")
_NOT_SLOTS = ("contract", "role", "validate", "settle", "control", *_DUTIES)


def verb(word: str, *, setting: bool = False) -> Callable[[T], T]:
    """Register a frozen dataclass as the verb `word`.

    `setting=True`: the statement speaks of the other statements of its stage (`keep best by val_loss`); they find it
    in `scope.settings`. Raises TypeError where the class lacks a duty, a docstring with an example, or has an
    attribute that nothing reads.
    """

    def register(cls: T) -> T:
        REGISTRY[word] = entry(word, cls, setting)
        return cls

    return register


def entry(word: str, cls: type, setting: bool = False) -> Entry:
    """The entry of a verb, checked for its duties."""
    if word in REGISTRY:
        raise TypeError(f"verb `{word}` is registered twice: {REGISTRY[word].cls.__name__}, {cls.__name__}")
    missing = [d for d in _DUTIES if not callable(getattr(cls, d, None))]
    if missing:
        raise TypeError(f"verb `{word}` lacks {', '.join(missing)}")
    if not isinstance(getattr(cls, "contract", None), Contract):
        raise TypeError(f"verb `{word}` states no contract")
    if not isinstance(getattr(cls, "role", Role.OTHER), Role):
        raise TypeError(f"verb `{word}`: `role` is a Role, not {cls.role!r}")  # type: ignore[attr-defined]
    if "Example:" not in (cls.__doc__ or ""):
        raise TypeError(f"verb `{word}`: the docstring needs a line `Example:` with a spec that runs")
    stray = [n for n in vars(cls) if not n.startswith("_") and n not in _NOT_SLOTS and n not in _fields(cls)]
    if stray:
        raise TypeError(f"verb `{word}` defines what nothing reads: {', '.join(stray)}")
    return Entry(word, cls, *slots_of(cls), setting=setting)


def slots_of(cls: type) -> tuple[dict[str, Slot], dict[str, object], frozenset[str]]:
    """Slots, types and required fields of a dataclass whose fields are clauses."""
    if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{cls.__name__} is not a frozen dataclass")
    hints = typing.get_type_hints(cls)
    slots: dict[str, Slot] = {}
    required: set[str] = set()
    for item in dataclasses.fields(cls):
        slot = item.metadata.get("slot")
        if slot is None:
            raise TypeError(
                f"{cls.__name__}.{item.name} has no slot: use operand(), prep(), factor(), key(), layers() or lines()"
            )
        slots[item.name] = slot
        if item.default is MISSING:
            required.add(item.name)
    return slots, {name: hints[name] for name in slots}, frozenset(required)


def _fields(cls: type) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
