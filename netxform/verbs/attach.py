"""attach: a new head on a point of the network, made of layers or of a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Append, Edit
from netxform.graph.layer_spec import Invocation, Layer
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, SameOutputs
from netxform.language.laws import Contract
from netxform.language.values import Layers, Name, Selection
from netxform.language.verb import Role, Scope, key, layers, operand, prep, verb
from netxform.language.work import Fitting

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Head(Values):
    """Where the layers are put: behind `node`, in the place of a loose end where `replace`; `name`, if not the target's."""

    node: str = field(metadata=HIDDEN)
    replace: bool = field(metadata=HIDDEN)
    layers: tuple[Layer, ...] = field(metadata=HIDDEN)
    seed: int = field(metadata=HIDDEN)
    classes: int | None = field(default=None, metadata=IF_KNOWN)
    name: str | None = field(default=None, metadata=HIDDEN | IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """The layers, then the rest."""
        made = ("; ".join(f"{layer.name} = {layer.make}" for layer in self.layers),) if self.layers else ()
        return (*made, *super().lines())


_MOST_CLASSES = 10_000_000


@verb("attach")
@dataclass(frozen=True)
class Attach:
    """Attach a head: layers behind a point of the network, whose result becomes an output.

    Without `after` the head takes up the loose end of the last `cut` or `features`. Without a block the head pools a map
    to one value a channel, flattens it and adds `Linear(auto, classes)`; `classes` is what the data has. In a block,
    `auto` is the size that arrives there. A second head makes the outputs a dictionary, by the heads' names.

    A call in place of a name puts a scikit-learn classifier on the (flat) output: `random_forest(500)`,
    `logistic_regression()`, `svm()`, `knn(5)`, `gradient_boosting()` or `sklearn.ensemble.ExtraTreesClassifier(200)`.

    Example: model net = zoo.smallcnn(); cut at layer4; attach head { pool = AdaptiveAvgPool2d(1); out = Linear(auto, 10) }

    Contract: exact. Outputs that existed before (loose ends apart) are bit-equal.
    Refused: a head that does not fit what arrives (X0312); a name that is taken (X0304); no loose end and no `after` (X0308);
    an unknown layer (X0410).
    Papers: Donahue et al., "DeCAF: a deep convolutional activation feature for generic visual recognition", ICML 2014;
    several heads: Caruana, "Multitask learning", Machine Learning 28, 1997.
    """

    name: Name | None = operand(None)
    estimator: Invocation | None = operand(None)
    after: Selection | None = prep("after")
    on: Name | None = prep("on")
    classes: int | None = key(None)
    seed: int | None = key(None)
    block: Layers | None = layers()
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.BUILDS

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """A head is layers or a classifier, not both."""
        if self.name is None and self.estimator is None:
            yield Diagnostic("X0408", "`attach` needs a name or a classifier", span, "what?", helps=("write `attach head`",))
        if self.classes is not None and not 1 <= self.classes <= _MOST_CLASSES:
            message = f"a head has from 1 to {_MOST_CLASSES:,} classes, not {self.classes:,}"
            yield Diagnostic("X0406", message, span, "out of range", helps=("write how many there are: `classes=10`",))
        if self.estimator is not None and self.block is not None:
            yield Diagnostic("X0404", "a classifier takes no block of layers", self.block.span, "not here")

    def resolve(self, network: Network, scope: Scope) -> Choice[Head]:
        """Settle where the head sits, its layers and their sizes."""
        from netxform.graph.building import flattening, settle_layers

        if self.name is not None and ("." in self.name.text or not self.name.text.isidentifier()):
            raise fail("X0304", f"`{self.name.text}` cannot be the name of a head", self.name.span, "not a plain name")
        if self.estimator is not None:
            return self._classifier(network, scope)
        assert self.name is not None
        name = self.name.text
        if hasattr(network.module, name):
            raise fail(
                "X0304",
                f"the model already has a module or attribute `{name}`",
                self.name.span,
                "taken",
                helps=(f"choose another name: `attach {name}2 …`",),
            )
        node, loose = self._point(scope)
        origins: dict[str, str] = {}
        classes: int | None = None
        if self.block is None:
            wanted = (*flattening(network, node, "avg"), Layer("out", Invocation("Linear", ("auto", self._classes(scope)))))
            origins["layers"] = "default head: pool, flatten, Linear(auto, classes)"
            if self.classes is None:
                origins["classes"] = f"data `{scope.data(self.on.text if self.on else None, scope.span).name}`"
                classes = self._classes(scope)
        else:
            wanted = self.block.items
        settled, notes = settle_layers(network, node, wanted, self.block.span if self.block else scope.span)
        seed = scope.seed + scope.index if self.seed is None else self.seed
        if self.seed is None:
            origins["seed"] = "seed of the spec"
        values = Head(node, loose, tuple(settled), seed, classes)
        origins |= {f"note {i}": n for i, n in enumerate(notes)}
        inner = tuple(f"{name}.{layer.name}" for layer in settled)
        return Choice(values, (name,), origins, {name: (name, *inner)})

    def _point(self, scope: Scope) -> tuple[str, bool]:
        loose = scope.closing()
        if self.after is not None:
            node = scope.point(self.after, "after")
            return node, node == loose
        if loose is None:
            raise fail(
                "X0308",
                "there is no loose end to attach to",
                scope.span,
                "attach where?",
                helps=("cut first: `cut after MODULE`", "or name the place: `attach head after MODULE`"),
            )
        return loose, True

    def _classes(self, scope: Scope) -> int:
        if self.classes is not None:
            return self.classes
        info = scope.data(self.on.text if self.on else None, scope.span)
        if info.targets is not None and info.targets.width is not None:
            return info.targets.width
        if info.classes is None:
            raise fail(
                "X0309",
                f"the number of classes of `{info.name}` is not known yet",
                scope.span,
                "how many classes?",
                helps=("write `attach head classes=10`",),
            )
        return info.classes

    def _classifier(self, network: Network, scope: Scope) -> Choice[Head]:
        from netxform.graph.building import flattening
        from netxform.language.fits import input_fits

        assert self.estimator is not None
        node, loose = self._point(scope)
        data = scope.data(self.on.text if self.on else None, scope.span)
        input_fits(network, data, scope.span)
        name = self.name.text if self.name is not None else "head"
        more = tuple(flattening(network, node, "avg"))
        seed = scope.seed + scope.index if self.seed is None else self.seed
        origins = {"data": "the only data set"} if self.on is None else {}
        if more:
            origins["layers"] = "a classifier reads flat features: the map is pooled and flattened"
        return Choice(
            Head(node, loose, more, seed, name=f"{name}_input"),
            targets=(str(self.estimator),),
            origins=origins,
            work=Fitting(name, self.estimator, data.name, seed),
        )

    def rewrite(self, network: Network, choice: Choice[Head]) -> Edit:
        """Append the layers."""
        v = choice.values
        if not v.layers:
            return Edit()
        loose = choice.work is not None
        return Edit((Append(v.name or choice.targets[0], v.node, v.layers, v.replace, loose, v.seed),))

    def law(self, choice: Choice[Head]) -> tuple[Claim, ...]:
        """Earlier outputs are as before."""
        return (SameOutputs(),)
