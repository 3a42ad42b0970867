"""adapt: small trainable layers at the selected ones, which stand still; or another kind of input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netxform.errors import Diagnostic, NetxformError, Span, fail
from netxform.graph.edits import Beside, Edit, Insert, Operation, Rescale, Trainable
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, FrozenInTraining, Resized, SameOutputs, SameThrough, Untouched
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Control, Role, Scope, Transform, key, operand, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Input, Network


@dataclass(frozen=True)
class Adapted(Values):
    """What is put at which layers; what stands still from here on, by name; and why other layers are left."""

    put: tuple[Operation, ...] = field(metadata=HIDDEN)
    settings: str
    adds: int = field(metadata=HIDDEN)
    parameters: tuple[str, ...] = field(metadata=HIDDEN)
    norms: tuple[str, ...] = field(metadata=HIDDEN)
    buffers: tuple[str, ...] = field(metadata=HIDDEN)
    left: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)

    def lines(self) -> tuple[str, ...]:
        """How many layers and numbers, then the rest."""
        what = f"{len(self.put)} layers, {self.adds:,} new parameters; {len(self.parameters)} tensors stand still"
        return (what, *super().lines())


@dataclass(frozen=True)
class Renewed(Values):
    """The input that is of another kind now, what was done to it, and the operation; None where nothing is to be done."""

    input: str
    what: str
    where: str
    operation: Operation | None = field(metadata=HIDDEN)
    claims: tuple[Claim, ...] = field(default=(), metadata=HIDDEN)


@verb("adapt")
@dataclass(frozen=True)
class Adapt:
    """Put an adapter at each selected layer, and let nothing else be trained; or let the network take another kind of input.

    - `with lora rank=8`: beside each Linear, convolution and Embedding stand two small layers without bias: `A`, down to
      `rank` numbers, and `B`, up again, zero at first. What comes out is the layer's result plus `alpha / rank` times theirs
      (`alpha` is the rank, unless it is given). `dropout=0.1` drops values before `A` while training; `scale=sqrt` divides
      by the root of the rank instead (rank-stabilised). `dora=true` trains the lengths of the weights apart from their
      directions.
    - `with ia3`: a factor for every output of each Linear and convolution, or with `side=input` for every input; one at first.
    - `with bottleneck width=16`: behind each selected part, whatever it is, a layer down to `width`, an activation
      (`act=gelu`) and a layer up again, zero at first, whose result is added.

    Everything that was there stands still, BatchNorm too; `unfreeze head` lets a head move again, and what is attached later
    moves anyway. The adapter of `fc1` is called `fc1_lora`, `fc1_ia3` or `fc1_adapter`; `merge` folds the first two into the
    layer. `netxform export BUNDLE FOLDER --to peft` writes those apart, as PEFT reads them, and
    `init ** from peft("FOLDER")` reads such a folder.

    `adapt input channels=1` (or 4, or any number) lets the network take images of other channels. Of fewer, `how=sum` (the
    default) adds up the kernels, so that a grey image gives what it gave as a grey RGB image; of more, `how=zero` (the default)
    lets new channels change nothing at first. `mean` and `repeat` share or repeat the old kernels. Every layer that reads the
    input takes it up; where one cannot, a fixed layer in front does. Of several inputs, name one: `adapt depth channels=1`.

    `adapt input size=384` (or `size=[384, 512]`) lets it take images of another size: tables of positions are interpolated,
    apart from class and other tokens, masks of windows and indices of relative positions are made again.

    Example: model net = zoo.smallcnn(); adapt layer4 | fc1 with lora rank=2

    Contract: exact. With an adapter the outputs are bit-equal, for the new part gives zero, or is one; after any training the
    tensors and buffers that were there have the same bits. With other channels it is the same function of what the old ones
    read. Another size is bounded by nothing: the change of the outputs is measured; the same size changes no bit.
    Refused: a selection without a layer that can have one (X0845): tied or quantized weights, grouped convolutions, layers
    whose weights another layer reads, parts that do not give one tensor. An input that is no image, code that decides by the
    size, a weight for every position (X0850).
    Papers: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; Kalajdzievski, "A rank stabilization
    scaling factor for fine-tuning with LoRA", 2023; Liu et al., "DoRA: weight-decomposed low-rank adaptation", ICML 2024; Liu
    et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning", NeurIPS 2022; Houlsby et
    al., "Parameter-efficient transfer learning for NLP", ICML 2019.
    """

    selection: Selection = operand()
    form: Literal["lora", "ia3", "bottleneck"] | None = prep("with")
    channels: int | None = key(None)
    how: Literal["sum", "mean", "repeat", "zero"] | None = key(None)
    size: tuple[int, ...] | None = key(None)
    rank: int | None = key(None)
    alpha: float | None = key(None)
    scale: Literal["rank", "sqrt"] = key("rank")
    dropout: float = key(0.0)
    dora: bool = key(False)
    side: Literal["input", "output"] = key("output")
    width: int | None = key(None)
    act: Literal["relu", "gelu", "silu", "tanh"] = key("gelu")
    seed: int | None = key(None)
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.OTHER

    def __post_init__(self) -> None:
        """Of another size nothing is promised but that the change is measured."""
        if self.size is not None:
            object.__setattr__(self, "contract", Contract.BOUNDED)

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """The settings of the form, and numbers that make sense."""
        if sum(w is not None for w in (self.form, self.channels, self.size)) != 1:
            helps = (
                "write `with lora rank=8`, `with ia3` or `with bottleneck width=16`",
                "or `adapt input channels=1`, or `size=384`",
            )
            yield Diagnostic("X0408", "`adapt` needs one thing to do", span, "with what?", helps=helps)
            return
        if self.channels is not None and not 1 <= self.channels <= _MOST:
            yield Diagnostic("X0406", f"an input has from 1 to {_MOST:,} channels, not {self.channels}", span, "channels")
        if self.how is not None and self.channels is None:
            helps = ("leave it out",)
            yield Diagnostic("X0407", "`how` belongs to `channels`", span, "without `channels=`", helps=helps)
        if self.size is not None and not (1 <= len(self.size) <= 3 and all(1 <= n <= _MOST for n in self.size)):
            helps = ("write `size=384`, or `size=[height, width]`",)
            yield Diagnostic("X0406", f"`size` is one to three numbers from 1 to {_MOST:,}", span, "size", helps=helps)
        yield from _foreign(self, span)
        if self.form is None:
            return
        needed = {"lora": "rank", "bottleneck": "width"}.get(self.form)
        if needed is not None and getattr(self, needed) is None:
            helps = (f"write `{needed}=8`",)
            yield Diagnostic("X0408", f"`adapt … with {self.form}` needs `{needed}`", span, "incomplete", helps=helps)
        for name in ("rank", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Diagnostic("X0406", f"a {name} is at least 1, not {value}", span, name)
        if not 0 <= self.dropout < 1:
            yield Diagnostic("X0406", f"`dropout` is in [0, 1), not {self.dropout:g}", span, "dropout")
        if self.alpha is not None and not self.alpha > 0:
            yield Diagnostic("X0406", f"`alpha` is above 0, not {self.alpha:g}", span, "alpha")

    def control(self, kind: Control) -> Transform | None:
        """A control run without anything frozen has no adapters; it takes the same inputs."""
        return None if kind == "scratch" and self.form is not None else self

    def resolve(self, network: Network, scope: Scope) -> Choice[Adapted] | Choice[Renewed]:
        """Which layers, and what is put at each; or which input, and what takes it up."""
        if self.form is not None:
            return self._layers(network, scope)
        return self._input(network) if self.channels is not None else self._sized(network)

    def _sized(self, network: Network) -> Choice[Renewed]:
        """The input, and what follows its size."""
        from netxform.axes.input_size import sized

        one, span = _named(network, self.selection), self.selection.span
        count = len(one.shape) - 2
        if count < 1 or self.size is None or (len(self.size) not in (1, count)):
            shown = " x ".join(map(str, one.shape))
            raise _no_image(
                self.selection, one.name, f"it is {shown}, which has {max(count, 0)} sizes beside samples and channels"
            )
        wanted = self.size * count if len(self.size) == 1 else self.size
        old = " x ".join(map(str, one.shape[2:]))
        if wanted == one.shape[2:]:
            values = Renewed(one.name, f"{old} as before", "nothing to do: every tensor keeps its bits", None)
            return Choice(values, (one.name,), warnings=(f"`{one.name}` is {old} already",))
        operation = sized(network, one.name, (*one.shape[:2], *wanted), span)
        tables = tuple(t.tensor for t in operation.tables)
        where = (
            f"interpolated: {', '.join(map(str, operation.tables))}"
            if tables
            else "every layer takes any size: no tensor changes"
        )
        claims = (Resized(one.name, one.shape[2:], wanted), Untouched(tables))
        values = Renewed(one.name, f"{old} → {' x '.join(map(str, wanted))}", where, operation, claims)
        return Choice(values, (one.name,))

    def _input(self, network: Network) -> Choice[Renewed]:
        """The input, and how its channels are read from here on."""
        from netxform.graph.input_channels import Channels, channels_of, matrix, reading

        one = _named(network, self.selection)
        dim = channels_of(network, one)
        if dim is None:
            why = f"an input of {' x '.join(map(str, one.shape))} has no dimension of channels that is known"
            raise _no_image(self.selection, one.name, why)
        assert self.channels is not None
        old, new = one.shape[dim], self.channels
        how = self.how or ("sum" if new < old else "zero")
        if old == new:
            values = Renewed(one.name, f"{old} channels as before", "nothing to do", None)
            return Choice(values, (one.name,), warnings=(f"`{one.name}` has {old} channels already",))
        M = matrix(old, new, how)
        found = reading(network, one.name, M, dim)
        where = f"taken up by {', '.join(t for t, _ in found.tensors)}"
        warnings: tuple[str, ...] = ()
        if found.blocked is not None:
            where = f"a fixed layer in front of the input, for {found.blocked}"
            if new > old and how == "zero":
                warnings = ("the new channels are not read before the layer in front is trained: `unfreeze` it, or `how=mean`",)
        operation = Channels(one.name, dim, M, found.tensors)
        values = Renewed(one.name, f"{old} → {new} channels, {how}", where, operation, (SameThrough(one.name, dim, M, how),))
        return Choice(values, (one.name,), {} if self.how else {"how": "the default"}, warnings=warnings)

    def _layers(self, network: Network, scope: Scope) -> Choice[Adapted]:
        from netxform.graph.adapters import parameters_of
        from netxform.graph.frozen import norms_in

        module = network.module
        seed = scope.seed + scope.index if self.seed is None else self.seed
        put, left, warnings = self._put(network, scope, seed)
        if not put:
            raise fail(
                "X0845",
                f"`{self.selection}` holds no layer that could have an adapter",
                self.selection.span,
                "nothing to adapt",
                notes=left[:6],
                helps=("select Linear layers, convolutions without groups, or embeddings",),
            )
        held = {n.rpartition(".")[0] for n, _ in (*module.named_parameters(), *module.named_buffers())}
        norms, _ = norms_in(network, held)
        kept = set(parameters_of(network))
        parameters = tuple(n for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad and n not in kept)
        buffers = tuple(n for n, _ in module.named_buffers() if n.rpartition(".")[0] in set(norms))
        adds = sum(_numbers(one, network) for one in put)
        values = Adapted(put, self._settings(), adds, parameters, tuple(norms), buffers, left or None)
        origins = {"alpha": "the rank"} if self.alpha is None and self.form == "lora" else {}
        defines = {one.name: _modules_of(one) for one in put}
        return Choice(values, (str(self.selection),), origins, defines, warnings=warnings)

    def _settings(self) -> str:
        """What was asked for, in words."""
        match self.form:
            case "lora":
                return f"{'dora' if self.dora else 'lora'}, rank {self.rank}, alpha {self._alpha():g}"
            case "ia3":
                return f"factors of the {self.side}s"
            case _:
                return f"bottleneck of {self.width}, {self.act}"

    def _alpha(self) -> float:
        assert self.rank is not None
        return float(self.rank) if self.alpha is None else float(self.alpha)

    def _put(
        self, network: Network, scope: Scope, seed: int
    ) -> tuple[tuple[Beside | Rescale | Insert, ...], tuple[str, ...], tuple[str, ...]]:
        """What is put where; why other layers are left; and warnings."""
        from netxform.graph.adapters import ADAPTABLE, adapters, bottlenecks, obstacle, sides
        from netxform.graph.bottleneck import obstacle as no_place

        modules: dict[str, Any] = dict(network.module.named_modules())
        own = {p for a in adapters(network) for p in a.parts} | set(bottlenecks(network))
        own |= {f"{n}.{part}" for n in bottlenecks(network) for part in ("down", "up")}
        if self.form == "bottleneck":
            why = {p: no_place(network, p) for p in scope.modules(self.selection) if p not in own}
        else:
            side = self.side if self.form == "ia3" else ""
            asked = [p for p in scope.modules_of(self.selection) if p not in own and isinstance(modules.get(p), ADAPTABLE)]
            why = {p: obstacle(network, p, side) for p in asked}
        targets = [p for p, text in why.items() if text is None]
        left = tuple(f"{p}: {text}" for p, text in why.items() if text is not None)
        put = tuple(self._one(network, p, modules[p], seed + i) for i, p in enumerate(targets))
        small = [p for p in targets if self.rank is not None and self.rank >= min(sides(modules[p]))]
        return put, left, (f"rank {self.rank} is no less than the sides of {', '.join(small[:4])}",) if small else ()

    def _one(self, network: Network, path: str, layer: Any, seed: int) -> Beside | Rescale | Insert:
        """What is put at one layer."""
        from netxform.graph.adapters import BOTTLENECK, FACTORS, SUFFIX, layers_beside
        from netxform.graph.bottleneck import place

        if self.rank is not None:
            scale = self._alpha() / (self.rank if self.scale == "rank" else self.rank**0.5)
            layers, zeroed = layers_beside(layer, self.rank, self.dropout)
            return Beside(path, f"{path}{SUFFIX}", layers, zeroed, scale, seed, self.dora)
        if self.width is not None:
            node, layers = place(network, path, self.width, self.act)
            return Insert(f"{path}{BOTTLENECK}", node, layers, "branch", seed)
        size = int(layer.weight.shape[0 if self.side == "output" else 1])
        return Rescale(path, f"{path}{FACTORS}", self.side, size, max(int(layer.weight.dim()) - 2, 0))

    def rewrite(self, network: Network, choice: Choice[Adapted] | Choice[Renewed]) -> Edit:
        """An adapter at each layer, and everything else stands still; or another input."""
        v = choice.values
        if isinstance(v, Renewed):
            return Edit() if v.operation is None else Edit((v.operation,))
        return Edit((*v.put, Trainable(v.parameters, False, v.norms)))

    def law(self, choice: Choice[Adapted] | Choice[Renewed]) -> tuple[Claim, ...]:
        """Same outputs, and nothing that was there moves; or the same function of what the old channels read."""
        v = choice.values
        return v.claims if isinstance(v, Renewed) else (SameOutputs(), FrozenInTraining(v.parameters, v.buffers))


_MOST = 4096


def _named(network: Network, selection: Selection) -> Input:
    """The input that is meant: `input` for the only image, else its name. Raises NetxformError X0850."""
    inputs = {i.name: i for i in network.inputs}
    images = [i for i in network.inputs if i.dtype.is_floating_point and len(i.shape) > 1]
    word = str(selection)
    if word in inputs and (word != "input" or len(images) != 1 or inputs[word] in images):
        if inputs[word] not in images:
            kind = str(inputs[word].dtype).removeprefix("torch.")
            raise _no_image(selection, word, f"it holds {kind} numbers of words or masks: it has no channels")
        return inputs[word]
    if word != "input":
        names = ", ".join(f"`{n}`" for n in inputs)
        text, helps = (
            f"`{word}` is no input of this network",
            (f"its inputs: {names}", "write `adapt input …` for the only image"),
        )
        raise fail("X0850", text, selection.span, "not an input", helps=helps)
    if len(images) != 1:
        kinds = tuple(
            f"{i.name}: {' x '.join(map(str, i.shape))} {str(i.dtype).removeprefix('torch.')}" for i in network.inputs
        )
        if not images:
            raise _no_image(selection, "input", "none of its inputs holds floating-point numbers", kinds)
        helps = tuple(f"write `adapt {i.name} …`" for i in images[:2])
        text = f"the network has {len(images)} inputs that could be meant"
        raise fail("X0850", text, selection.span, "which one?", notes=kinds, helps=helps)
    return images[0]


def _no_image(selection: Selection, name: str, why: str, notes: tuple[str, ...] = ()) -> NetxformError:
    helps = ("of a text model, change its words: `init embedding from vectors(…)`, or its layers: `widen`",)
    return fail("X0850", f"`{name}` is no image: {why}", selection.span, "no channels here", notes=notes, helps=helps)


_OF: dict[str, tuple[str, ...]] = {
    "lora": ("rank", "alpha", "scale", "dropout", "dora"),
    "ia3": ("side",),
    "bottleneck": ("width", "act"),
}


def _foreign(action: Adapt, span: Span) -> Iterator[Diagnostic]:
    """Settings that belong to another form."""
    fields = Adapt.__dataclass_fields__
    for form, names in _OF.items():
        for name in names:
            if form != (action.form or "") and getattr(action, name) != fields[name].default:
                helps = (f"write `with {form}`, or leave `{name}=` out",)
                yield Diagnostic(
                    "X0407", f"`{name}` belongs to `{form}`", span, f"with {action.form or 'an input'}", helps=helps
                )


def _numbers(one: Beside | Rescale | Insert, network: Network) -> int:
    """The new parameters."""
    if isinstance(one, Rescale):
        return one.size
    if isinstance(one, Insert):
        down, *_, up = (layer.make.arguments for layer in one.layers)
        return int(down[0] * down[1] + down[1] + up[0] * up[1] + up[1])
    from netxform.graph.adapters import sides

    layer: Any = network.module.get_submodule(one.path)
    rank = int(one.layers[-1].make.arguments[0])
    table = type(layer).__name__ == "Embedding"
    return rank * sum(sides(layer)) + (int(layer.weight.shape[1 if table else 0]) if one.lengths else 0)


def _modules_of(one: Beside | Rescale | Insert) -> tuple[str, ...]:
    """The modules that a later statement may name together."""
    if isinstance(one, Rescale):
        return (one.name,)
    inner = [layer.name for layer in one.layers] + (["M"] if isinstance(one, Beside) and one.lengths else [])
    return (one.name, *(f"{one.name}.{n}" for n in inner))
