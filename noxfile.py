"""The commands of the project, one a session: `nox -l` lists them, `nox` runs the quick ones, `nox -s gate` all of the gate.

They use the environment that they are started in: `pip install -e '.[test,lint]'` once.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "contracts", "tests"]


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on two processes; arguments go to pytest: `nox -s tests -- tests/axes -x`."""
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and form."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strict."""
    session.run("pyright")


@nox.session
def contracts(session: nox.Session) -> None:
    """Who may import whom."""
    session.run("lint-imports")


@nox.session
def specs(session: nox.Session) -> None:
    """Every sample spec applied and verified, in small settings."""
    session.run("python", "-m", "benchmarks.specs", "--quick", *session.posargs)


@nox.session
def gate(session: nox.Session) -> None:
    """Everything that a change must pass, from a clean checkout, in environments of its own."""
    session.run("bash", ".ci/run", external=True)
