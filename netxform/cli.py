"""The command line: check, plan, apply, verify, export, compare, ls, fmt, explain."""

# Long: one function a command.
from __future__ import annotations

import argparse
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netxform.errors import NetxformError, did_you_mean, fail
from netxform.registry import Registry
from netxform.sources.formats import FORMATS, suffix_of
from netxform.sources.trust import Trust
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse, parse_expression

KINDS = {
    "models": "netxform.sources.models.source:MODELS",
    "formats": "netxform.sources.formats:FORMATS",
    "data": "netxform.sources.data.source:DATA",
    "exporters": "netxform.artifacts.exporters:EXPORTERS",
    "scores": "netxform.pruning.needs:SCORES",
    "losses": "netxform.language.methods:LOSSES",
    "metrics": "netxform.language.methods:METRICS",
    "optimizers": "netxform.language.methods:OPTIMIZERS",
    "schedules": "netxform.language.methods:SCHEDULES",
    "transforms": "netxform.language.methods:TRANSFORMS",
}
EXIT = "exit codes: 0 done, 1 error, 2 `plan --detailed-exitcode` found changes, 3 a contract or an assert fell short"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except NetxformError as error:
        if getattr(options, "json", False):
            print(json.dumps({"diagnostics": [d.to_dict() for d in error.diagnostics]}, indent=1))
        else:
            print("\n\n".join(d.render(error.sources) for d in error.diagnostics), file=sys.stderr)
            count = len(error.diagnostics)
            if count > 1:
                print(f"\n{count} errors", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; `--resume` goes on from the last finished epoch", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netxform", description="Change trained networks by a spec, and verify it.", epilog=EXIT
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    parser.set_defaults(run=_hello)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    check = _command(commands, "check", _check, "check a spec by its text alone")
    _spec(check)
    plan = _command(commands, "plan", _plan, "show what a spec would do, on a weightless twin")
    _spec(plan)
    _subject(plan)
    plan.add_argument("-o", "--out", type=Path, metavar="FILE", help="save the plan")
    plan.add_argument("--deep", action="store_true", help="read weights and data, make the choices that need them, measure")
    plan.add_argument("--detailed-exitcode", action="store_true", help="exit with 2 where the plan changes something")
    apply = _command(commands, "apply", _apply, "carry a spec out, measure it, and write a bundle")
    _spec(apply)
    _subject(apply)
    apply.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="the bundle (default: the spec's name + .bundle)")
    apply.add_argument("--plan", type=Path, metavar="FILE", help="refuse to run unless this saved plan still holds")
    apply.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    apply.add_argument("--resume", action="store_true", help="go on from the last finished epoch of an interrupted run")
    apply.add_argument("--processes", type=int, metavar="N", help="refuse to run unless N processes take part (torchrun)")
    apply.add_argument("--quiet", action="store_true", help="no progress, no tables")
    verify = _command(commands, "verify", _verify, "measure every claim of a bundle again, from the folder alone")
    verify.add_argument("folder", type=Path)
    export = _command(
        commands, "export", _export, "write the model of a bundle for another program, and compare what it computes"
    )
    export.add_argument("folder", type=Path, metavar="BUNDLE")
    export.add_argument("out", type=Path, metavar="FILE", help="net.pt2, net.onnx, net.py; `netxform explain exporters`")
    export.add_argument("--to", metavar="NAME", help="the exporter (default: by the suffix)")
    compare = _command(commands, "compare", _compare, "draw the recorded trajectories of runs, and say how well they part")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="bundles of specs with `record trajectory`")
    compare.add_argument("-o", "--out", type=Path, action="append", metavar="FILE", help="pictures: .png, .svg, .pdf")
    compare.add_argument("--method", choices=("tsne", "pca", "isomap"), default="tsne")
    compare.add_argument("--perplexity", type=float, default=30.0, help="of t-SNE (30)")
    compare.add_argument("--seed", type=int, default=0, help="of t-SNE (0)")
    compare.add_argument("--curve", metavar="METRIC", help="the learning curve beside it (val_loss)")
    ls = _command(commands, "ls", _ls, "list the modules of a model, or those of a selection")
    ls.add_argument("spec", help="a spec with a model, or a model source such as zoo.smallcnn()")
    ls.add_argument("selection", nargs="?", default="**", help="for example 'layer{1..4}.**:Conv2d'")
    ls.add_argument("--axes", action="store_true", help="show axis types, what is coupled, and what is locked and why")
    ls.add_argument("--svg", type=Path, metavar="FILE", help="draw the coupled axes")
    _trusts(ls)
    fmt = _command(commands, "fmt", _fmt, "print a spec in canonical form")
    fmt.add_argument("spec", type=Path)
    fmt.add_argument("-w", "--write", action="store_true", help="write it back")
    fmt.add_argument("--check", action="store_true", help="exit with 1 where the file is not canonical")
    explain = _command(commands, "explain", _explain, "the page of a verb or of an error code")
    explain.add_argument("what", nargs="?", help="a verb, a code such as X0203, `locks`, or a kind: scores, losses, …")
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=EXIT)
    made.add_argument("--json", action="store_true", help="results and errors as JSON")
    made.set_defaults(run=run)
    return made


def _spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", help="an .xform file, or - for standard input")
    parser.add_argument("-p", dest="params", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--seed", type=int, help="the seed of the spec")
    _trusts(parser)


def _trusts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trust-code", action="store_true", help="Python named by the spec may run")
    parser.add_argument("--trust-pickle", action="store_true", help="pickled models may be loaded")
    parser.add_argument("--allow-outside", action="store_true", help="files outside the spec's folder may be read")


def _subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="SOURCE", help="the subject, where the spec declares none: zoo.smallcnn()")
    parser.add_argument("--input", metavar="SHAPE", help="the shape of its input: 1x3x224x224:f32")


def _trust(options: Any) -> Trust:
    root = Path.cwd() if options.spec == "-" or not Path(options.spec).is_file() else Path(options.spec).parent
    return Trust(root, options.trust_code, options.trust_pickle, options.allow_outside)


def _params(options: Any) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in options.params:
        name, sign, value = text.partition("=")
        if not sign:
            raise fail("X0403", f"`-p {text}` has no value", helps=("write `-p NAME=VALUE`",))
        out[name] = value
    return out


def _checked(options: Any) -> Any:
    from netxform.compiler.check import check_source

    source: Any = sys.stdin.read() if options.spec == "-" else Path(options.spec)
    if getattr(options, "model", None) is not None:
        program = parse(source) if isinstance(source, str) else parse(_read(source), str(source))
        more = f' input="{options.input}"' if options.input else ""
        declared = parse(f"model subject = {_source(options.model)}{more}", "<--model>").statements
        from dataclasses import replace

        source = replace(program, statements=(*declared, *program.statements))
    return check_source(source, _params(options), _trust(options), options.seed)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fail("X0807", f"`{path}` cannot be read: {error}") from error


def _source(text: str) -> str:
    """A model source as the language writes it: names as they are, files in quotes."""
    try:
        parse_expression(text)
        return json.dumps(text) if "/" in text or suffix_of(text) in FORMATS else text
    except NetxformError:
        return json.dumps(text)


def _hello(options: Any) -> int:
    if options.version:
        from importlib.metadata import version

        print(" ".join(f"{n} {version(n)}" for n in ("netxform", "torch", "lark")))
        return 0
    _parser().print_help()
    return 0


def _check(options: Any) -> int:
    spec = _checked(options)
    count = sum(1 for _ in spec.walk())
    if options.json:
        print(json.dumps({"diagnostics": [], "statements": count}))
    else:
        print(f"{options.spec}: {count} statements, no errors")
    return 0


def _plan(options: Any) -> int:
    from netxform import api
    from netxform.artifacts.plan_file import save_plan
    from netxform.pipeline.subject import Inputs
    from netxform.training.progress import Bar

    inputs = Inputs(trust=_trust(options))
    plan = api.plan_spec(_checked(options), inputs, deep=options.deep, progress=None if options.json else Bar())
    if options.out is not None:
        save_plan(plan, options.out)
    if options.json:
        print(json.dumps({"digest": plan.digest(), "plan": plan.to_dict()}, indent=1))
    else:
        from netxform.artifacts.report import plan_table, show

        show(plan_table(plan))
    return 2 if options.detailed_exitcode and plan.steps else 0


def _apply(options: Any) -> int:
    spec = _checked(options)
    from netxform import api
    from netxform.artifacts.plan_file import saved_digest
    from netxform.artifacts.report import certificate_table, last_line, plan_table, show, show_warning
    from netxform.pipeline.subject import Inputs
    from netxform.training.process import join, leave, require
    from netxform.training.progress import Bar

    processes = join()
    require(options.processes, processes)
    out = options.out or Path(("stdin" if options.spec == "-" else Path(options.spec).stem) + ".bundle")
    expected = saved_digest(options.plan) if options.plan is not None else None
    silent = options.quiet or options.json or not processes.first
    api.refuse_existing(out, options.overwrite)
    prepared = api.prepare_spec(spec, Inputs(trust=_trust(options)))
    if not silent:
        show(plan_table(prepared.plan))
        print()
    result = api.apply_prepared(
        prepared,
        out=out,
        overwrite=options.overwrite,
        resume=options.resume,
        progress=None if silent else Bar(),
        expected=expected,
    )
    leave()
    if not processes.first:
        return 0
    if options.json:
        print(result.record.dump(), end="")
    elif not options.quiet:
        show(certificate_table(result.record))
        print(f"written to {out}")
    if warned := last_line(result.record):
        show_warning(warned, error=silent)
    return 0


def _verify(options: Any) -> int:
    from netxform import api

    verdict = api.verify_bundle(options.folder)
    if options.json:
        print(verdict.dump(), end="")
    else:
        from netxform.artifacts.report import show, verdict_table

        show(verdict_table(verdict))
        broken = sum(not e.held for _, e in verdict.lines)
        print(f"{len(verdict.lines)} claims measured again, {broken} broken")
    return 0 if verdict.held else 3


def _export(options: Any) -> int:
    import netxform

    made = netxform.export(options.folder, options.out, options.to)
    if options.json:
        found = {"path": str(made.path), "exporter": made.exporter, "bound": made.bound, "worst": made.worst}
        print(json.dumps(found | {"samples": made.samples}, indent=1))
    else:
        print(
            f"written to {made.path} by `{made.exporter}`: {made.worst:.3g} from the bundle's model, {made.bound:.3g} allowed"
        )
    return 0


def _compare(options: Any) -> int:
    from netxform import api
    from netxform.artifacts import picture

    found = api.compare_runs(options.runs, method=options.method, perplexity=options.perplexity, seed=options.seed)
    figure = picture.draw(found, options.curve)
    files = options.out or [Path("trajectories.png"), Path("trajectories.svg")]
    for path in files:
        picture.save(figure, path)
    numbers = found.numbers()
    if options.json:
        print(json.dumps(numbers, indent=1))
    else:
        print(
            "\n".join(
                f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}" for name, value in numbers.items()
            )
        )
        print(f"drawn to {', '.join(str(p) for p in files)}")
    return 0


def _ls(options: Any) -> int:
    from netxform.pipeline.inspection import listing
    from netxform.pipeline.subject import Inputs

    path = Path(options.spec)
    spec = path.is_file() and suffix_of(options.spec) not in FORMATS
    text = _read(path) if spec else f"model net = {_source(path.name if path.is_file() else options.spec)}"
    program = parse(text, str(options.spec))
    from dataclasses import replace

    from netxform.compiler.check import check_source
    from netxform.syntax import ast

    declared = tuple(s for s in program.statements if isinstance(s, ast.Model | ast.Param | ast.Let))
    spec = check_source(replace(program, statements=declared), {}, _trust(options))
    if options.axes or options.svg:
        return _axes(options, spec)
    rows = listing(spec, Inputs(trust=_trust(options)), options.selection)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    width = max((len(r["name"]) for r in rows), default=0)
    kind = max((len(r["type"]) for r in rows), default=0)
    for row in rows:
        print(f"{row['name'] or '(root)':{max(width, 6)}}  {row['type']:{kind}}  {row['params']:>12,}  {row['output']}")
    return 0


def _axes(options: Any, spec: Any) -> int:
    from netxform.pipeline.inspection import axes
    from netxform.pipeline.subject import Inputs

    found, picture = axes(spec, Inputs(trust=_trust(options)), options.selection)
    if options.svg:
        options.svg.write_text(picture, encoding="utf-8")
        print(f"drawn to {options.svg}", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=1))
    elif options.axes:
        from netxform.artifacts.report import axes_text

        print(axes_text(found))
    return 0


def _fmt(options: Any) -> int:
    text = _read(options.spec)
    made = format_text(parse(text, str(options.spec)))
    if options.write:
        options.spec.write_text(made, encoding="utf-8")
    elif not options.check:
        sys.stdout.write(made)
    return 1 if options.check and made != text else 0


def _explain(options: Any) -> int:
    from netxform import verbs
    from netxform.codes import CODES, page
    from netxform.language.verb import REGISTRY

    verbs.load()
    if options.what is None:
        print("verbs:")
        for word, entry in sorted(REGISTRY.items()):
            print(f"  {word:10} {entry.doc.splitlines()[0]}")
        print("\n`netxform explain VERB` shows its form, contract and an example; `netxform explain X0203` a code's page.")
        print(f"`netxform explain KIND` lists what there is by name: {', '.join(KINDS)}.")
        return 0
    if options.what in REGISTRY:
        entry = REGISTRY[options.what]
        print(f"{entry.signature()}\n\n{entry.doc}")
        return 0
    if options.what in KINDS:
        registry: Registry[Any] = pkgutil.resolve_name(KINDS[options.what])
        print(f"{options.what}: {', '.join(registry)}\n\nInstalled packages add some by the entry point `{registry.group}`.")
        return 0
    if options.what in ("locks", "lock"):
        from netxform.axes.algebra import LOCKS, MIXES

        print("An axis is locked where a change could not be sound:\n")
        print("\n".join(f"  {text}" for text in LOCKS.values()))
        print("\nAn axis is mixed where something is computed across it. A permutation is exact; so are copies of every index,")
        print("equally often, where it says so; what removes indices changes the function:\n")
        print("\n".join(f"  {text}{' (equal copies are exact)' if equal else ''}" for text, equal in MIXES.values()))
        return 0
    found = page(options.what.upper())
    if found is None:
        known = [*REGISTRY, *KINDS, *CODES]
        raise fail("X0110", f"`{options.what}` is neither a verb nor a code", helps=did_you_mean(options.what, known))
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
