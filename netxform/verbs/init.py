"""init: weights carried over from word vectors, or from a part of another model."""

# Long: three sources of weights, each resolved and settled in its own words.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netxform.errors import Diagnostic, NetxformError, Span, did_you_mean, fail
from netxform.graph.edits import Assign, Edit
from netxform.graph.layer_spec import Invocation
from netxform.language.choice import HIDDEN, IF_KNOWN, Choice, Values
from netxform.language.claims import Claim, Taken, Untouched
from netxform.language.laws import Contract
from netxform.language.values import Name, Selection, invocation
from netxform.language.verb import Material, Role, Scope, key, lines, operand, prep, verb
from netxform.syntax import ast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from netxform.graph.network import Network

KINDS = ("word2vec", "glove", "npy", "safetensors")


@dataclass(frozen=True)
class Mapped:
    """`map encoder.rnn to encoder.gru`: tensors of the source under the first name go under the second."""

    source: Name = operand()
    to: Name = prep("to", MISSING)


@dataclass(frozen=True)
class Vectors(Values):
    """The table that word vectors go into and its size; once the file is read, how many words it has and which it lacks."""

    tensor: str = field(metadata=HIDDEN)
    rows: int
    width: int
    data: str | None
    seed: int = field(metadata=HIDDEN)
    words: int | None = field(default=None, metadata=IF_KNOWN)
    found: int | None = field(default=None, metadata=IF_KNOWN)
    in_the_file: int | None = field(default=None, metadata=IF_KNOWN)
    lacking: tuple[str, ...] | None = field(default=None, metadata=IF_KNOWN)
    filled: str | None = field(default=None, metadata=IF_KNOWN)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are taken."""
        return (self.tensor,)


@dataclass(frozen=True)
class Pairs(Values):
    """Which tensor takes which of the model's, and what is left on both sides."""

    model: str
    taken: int
    pairs: Mapping[str, str] = field(metadata=HIDDEN)
    not_taken: tuple[str, ...]
    not_used: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are taken."""
        return tuple(self.pairs)


@dataclass(frozen=True)
class Factors(Values):
    """The adapters that take the factors of a folder."""

    adapters: int
    names: tuple[str, ...] = field(metadata=HIDDEN)


@verb("init")
@dataclass(frozen=True)
class Init:
    """Carry weights over: `init embed from word2vec("vectors.bin") on reviews`, `init layer1 from other.layer1`.

    From word vectors: `word2vec("FILE")` (text or binary), `glove("FILE")`, `npy("FILE", vocabulary="WORDS")`,
    `safetensors("FILE", vocabulary="WORDS", tensor=NAME)`. The rows of the embedding are the words of the data set (`on DATA`),
    or of `vocabulary="WORDS"`, one a line. Words that the file lacks, in capitals too, are counted and listed, and filled:
    `missing=normal` draws them with the mean and deviation of the words that are there, `mean`, `zero`, or `keep` for
    what is there now. The special words (`<pad>`, `<unk>`, …) are kept, unless the file has them.

    From a folder of PEFT: `init ** from peft("FOLDER")` fills the adapters that `adapt … with lora` put in.

    From another declared model: tensors are paired by name, counted from the selected module where each side selects one, else
    from the root; a block says more: `{ map encoder.rnn to encoder.gru }`. All shapes must fit. The plan lists what is
    taken and what is not.

    Example: model net = zoo.smallcnn() input="1x1x8x8"; model other = zoo.smallcnn(classes=5);
    init conv1 | conv2 | layer4 from other

    Contract: training. What is taken has the source's bits, everything else is untouched.
    Refused: shapes or widths that differ, nothing in common (X0328); a model that is not declared (X0302); a file that is
    missing (X0807).
    Papers: Mikolov et al., "Distributed representations of words and phrases", 2013; Pennington, Socher, Manning, "GloVe",
    2014; Yosinski et al., "How transferable are features in deep neural networks?", 2014.
    """

    selection: Selection = operand()
    source: Selection = prep("from", MISSING)
    on: Name | None = prep("on")
    vocabulary: str | None = key(None)
    missing: Literal["normal", "mean", "zero", "keep"] = key("normal")
    seed: int | None = key(None)
    maps: tuple[Mapped, ...] = lines("map", Mapped)
    contract: ClassVar[Contract] = Contract.TRAINING
    role: ClassVar[Role] = Role.CARRIES

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """A source of vectors has one file; a model has no vocabulary."""
        call = self._vectors()
        if (folder := self._adapters()) is not None and (len(folder.arguments) != 1 or folder.keywords):
            yield Diagnostic("X0401", "`peft` takes the name of one folder", folder.span, "which?", helps=('`peft("FOLDER")`',))
        if call is None:
            if self.on is not None or self.vocabulary is not None:
                yield Diagnostic("X0404", "words belong to word vectors, not to a model", span, "a model is the source")
            return
        if self.maps:
            yield Diagnostic("X0404", "`map` belongs to a model, not to word vectors", span, "word vectors are the source")
        if len(call.arguments) != 1 or not isinstance(call.arguments[0], str):
            helps = (f'write `{call.name}("vectors.txt")`',)
            yield Diagnostic("X0401", f"`{call.name}` takes the name of one file", call.span, "which file?", helps=helps)
        known = ("vocabulary", "tensor") if call.name in ("npy", "safetensors") else ()
        for name in call.keywords:
            if name not in known:
                helps = did_you_mean(name, known)
                yield Diagnostic("X0404", f"`{call.name}` has no option `{name}`", call.span, "unknown", helps=helps)
        if call.name in ("npy", "safetensors") and "vocabulary" not in call.keywords:
            helps = (f'write `{call.name}("FILE", vocabulary="words.txt")`',)
            yield Diagnostic("X0408", f"`{call.name}` holds a matrix alone", call.span, "whose words?", helps=helps)

    def _adapters(self) -> Invocation | None:
        expression = self.source.expression
        return invocation(expression) if isinstance(expression, ast.Call) and expression.name == "peft" else None

    def _vectors(self) -> Invocation | None:
        expression = self.source.expression
        if isinstance(expression, ast.Call) and expression.name in KINDS:
            return invocation(expression)
        return None

    def resolve(self, network: Network, scope: Scope) -> Choice[Vectors] | Choice[Pairs] | Choice[Factors]:
        """Pair the tensors by name and compare their shapes; of word vectors, the width."""
        if (folder := self._adapters()) is not None:
            return self._from_adapters(network, scope, folder)
        call = self._vectors()
        return self._from_vectors(network, scope, call) if call is not None else self._from_model(network, scope)

    # --- word vectors ------------------------------------------------------------------------------------------------

    def _from_vectors(self, network: Network, scope: Scope, call: Invocation) -> Choice[Vectors]:
        from torch import nn

        from netxform.sources.vectors import width_of

        paths = scope.modules(self.selection)
        modules = dict(network.module.named_modules(remove_duplicate=False))
        if len(paths) != 1 or not isinstance(modules[paths[0]], nn.Embedding | nn.EmbeddingBag):
            kinds = ", ".join(f"{p} ({type(modules[p]).__name__})" for p in paths[:4])
            raise fail("X0328", "word vectors go into one embedding", self.selection.span, kinds)
        table: Any = modules[paths[0]]
        path = scope.file(str(call.arguments[0]), call.span)
        width = width_of(path, call.name, call.keywords.get("tensor"), call.span)
        if width != table.embedding_dim:
            raise fail(
                "X0328",
                f"the vectors of `{path.name}` have {width} numbers, those of `{paths[0]}` {table.embedding_dim}",
                call.span,
                "another width",
                helps=(f"build the model with an embedding of {width}",),
            )
        data = None
        if self.vocabulary is None:
            data = scope.data(self.on.text if self.on else None, scope.span).name
        seed = scope.seed + scope.index if self.seed is None else self.seed
        return Choice(
            Vectors(f"{paths[0]}.weight", table.num_embeddings, width, data, seed),
            targets=(paths[0],),
            origins={} if self.on is not None or data is None else {"words": f"of `{data}`, the only data set"},
            provisional="which words the file has: when it is read",
        )

    def _settle_vectors(
        self, network: Network, choice: Choice[Values], v: Vectors, material: Material, call: Invocation
    ) -> Choice[Vectors]:
        from netxform.sources.text import SPECIAL, read_vocabulary
        from netxform.sources.vectors import read_vectors

        if v.data is None:
            words = read_vocabulary(material.file(str(self.vocabulary), call.span), call.span)
        else:
            words = material.vocabulary(v.data)
            if not words:
                helps = ("data of `text(…)` and `neighbours(…)` has words; or give `vocabulary=` a file",)
                raise fail("X0328", f"data `{v.data}` has no vocabulary", self.selection.span, "no words", helps=helps)
        if len(words) > v.rows:
            helps = (f"build the model with words={len(words)}, or the data with words={v.rows}",)
            message = f"{len(words)} words, and `{choice.targets[0]}` has {v.rows} rows"
            raise fail("X0328", message, self.selection.span, "too few rows", helps=helps)
        wanted = {w for word in words for w in (word, word.lower())}
        listed = call.keywords.get("vocabulary")
        found = read_vectors(
            material.file(str(call.arguments[0]), call.span),
            call.name,
            wanted,
            words_file=material.file(str(listed), call.span) if listed is not None else None,
            tensor=call.keywords.get("tensor"),
            span=call.span,
        )
        table, lacking = _table(network.module.get_parameter(v.tensor), words, found.words, self.missing, v.seed, SPECIAL)
        here = len([w for w in words if w not in SPECIAL])
        if len(lacking) == here:
            raise fail("X0328", f"none of the {here} words is in the file", call.span, "nothing in common")
        values = replace(
            v,
            words=here,
            found=here - len(lacking),
            in_the_file=found.size,
            lacking=tuple(lacking[:20]),
            filled=self.missing if lacking else "nothing",
        )
        warnings = ()
        if lacking:
            share = 100 * len(lacking) / here
            names = ", ".join(lacking[:5])
            warnings = (f"{len(lacking)} of {here} words ({share:.0f} %) are not in the file: {names} … ({self.missing})",)
        return choice.settled(values, {v.tensor: table}, warnings=warnings)

    # --- adapters ----------------------------------------------------------------------------------------------------

    def _from_adapters(self, network: Network, scope: Scope, call: Invocation) -> Choice[Factors]:
        from netxform.graph.adapters import SUFFIX
        from netxform.sources.peft_files import read, tensors_for

        found = tensors_for(network, read(scope.file(str(call.arguments[0]), call.span), call.span), call.span)
        asked = {f"{p}{end}" for p in scope.modules_of(self.selection) for end in ("", SUFFIX, f"{SUFFIX}.A", f"{SUFFIX}.B")}
        names = tuple(n for n in found if n.rpartition(".")[0].rpartition(".")[0].removesuffix(SUFFIX) in asked)
        if not names:
            raise fail(
                "X0328", f"no factor of the folder belongs to `{self.selection}`", self.selection.span, "nothing in common"
            )
        return Choice(Factors(len(names) // 2, names), (str(self.selection),))

    # --- another model -----------------------------------------------------------------------------------------------

    def _from_model(self, network: Network, scope: Scope) -> Choice[Pairs]:
        from netxform.language.paths import tensors_of
        from netxform.language.selector import World, select

        name = _model_name(self.source.expression)
        other = scope.weights(name, self.source.span)
        found = select(self.source.expression, World(other, subject=name))
        given = found.tensors or tensors_of(other, found.modules)
        targets = scope.tensors(self.selection)
        tops = () if found.tensors else found.tops()
        ours, theirs = self._one_module(scope), tops[0] if len(tops) == 1 else ""
        if not ours or not theirs:
            ours = theirs = ""
        named = {self._renamed(_under(s, theirs)): s for s in given}
        pairs = {t: named[_under(t, ours)] for t in targets if _under(t, ours) in named}
        from netxform.graph.tensors import held as held_by

        held, source = held_by(network.module), held_by(other.module)
        if not pairs:
            notes = (f"`{self.selection}`: {', '.join(targets[:4])} …", f"`{self.source}`: {', '.join(given[:4])} …")
            helps = ("say which name goes where: `{ map THERE to HERE }`",)
            raise fail(
                "X0328", "no tensor has a partner of its name", self.source.span, "nothing in common", notes=notes, helps=helps
            )
        wrong = [
            f"{t}: {_kind(held[t])}, and `{s}` is {_kind(source[s])}"
            for t, s in pairs.items()
            if held[t].shape != source[s].shape or held[t].dtype != source[s].dtype
        ]
        if wrong:
            notes = (*wrong[:8], *((f"… {len(wrong) - 8} more",) if len(wrong) > 8 else ()))
            helps = ("select what fits, or change the sizes first (`widen`, `attach`)",)
            raise fail(
                "X0328",
                f"{len(wrong)} of {len(pairs)} tensors do not fit",
                self.source.span,
                "other shapes",
                notes=notes,
                helps=helps,
            )
        left = [t for t in targets if t not in pairs]
        unused = [s for s in given if s not in pairs.values()]
        warnings = (f"{len(left)} of {len(targets)} tensors are not taken: {', '.join(left[:5])}",) if left else ()
        return Choice(
            Pairs(name, len(pairs), pairs, tuple(left), tuple(unused)),
            targets=tuple(dict.fromkeys(t.rpartition(".")[0] for t in pairs)),
            warnings=warnings,
        )

    def _one_module(self, scope: Scope) -> str:
        """The path of the selected module where it is one, else nothing."""
        try:
            modules = scope.modules(self.selection)
        except NetxformError as error:
            if error.diagnostics[0].code != "X0209":
                raise
            return ""
        return modules[0] if len(modules) == 1 else ""

    def _renamed(self, name: str) -> str:
        for item in self.maps:
            if name == item.source.text or name.startswith(f"{item.source.text}."):
                return item.to.text + name[len(item.source.text) :]
        return name

    def settle(
        self, network: Network, choice: Choice[Vectors | Pairs | Factors], material: Material
    ) -> Choice[Vectors] | Choice[Pairs] | Choice[Factors]:
        """Read the vectors, the factors, or the other model's weights."""
        v, call = choice.values, self._vectors()
        if isinstance(v, Factors):
            from netxform.sources.peft_files import read, tensors_for

            folder = self._adapters()
            assert folder is not None
            path = material.file(str(folder.arguments[0]), folder.span)
            held = tensors_for(network, read(path, folder.span), folder.span)
            return choice.settled(v, {n: held[n] for n in v.names})
        if isinstance(v, Vectors):
            assert call is not None
            return self._settle_vectors(network, choice, v, material, call)
        other = material.model(v.model)
        from netxform.graph.tensors import held as held_by

        source = held_by(other)
        return choice.settled(v, {t: source[s].detach().clone() for t, s in v.pairs.items()})

    def rewrite(self, network: Network, choice: Choice[Vectors | Pairs | Factors]) -> Edit:
        """Put the tensors in place."""
        return Edit((Assign(choice.values.names),), choice.tensors)

    def law(self, choice: Choice[Vectors | Pairs | Factors]) -> tuple[Claim, ...]:
        """The source's bits where they were taken, and the old ones elsewhere."""
        names = choice.values.names
        return (Taken(names), Untouched(names))


def _table(
    old: Tensor,
    words: tuple[str, ...],
    found: Mapping[str, NDArray[np.floating]],
    missing: str,
    seed: int,
    special: tuple[str, ...],
) -> tuple[Tensor, list[str]]:
    """The embedding's table (V, D), and the words that the file lacks."""
    import numpy as np
    import torch

    table = old.detach().clone()
    vectors = {w: found.get(w, found.get(w.lower())) for w in words}
    known = [v for v in vectors.values() if v is not None]
    lacking = [w for w, v in vectors.items() if v is None and w not in special]
    mean, spread = (np.mean(known, 0), np.std(known, 0)) if known else (0.0, 0.0)
    generator = np.random.default_rng(seed)
    for i, word in enumerate(words):
        vector = vectors[word]
        if vector is None and word not in special:
            match missing:
                case "normal":
                    vector = mean + spread * generator.standard_normal(table.shape[1])
                case "mean":
                    vector = mean
                case "zero":
                    vector = np.zeros(table.shape[1])
                case _:
                    continue
        if vector is not None:
            table[i] = torch.from_numpy(np.asarray(vector, dtype=np.float32)).to(table.dtype)
    return table, lacking


def _model_name(expression: ast.Expr) -> str:
    """The name of the model that the source begins with: the first segment of its first path."""
    match expression:
        case ast.Path():
            return expression.text.split(".")[0]
        case ast.Union(items=items) | ast.Intersection(items=items) | ast.List(items=items) if items:
            return _model_name(items[0])
        case ast.Difference():
            return _model_name(expression.left)
        case ast.OfType() if expression.base is not None:
            return _model_name(expression.base)
        case ast.Tensors() | ast.Filter() | ast.Maybe():
            return _model_name(expression.base)
        case _:
            helps = (f"sources: `MODEL.SELECTION`, {', '.join(f'{k}(…)' for k in KINDS)}",)
            raise fail("X0401", "this is no source of weights", expression.span, "from where?", helps=helps)


def _under(name: str, prefix: str) -> str:
    return name[len(prefix) + 1 :] if prefix and name.startswith(f"{prefix}.") else name


def _kind(tensor: Tensor) -> str:
    return f"{' x '.join(str(n) for n in tensor.shape) or 'a number'} {str(tensor.dtype).removeprefix('torch.')}"
