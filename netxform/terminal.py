"""What the command line has to do with the world around it: options, streams of any encoding, pipes that close, signals."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from types import FrameType
from typing import Any, NoReturn

from netxform.errors import NetxformError, closest, did_you_mean, fail

_PLAIN = {
    "→": "->", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "±": "+-", "×": "x", "·": "*", "…": "...", "−": "-", "–": "-",
    "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "√": "sqrt", "²": "^2", "│": "|", "─": "-", "━": "-", "•": "*",
}  # fmt: skip


class Stopped(KeyboardInterrupt):
    """The process was told to end, by a signal other than Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Parser(argparse.ArgumentParser):
    """Options whose mistakes are errors of netxform: a code, what was meant, and exit code 1. An option stands once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)

    def error(self, message: str) -> NoReturn:
        """Raises NetxformError X0001."""
        raise _unread(self, message)

    def read(self, given: Sequence[str]) -> argparse.Namespace:
        """The options. Raises NetxformError X0001; SystemExit for `--help`."""
        options, more = self.parse_known_args(given)
        if more:
            of: argparse.ArgumentParser = getattr(options, "parser", self)
            known = [o for a in of._actions for o in a.option_strings]  # pyright: ignore[reportPrivateUsage]
            what = "an option" if more[0].startswith("-") else "an argument"
            helps = (*did_you_mean(more[0].partition("=")[0], known), f"`{of.prog} --help` lists what it takes")
            raise fail("X0001", f"`{of.prog}` has no use for `{more[0]}`: {what} too many, or unknown", helps=helps)
        return options


class _Once(argparse.Action):
    """Stores a value; a second one is an error."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        seen: set[str] = namespace.__dict__.setdefault("_seen", set())
        if option_string is not None and self.dest in seen:
            raise argparse.ArgumentError(self, "given twice")
        seen.add(self.dest)
        setattr(namespace, self.dest, values)


def _unread(parser: argparse.ArgumentParser, message: str) -> NetxformError:
    helps = [f"`{parser.prog} --help` shows how it is called"]
    wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
    if wrong is not None:
        known = re.findall(r"'(.*?)'", wrong.group(2)) or wrong.group(2).split(", ")
        message = f"`{wrong.group(1)}` is not one of {', '.join(f'`{k}`' for k in known)}"
        helps = [f"did you mean `{n}`?" for n in closest(wrong.group(1), known)] or helps
    missing = re.fullmatch(r"the following arguments are required: (.*)", message)
    if missing is not None:
        message = f"`{parser.prog}` needs {' and '.join(f'<{n}>' for n in missing.group(1).split(', '))}"
    kind = re.search(r"argument (.*?): invalid (\w+) value: '(.*)'", message)
    if kind is not None:
        wanted = {"int": "a whole number", "float": "a number", "whole": "a whole number", "perplexity": "a number above 0"}
        message = f"`{kind.group(1)}` takes {wanted.get(kind.group(2), kind.group(2))}, not `{kind.group(3)}`"
    message = re.sub(r"^argument ([^:]*): ?", r"`\1`: ", message)
    return fail("X0001", message, helps=tuple(helps))


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    spelled = "".join(
        _PLAIN.get(c, "?" if not c.isprintable() else c.encode("ascii", "backslashreplace").decode()) for c in signs
    )
    try:
        spelled.encode(error.encoding)
    except UnicodeError:
        spelled = "?" * len(signs)
    return spelled, error.end


codecs.register_error("netxform.plain", _plainly)


@contextlib.contextmanager
def streams() -> Generator[None]:
    """Standard output and error that take every sign, in their own encoding; what the encoding lacks is spelled out."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif callable(change := getattr(stream, "reconfigure", None)) and getattr(stream, "errors", "") != "netxform.plain":
            with contextlib.suppress(ValueError, OSError):
                change(errors="netxform.plain")
    yield


def unplug() -> None:
    """Nobody reads any more: what is still to be written goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """Write what is still held back. Raises BrokenPipeError, and NetxformError X0819 where it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        unplug()
        raise fail("X0819", f"the output cannot be written: {error.strerror}", helps=("free some space",)) from error


@contextlib.contextmanager
def signals() -> Generator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does: what is half done is taken back."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, held in before.items():
            signal.signal(number, held)
