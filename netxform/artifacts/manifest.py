"""The folder of a bundle, byte for byte: every file is named and hashed by its certificate, and nothing else is in it.

folder ─sealed→ Sealed: the certificate, and the texts of the files beside it, each read once
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from netxform.compiler.claims.registry import detail_of
from netxform.errors import NetxformError, closest, fail
from netxform.language.certificate import Certificate, load
from netxform.limits import allowed
from netxform.sources import companions
from netxform.sources.trust import TEXT, room_for, write_path
from netxform.syntax import ast
from netxform.syntax.format import format as format_text
from netxform.syntax.format import format_node
from netxform.syntax.parse import parse

CERTIFICATE = "certificate.json"
SIGNATURE = "model.sig"
NEEDED = ("model.safetensors", "model.py", "graph.json", "spec.xform", "plan.json", "evidence.safetensors")
OTHERS = ("curves.csv", "trajectory.json", "trajectory.safetensors", *companions.NAMES)
CACHE = "__pycache__"
_COMPILED = re.compile(r"model\.[\w-]+(\.opt-[12])?\.pyc")
_TENSORS = (".safetensors", ".skops", *companions.TABLES)


@dataclass(frozen=True)
class Sealed:
    """A bundle of which every byte is accounted for. `texts`: the files that are no tensors, by name."""

    folder: Path
    certificate: Certificate
    texts: dict[str, str]
    signed: bool

    def json(self, name: str) -> Any:
        """One of the JSON files. Raises NetxformError X0822."""
        return strict(name, self.texts[name])


def place(part: Path, name: str) -> Path:
    """Where a file of a bundle is written: right in its folder. Raises NetxformError X0901 for a name that is a path."""
    path = write_path(name, part)
    if path.parent != part.resolve() or path.name != name or not _known(name):
        raise fail("X0901", f"`{name}` cannot be the name of a file in a bundle", notes=("a bundle is one folder of files",))
    return path


def _known(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return name in (*NEEDED, *OTHERS, CERTIFICATE) or (suffix == "skops" and stem.isidentifier())


def sealed(folder: Path, most: int | None = None) -> Sealed:
    """The bundle, with every file compared with the hash in its certificate. Nothing in the folder is run.

    `most`: bytes of the largest file (None: the memory of the machine). Raises NetxformError X0815 (no bundle), X0844 (no
    right to read it), X0822 (a file too many, missing, renamed, changed; a link, a folder, a pipe; JSON that is not what
    netxform writes), X0827 (another version), X0906 (too large).
    """
    most = allowed() if most is None else most
    try:
        entries = _entries(folder)
    except PermissionError as error:
        raise not_yours(folder, error) from error
    if CERTIFICATE not in entries:
        raise fail("X0815", f"`{folder.name}` is no bundle of netxform", helps=(f"a bundle holds {CERTIFICATE}",))
    try:
        for name in entries:
            room_for(folder / name, most if name.endswith(_TENSORS) else min(most, TEXT))
        text = _text(folder / CERTIFICATE)
        strict(CERTIFICATE, text)
        certificate = load(text, detail_of)
        files = dict(certificate.files or {})
        _all_there(set(entries) - {CERTIFICATE, SIGNATURE}, files)
        texts: dict[str, str] = {}
        for name, wanted in files.items():
            held = None if name.endswith(_TENSORS) else (folder / name).read_bytes()
            found = _hash_of(folder / name) if held is None else hashlib.sha256(held).hexdigest()
            if found != wanted:
                raise fail("X0822", f"`{name}` is not the file that was certified", notes=("its sha256 differs",))
            if held is not None:
                texts[name] = held.decode()
    except PermissionError as error:
        raise not_yours(folder, error) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise fail("X0822", f"the bundle is damaged: {type(error).__name__}: {error}") from error
    made = Sealed(folder, certificate, texts, SIGNATURE in entries)
    _agree(made)
    return made


def not_yours(folder: Path, error: OSError) -> NetxformError:
    """X0844: a bundle that may not be read is not said to be damaged."""
    name = Path(str(error.filename)).name if error.filename else folder.name
    where = f"`{name}` of the bundle `{folder.name}`" if name != folder.name else f"`{name}`"
    helps = ("ask its owner to make it readable: `chmod -R a+rX BUNDLE`",)
    return fail("X0844", f"{where} may not be read: {error.strerror}", notes=("nothing is known to be damaged",), helps=helps)


def _entries(folder: Path) -> list[str]:
    """The names in the folder, each a plain file."""
    if not folder.is_dir():
        raise fail("X0815", f"`{folder.name}` is no bundle of netxform", helps=(f"a bundle is a folder with {CERTIFICATE}",))
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if entry.name == CACHE and stat.S_ISDIR(mode) and _of_python(folder / CACHE):
                continue
            if not stat.S_ISREG(mode) and (folder / CERTIFICATE).is_file():
                kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise fail("X0822", f"`{entry.name}` in the bundle is {kind}", notes=("a bundle is one folder of plain files",))
            found.append(entry.name)
    return sorted(found)


def _of_python(cache: Path) -> bool:
    """Whether a folder is what Python leaves when model.py is imported: its compiled form, and nothing else."""
    with os.scandir(cache) as entries:
        return all(e.is_file(follow_symlinks=False) and _COMPILED.fullmatch(e.name) for e in entries)


def _all_there(entries: set[str], files: dict[str, str]) -> None:
    """Raises NetxformError X0822 where a file is missing, or one is there that the certificate does not name."""
    strange = sorted(n for n in files if not _known(n) or n == CERTIFICATE)
    if strange:
        raise fail("X0822", f"the certificate names `{strange[0]}`, which is no file of a bundle")
    missing = sorted((set(files) | set(NEEDED)) - entries)
    extra = sorted(entries - set(files))
    if missing:
        near = closest(missing[0], extra)
        raise fail(
            "X0822", f"`{missing[0]}` is missing from the bundle", helps=tuple(f"was it renamed to `{n}`?" for n in near)
        )
    if extra:
        raise fail(
            "X0822",
            f"`{extra[0]}` is in the folder, and the certificate does not name it",
            notes=("a file beside model.py can run when model.py is imported",),
            helps=("move it out of the bundle",),
        )


def _text(path: Path) -> str:
    return path.read_bytes().decode()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def strict(name: str, text: str) -> Any:
    """JSON as netxform writes it: sorted keys, each once, one form. Raises NetxformError X0822."""
    try:
        found = json.loads(text, object_pairs_hook=_once)
        if json.dumps(found, indent=1, sort_keys=True) + "\n" != text:
            raise ValueError("it is not written as netxform writes it (keys in order, one blank a level)")
    except (ValueError, TypeError, RecursionError) as error:
        raise fail("X0822", f"`{name}` of the bundle is damaged: {error}") from error
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in [n for n, _ in pairs[:i]])
        raise ValueError(f"`{twice}` stands there twice")
    return found


class _Claim(msgspec.Struct):
    kind: str


class _Item(msgspec.Struct):
    """A statement or an assert of a plan: what `verify` reads of it."""

    statement: str = ""
    verb: str = ""
    contract: str = ""
    claims: list[_Claim] = []
    asserts: str = msgspec.field(name="assert", default="")
    held: bool | None = None


class _Plan(msgspec.Struct):
    items: list[_Item]
    seed: int
    subject: str
    base: dict[str, int]


def _agree(bundle: Sealed) -> None:
    """Raises NetxformError X0822 where spec, plan and certificate do not speak of the same statements."""
    plan, certificate = bundle.json("plan.json"), bundle.certificate
    try:
        msgspec.convert(plan, _Plan)
    except msgspec.ValidationError as error:
        raise fail("X0822", f"`plan.json` of the bundle is no plan: {error}") from error
    if hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest() != certificate.plan:
        raise fail("X0822", "`plan.json` is not the plan of the certificate", notes=("its digest differs",))
    text = bundle.texts["spec.xform"]
    try:
        program = parse(text, "spec.xform")
    except NetxformError as error:
        raise fail("X0822", f"`spec.xform` of the bundle is no spec: {error.diagnostics[0].message}") from error
    if format_text(program) != text:
        raise fail("X0822", "`spec.xform` of the bundle is not written as netxform writes it")
    planned = [str(i["statement"]) for i in plan["items"] if "statement" in i]
    if planned != [s.statement for s in certificate.statements] or plan["seed"] != certificate.seed:
        raise fail("X0822", "the certificate does not speak of the statements of `plan.json`")
    free: set[str] = set()
    said = {format_node(c) for c in _commands(program.statements, free, False)}
    for statement in planned:
        if statement not in said and statement.partition(" ")[0] not in free:
            raise fail("X0822", f"`spec.xform` of the bundle has no statement `{statement}`, which `plan.json` has")


def _commands(statements: tuple[Any, ...], free: set[str], looped: bool) -> Iterator[ast.Command]:
    """Every command of the text; into `free` go the verbs under an `each`, whose names are put in when it is planned."""
    for statement in statements:
        match statement:
            case ast.Command():
                if looped:
                    free.add(statement.verb)
                yield statement
            case ast.If():
                yield from _commands((*statement.then, *statement.otherwise), free, looped)
            case ast.Stage() | ast.Each():
                yield from _commands(statement.body, free, looped or isinstance(statement, ast.Each))
            case _:
                pass


def replaceable(folder: Path) -> None:
    """Raises NetxformError X0818 unless the folder is empty, or a bundle of which every byte is as netxform wrote it."""
    if folder.is_symlink() or not folder.is_dir():
        raise fail("X0818", f"`{folder.name}` is no folder: it is not replaced", helps=("choose another name",))
    if not any(folder.iterdir()):
        return
    try:
        sealed(folder)
    except NetxformError as error:
        raise fail(
            "X0818",
            f"`{folder.name}` is no bundle as netxform wrote it: it is not replaced",
            notes=(error.diagnostics[0].message,),
            helps=("choose another name, or move the folder away",),
        ) from error
