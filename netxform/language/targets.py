"""Do the targets of a data set fit a loss and an output? Asked before training, from shapes and values alone. No torch.

Targets, shape of the output ─targets_fit→ nothing, or a refusal in the words of the data
"""

from __future__ import annotations

from dataclasses import dataclass

from netxform.errors import NetxformError, Span, fail
from netxform.language.methods import IGNORED, Loss

MOST = 1000
UNLABELLED = (
    "learn from a teacher: `distill from TEACHER`",
    "with labels: hand in `(x, y)`, or say which field they are: `nx.dataset(…, target=…)`",
)
"""What is done without labels."""
_MANY = 6


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known of the targets: the shape of one, whether they are whole numbers, and their values.

    `values`: the different ones in order, where there are at most 1000, else the least and the largest. `shares`: every row is
    at least 0 and sums to 1. `broken`: how many of the targets are NaN or infinite. `count`: how many samples were looked at.
    """

    shape: tuple[int, ...]
    whole: bool
    dtype: str
    values: tuple[float, ...]
    shares: bool = False
    broken: int = 0
    count: int = 0

    @property
    def flags(self) -> bool:
        """Whether nothing but 0 and 1 occurs."""
        return set(self.values) <= {0.0, 1.0}

    @property
    def width(self) -> int | None:
        """How many outputs a head has that gives one number for each of these; None for class numbers and for maps."""
        if self.whole and not (len(self.shape) == 1 and self.flags):
            return None
        return 1 if not self.shape else self.shape[0] if len(self.shape) == 1 else None

    def __str__(self) -> str:
        return f"{_size(self.shape)} {self.dtype}"


def targets_fit(loss: Loss, output: tuple[int, ...], targets: Targets, name: str, span: Span) -> None:
    """Nothing where the loss can be taken between an output (N, …) and these targets.

    Raises NetxformError X0317 (classes that the output does not have), X0351 (another shape or kind of numbers).
    """
    if targets.broken:
        raise fail(
            "X0351",
            f"{targets.broken} of the {targets.count} targets of `{name}` are NaN or infinite",
            span,
            "no numbers",
            helps=("leave these samples out",),
        )
    match loss.kind.takes:
        case "classes":
            _classes(loss, output, targets, name, span)
        case takes:
            _values(loss, takes, output, targets, name, span)


def _classes(loss: Loss, output: tuple[int, ...], targets: Targets, name: str, span: Span) -> None:
    if len(output) < 2:
        raise _shapes(loss, output, targets, name, span, (f"`{loss.name}` takes one score a class: (N, classes)",))
    last = len(output) == 3 and targets.shape == output[1:-1]
    count, wanted = (output[-1], output[1:-1]) if last else (output[1], output[2:])
    if targets.shape == output[1:] and targets.shape != wanted:
        if not targets.whole and targets.shares and loss.kind.soft:
            return
        raise _not_one_class(loss, count, targets, name, span)
    if targets.shape != wanted:
        if len(targets.shape) == len(wanted) + 1 and 1 in targets.shape:
            axis = targets.shape.index(1) + 1
            raise fail(
                "X0351",
                f"labels of `{name}` are {targets} for one of {count} classes; `{loss.name}` takes {_size(wanted)}",
                span,
                "one dimension too many",
                helps=(f"hand in `y.squeeze({axis})`",),
            )  # fmt: skip
        raise _shapes(loss, output, targets, name, span, _others(targets))
    if not targets.whole:
        seen = next((v for v in targets.values if v != int(v)), targets.values[-1] if targets.values else 0.0)
        raise fail(
            "X0351",
            f"targets of `{name}` are {targets}, such as {seen}; `{loss.name}` takes class numbers",
            span,
            "no whole numbers",
            helps=("class numbers: hand in `y.long()`", "values: write `loss=mse`"),
        )
    _in_range(loss, count, targets, name, span)


def _in_range(loss: Loss, count: int, targets: Targets, name: str, span: Span) -> None:
    ignored = {IGNORED, loss.settings.get("ignore_index", IGNORED)}
    numbers = [int(v) for v in targets.values if v not in ignored]
    if not numbers or (min(numbers) >= 0 and max(numbers) < count):
        return
    least, most = min(numbers), max(numbers)
    if least < 0:
        helps = ("class numbers begin at 0",)
        if "ignore_index" in loss.settings:
            helps = (f"`loss={loss.name}(ignore_index={least})` leaves them out; so is {IGNORED}",)
        raise fail("X0351", f"labels of `{name}` go from {least} to {most}; classes are 0 … {count - 1}", span, "below 0",
                   helps=helps)  # fmt: skip
    if count == 1:
        helps = ("one output for two classes: write `loss=bce`", f"or attach a head with {most + 1} outputs")
    elif least == 1 and most == count:
        helps = ("classes are counted from 0: hand in `y - 1`",)
    else:
        helps = ("attach a head for this data: `cut before HEAD; attach head`",)
    raise fail(
        "X0317",
        f"`{name}` has {most + 1} classes (labels {least} … {most}), the network has {count} output{'s' if count > 1 else ''}",
        span,
        "does not match",
        helps=helps,
    )


def _not_one_class(loss: Loss, count: int, targets: Targets, name: str, span: Span) -> NetxformError:
    if targets.flags and not targets.shares:
        return fail(
            "X0351",
            f"targets of `{name}` are {targets}: several of the {count} classes may hold at once (multi-hot), "
            f"and `{loss.name}` is of one class a sample",
            span,
            "more than one class, or none",
            helps=("write `loss=bce`",),
        )
    if targets.flags:
        return fail(
            "X0351",
            f"targets of `{name}` are {targets}, one-hot; `{loss.name}` takes class numbers (N,)",
            span,
            "one-hot",
            helps=("hand in `y.argmax(1)`", *(("or `y.float()`, as shares of the classes",) if loss.kind.soft else ())),
        )
    if targets.whole:
        return _shapes(loss, (0, count), targets, name, span, ())
    return fail(
        "X0351",
        f"targets of `{name}` are {targets} and no shares of {count} classes: rows do not sum to 1",
        span,
        "neither classes nor shares",
        helps=("values: write `loss=mse`", "several classes at once: write `loss=bce`"),
    )


def _values(loss: Loss, takes: str, output: tuple[int, ...], targets: Targets, name: str, span: Span) -> None:
    width = output[1] if len(output) == 2 else None
    numbered = targets.whole and not targets.shape and width is not None and width > 1 and takes in ("units", "values")
    if not numbered and _plain(targets.shape) != _plain(output[1:]):
        raise _shapes(loss, output, targets, name, span, _others(targets))
    least, most = (targets.values[0], targets.values[-1]) if targets.values else (0.0, 0.0)
    if numbered and width is not None:  # class numbers are unit vectors
        if least < 0 or most >= width:
            _in_range(loss, width, targets, name, span)
        return
    allowed, helps = {
        "units": (least >= 0 and most <= 1, ("values: write `loss=mse`", "one of several classes: one output a class")),
        "counts": (least >= 0, ("values of any sign: write `loss=mse`",)),
        "signs": (set(targets.values) <= {-1.0, 1.0}, ("0 and 1: hand in `2 * y - 1`, or write `loss=bce`",)),
    }.get(takes, (True, ()))
    if not allowed:
        words = {"units": "0, 1 or a share between", "counts": "numbers from 0", "signs": "−1 and 1"}[takes]
        text = ", ".join(f"{v:g}" for v in targets.values) if len(targets.values) <= _MANY else f"{least:g} … {most:g}"
        code = "X0317" if takes == "units" and targets.whole and least >= 0 else "X0351"
        raise fail(code, f"targets of `{name}` are {text}; `{loss.name}` takes {words}", span, "out of range", helps=helps)


def _size(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['N', *map(str, shape)])}{'' if shape else ','})"


def _plain(shape: tuple[int, ...]) -> list[int]:
    return [s for s in shape if s != 1]


def _others(targets: Targets) -> tuple[str, ...]:
    """What fits such targets."""
    if targets.whole and not targets.shape:
        return ("class numbers: `attach head` with one output a class",)
    if targets.whole and len(targets.shape) >= 2:
        return ("a map of class numbers needs an output (N, classes, H, W)",)
    if targets.width is not None:
        several = "s" if targets.width > 1 else ""
        return (f"attach a head with {targets.width} output{several}: `attach head classes={targets.width}`",)
    return ()


def _shapes(
    loss: Loss, output: tuple[int, ...], targets: Targets, name: str, span: Span, helps: tuple[str, ...]
) -> NetxformError:
    text = f"targets of `{name}` are {targets}, the network gives {_size(output[1:])}: no `{loss.name}` between them"
    return fail("X0351", text, span, "does not fit", helps=helps)
