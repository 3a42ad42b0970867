"""The parser's tables, made once from the grammar: building them takes longer than reading most specs.

grammar/xform.lark ─write→ grammar/xform.tables.json ─read→ Lark

After a change of the grammar: `python -W ignore -m netxform.syntax.tables > grammar/xform.tables.json`. Tables of another
grammar, or of another release of Lark, are not used: then they are built when they are needed. They are plain data, and no
pickle.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

STARTS = ("start", "operand")
GRAMMAR, TABLES = "xform.lark", "xform.tables.json"
_SHIFT = 0


def grammar(name: str) -> str:
    """A file of the grammar: from the installed package, or from a checkout that is run in place."""
    try:
        return files("netxform.grammar").joinpath(name).read_text(encoding="utf-8")
    except ModuleNotFoundError:
        return (Path(__file__).parents[2] / "grammar" / name).read_text(encoding="utf-8")


def built() -> Lark:
    """The parser, made from the grammar."""
    return Lark(
        grammar(GRAMMAR),
        parser="lalr",
        lexer="contextual",
        start=list(STARTS),
        propagate_positions=True,
        maybe_placeholders=False,
    )


def written() -> dict[str, Any]:
    """The tables as plain data, with what they were made from."""
    parser: Any = built()
    data, memo = parser.memo_serialize([TerminalDef, Rule])
    data["parser"]["parser"] = _ordered(data["parser"]["parser"])
    return {"lark": lark.__version__, "grammar": _digest(), "data": data, "memo": memo}


def _ordered(table: dict[str, Any]) -> dict[str, Any]:
    """The same automaton with its symbols by name, and its states by the order in which they are reached."""
    names = sorted(table["tokens"].values())
    symbol = {old: names.index(name) for old, name in table["tokens"].items()}
    reached = [table["start_states"][s] for s in STARTS]
    for state in reached:
        steps = sorted((symbol[t], target) for t, (act, target) in table["states"][state].items() if act == _SHIFT)
        reached += [s for s in dict.fromkeys(target for _, target in steps) if s not in reached]
    number = {old: new for new, old in enumerate(reached)}

    def moved(step: tuple[int, Any]) -> list[Any]:
        return [step[0], number[step[1]] if step[0] == _SHIFT else step[1]]

    states = {number[s]: {symbol[t]: moved(a) for t, a in table["states"][s].items()} for s in reached}
    ends = {k: {n: number[s] for n, s in table[k].items()} for k in ("start_states", "end_states")}
    return {"tokens": dict(enumerate(names)), "states": states, **ends}


def parser() -> Lark:
    """The parser, from its tables where they fit."""
    try:
        held: Any = json.loads(grammar(TABLES), object_hook=_numbered)
    except (FileNotFoundError, json.JSONDecodeError):
        return built()
    if held.get("lark") != lark.__version__ or held.get("grammar") != _digest():
        return built()
    maker: Any = Lark
    return cast(Lark, maker._load_from_dict(held["data"], held["memo"]))


def _digest() -> str:
    return hashlib.sha256(grammar(GRAMMAR).encode()).hexdigest()


def _numbered(held: dict[str, Any]) -> dict[Any, Any]:
    """States and symbols by their numbers, which JSON writes as text."""
    return {int(k) if k.isdecimal() else k: v for k, v in held.items()}


if __name__ == "__main__":
    print(json.dumps(written(), separators=(",", ":"), sort_keys=True))
