"""Hypothesis strategies that several test files share: syntax trees, texts, small networks."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from netxform.builder import PREPOSITIONS
from netxform.syntax import ast
from netxform.zoo import REGISTRY

SPECS = sorted((Path(__file__).parent.parent / "specs").glob("*.xform"))
ONE_LINE = (
    "cut at layer4; freeze body; attach head; factorize fc1 rank=256; prune saliency<1e-3; widen conv3 x2; distill from teacher"
)

# --- trees -----------------------------------------------------------------------------------------------------------

words = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
keys = words
segments = st.one_of(words, st.sampled_from(["*", "conv*", "{1..4}", "{conv,bn}1", "0", "12", "layer{1,2}x"]))


@st.composite
def paths(draw: st.DrawFn) -> ast.Path:
    parts = [draw(words), *draw(st.lists(segments, max_size=3))]
    text = ".".join(parts)
    if draw(st.booleans()):
        text = "." + text
    from netxform.syntax.format import RESERVED

    return ast.Path(text, quoted=text in RESERVED)


numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False, width=32).map(float)).map(
    ast.Number
)
units = st.sampled_from(
    ["%", "x", "k", "M", "params", "Mparams", "Gflops", "macs", "MiB", "kB", "epochs", "steps", "ms", "bits"]
)
quantities = st.builds(ast.Quantity, st.one_of(st.integers(0, 999), st.sampled_from([0.5, 1.25])), units)
strings = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12).map(ast.String)
regexes = st.sampled_from([r"layer[12]\..*", "a.b", "a/b", r"\d+"]).map(ast.Regex)
variables = words.map(ast.Var)
atoms = st.one_of(
    paths(),
    numbers,
    quantities,
    strings,
    variables,
    regexes,
    st.builds(ast.OfType, st.none(), st.sampled_from(["Conv2d", "Linear"])),
    st.builds(ast.Op, words),
    st.builds(ast.Relative, quantities, paths()),
)


def _grow(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    selections = st.one_of(paths(), inner.filter(lambda n: not isinstance(n, ast.Compare | ast.Relative)))
    return st.one_of(
        st.builds(ast.Call, words, st.lists(st.builds(ast.Argument, st.one_of(st.none(), keys), inner), max_size=3).map(tuple)),
        st.lists(inner, max_size=3).map(tuple).map(ast.List),
        st.lists(st.builds(ast.Pair, strings.map(lambda s: s.value), inner), min_size=1, max_size=3)
        .map(tuple)
        .map(ast.Mapping),
        st.lists(selections.filter(lambda n: not isinstance(n, ast.Union)), min_size=2, max_size=3).map(tuple).map(ast.Union),
        st.lists(selections.filter(lambda n: not isinstance(n, ast.Intersection)), min_size=2, max_size=3)
        .map(tuple)
        .map(ast.Intersection),
        st.builds(ast.Difference, selections, selections),
        st.builds(ast.Tensors, paths(), st.sampled_from(["weight", "bias", "*"])),
        st.builds(ast.Filter, paths(), conditions(paths())),
        st.builds(ast.Maybe, paths()),
    )


def conditions(operands: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Condition]:
    compare = st.builds(
        ast.Compare, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), operands, st.one_of(numbers, quantities)
    )
    base = st.one_of(compare, st.builds(ast.Member, operands, st.lists(numbers, max_size=3).map(tuple).map(ast.List)))

    def grow(inner: st.SearchStrategy[ast.Condition]) -> st.SearchStrategy[ast.Condition]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(
            st.builds(ast.Not, inner),
            several.filter(lambda t: not any(isinstance(i, ast.And) for i in t)).map(ast.And),
            several.filter(lambda t: not any(isinstance(i, ast.Or) for i in t)).map(ast.Or),
        )

    return st.recursive(base, grow, max_leaves=4)


expressions: st.SearchStrategy[ast.Expr] = st.recursive(atoms, _grow, max_leaves=6)
clauses = st.one_of(
    st.builds(ast.Preposition, st.sampled_from(sorted(PREPOSITIONS)), expressions),
    st.builds(ast.Option, keys, expressions),
    st.builds(ast.Factor, st.integers(1, 9)),
)
verbs = st.sampled_from(["cut", "freeze", "attach", "train", "widen", "prune", "verify"])
options = st.lists(st.builds(ast.Option, keys, expressions), max_size=2).map(tuple)
plain = words.filter(lambda w: w not in ("not", "xform"))


@st.composite
def commands(draw: st.DrawFn, block: st.SearchStrategy[tuple[ast.Statement, ...]] | None = None) -> ast.Command:
    operands = draw(st.lists(expressions, max_size=1))
    made = tuple(draw(st.lists(clauses, max_size=3)))
    if not operands and made and isinstance(made[0], ast.Factor):
        made = ()
    inner = draw(st.none() | block) if block is not None else None
    verb = draw(verbs)
    if operands and isinstance(operands[0], ast.Call) and operands[0].name == verb:
        operands = []
    return ast.Command(verb, tuple(operands), made, inner)


def _blocks(inner: st.SearchStrategy[ast.Statement]) -> st.SearchStrategy[ast.Statement]:
    body = st.lists(inner, max_size=3).map(tuple)
    some = st.lists(inner, min_size=1, max_size=2).map(tuple)
    return st.one_of(
        st.builds(ast.Stage, plain, body),
        st.builds(ast.Each, plain, expressions, body),
        st.builds(ast.If, conditions(paths()), body, some),
        st.builds(ast.Def, plain, st.lists(plain, max_size=2).map(tuple), body),
        commands(body),
    )


lines = st.one_of(
    commands(),
    st.builds(ast.Model, plain, expressions, options),
    st.builds(ast.Data, plain, expressions, options),
    st.builds(ast.Let, plain, expressions),
    st.builds(ast.Use, st.just("a.xform"), st.none() | plain),
    st.builds(ast.Binding, keys, expressions),
    st.builds(ast.Assert, conditions(paths()), st.none() | st.text("abc ", max_size=5)),
    st.builds(
        ast.Param,
        plain,
        st.none() | st.sampled_from(["int", "float"]),
        st.none() | expressions,
        st.none() | st.lists(numbers, min_size=2, max_size=2).map(tuple).map(ast.List),
    ),
)
programs = st.builds(
    ast.Program, st.sampled_from([None, 1]), st.lists(st.recursive(lines, _blocks, max_leaves=4), max_size=4).map(tuple)
)


# --- texts -----------------------------------------------------------------------------------------------------------


def mutated(seed: int) -> str:
    """A sample text with a few random changes, or noise; the same for the same seed."""
    rng = random.Random(seed)
    pieces = [
        *list(' \n;{}()[]"`#/:,.=<>|&-?$%*xX019aé\t\r\x00\ufeff'),
        "model",
        "stage",
        "train",
        " for ",
        "5epochs",
        "::",
        "**",
    ]
    if seed % 5 == 0:
        return "".join(rng.choice(pieces) for _ in range(rng.randrange(60)))
    text = rng.choice([ONE_LINE, *(p.read_text() for p in SPECS)])
    for _ in range(rng.randrange(1, 6)):
        a = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:a] + text[a + rng.randrange(8) :]
            case 1:
                text = text[:a] + rng.choice(pieces) + text[a:]
            case 2:
                b = rng.randrange(len(text) + 1)
                text = text[:a] + text[min(a, b) : max(a, b)] + text[a:]
            case _:
                text = text[:a] + rng.choice(pieces) * rng.randrange(1, 90) + text[a + 1 :]
    return text


# --- networks --------------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """A generated network: a chain of parts, some with a sum or a concatenation around them, functional ops between."""

    def __init__(self, plan: list[tuple[str, int]], width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.kinds = [k for k, _ in plan]
        parts: list[nn.Module] = []
        for kind, size in plan:
            wide = width + size if kind == "cat" else width
            parts.append(
                nn.Sequential(
                    nn.Conv2d(width, wide - width if kind == "cat" else width, 1),
                    nn.BatchNorm2d(wide - width if kind == "cat" else width),
                    nn.ReLU(),
                )
            )
            width = wide
        self.parts = nn.ModuleList(parts)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.register_buffer("shift", torch.full((width, 1, 1), 0.1))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for kind, part in zip(self.kinds, self.parts, strict=True):
            y = part(x)
            x = torch.cat([x, y], 1) if kind == "cat" else x + y if kind == "sum" else y
        x = x * self.scale + self.shift
        n, c, h, w = x.shape
        x = x.view(n, c, h * w).mean(2)
        return self.head(nn.functional.dropout(x, self.dropout, self.training))


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A small convolutional network with random non-degenerate parameters and statistics. Input: (N, 2, H, W)."""
    plan = draw(st.lists(st.tuples(st.sampled_from(["chain", "sum", "cat"]), st.integers(1, 4)), min_size=1, max_size=4))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    return randomized(Branches(plan, draw(st.integers(2, 6)), 0.3))


def randomized(model: nn.Module) -> nn.Module:
    """Give every parameter and statistic a random value, none of them degenerate."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.05)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5 if "var" in name else torch.randn_like(buffer))
    return model.eval()


def zoo_input(name: str, batch: int) -> Tensor:
    """A batch of random inputs for a model of the zoo: words for those that read words."""
    known = REGISTRY[name]
    shape = (batch, *known.input[1:])
    return torch.randint(1000, shape) if known.dtype == "i64" else torch.randn(shape)
