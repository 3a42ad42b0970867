"""One door around every public function: what comes out is a result or a `NetxformError`, and nothing else.

An exception that nobody expected becomes one page: what was being done, where in the spec, and how to report it. The exception
itself is its cause. `KeyboardInterrupt` and `SystemExit` pass.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from netxform.errors import Diagnostic, NetxformError, Trail, did_you_mean, trail

P = ParamSpec("P")
R = TypeVar("R")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NEVER = (errno.EACCES, errno.EPERM)
_OURS = Path(__file__).parent


class ArgumentError(NetxformError, TypeError):
    """An argument that a public function does not take. It is a `TypeError` too, as for any function of Python."""


def door(doing: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Around a public function: `doing` says in words what it does ("planning the spec")."""

    def around(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise _misspelt(function.__name__, signature, kwargs, error) from None
            try:
                return function(*args, **kwargs)
            except NetxformError:
                raise
            except Exception as error:
                raise unexpected(error, doing) from error

        return within

    return around


def _misspelt(name: str, signature: inspect.Signature, given: dict[str, object], error: TypeError) -> ArgumentError:
    known = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_POSITIONAL]
    wrong = next((k for k in given if k not in known), None)
    if wrong is None:
        message, helps = f"`{name}` is called wrongly: {error}", (f"it is called as `{name}{_short(signature)}`",)
    else:
        message = f"`{name}` has no argument `{wrong}`"
        helps = did_you_mean(wrong, known) or (f"arguments: {', '.join(known)}",)
    return ArgumentError([Diagnostic("X0002", message, helps=helps)])


def _short(signature: inspect.Signature) -> str:
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return f"({', '.join(needed)}{', …' if len(needed) < len(signature.parameters) else ''})"


def unexpected(error: BaseException, doing: str) -> NetxformError:
    """The page for an exception that is no `NetxformError`: of memory, of files, of packages, or of netxform itself."""
    where = trail(error)
    doing = where.doing or doing
    text = (str(error).strip().splitlines() or [""])[0]
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or _no_memory(str(error)):
        found = Diagnostic(
            "X0005",
            f"there was not enough memory while {doing}",
            where.span,
            "here" if where.span.line else "",
            notes=(text,) if text else (),
            helps=("close other programs, use a smaller batch or a smaller model, or a machine with more memory",),
        )
    elif isinstance(error, RecursionError):
        helps = ("take it apart: name parts of it by `let` or `def`, or put blocks into a module of their own",)
        found = Diagnostic("X0102", f"something is nested too deep for {doing}", where.span, "here", helps=helps)
    elif isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("netxform"):
        package = error.name.partition(".")[0]
        message = f"the package `{package}` is missing; it is needed for {doing}"
        found = Diagnostic("X0814", message, where.span, helps=(f"pip install {package}",))
    elif isinstance(error, OSError) and error.errno is not None:
        found = _file(error, doing, where)
    else:
        place = _place(error)
        found = Diagnostic(
            "X0004",
            f"netxform failed while {doing}: {kind}{': ' if text else ''}{text[:300]}",
            where.span,
            "in this statement" if where.span.line else "",
            notes=(*((f"it happened in {place}",) if place else ()), "this is a defect of netxform, not a mistake of yours"),
            helps=("run the same again with `--debug` (in Python: see `__cause__`), and report what it prints, with the spec",),
        )
    return NetxformError([found], where.sources)


def _no_memory(text: str) -> bool:
    said = text.lower()
    return any(
        t in said
        for t in ("can't allocate memory", "cannot allocate memory", "out of memory", "alloc_cpu", "storage size calculation")
    )


def _file(error: OSError, doing: str, where: Trail) -> Diagnostic:
    name = f"`{error.filename}`" if error.filename is not None else "a file"
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return Diagnostic(
            "X0819", f"{name} cannot be written: {reason}", where.span, helps=("free some space, or write elsewhere",)
        )
    if error.errno in _NEVER:
        helps = ("look at its owner and mode (`ls -l`), or name another place",)
        return Diagnostic("X0003", f"{name} may not be used while {doing}: {reason}", where.span, helps=helps)
    helps = ("look at the path: whether it is there, and is a file or a folder as it should be",)
    return Diagnostic("X0003", f"{name} cannot be used while {doing}: {reason}", where.span, helps=helps)


def _place(error: BaseException) -> str:
    """The innermost line of netxform that the exception came through."""
    found = ""
    step = error.__traceback__
    while step is not None:
        file = Path(step.tb_frame.f_code.co_filename)
        if file.is_relative_to(_OURS) and file.name != "door.py":
            found = f"{file.relative_to(_OURS)}, line {step.tb_lineno}"
        step = step.tb_next
    return found
