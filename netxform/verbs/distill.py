"""distill: train on the answers of teachers, beside the labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Edit
from netxform.graph.shapes import times
from netxform.language.choice import IF_KNOWN, Choice
from netxform.language.claims import Claim
from netxform.language.laws import Contract
from netxform.language.learning import Learning, Lesson, planned, trained_law
from netxform.language.methods import loss
from netxform.language.values import Count, Name, Selection
from netxform.language.verb import Control, ModelInfo, Scope, key, lines, operand, prep, verb
from netxform.language.work import Match, Soft
from netxform.syntax import ast

if TYPE_CHECKING:
    from netxform.graph.network import Network

_EVERYTHING = Selection(ast.Path("**"))


@dataclass(frozen=True)
class Features:
    """`match student.layer3 to t1.layer3 via conv1x1 weight=0.5`: a value of the student drawn towards one of a teacher."""

    student: Name = operand()
    to: Name = prep("to", MISSING)
    via: Literal["none", "conv1x1", "linear", "attention"] = prep("via", "none")
    weight: float = key(1.0)


@dataclass(frozen=True, kw_only=True)
class Taught(Lesson):
    """A lesson with its teachers: who they are, how their answers are mixed, and what is matched."""

    teachers: tuple[str, ...]
    loss: str
    temperature: float
    hard: float
    mix: tuple[float, ...] | None = field(default=None, metadata=IF_KNOWN)
    mean: str | None = field(default=None, metadata=IF_KNOWN)
    matched: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)


@verb("distill")
@dataclass(frozen=True, kw_only=True)
class Distill(Learning):
    """Train on the soft answers of a teacher: `distill from teacher for 5epochs on DATA temperature=4 hard=0.1`.

    Data without labels will do: then `hard` is 0. The loss is hard · CE(labels) + (1 − hard) · T² · KL(softmax(v/T) ‖
    softmax(z/T)), summed over classes, averaged over the batch. An ensemble teaches by its mean: `from [t1, t2] mix=[0.6,
    0.4]`, `mean=arithmetic` of the probabilities or `geometric` (of the logits). Other soft losses by name: `ce`, `logit_mse`,
    `dist`, `dkd`; `mse` for targets that are no classes.

    A teacher is a declared model of any source (a bundle, a library, an ONNX file, a classifier stored by skops, Python under
    trust), a `snapshot` of this network, or given by `nx.apply(…, models={"teacher": …})`. It is in eval mode, sees the same
    augmented view, and is proven untouched. Where every sample is seen the same way each time, its answers are kept on disk
    (`cache=false` asks it at every step).

    A teacher with other classes: `classes=[3, 0, none]` gives the teacher's number of every class of the student, `none` for
    one that it does not know. Of a teacher with several outputs the one teaches that is called as the student's, or
    `teacher_output=NAME`. `model t = … input="1x3x64x64" normalize=[[…], […]]` is shown images in that size, normalised so.

    In the block, `match student.layer3 to t1.layer3 via conv1x1` draws features together (`via none`, `conv1x1`, `linear`: a
    trained map that is thrown away; maps of other size are averaged to the smaller), `via attention` their attention maps.
    What is not frozen is trained; an operand selects less. All clauses of `train` are understood.
    `baseline=0.95` states what the student reaches alone: a weaker teacher draws a warning. `compare to alone` measures it.

    Example: model net = zoo.smallcnn(width=8); model teacher = zoo.smallcnn(); data d = sklearn.digits(train=100);
    distill from teacher for 1epochs

    Contract: training. Everything that was not trained has the same bits, the teachers as well. Refused: a teacher whose
    output has another shape, features of other shape without a map (X0343); a teacher that is not declared (X0302); a
    student that does more in training than its graph holds (X0345, unless `lost=accept`).
    Papers: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015; Romero et al., "FitNets", 2015;
    Zagoruyko, Komodakis, "Paying more attention to attention", 2017; Huang et al., 2022 (dist); Zhao et al., 2022 (dkd).
    """

    selection: Selection | None = operand(None)
    teachers: tuple[Name, ...] = prep("from", MISSING)
    length: Count = prep("for", Count(5, "epochs"))
    mix: tuple[float, ...] = key(())
    mean: Literal["arithmetic", "geometric"] = key("arithmetic")
    temperature: float = key(4.0)
    hard: float | None = key(None)
    loss: Literal["kd", "ce", "logit_mse", "dist", "dkd", "mse"] = key("kd")
    classes: tuple[int | None, ...] = key(())
    teacher_output: int | str | None = key(None)
    cache: bool = key(True)
    baseline: float | None = key(None)
    matches: tuple[Features, ...] = lines("match", Features)
    contract: ClassVar[Contract] = Contract.TRAINING

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """Values that the text alone shows to be wrong."""
        yield from super().validate(span)
        names = [t.text for t in self.teachers]
        if not names:
            yield Diagnostic("X0408", "`distill` needs a teacher", span, "from whom?")
        if len(set(names)) < len(names):
            yield Diagnostic("X0407", "a teacher is named twice", span, "one teacher, one weight")
        if self.mix and len(self.mix) != len(names):
            yield Diagnostic("X0406", f"{len(self.mix)} weights for {len(names)} teacher(s)", span, "mix")
        elif self.mix and (min(self.mix) <= 0 or abs(sum(self.mix) - 1) > 1e-6):
            said = f"sum to 1, not {sum(self.mix):g}" if min(self.mix) > 0 else f"are above 0, not {min(self.mix):g}"
            helps = ("leave out the teacher that has no weight",) if min(self.mix) == 0 else ()
            yield Diagnostic("X0406", f"the weights in `mix` {said}", span, "mix", helps=helps)
        if not self.temperature > 0:
            yield Diagnostic("X0406", f"`temperature` is above 0, not {self.temperature:g}", span, "temperature")
        if self.hard is not None and not 0 <= self.hard <= 1:
            yield Diagnostic("X0406", f"`hard` is in [0, 1], not {self.hard:g}", span, "hard")
        elif self.hard == 1 and not self.matches:
            helps = ("write `hard=10%`; to learn from labels alone, `train`",)
            yield Diagnostic("X0406", "`hard=100%` listens to the labels alone: no teacher is heard", span, "hard", helps=helps)
        for match in self.matches:
            if not match.weight > 0:
                message, helps = f"`weight` is above 0, not {match.weight:g}", ("leave the line out: it draws nothing",)
                yield Diagnostic("X0406", message, match.to.span, "weight", helps=helps)

    def control(self, kind: Control) -> Distill:
        """Without its teachers it learns from the labels alone."""
        return replace(self, hard=1.0, matches=()) if kind == "alone" else self

    def resolve(self, network: Network, scope: Scope) -> Choice[Taught]:
        """Name the tensors that will change, look at every teacher, and settle every setting."""
        infos = {t.text: scope.model(t.text, t.span) for t in self.teachers}
        data = scope.data(self.on.text if self.on else None, scope.span)
        hard = self.hard if self.hard is not None else 0.1 if data.labelled else 0.0
        if self.loss == "dkd" and not data.labelled:
            helps = ("write `loss=kd`",)
            raise fail("X0351", f"`dkd` needs labels, and `{data.name}` has none", scope.span, "no labels", helps=helps)
        count = len(infos)
        mix = self.mix or tuple(1.0 / count for _ in infos)
        output = None if self.output is None else str(self.output)
        soft = Soft(
            outputs=tuple(self._teaches(i, output) for i in infos.values()),
            sights=tuple(i.sight for i in infos.values()),
            classes=self.classes,
            teachers=tuple(infos),
            mix=mix,
            mean=self.mean,
            temperature=self.temperature,
            hard=hard,
            loss=self.loss,
            matches=tuple(self._match(m, infos, network, scope) for m in self.matches),
            cache=self.cache,
            baseline=self.baseline,
        )
        selection = self.selection or _EVERYTHING
        labels = "mse" if self.loss == "mse" else "cross_entropy"
        work, lesson, origins = planned(self, network, scope, selection, self.length, loss(labels), soft=soft)
        if self.loss == "dist" and (self.processes or 1) > 1:
            raise fail("X0342", "`dist` relates the samples of a batch to each other, and each process sees a part", scope.span)
        self._outputs_fit(network, infos, work.outputs[0] if work.outputs else None, work.data)
        if self.selection is None:
            origins["selection"] = "all that is not frozen"
        stated = {"temperature": 4.0, "loss": "kd"}
        origins |= {n: "default" for n, v in stated.items() if getattr(self, n) == v}
        if self.hard is None:
            origins["hard"] = "default" if data.labelled else "no labels"
        if self.length == Count(5, "epochs"):
            origins["length"] = "default"
        if count > 1 and not self.mix:
            origins["mix"] = "equal shares"
        taught = Taught(
            **{f.name: getattr(lesson, f.name) for f in fields(lesson) if f.name != "learns"},
            teachers=tuple(f"{n} ({i.description})" for n, i in infos.items()),
            loss=self.loss,
            temperature=self.temperature,
            hard=hard,
            mix=tuple(round(m, 6) for m in mix) if count > 1 else None,
            mean=self.mean if count > 1 else None,
            matched=tuple(f"{m.student} to {m.to} via {m.via}" for m in self.matches) or None,
        )
        return Choice(taught, (str(selection),), origins, work=work, warnings=tuple(_smaller(network, infos)))

    def _outputs_fit(self, network: Network, infos: dict[str, ModelInfo], output: str | None, data: str) -> None:
        from netxform.graph.outputs import chosen, outputs

        known = outputs(network.module)
        node = known[chosen(known, output)]
        shape: Any = node.meta.get("shape")
        for name, info in infos.items():
            place = next(t.span for t in self.teachers if t.text == name)
            theirs = info.outputs[self._teaches(info, output)]
            if self.classes:
                self._mapped(tuple(shape), theirs, name, place)
            elif tuple(shape)[1:] != theirs[1:]:
                raise fail(
                    "X0343",
                    f"the teacher `{name}` gives {times(theirs[1:])} values, the student {times(tuple(shape)[1:])}",
                    place,
                    "does not match",
                    helps=(
                        "attach a head of that size to the student, or choose another teacher",
                        "the teacher's number of each class of the student, `none` for one that it does not know: "
                        "`classes=[3, 0, none]`",
                    ),
                )

    def _teaches(self, info: ModelInfo, output: str | None) -> str | None:
        """Which output of the teacher: as stated, else the one that is called as the student's."""
        from netxform.graph.outputs import chosen

        place = next(t.span for t in self.teachers if t.text == info.name)
        wanted = output if self.teacher_output is None else str(self.teacher_output)
        if len(info.outputs) == 1:
            return next(iter(info.outputs)) if self.teacher_output is None else chosen(info.outputs, wanted, place)
        if wanted in info.outputs:
            return wanted
        told = ", ".join(str(n) for n in info.outputs)
        helps = (f"say which one teaches: `teacher_output={next(iter(info.outputs))}`",)
        raise fail("X0343", f"the teacher `{info.name}` has several outputs: {told}", place, "which one teaches?", helps=helps)

    def _mapped(self, mine: tuple[int, ...], theirs: tuple[int, ...], name: str, place: Span) -> None:
        """Raises NetxformError X0343 where `classes` does not map the student's classes to those of the teacher."""
        if self.loss == "mse" or len(mine) != 2 or len(theirs) != 2:
            raise fail("X0343", "`classes` maps rows of class scores (N, classes)", place, "no such outputs")
        if len(self.classes) != mine[1]:
            message = f"`classes` names {len(self.classes)} classes, and the student has {mine[1]}"
            raise fail("X0343", message, place, "one a class", helps=("`none` for one that the teacher does not know",))
        wrong = [c for c in self.classes if c is not None and not 0 <= c < theirs[1]]
        if wrong:
            raise fail("X0343", f"the teacher `{name}` has no class {wrong[0]}: it has {theirs[1]}", place, "no such class")
        if sum(c is not None for c in self.classes) < 2:
            raise fail("X0343", f"the teacher `{name}` tells fewer than two classes apart", place, "nothing to learn")

    def _match(self, wanted: Features, infos: dict[str, ModelInfo], network: Network, scope: Scope) -> Match:
        teacher, _, path = wanted.to.text.partition(".")
        info = infos.get(teacher)
        if info is None or not path:
            raise fail(
                "X0302",
                f"`{wanted.to}` is no place in a teacher of this statement",
                wanted.to.span,
                "which teacher's?",
                helps=(f"write `match student.LAYER to {next(iter(infos))}.LAYER`",),
            )
        if info.network is None:
            raise fail("X0343", f"the teacher `{teacher}` is no network: it has no layers", wanted.to.span, "no features")
        mine = wanted.student.text.removeprefix("student.")
        node = scope.point(Selection(ast.Path(mine, span=wanted.student.span), wanted.student.span), "after")
        theirs = _point(info.network, path, wanted.to)
        here: Any = next(n for n in network.module.graph.nodes if n.name == node).meta.get("shape")
        there: Any = theirs.meta.get("shape")
        sizes = _sizes(wanted, tuple(here), tuple(there))
        return Match(node, teacher, theirs.name, wanted.via, wanted.weight, sizes)

    def rewrite(self, network: Network, choice: Choice[Taught]) -> Edit:
        """No change of structure."""
        return Edit()

    def law(self, choice: Choice[Taught]) -> tuple[Claim, ...]:
        """Whatever was not trained has the same bits; zeros that are held are zeros."""
        return trained_law(choice)


def _point(network: Network, path: str, name: Name) -> Any:
    from netxform.errors import did_you_mean
    from netxform.graph.network import exit_nodes

    known = [n for n, _ in network.module.named_modules() if n]
    nodes = exit_nodes(network, path)
    if path not in known or len(nodes) != 1:
        what = f"no module `{path}`" if path not in known else f"`{path}` has {len(nodes)} output values"
        raise fail("X0203", f"{what} in the teacher", name.span, "not a place", helps=did_you_mean(path, known))
    return nodes[0]


def _sizes(wanted: Features, here: tuple[int, ...], there: tuple[int, ...]) -> tuple[int, int]:
    """The numbers of channels on both sides, if the values can be matched that way."""
    channel = 1 if len(here) == 4 else -1
    ranks = {"none": (2, 3, 4), "conv1x1": (4,), "linear": (2, 3), "attention": (4,)}[wanted.via]
    fits = len(here) == len(there) and len(here) in ranks
    if fits and wanted.via == "none":
        fits = here[channel] == there[channel]
    if fits and len(here) == 3:
        fits = here[1] == there[1]
    if not fits:
        helps = ("via conv1x1 takes maps, via linear vectors and sequences, via attention maps of any channels",)
        raise fail(
            "X0343",
            f"`{wanted.student}` is {times(here[1:])}, `{wanted.to}` {times(there[1:])}: not to be matched via {wanted.via}",
            wanted.student.span,
            "does not match",
            helps=helps,
        )
    return here[channel], there[channel]


def _smaller(network: Network, infos: dict[str, ModelInfo]) -> Iterator[str]:
    mine = sum(p.numel() for p in network.module.parameters())
    for name, info in infos.items():
        if info.network is not None and info.params < mine:
            yield f"the teacher `{name}` has {info.params:,} parameters, the student {mine:,}: is it the better one?"
