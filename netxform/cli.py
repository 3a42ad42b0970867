"""The command line: check, plan, apply, verify, sign, attest, export, compare, ls, fmt, explain."""

# Long: one function a command.
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netxform import limits
from netxform.door import unexpected
from netxform.errors import NetxformError, did_you_mean, fail
from netxform.registry import Registry
from netxform.sources.files import MOST_TEXT, decoded, read_text, too_long, writable
from netxform.sources.formats import FORMATS, suffix_of
from netxform.sources.trust import Trust
from netxform.syntax.format import format as format_text
from netxform.syntax.parse import parse, parse_expression
from netxform.terminal import Parser, Stopped, flush, signals, streams, unplug

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
DOING = {
    "check": "checking the spec",
    "plan": "planning the spec",
    "apply": "carrying out the spec",
    "verify": "verifying the bundle",
    "export": "exporting the bundle",
    "compare": "comparing the runs",
    "ls": "listing the model",
    "fmt": "writing the spec in canonical form",
    "explain": "looking up a page",
}
MOST_ERRORS = 50
MOST_SEED = 2**63 - 1
EXIT = "exit codes: 0 done, 1 error, 2 `plan --detailed-exitcode` found changes, 3 a contract or an assert fell short"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code. Nothing is raised: what goes wrong is printed as one page."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    said: dict[str, Any] = {"json": "--json" in given, "debug": "--debug" in given, "command": None}
    with streams(), signals():
        try:
            return _guarded(given, said)
        except Stopped as error:
            return _stopped(signal.Signals(error.number).name, said, 128 + error.number)
        except KeyboardInterrupt:
            return _stopped("Ctrl-C", said, 130)
        except BrokenPipeError:
            unplug()
            return 0


def _guarded(given: Sequence[str], said: dict[str, Any]) -> int:
    try:
        options = _parser().read(given)
        said["command"] = options.command
        with limits.memory(getattr(options, "max_memory", None)):
            code = int(options.run(options))
        flush()
        return code
    except SystemExit as error:  # `--help`
        flush()
        return error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        raise
    except NetxformError as error:
        found = error
    except Exception as error:
        found = unexpected(error, DOING.get(said["command"], "reading the command"))
        found.__cause__ = error
    return _told(found, said)


def _told(error: NetxformError, said: Mapping[str, Any]) -> int:
    """Print an error; the exit code."""
    if said["debug"]:
        traceback.print_exception(error)
    if said["json"]:
        print(json.dumps({"diagnostics": [d.to_dict() for d in error.diagnostics]}, indent=1))
    else:
        count = len(error.diagnostics)
        print("\n\n".join(d.render(error.sources) for d in error.diagnostics[:MOST_ERRORS]), file=sys.stderr)
        if count > 1:
            print(f"\n{count} errors" + (f", {MOST_ERRORS} shown" if count > MOST_ERRORS else ""), file=sys.stderr)
    flush()
    return error.exit_code


def _stopped(by: str, said: Mapping[str, Any], code: int) -> int:
    how = "; `--resume` goes on from the last finished epoch" if said["command"] == "apply" else ""
    with contextlib.suppress(OSError, KeyboardInterrupt):
        print(f"interrupted by {by}; nothing was written{how}", file=sys.stderr)
    return code


def _parser() -> Parser:
    parser = Parser(prog="netxform", description="Change trained networks by a spec, and verify it.", epilog=EXIT)
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    parser.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    parser.set_defaults(run=_hello, command=None)
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
    apply.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle with the private key in this PEM file")
    apply.add_argument("--processes", type=_count, metavar="N", help="refuse to run unless N processes take part (torchrun)")
    apply.add_argument("--quiet", action="store_true", help="no progress, no tables")
    verify = _command(
        commands,
        "verify",
        _verify,
        "look at every claim of a bundle again, from the folder alone: measured, compared by digest, or said why not",
    )
    verify.add_argument("folder", type=Path)
    verify.add_argument("--key", type=Path, metavar="PUBLIC", help="the public key (PEM) of who must have signed it")
    _memory(verify)
    sign = _command(commands, "sign", _sign, "sign a bundle, as OpenSSF Model Signing does")
    sign.add_argument("folder", type=Path, metavar="BUNDLE")
    sign.add_argument("--key", type=Path, metavar="PRIVATE", required=True, help="the private key (PEM, elliptic curve)")
    attest = _command(commands, "attest", _attest, "write the claims or the verdict of a bundle as an in-toto statement")
    attest.add_argument("folder", type=Path, metavar="BUNDLE")
    attest.add_argument("out", type=Path, metavar="FILE", help="a sigstore bundle with --key, else plain JSON")
    attest.add_argument("--what", choices=("claims", "verdict"), default="verdict", help="SCAI 0.2, or SVR 0.1 (default)")
    attest.add_argument("--key", type=Path, metavar="PRIVATE", help="sign it with the private key in this PEM file")
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
    compare.add_argument("--perplexity", type=_perplexity, default=30.0, help="of t-SNE (30)")
    compare.add_argument("--seed", type=_seed, default=0, metavar="N", help="of t-SNE (0)")
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
    made.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    made.set_defaults(run=run, command=name, parser=made)
    return made


def _spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", help="an .xform file, or - for standard input")
    parser.add_argument("-p", dest="params", action="append", default=[], metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--seed", type=_seed, metavar="N", help="the seed of the spec, from 0")
    _trusts(parser)


def _trusts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trust-code", action="store_true", help="Python named by the spec may run")
    parser.add_argument("--trust-pickle", action="store_true", help="pickled models may be loaded")
    parser.add_argument("--allow-outside", action="store_true", help="files outside the spec's folder may be read")
    _memory(parser)


def _memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-memory", type=_size, metavar="SIZE", help="refuse what needs more: 8GiB (default: the memory of the machine)"
    )


def _subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="SOURCE", help="the subject, where the spec declares none: zoo.smallcnn()")
    parser.add_argument("--input", metavar="SHAPE", help="the shape of its input: 1x3x224x224:f32")


def _whole(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is needed, not `{text[:40]}`") from None
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"a number from {low} to {high} is needed, not {text[:40]}")
    return number


def _seed(text: str) -> int:
    return _whole(text, 0, MOST_SEED)


def _count(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def _size(text: str) -> int:
    try:
        if text.isdigit():
            raise ValueError("no unit")
        return limits.room(text)
    except (NetxformError, ValueError):
        raise argparse.ArgumentTypeError(f"a size such as `8GiB` is needed, not `{text[:40]}`") from None


def _perplexity(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not `{text[:40]}`")
    return number


def _trust(options: Any) -> Trust:
    root = Path.cwd() if options.spec == "-" or not os.path.isfile(options.spec) else Path(options.spec).parent
    return Trust(root, options.trust_code, options.trust_pickle, options.allow_outside, _most(options))


def _most(options: Any) -> int | None:
    return options.max_memory


def _params(options: Any) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in options.params:
        name, sign, value = text.partition("=")
        if not sign:
            raise fail("X0403", f"`-p {text}` has no value", helps=("write `-p NAME=VALUE`",))
        if not name or not value:
            raise fail("X0403", f"`-p {text}` has no {'value' if name else 'name'}", helps=("write `-p NAME=VALUE`",))
        if name in out:
            raise fail("X0407", f"`-p {name}=…` is given twice", helps=("give each parameter one value",))
        out[name] = value
    return out


def _checked(options: Any) -> Any:
    from netxform.compiler.check import check_source

    source: Any = _stdin() if options.spec == "-" else Path(options.spec)
    if options.spec == "":
        raise fail("X0001", "the name of the spec is empty", helps=("name an .xform file, or `-` for standard input",))
    if getattr(options, "input", None) is not None and options.model is None:
        helps = ("give the model too: `--model SOURCE`; or write `input=` at the model of the spec",)
        raise fail("X0001", "`--input` speaks of the model of `--model`, and there is none", helps=helps)
    if getattr(options, "model", None) is not None:
        program = parse(source) if isinstance(source, str) else parse(read_text(source), str(source))
        more = f' input="{options.input}"' if options.input else ""
        declared = parse(f"model subject = {_source(options.model)}{more}", "<--model>").statements
        from dataclasses import replace

        source = replace(program, statements=(*declared, *program.statements))
    return check_source(source, _params(options), _trust(options), options.seed)


def _stdin() -> str:
    """The spec from standard input, in UTF-8 whatever the terminal's encoding is."""
    if sys.stdin is None or sys.stdin.closed:
        raise fail("X0807", "standard input is closed", helps=("name a file instead of `-`",))
    binary = getattr(sys.stdin, "buffer", None)
    if binary is None:
        return sys.stdin.read()
    raw = binary.read(MOST_TEXT + 1)
    if len(raw) > MOST_TEXT:
        raise too_long("standard input", len(raw))
    return decoded(raw, "standard input")


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

    if options.out is not None:
        writable(options.out)
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
        sign=options.sign,
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

    seal = api.seal_of(options.folder, options.key)
    verdict = api.verify_bundle(options.folder, most=_most(options))
    if options.json:
        print(verdict.dump(), end="")
        print(seal, file=sys.stderr)
    else:
        from netxform.artifacts.report import show, verdict_table

        show(verdict_table(verdict))
        print("\n".join([*api.remarks_of(options.folder), str(seal), verdict.summary()]))
    return 0 if verdict.held else 3


def _sign(options: Any) -> int:
    from netxform.artifacts import signing

    made = signing.sign_bundle(options.folder, options.key)
    print(json.dumps({"signature": str(made)}) if options.json else f"signed: {made}")
    return 0


def _attest(options: Any) -> int:
    from netxform import api
    from netxform.artifacts import attest

    if options.what == "claims":
        made = attest.claims(options.folder)
    else:
        made = attest.verdict(options.folder, api.verify_bundle(options.folder))
    attest.write(made, options.out, options.key)
    said = "" if options.key else ", unsigned: it proves nothing by itself"
    print(json.dumps({"path": str(options.out)}) if options.json else f"written to {options.out}{said}")
    return 0


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

    files = [writable(p) for p in options.out or (Path("trajectories.png"), Path("trajectories.svg"))]
    found = api.compare_runs(options.runs, method=options.method, perplexity=options.perplexity, seed=options.seed)
    figure = picture.draw(found, options.curve)
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
    text = read_text(path) if spec else f"model net = {_source(path.name if path.is_file() else options.spec)}"
    program = parse(text, str(options.spec))
    from dataclasses import replace

    from netxform.compiler.check import check_source
    from netxform.syntax import ast

    declared = tuple(s for s in program.statements if isinstance(s, ast.Model | ast.Param | ast.Let))
    spec = check_source(replace(program, statements=declared), {}, _trust(options))
    if options.svg:
        writable(options.svg)
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
        from netxform.artifacts.exchange import write_text

        write_text(options.svg, picture)
        print(f"drawn to {options.svg}", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=1))
    elif options.axes:
        from netxform.artifacts.report import axes_text

        print(axes_text(found))
    return 0


def _fmt(options: Any) -> int:
    text = read_text(options.spec)
    made = format_text(parse(text, str(options.spec)))
    if options.write:
        from netxform.artifacts.exchange import write_text

        write_text(options.spec, made)
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
