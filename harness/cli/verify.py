"""`verify`, `prove` and `report`: plan, run, render, recap."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness import places
from harness.checks.run import Run, RunSettings
from harness.checks.runner import accept_known
from harness.cli.settings import Settings
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.config import nearest
from harness.engine.choice import choose
from harness.engine.owner import Owner
from harness.errors import ConfigError, UsageError
from harness.events import Notice, RunEnded, RunStarted
from harness.lab.catalogue import load_topologies, select, wanted_by, with_versions
from harness.model import EvidenceClass, PlannedCheck, RunRecord, Status
from harness.provenance import fingerprint, provenance
from harness.redaction import Redactor
from harness.report.evidence import Count, Evidence, count, elapsed_s, merge
from harness.report.render import render
from harness.report.tables import build_report
from harness.store import RunStore, StoredRun, kept_runs, new_run_id, read_run, read_runs, require_writable, utc_now
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from harness.audit.target import AuditTarget
    from harness.checks.registry import Check
    from harness.engine.protocol import Engine
    from harness.model import Topology

EXIT_ISSUE, EXIT_NOTHING, EXIT_NOT_RUN, EXIT_INTERRUPTED = 1, 3, 4, 130


class Context(Struct, frozen=True):
    """What every command needs."""

    settings: Settings
    terminal: Terminal
    redactor: Redactor
    signals: Signals


def verify(context: Context, arguments: Namespace) -> int:
    """Run the checks of the named topologies, then render what is known about this commit."""
    topologies = _topologies(context.settings, arguments.topologies)
    checks = catalogue().select(arguments.suite, arguments.check)
    named = bool(arguments.suite or arguments.check)
    if arguments.dry_run:
        _print_plan(_plan(topologies, checks, None, context.settings, named=named), topologies, context.settings.target)
        return 0
    run = _execute(context, topologies, checks, proving=False, named=named)
    paths = _render(_evidence(context.settings), context.settings)
    _recap([run])
    _say_where(context, run.folder, paths)
    _say_issues(context, [run])
    return _exit_code(context, [run], strict=arguments.strict)


def prove(context: Context, arguments: Namespace) -> int:
    """Run every check under each of its controls."""
    topologies = _topologies(context.settings, arguments.topologies)
    checks = catalogue().select(arguments.suite, arguments.check)
    named = bool(arguments.suite or arguments.check)
    if not context.settings.target.is_reference:
        raise UsageError(
            "prove breaks the reference layer, to show that each check can fail; it has nothing to break elsewhere",
            hint="leave out --audit-target; `verify --audit-target` judges a trail with the checks that were proven",
        )
    if arguments.dry_run:
        _print_plan(_plan(topologies, checks, None, context.settings, named=named), topologies, context.settings.target)
        return 0
    run = _execute(context, topologies, checks, proving=True, named=named)
    _render(_evidence(context.settings), context.settings)
    width = _width(each.name for each in topologies)
    for topology in topologies:
        proofs = [each for each in run.proofs if each.topology == topology.name]
        proven = sum(each.proven for each in proofs)
        unproven = sum(each.applicable and not each.proven for each in proofs)
        sys.stdout.write(
            f"{topology.name:<{width}} proven={proven} unproven={unproven} na={len(proofs) - proven - unproven}\n"
        )
    if run.trail_proofs:
        exact = sum(each.exact for each in run.trail_proofs)
        sys.stdout.write(f"breaks of the trail: {exact} of {len(run.trail_proofs)} turned exactly their checks\n")
    failed = [each for each in run.proofs if each.applicable and not each.proven]
    for each in failed:
        sys.stdout.write(
            context.redactor(
                f"UNPROVEN {each.topology}: {each.check} under {each.control}, at {each.at!r}: {each.reason}\n"
            )
        )
    for broken in run.trail_proofs:
        told = {"stayed green": broken.stayed, "turned to Issue, and should not have": broken.beside}
        for how, names in told.items():
            if names:
                sys.stdout.write(
                    f"UNPROVEN {broken.topology}: under the break {broken.name} {', '.join(names)} {how}\n"
                )
    code = _exit_code(context, [run], strict=arguments.strict)
    if code not in {0, EXIT_NOT_RUN}:
        return code
    return EXIT_ISSUE if failed or not all(each.exact for each in run.trail_proofs) else code


def report(context: Context, arguments: Namespace) -> int:
    """Render what is known; with --complete, first run the topologies that lack evidence for this code."""
    settings = context.settings
    if arguments.fresh and not arguments.complete:
        raise UsageError(
            "--fresh runs the topologies again, which only --complete does", hint="report --complete --fresh"
        )
    if not all(arguments.from_):
        raise UsageError("--from: found an empty name, needed a folder")
    if arguments.complete and arguments.from_:
        raise UsageError("--complete runs what is missing here, and --from takes evidence from elsewhere; choose one")
    if arguments.from_:
        runs = read_runs([Path(folder) for folder in arguments.from_])
        evidence = _with_known(merge(runs, _expected(settings), target=settings.target.identity), settings)
    else:
        require_writable(settings.reports)
        evidence = _evidence(settings)
        runs = ()
    fresh: list[StoredRun] = []
    if arguments.complete:
        missing = evidence.names() if arguments.fresh else evidence.missing(settings.engine)
        for name in evidence.names():
            if name not in missing:
                context.terminal.say(f"{name}: its evidence for this code is complete; --fresh runs it again")
        if missing:
            topologies = _topologies(settings, missing)
            fresh = [_execute(context, topologies, catalogue().checks, proving=False)]
            evidence = _evidence(settings)
    for why in evidence.left_out:
        context.terminal.say(f"note: {why}")
    paths = _render(evidence, settings)
    if arguments.markdown:
        sys.stdout.write((settings.rendered / "report.md").read_text(encoding="utf-8"))
    else:
        _recap_evidence(evidence)
    _say_where(context, fresh[0].folder if fresh else None, paths)
    for row in evidence.rows:
        if row.status is Status.ISSUE:
            context.terminal.say(
                _issue_line(row.result.topology, row.result.check, row.result.reason, row.result.reproduce)
            )
    if context.signals.received:
        return EXIT_INTERRUPTED
    results = [row.result for row in evidence.rows]
    if any(each.status is Status.ISSUE and each.known is None for each in results):
        return EXIT_ISSUE
    if not any(each.status is not Status.NOT_RUN for each in results):
        return EXIT_NOTHING
    if fresh and any(not stood.stood for stood in fresh[0].record.topologies.values()):
        return EXIT_NOTHING
    return EXIT_NOT_RUN if arguments.strict and any(each.status is Status.NOT_RUN for each in results) else 0


# --- running -----------------------------------------------------------------------------------------------


def _execute(
    context: Context, topologies: list[Topology], checks: tuple[Check, ...], *, proving: bool, named: bool = False
) -> StoredRun:
    settings, tell = context.settings, context.terminal
    require_writable(settings.reports)
    wanted = tuple(each for topology in topologies for each in wanted_by(topology))
    engine = choose(settings.engine, settings.images, wanted, tell)
    try:
        for line in engine.reap():
            tell(Notice(f"removed what an earlier run left: {line}"))
        owner = Owner.me(new_run_id())
        target = settings.target
        plan = _plan(topologies, checks, engine, settings, named=named)
        record = _record(owner, engine, target, plan)
        store = RunStore(settings.reports, record, context.redactor)
        try:
            tell(RunStarted(record, str(store.folder)))
            run = Run(
                RunSettings(
                    topologies=tuple(topologies),
                    plan=plan,
                    catalogue=catalogue(),
                    target=target,
                    jobs=settings.jobs or _jobs(len(topologies)),
                    known=settings.known_issues,
                    proving=proving,
                ),
                engine,
                owner,
                store,
                context.redactor,
                tell,
            )
            with context.signals.deferred_to(run.interrupt):
                run.execute()
        finally:
            tell(RunEnded(store.record))
            store.close()
    finally:
        engine.close()
    return read_run(store.folder)


def _jobs(topologies: int) -> int:
    """Return how many checks to run at a time in each topology.

    Most of a check is waiting for servers: four for each core keep it busy; topologies side by side share them.
    """
    return max(2, min(8, 2 * (os.cpu_count() or 2) // topologies))


def _topologies(settings: Settings, names: list[str]) -> list[Topology]:
    """Return the named topologies; with other versions than declared they are environments of their own."""
    known = load_topologies(settings.topologies)
    verified = {each.id for each in catalogue().checks} | set(catalogue().suites())
    for topology in known.values():
        for name in topology.verify:
            if name not in verified:
                raise ConfigError(
                    f"verify: there is no suite and no check {name!r}",
                    where=str(settings.topologies / f"{topology.name}.toml"),
                    hint=nearest(name, verified),
                )
    chosen = select(known, [name.partition("+")[0] for name in names])
    return [with_versions(topology, settings.versions) for topology in chosen]


def _plan(
    topologies: list[Topology],
    checks: tuple[Check, ...],
    engine: Engine | None,
    settings: Settings,
    *,
    named: bool = False,
) -> tuple[PlannedCheck, ...]:
    """Return every row with the command that reproduces it: it names whatever decides the result."""
    extra = " --engine native" if engine and engine.name == "native" else ""
    extra += "".join(f" --set {product}={version}" for product, version in settings.versions.items())
    extra += "".join(f" --image {quote(f'{name}={image}')}" for name, image in settings.images.override.items())
    extra += f" --image-prefix {quote(settings.images.prefix)}" if settings.images.prefix else ""
    extra += "" if settings.target.is_reference else f" --audit-target {quote(settings.target_named)}"
    extra += "".join(f" --audit-sql {quote(each)}" for each in settings.target_sql)
    shipped = settings.topologies.resolve() == places.TOPOLOGIES.resolve()

    def command(topology: Topology, check: Check) -> str:
        base = topology.name.partition("+")[0]
        if shipped:
            return f"nox -s topology-{base} -- --check {check.id}{extra}"
        folder = quote(str(settings.topologies))
        return f"python -m harness verify {base} --check {check.id} --topologies-folder {folder}{extra}"

    return tuple(
        PlannedCheck(
            topology=topology.name,
            check=each.id,
            claim=each.claim,
            section=each.section,
            severity=each.severity,
            area=each.area,
            feature=each.feature,
            reproduce=command(topology, each),
        )
        for topology in topologies
        for each in checks
        # what a topology is there for, unless the user asks for something by name
        if named or not topology.verify or {each.id, each.id.partition(".")[0]} & set(topology.verify)
    )


def _record(owner: Owner, engine: Engine, target: AuditTarget, plan: tuple[PlannedCheck, ...]) -> RunRecord:
    return RunRecord(
        run_id=owner.run_id,
        started_at=utc_now(),
        argv=("harness", *sys.argv[1:]),
        provenance=provenance(),
        evidence_class=EvidenceClass.CI,
        engine=engine.name,
        engine_version=engine.version,
        audit_target=target.identity,
        plan=plan,
    )


def _expected(settings: Settings) -> tuple[PlannedCheck, ...]:
    return _plan(_topologies(settings, []), catalogue().checks, None, settings)


def _evidence(settings: Settings) -> Evidence:
    """Merge what the reports folder holds about exactly this code and these topologies."""
    code = fingerprint()
    runs, damaged = kept_runs(settings.reports, code)
    declared = {each.name: each for each in _topologies(settings, [])}
    merged = merge(
        runs,
        _expected(settings),
        declared=declared,
        fingerprint=code,
        target=settings.target.identity,
        left_out=damaged,
    )
    ran = set(merged.names())
    on_demand = [each.name for each in load_topologies(settings.topologies).values() if each.on_demand]
    apart = tuple(
        f"the topology {name} is there on demand, and no run of this code has verified it"
        for name in on_demand
        if name not in ran
    )
    return _with_known(replace(merged, left_out=(*merged.left_out, *apart)), settings)


def _with_known(evidence: Evidence, settings: Settings) -> Evidence:
    """Mark the Issues that are accepted today, whatever was accepted when they were found."""
    rows = tuple(
        replace(row, result=accept_known(replace(row.result, known=None), settings.known_issues))
        for row in evidence.rows
    )
    return replace(evidence, rows=rows)


# --- saying ------------------------------------------------------------------------------------------------


def _render(evidence: Evidence, settings: Settings) -> list[Path]:
    """Fill the tables. Another audit target than the reference has a folder of its own: it never mixes with it."""
    data = build_report(evidence, settings.rendered, settings.target.summary, settings.attestations)
    return render(data, settings.rendered)


def _print_plan(plan: tuple[PlannedCheck, ...], topologies: list[Topology], target: AuditTarget) -> None:
    known, checks = {each.name: each for each in topologies}, {each.id: each for each in catalogue().checks}
    for row in plan:
        lacking = checks[row.check].lacking(known[row.topology], target)
        sys.stdout.write(f"{row.topology:<12} {row.check}" + (f"  N/A: {lacking}" if lacking else "") + "\n")


def _recap(runs: list[StoredRun]) -> None:
    for run in runs:
        names = list(dict.fromkeys(row.topology for row in run.record.plan))
        for name in names:
            results = [each for each in run.answers() if each.topology == name]
            _recap_line(name.ljust(_width(names)), count(results), elapsed_s(results))


def _recap_evidence(evidence: Evidence) -> None:
    for name in evidence.names():
        results = [row.result for row in evidence.of(name)]
        _recap_line(name.ljust(_width(evidence.names())), count(results), elapsed_s(results))


def _width(names: Iterable[str]) -> int:
    return max([12, *map(len, names)])


def _recap_line(name: str, counted: Count, took_s: float) -> None:
    known = f" ({counted.known} known)" if counted.known else ""
    sys.stdout.write(
        f"{name} ok={counted.ok} issue={counted.issue}{known} na={counted.na} "
        f"not_run={counted.not_run}  {took_s:.1f}s\n"
    )
    sys.stdout.flush()


def _say_where(context: Context, folder: Path | None, paths: list[Path]) -> None:
    if folder:
        context.terminal.say(f"evidence: {folder}")
    context.terminal.say(
        f"report:   {next(path for path in paths if path.suffix == '.html')} and {len(paths) - 1} more in "
        f"{paths[0].parent}/"
    )


def _say_issues(context: Context, runs: list[StoredRun]) -> None:
    for run in runs:
        for each in run.answers():
            if each.status is Status.ISSUE:
                context.terminal.say(_issue_line(each.topology, each.check, each.reason, each.reproduce))


def _issue_line(topology: str, check: str, reason: str, reproduce: str) -> str:
    return f"Issue {topology} {check}: {reason}\n  reproduce: {reproduce}"


def _exit_code(context: Context, runs: list[StoredRun], *, strict: bool) -> int:
    if context.signals.received or any(run.record.state == "interrupted" for run in runs):
        return EXIT_INTERRUPTED
    results = [each for run in runs for each in run.answers()]
    if any(each.status is Status.ISSUE and each.known is None for each in results):
        return EXIT_ISSUE
    if all(each.status is Status.NOT_RUN for each in results):
        return EXIT_NOTHING
    if any(not stood.stood for run in runs for stood in run.record.topologies.values()):
        return EXIT_NOTHING
    return EXIT_NOT_RUN if strict and any(each.status is Status.NOT_RUN for each in results) else 0
