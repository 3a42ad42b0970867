"""cut: make an inner value of the network its output, and remove what is no longer needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from netxform.errors import Diagnostic, Span, fail
from netxform.graph.edits import Edit, Truncate
from netxform.language.choice import HIDDEN, Choice, Values
from netxform.language.claims import Claim, SameValue
from netxform.language.laws import Contract
from netxform.language.values import Selection
from netxform.language.verb import Role, Scope, key, prep, verb

if TYPE_CHECKING:
    from netxform.graph.network import Network


@dataclass(frozen=True)
class Point(Values):
    """The value that becomes the output, and the modules that go with what is behind it (outermost ones)."""

    node: str = field(metadata=HIDDEN)
    removes: tuple[str, ...] = field(metadata=HIDDEN)

    def lines(self) -> tuple[str, ...]:
        """What goes, the first eight of it."""
        more = " …" if len(self.removes) > 8 else ""
        return (f"removes {', '.join(self.removes[:8])}{more}",) if self.removes else ()


@verb("cut")
@dataclass(frozen=True)
class Cut:
    """Cut the network: the value at a point becomes the output; what no output needs is removed.

    `cut after M` keeps M and ends with its output; `cut at M` says the same; `cut before M` ends with M's input.
    The result has a loose end: the next `attach` takes it up. What is left is called `body` from here on.

    Example: model net = zoo.smallcnn(); cut at layer4

    Contract: exact. The output is, bit for bit, the value that the network had at that point.
    Refused: a point that is two modules (X0301), that runs twice (X0314), or that returns more than one tensor (X0316); a cut
    that drops something else than `drops=` says (X0305).
    Paper: Yosinski, Clune, Bengio, Lipson, "How transferable are features in deep neural networks?", 2014.
    """

    at: Selection | None = prep("at")
    after: Selection | None = prep("after")
    before: Selection | None = prep("before")
    drops: tuple[Selection, ...] | None = key(None)
    contract: ClassVar[Contract] = Contract.EXACT
    role: ClassVar[Role] = Role.CUTS

    def validate(self, span: Span) -> Iterator[Diagnostic]:
        """One place, no more and no less."""
        given = [w for w in ("at", "after", "before") if getattr(self, w) is not None]
        if len(given) != 1:
            message = "`cut` needs a place" if not given else "`cut` has two places at once"
            label = "where?" if not given else " and ".join(f"`{w}`" for w in given)
            helps = ("write `cut after MODULE`",) if not given else ("keep one of them; a second cut is a second line",)
            yield Diagnostic("X0301", message, span, label, helps=helps)

    def resolve(self, network: Network, scope: Scope) -> Choice[Point]:
        """Find the node, and which modules go."""
        from netxform.graph.outputs import kept_by

        place = self.at or self.after or self.before
        assert place is not None
        node = scope.point(place, "before" if self.before is not None else "after")
        kept = kept_by(network, node)
        every = [n for n, _ in network.module.named_modules(remove_duplicate=False)]
        removed = tuple(n for n in every if n and n not in kept)
        if self.drops is not None:
            expected = {m for s in self.drops for m in scope.modules(s)}
            surprise = [m for m in removed if m not in expected and not _inside(m, expected)]
            spared = sorted(expected - set(removed))
            if surprise or spared:
                raise fail(
                    "X0305",
                    "the cut drops other modules than `drops=` says",
                    scope.span,
                    f"drops {', '.join(_tops(removed)) or 'nothing'}",
                    notes=tuple(
                        note
                        for note in (
                            f"not expected: {', '.join(_tops(tuple(surprise)))}" if surprise else "",
                            f"not dropped: {', '.join(spared)}" if spared else "",
                        )
                        if note
                    ),
                    helps=(f"write `drops=[{', '.join(_tops(removed))}]`, or leave `drops` out",),
                )
        return Choice(
            Point(node, tuple(_tops(removed))),
            targets=(str(place),),
            defines={"body": tuple(n for n in every if n in kept or n == "")},
            removed=removed,
        )

    def rewrite(self, network: Network, choice: Choice[Point]) -> Edit:
        """One truncation."""
        return Edit((Truncate(choice.values.node),))

    def law(self, choice: Choice[Point]) -> tuple[Claim, ...]:
        """The output is the original's value at that point."""
        return (SameValue(choice.values.node),)


def _inside(path: str, roots: set[str]) -> bool:
    return any(path.startswith(r + ".") for r in roots)


def _tops(paths: tuple[str, ...]) -> list[str]:
    known = set(paths)
    return [p for p in paths if p.rpartition(".")[0] not in known]
