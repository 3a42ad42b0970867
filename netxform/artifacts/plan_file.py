"""A plan in a file, with its digest: `netxform plan -o FILE`, and `netxform apply --plan FILE` that refuses any other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from netxform.artifacts.exchange import replacing
from netxform.compiler.plan import Plan
from netxform.errors import fail
from netxform.sources.files import read_text

MOST = 500_000_000
"""The largest saved plan, in bytes."""


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan and its digest. Raises NetxformError X0819, X0843."""
    with replacing(path) as part:
        part.write_text(json.dumps({"digest": plan.digest(), "plan": plan.to_dict()}, indent=1, sort_keys=True) + "\n")


def saved_digest(path: Path) -> str:
    """The digest of a saved plan. Raises NetxformError X0702 for another file."""
    said = read_text(path, most=MOST)
    helps = ("save one: `netxform plan SPEC -o FILE`",)
    try:
        held = json.loads(said)
        digest = str(held["digest"])
        text = json.dumps(held["plan"], sort_keys=True).encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise fail("X0702", f"`{path.name}` is no saved plan", helps=helps) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise fail("X0702", f"`{path.name}` was changed after it was saved", helps=helps)
    return digest
