"""The typed tree of an `.xform` text: frozen nodes with spans.

Spans and comments never take part in equality, so that `parse(format(tree)) == tree` can hold. Everything that a
spec says is one of the statements at the end of this file; everything that a statement mentions is an expression.
"""

# Long: every node of the tree, a few lines each.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from netxform.errors import NOWHERE, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every node of the tree has: its place in the text."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


# --- expressions: selections and values are one language -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Path(Node):
    """`layer4.1.conv2`, `layer*.conv1`, `.0.weight`, a bare word such as `auto`, or the name of a declaration.

    `text` is kept as written, without back-quotes; `quoted` says that back-quotes stood around it (`` `cut` ``).
    """

    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class OfType(Node):
    """`:Conv2d` (base is None) or `body:Linear`."""

    base: Expr | None
    type: str


@dataclass(frozen=True, slots=True)
class Tensors(Node):
    """`sel::weight`: tensors of the selected modules."""

    base: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Filter(Node):
    """`sel[kernel_size == 3 and params > 1M]`."""

    base: Expr
    condition: Condition


@dataclass(frozen=True, slots=True)
class Maybe(Node):
    """`sel?`: an empty match is allowed."""

    base: Expr


@dataclass(frozen=True, slots=True)
class Regex(Node):
    r"""`/layer[12]\..*/`, matched against the whole path."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Op(Node):
    """`op:relu`: functional nodes without a module."""

    name: str


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """One argument of a call; `key` is None for a positional one."""

    key: str | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`upstream(fc)`, `adamw(lr=1e-3)`, `torchvision.resnet50(weights="…")`, `Linear(auto, 10)`."""

    name: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Union(Node):
    """`a | b`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Intersection(Node):
    """`a & b`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Difference(Node):
    """`a - b`."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Number(Node):
    """`1e-3`: an int where the text has neither point nor exponent."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Quantity(Node):
    """`5epochs`, `2%`, `30Mparams`: value and unit as written (see `quantity`)."""

    value: int | float
    unit: str


@dataclass(frozen=True, slots=True)
class Relative(Node):
    """`50% of base`."""

    quantity: Quantity
    of: Path


@dataclass(frozen=True, slots=True)
class String(Node):
    """`"text"`, unescaped."""

    value: str


@dataclass(frozen=True, slots=True)
class Var(Node):
    """`$classes`."""

    name: str


@dataclass(frozen=True, slots=True)
class List(Node):
    """`[a, b]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Pair(Node):
    """One entry of a mapping: `"old": "new"`."""

    key: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Mapping(Node):
    """`{"old": "new"}`."""

    items: tuple[Pair, ...]


# --- conditions ------------------------------------------------------------------------------------------------------

CompareOp: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """`params < 30Mparams`; also the comparison clause of a verb (`prune saliency < 1e-3`)."""

    op: CompareOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`kernel_size in [1, 3]`."""

    item: Expr
    items: List


@dataclass(frozen=True, slots=True)
class Not(Node):
    """`not cond`."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class And(Node):
    """`a and b`."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    """`a or b`."""

    items: tuple[Condition, ...]


Condition: TypeAlias = Compare | Member | Not | And | Or
Expr: TypeAlias = (
    Path
    | OfType
    | Tensors
    | Filter
    | Maybe
    | Regex
    | Op
    | Call
    | Union
    | Intersection
    | Difference
    | Number
    | Quantity
    | Relative
    | String
    | Var
    | List
    | Mapping
    | Compare
)


# --- clauses of a command --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preposition(Node):
    """`after avgpool`, `for 5epochs`."""

    word: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`rank=256`. Also a line `out = Linear(auto, 10)` in a block."""

    key: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Factor(Node):
    """`x2`."""

    value: int | float


Clause: TypeAlias = Preposition | Option | Factor


# --- statements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Node):
    """What every statement has: the comments on the lines above it and the one at the end of its own line."""

    comments: tuple[str, ...] = field(default=(), compare=False, repr=False)
    trailing: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Model(Line):
    """`model NAME = SOURCE [key=value …]`. A source is a Call, a Path or a String (a file)."""

    name: str
    source: Expr
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Data(Line):
    """`data NAME = SOURCE [key=value …]`."""

    name: str
    source: Expr
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Param(Line):
    """`param NAME: type = default in [lo, hi]`."""

    name: str
    type: str | None
    default: Expr | None
    domain: List | None


@dataclass(frozen=True, slots=True)
class Let(Line):
    """`let NAME = SELECTION`."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Use(Line):
    """`use "file.xform" as NAME`."""

    file: str
    alias: str | None


@dataclass(frozen=True, slots=True)
class Def(Line):
    """`def NAME(a, b) { … }`."""

    name: str
    parameters: tuple[str, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Each(Line):
    """`each NAME in SELECTION { … }`."""

    name: str
    selection: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If(Line):
    """`if COND { … } else { … }`."""

    condition: Condition
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage(Line):
    """`stage NAME { … }`."""

    name: str
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Assert(Line):
    """`assert COND, "message"`."""

    condition: Condition
    message: str | None


@dataclass(frozen=True, slots=True)
class Binding(Line):
    """A line `out = Linear(auto, 10)` inside a command's block."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Command(Line):
    """`verb [operand] {clause} [block]`; also the call of a macro (`verb` is its name, operand a Call or none).

    `verb_span` is the place of the verb's word alone; `block` is None where none was written.
    """

    verb: str
    operands: tuple[Expr, ...] = ()
    clauses: tuple[Clause, ...] = ()
    block: tuple[Statement, ...] | None = None
    verb_span: Span = field(default=NOWHERE, compare=False, repr=False)


Statement: TypeAlias = Model | Data | Param | Let | Use | Def | Each | If | Stage | Assert | Binding | Command


@dataclass(frozen=True, slots=True)
class Program:
    """A whole text: the edition (`xform 1`) if it was written, then the statements.

    `source` is the text that it was parsed from (for diagnostics), `file` its name; `tail` are comments at the end.
    """

    edition: int | None
    statements: tuple[Statement, ...]
    file: str = field(default="<spec>", compare=False)
    source: str = field(default="", compare=False, repr=False)
    tail: tuple[str, ...] = field(default=(), compare=False, repr=False)
