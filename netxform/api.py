"""The whole way, for Python and for the command line: check → plan → apply → verify.

Everything that a spec can cause is a `NetxformError`.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netxform.artifacts import bundle, manifest, picture, signing, trajectory
from netxform.artifacts.bounded import check_runs
from netxform.artifacts.lock import locked
from netxform.compiler.check import Spec, check_source
from netxform.compiler.execute import FellShort, Outcome, deepen, run
from netxform.compiler.plan import Plan
from netxform.compiler.remeasure import Witness, certify
from netxform.compiler.scores import held_out_of
from netxform.compiler.verdict import Verdict
from netxform.compiler.verify import verify
from netxform.errors import NetxformError, fail
from netxform.graph.network import Network
from netxform.graph.signature import shown
from netxform.language.certificate import Certificate
from netxform.language.trajectory import Trajectory
from netxform.pipeline.controls import compared
from netxform.pipeline.executor import Executor, keep_folder, kept_beside
from netxform.pipeline.subject import Inputs, Prepared, prepare, with_repair, with_sources
from netxform.training.fit import History, Progress, Quiet
from netxform.training.process import Processes, join, wait
from netxform.training.resume import give_up, outdated


@dataclass(frozen=True)
class Origin:
    """The model as it came and its graph, the graph as it is now, and inputs to compare them on."""

    model: nn.Module
    before: Network
    after: Network
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Result:
    """What `apply` gives: the model (plain PyTorch, eval mode), the certificate, the plan, and fitted classifiers.

    `certificate` is `record` as plain data.
    """

    model: nn.Module
    certificate: dict[str, Any]
    record: Certificate
    plan: Plan
    estimators: dict[str, Any] = field(default_factory=dict[str, Any])
    histories: tuple[tuple[str, History], ...] = ()
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    folder: Path | None = None
    trajectories: tuple[Trajectory, ...] = ()
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def graft(self) -> nn.Module:
        """The same edits on a copy of the model as it came: its own class, with its methods and its configuration.

        The copy is compared with the graph in eval and in train mode, bit for bit. Raises NetxformError X0849 where the edits
        cannot be made on the model's own modules.
        """
        from netxform.artifacts.graft import graft

        if self.origin is None:
            raise fail("X0849", "the model as it came is not at hand", helps=("graft the result of `nx.apply`",))
        return graft(self.origin.model, self.origin.before, self.origin.after, self.origin.inputs)


def check_spec(spec: Any, inputs: Inputs | None = None) -> Spec:
    """Parse, expand and check a spec: text, a Program, a builder, or a path to a file."""
    inputs = inputs or Inputs()
    return check_source(spec, dict(inputs.params), inputs.trust, inputs.seed)


def plan_spec(spec: Any, inputs: Inputs | None = None, *, deep: bool = False, progress: Progress | None = None) -> Plan:
    """Check the spec and settle every statement on a twin of its model; the model is made without weights where it can be.

    `deep`: weights and data are read too, choices that need them are made, and what they claim is measured; nothing is trained.
    """
    inputs = inputs or Inputs()
    if not deep:
        return prepare(check_spec(spec, inputs), inputs, weightless=True).plan
    prepared = prepare_spec(spec, inputs)
    try:
        return deepen(prepared.planned, prepared.network, Executor(prepared, progress or Quiet()))
    except NetxformError as error:
        raise with_sources(error, prepared.spec) from error


def prepare_spec(spec: Any, inputs: Inputs | None = None) -> Prepared:
    """Check the spec, load and capture its model, and plan. The plan can be shown before `apply_prepared` carries it out."""
    inputs = inputs or Inputs()
    return prepare(check_spec(spec, inputs), inputs)


def apply_spec(
    spec: Any,
    inputs: Inputs | None = None,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    expected: str | None = None,
    sign: Path | None = None,
) -> Result:
    """Plan, carry out, measure, and (with `out`) write the bundle: `prepare_spec`, then `apply_prepared`."""
    inputs = inputs or Inputs()
    _can_sign(sign, out)
    checked = check_spec(spec, inputs)
    refuse_existing(out, overwrite)
    prepared = prepare(checked, inputs)
    return apply_prepared(
        prepared, out=out, overwrite=overwrite, resume=resume, progress=progress, expected=expected, sign=sign
    )


def _can_sign(sign: Path | None, out: Path | None) -> None:
    """Raises NetxformError X0907 where what shall be signed at the end cannot be, before anything is done."""
    if sign is not None:
        if out is None:
            raise fail("X0907", "a bundle is signed, and none is written", helps=("name its folder: `out=`",))
        signing.signer(sign)


def refuse_existing(out: Path | None, overwrite: bool) -> None:
    """Raises NetxformError X0818 where the bundle is there already and shall not be replaced, or is none; X0819 where it cannot
    be written there. Asked before any work is done.
    """
    if out is None:
        return
    if os.path.lexists(out):
        if not overwrite:
            raise fail("X0818", f"`{out}` already exists", helps=("choose another name, or replace it: `--overwrite`",))
        if not out.is_dir() or (any(out.iterdir()) and not (out / "certificate.json").exists()):
            raise fail("X0818", f"`{out}` is no bundle: it is not replaced", helps=("choose another name",))
    near = next(p for p in (out.absolute().parent, *out.absolute().parents) if os.path.lexists(p))
    if not near.is_dir():
        raise fail("X0819", f"`{out}` cannot be written: `{near}` is no folder", helps=("choose another name",))
    if not os.access(near, os.W_OK):
        helps = ("look at its owner and mode (`ls -l`), or write elsewhere",)
        raise fail("X0819", f"`{out}` cannot be written: no right to write to `{near}`", helps=helps)


def apply_prepared(
    prepared: Prepared,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    expected: str | None = None,
    sign: Path | None = None,
) -> Result:
    """Carry out what was planned, measure it, and (with `out`) write the bundle, signed with the private key in `sign`.

    The model that was handed in is never changed; on any error there is no output folder. `expected` is the digest of a
    saved plan: another plan is refused (X0701). With `resume`, trainings that an interrupted run finished are not repeated.
    """
    refuse_existing(out, overwrite)
    _can_sign(sign, out)
    processes = join()
    progress = progress or Quiet()
    if expected is not None and prepared.plan.digest() != expected:
        raise fail(
            "X0701",
            "the saved plan is stale: planning again gives another plan",
            helps=("plan again and read what changed: `netxform plan SPEC -o FILE`",),
        )
    with locked(out, above=True) if out is not None and processes.first else contextlib.nullcontext():
        refuse_existing(out, overwrite)  # what a killed run moved aside is in its place again
        keep = keep_folder(out, prepared.plan, resume, processes)
        try:
            result = _carried_out(prepared, progress, keep, out, overwrite, sign, processes)
        except BaseException:
            if keep is not None and processes.first:
                give_up(keep)
            raise
        if out is not None and processes.first:
            outdated(kept_beside(out))
    wait(processes)
    return result


def _carried_out(
    prepared: Prepared,
    progress: Progress,
    keep: Path | None,
    out: Path | None,
    overwrite: bool,
    sign: Path | None,
    processes: Processes,
) -> Result:
    """The plan carried out, certified and written."""
    executor = Executor(prepared, progress, keep)
    try:
        _ = executor.data  # what is missing is said before anything is done
        outcome = run(prepared.planned, prepared.network, executor)
        record, witness, curves, ways = _certified(prepared, executor, outcome, progress)
        if out is not None and processes.first:
            bundle.write(out, outcome, record, witness, curves, list(executor.fitted), overwrite, ways, sign, prepared.beside)
    except FellShort as error:
        found: NetxformError = error
        if out is not None and processes.first:
            found = _kept(error, prepared, executor, out, progress, keep is not None)
        raise with_sources(found, prepared.spec) from error
    except NetxformError as error:
        raise with_sources(with_repair(error, prepared.weights), prepared.spec) from error
    estimators = {f.name: f.estimator for f in executor.fitted}
    model = shown(copy.deepcopy(outcome.network.module))
    histories = tuple(executor.histories)
    origin = Origin(prepared.original, prepared.network, outcome.network, outcome.inputs)
    return Result(model, record.plain(), record, outcome.plan, estimators, histories, outcome.metrics, out, tuple(ways), origin)


def _certified(
    prepared: Prepared, executor: Executor, outcome: Outcome, progress: Progress
) -> tuple[Certificate, Witness, list[dict[str, object]], list[Trajectory]]:
    """The certificate, what its claims are measured again on, the curves and the trajectories."""
    ways = executor.trajectories
    comparisons = [compared(prepared, s, c, outcome, progress, ways) for s, c in outcome.comparisons]
    outcome.network.module.eval()
    held = held_out_of(outcome.network, executor.last) if not executor.fitted else None
    record, witness = certify(outcome, held, comparisons)
    return record, witness, [{"statement": t, **row} for t, h in executor.histories for row in h.rows], ways


def _kept(
    error: FellShort, prepared: Prepared, executor: Executor, out: Path, progress: Progress, resumable: bool
) -> NetxformError:
    """The error of an assert, with where everything that was done up to it is kept."""
    failed = out.with_name(f"{out.name}.failed")
    helps = ("loosen the assert, then `--resume` finishes without training again",) if resumable else ()
    try:
        outcome = replace(error.outcome, comparisons=())
        record, witness, curves, ways = _certified(prepared, executor, outcome, progress)
        with locked(failed):
            bundle.write(failed, outcome, record, witness, curves, list(executor.fitted), True, ways, beside=prepared.beside)
        notes = (f"the network as it was then, its certificate and its curves are kept in `{failed}`",)
    except NetxformError as other:
        notes = (f"what was done could not be kept as `{failed.name}`: {other.diagnostics[0].message}",)
    first = error.diagnostics[0]
    said = replace(first, notes=(*first.notes, *notes), helps=(*first.helps, *helps))
    return NetxformError([said, *error.diagnostics[1:]], error.sources, error.exit_code)


def load_bundle(folder: str | Path, key: str | Path | None = None, most: int | None = None) -> nn.Module:
    """The model of a bundle, in eval mode. Nothing in the folder is run; every byte of it is accounted for first.

    `key`: the public key of who must have signed it. `most`: bytes that one file or tensor may take.
    """
    if key is not None:
        signing.check(Path(folder), Path(key))
    return shown(bundle.read(Path(folder), most)[0].module.eval())


def verify_bundle(folder: str | Path, key: str | Path | None = None, most: int | None = None) -> Verdict:
    """Look at every claim of a bundle again, from the folder alone: what can be measured is; what cannot is named, with why.

    With `key`, who signed it is checked first.
    """
    if key is not None:
        signing.check(Path(folder), Path(key))
    network, certificate = bundle.read(Path(folder), most)
    witness = bundle.witness(Path(folder), network)
    check_runs(network, witness.inputs, most)
    return verify(network, certificate, witness)


def remarks_of(folder: str | Path) -> tuple[str, ...]:
    """What of a bundle `verify_bundle` cannot compare, and why."""
    return bundle.remarks(manifest.sealed(Path(folder)))


def seal_of(folder: str | Path, key: str | Path | None = None) -> signing.Seal:
    """Who vouches for a bundle: nobody, somebody (no `key` to check with), or the owner of the key."""
    return signing.check(Path(folder), None if key is None else Path(key))


def compare_runs(
    runs: Sequence[str | Path | Result | Trajectory],
    *,
    method: picture.Method = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
) -> picture.Picture:
    """The trajectories of all runs in one plane. Runs are bundles, results of `apply`, or trajectories themselves.

    Raises NetxformError X0815, X0822, X0824 (no trajectory), X0825 (not of one space).
    """
    ways: list[Trajectory] = []
    for one in runs:
        match one:
            case Trajectory():
                ways.append(one)
            case Result():
                ways += one.trajectories
            case _:
                ways += trajectory.load(Path(one))
    return picture.embed(ways, method=method, perplexity=perplexity, seed=seed)
