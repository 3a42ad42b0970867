"""Plans and certificates for people: tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from netxform.compiler.execute import NOTHING
from netxform.compiler.plan import Check, Plan, Step
from netxform.compiler.verdict import Verdict
from netxform.graph.cost import Cost
from netxform.language.certificate import Certificate, ClaimRecord, ComparisonRecord, WarningRecord
from netxform.language.laws import Contract
from netxform.syntax.quantity import short


def plan_table(plan: Plan) -> Group:
    """What will be done, statement by statement, with the cost after each and the origin of every default."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "right"),
        ("statement", "left"),
        ("contract", "left"),
        ("params", "right"),
        ("MACs", "right"),
        ("bytes", "right"),
    ):
        table.add_column(
            name, justify=cast(Any, justify), no_wrap=name not in ("statement",), ratio=1 if name == "statement" else None
        )
    table.add_row("", f"[dim]{escape(plan.subject)}[/dim]", "", *_cost(plan.base))
    stage: str | None = None
    for item in plan.items:
        if item.stage != stage:
            stage = item.stage
            if stage is not None:
                table.add_row("", f"[bold]stage {escape(stage)}[/bold]", "", "", "", "")
        if isinstance(item, Check):
            verdict = {True: "holds", False: "fails", None: "after applying"}[item.held]
            table.add_row(str(item.index + 1), escape(item.text), f"[dim]{verdict}[/dim]", "", "", "")
            continue
        after = _cost(item.after) if item.edit.operations and item.after != item.before else ("", "", "")
        if item.estimated:
            after = tuple(f"≈{c}" if c else "" for c in after)
        contract = "" if item.contract.value == "none" else item.contract.value
        table.add_row(str(item.index + 1), escape(item.text), contract, *after)
        for line in details(item):
            colour = "yellow" if line.startswith("warning: ") else "dim"
            table.add_row("", f"[{colour}]  {escape(line)}[/{colour}]", "", "", "", "")
    parts: list[Any] = [table]
    parts += [Text(f"note: {n}", style="dim") for n in plan.notes if n not in plan.warnings]
    parts += [Text(f"warning: {w}", style="yellow") for w in plan.warnings]
    change = _change(plan.base, plan.final)
    parts.append(Text(f"capture: {plan.front_end}; seed {plan.spec.seed}; {change}", style="dim"))
    return Group(*parts)


def details(step: Step) -> list[str]:
    """What was chosen, and where each value that the spec did not state came from."""
    lines = list(step.choice.values.lines())
    origins = [v if k.startswith("note") else f"{k}: {v}" for k, v in step.choice.origins.items()]
    if origins:
        lines.append(f"default: {'; '.join(origins)}")
    if step.choice.provisional:
        lines.append(f"open: {step.choice.provisional}")
    for found in step.measured:
        number = found.detail.found(found.measured, found.bound)
        on = f" (on {found.probes} probes)" if found.probes else ""
        lines.append(f"measured: {found.claim}: {f'not shown: {found.vacuous}' if found.vacuous else number}{on}")
        lines += [f"warning: {h.text}; to refuse that: `{h.suggestion}`" for h in found.detail.harms(found.measured)]
    lines += [f"warning: {w}" for w in step.choice.warnings]
    if step.idle:
        lines.append(f"warning: {NOTHING}")
    return lines


def certificate_table(certificate: Certificate) -> Group:
    """What was promised and what was measured."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("statement", ratio=1)
    table.add_column("contract", no_wrap=True)
    table.add_column("measured")
    stage: str | None = None
    for entry in certificate.statements:
        harms = [w for w in certificate.warnings if w.index == entry.index]
        if not entry.claims and not entry.metrics and not entry.warnings and not harms:
            continue
        if entry.stage != stage:
            stage = entry.stage
            if stage is not None:
                table.add_row(f"[bold]stage {escape(stage)}[/bold]", "", "")
        rows = [_claim(c) for c in entry.claims]
        wanted = ("teacher_val_accuracy", "val_accuracy", "test_accuracy", "test_mae", "test_r2", "test_loss")
        wanted += tuple(k for k in entry.metrics if k.startswith("test_") and k not in wanted)
        rows += [f"chosen: {escape(c)}" for c in entry.chosen if entry.contract is Contract.TRAINING]
        numbers = [f"{k.replace('_', ' ')} {entry.metrics[k]:.3f}" for k in wanted if k in entry.metrics]
        rows += [", ".join(numbers)] if numbers else []
        rows += [f"[yellow]warning: {escape(w)}[/yellow]" for w in entry.warnings]
        rows += [f"[{'yellow' if w.made_good else 'bold red'}]warning: {escape(_harm(w))}[/]" for w in harms]
        table.add_row(escape(entry.statement), entry.contract.value, "\n".join(rows))
    parts: list[Any] = [table]
    for found in certificate.comparisons:
        parts.append(_comparison(found))
    parts += [Text(f"note: {n}", style="dim") for n in certificate.notes]
    before, after = certificate.cost.before, certificate.cost.after
    parts += [Text(f"warning: {w}", style="yellow") for w in certificate.plan_warnings]
    parts.append(Text(f"params {before.params:,} → {after.params:,}; MACs {before.macs:,} → {after.macs:,}", style="dim"))
    probes = dict.fromkeys(c.probes for s in certificate.statements for c in s.claims if c.probes)
    parts += [Text(f"probes: {p} samples", style="dim") for p in probes]
    return Group(*parts)


def _harm(found: WarningRecord) -> str:
    return f"{found.text}; made good by a later training" if found.made_good else found.text


def last_line(certificate: Certificate) -> str:
    """What an `apply` must not end without saying: the statement whose cost nothing made good; empty where there is none."""
    standing = [w for w in certificate.warnings if not w.made_good]
    if not standing:
        return ""
    first = standing[0]
    more = f" (and {len(standing) - 1} more)" if len(standing) > 1 else ""
    ask = f"; to refuse that, write behind it: {first.suggestion}" if first.suggestion else ""
    return f"warning: `{first.statement}`: {first.text}{more}{ask}"


def _claim(claim: ClaimRecord) -> str:
    """A claim with its verdict; where nothing bounds it, with what was measured; where a later statement superseded it, with
    what it was and what it is on what is shipped.
    """
    if claim.vacuous:
        return f"{claim.claim}: [yellow]not shown[/yellow]: {claim.vacuous}"
    if claim.superseded_by is not None:
        by = f"superseded by statement {claim.superseded_by + 1}"
        if claim.made is None:
            return f"{claim.claim}: {'held' if claim.held else 'BROKEN'}, {by}"
        if claim.bound == float("inf"):
            return f"{claim.claim}: {claim.made.measured:.4g}, {by}; {claim.measured:.4g} of what is shipped"
        above = " (above it)" if claim.measured > claim.bound else ""
        then = f"{claim.made.measured:.4g} ≤ {claim.bound:.4g}"
        return f"{claim.claim}: {then}, {by}; {claim.measured:.4g}{above} of what is shipped"
    if not claim.held:
        return f"{claim.claim}: BROKEN"
    if claim.bound == float("inf"):
        return f"{claim.claim}: {claim.detail.found(claim.measured, claim.bound)}"
    size = f"{claim.measured:.2g} ≤ {claim.bound:.2g}, " if claim.detail.sized else ""
    return f"{claim.claim}: {size}held"


def _comparison(found: ComparisonRecord) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{found.metric}, {len(found.seeds)} seeds")
    table.add_column("mean ± s.e.")
    table.add_column("runs", style="dim")
    for name, runs in found.runs.items():
        label = {"spec": "as written", "scratch": "from scratch", "random": "random weights", "alone": "without teachers"}[name]
        mean, error = found.mean[name], found.standard_error[name]
        table.add_row(label, f"{mean:.3f} ± {error:.3f}", " ".join(f"{r:.3f}" for r in runs))
    return table


def axes_text(found: dict[str, Any]) -> str:
    """Axis types, groups and locks, for a terminal."""
    width = max((len(n) for n in found["types"]), default=0)
    lines = [f"{name:{width}}  {text}" for name, text in found["types"].items()]
    lines += ["", "free axes"] if found["free"] else []
    for group in found["free"]:
        kind = f" ({group['kind']})" if group.get("kind") else ""
        lines.append(f"  {group['name']}:{group['size']}{kind}  {_names(group['carried by'])}")
        if group["read by"]:
            lines.append(f"      read by {_names(group['read by'])}")
        if group["coupled by"]:
            lines.append(f"      coupled by {_names(group['coupled by'])}")
        lines += [f"      mixed: {m}" for m in group["mixed"][:4]]
    lines += ["", "locked axes"] if found["locked"] else []
    for why, places in found["locked"].items():
        lines.append(f"  {why}: {_names(list(dict.fromkeys(places)))}")
    return "\n".join(lines)


def _names(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def verdict_table(verdict: Verdict) -> Group:
    """Every claim, and how it ended."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what", "claim", "allowed", "measured", "how"):
        table.add_column(name, overflow="fold")
    for found in verdict.claims:
        evidence = found.evidence
        good = "[dim]superseded[/dim]" if found.state == "superseded" else "[green]held[/green]"
        mark = good if found.held else "[red]BROKEN[/red]"
        how = found.state + (
            f": {found.why}" if found.why and found.state != "superseded" else f" {found.why}" if found.why else ""
        )
        row = (escape(found.what), escape(evidence.claim), f"{evidence.bound:.4g}", f"{evidence.measured:.4g}", escape(how))
        table.add_row(mark, *row)
    return Group(table, *(Text(f"note: {n}", style="dim") for n in verdict.notes))


def show(thing: Any, width: int | None = None) -> None:
    """Print to standard output; in a pipe, without colours and 120 wide."""
    console = Console(highlight=False, width=width)
    if not console.is_terminal and width is None:
        console = Console(highlight=False, width=120)
    console.print(thing)


def show_warning(text: str, error: bool = False) -> None:
    """Print one coloured line, in a pipe without colours, to standard output or (`error`) to standard error."""
    Console(highlight=False, stderr=error).print(Text(text, style="bold red"), soft_wrap=True)


def _cost(cost: Cost) -> tuple[str, str, str]:
    return short(cost.params), short(cost.macs), short(cost.bytes)


def _change(before: Cost, after: Cost) -> str:
    if before.params == after.params:
        return f"{before.params:,} parameters"
    return f"{before.params:,} → {after.params:,} parameters"
