"""Comments, given to the statements that they stand above or beside."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from netxform.syntax import ast
from netxform.syntax.scan import Places, Scanned


def attached(
    statements: tuple[ast.Statement, ...], scanned: Scanned, places: Places
) -> tuple[tuple[ast.Statement, ...], tuple[str, ...]]:
    """Give every comment to the statement that it stands above or beside; those after the last one are the tail."""
    if not scanned.comments:
        return statements, ()
    offsets = [c[0] for c in scanned.comments]
    texts = [c[1][1:].strip() for c in scanned.comments]
    taken = [False] * len(offsets)

    def between(start: int, end: int) -> range:
        return range(bisect_left(offsets, start), bisect_left(offsets, end))

    def visit(items: tuple[ast.Statement, ...], start: int, stop: int) -> tuple[ast.Statement, ...]:
        out: list[ast.Statement] = []
        for i, item in enumerate(items):
            above = [j for j in between(start, item.span.start) if not taken[j]]
            for j in above:
                taken[j] = True
            item = inside(item)
            follow = items[i + 1].span.start if i + 1 < len(items) else stop
            row = places.span(item.span.end, item.span.end).line
            beside = [j for j in between(item.span.end, follow) if places.span(offsets[j], offsets[j]).line == row]
            for j in beside[:1]:
                taken[j] = True
            out.append(replace(item, comments=tuple(texts[j] for j in above), trailing=texts[beside[0]] if beside else None))
            start = item.span.end
        return tuple(out)

    def inside(item: ast.Statement) -> ast.Statement:
        match item:
            case ast.Def() | ast.Each() | ast.Stage():
                return replace(item, body=visit(item.body, item.span.start, item.span.end))
            case ast.If():
                middle = item.then[-1].span.end if item.then else item.span.start
                then = visit(item.then, item.span.start, item.otherwise[0].span.start if item.otherwise else item.span.end)
                return replace(item, then=then, otherwise=visit(item.otherwise, middle, item.span.end))
            case ast.Command() if item.block is not None:
                return replace(item, block=visit(item.block, item.span.start, item.span.end))
            case _:
                return item

    done = visit(statements, 0, len(scanned.clean))
    return done, tuple(texts[j] for j in range(len(texts)) if not taken[j])
