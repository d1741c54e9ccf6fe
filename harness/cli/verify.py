"""`verify`, `prove` and `report`: plan, run, render, recap."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.scheduler import Run, RunSettings
from harness.cli.environments import verify_environment
from harness.cli.filling import fill, put_into
from harness.cli.planning import (
    evidence_from,
    evidence_here,
    named_topologies,
    new_record,
    plan_topologies,
)
from harness.cli.recap import (
    EXIT_INTERRUPTED,
    EXIT_ISSUE,
    EXIT_NOT_RUN,
    EXIT_NOTHING,
    exit_code,
    issue_line,
    recap,
    recap_evidence,
    say_issues,
    say_where,
    width,
)
from harness.engine.choice import choose
from harness.engine.owner import Owner
from harness.errors import UsageError
from harness.events import Notice, RunEnded, RunStarted
from harness.host.env_secrets import secrets_of
from harness.lab.topologies import wanted_by
from harness.model import Status
from harness.store import RunStore, StoredRun, new_run_id, read_run, require_writable

if TYPE_CHECKING:
    from argparse import Namespace

    from harness.audit.target import AuditTarget
    from harness.checks.registry import Catalogue, Check
    from harness.cli.context import Context
    from harness.cli.settings import Settings
    from harness.model import PlannedCheck, Topology


#: what the native engine verifies first
_FIRST = ("direct", "session", "transaction")


def verify(context: Context, arguments: Namespace) -> int:
    """Run the checks of the named topologies, or of an environment, then render what is known about this commit."""
    checks = context.settings.catalogue.select(arguments.suite, arguments.check)
    if arguments.environment is not None:
        return verify_environment(context, arguments, checks)
    topologies = named_topologies(context.settings, arguments.topologies)
    named = bool(arguments.suite or arguments.check)
    if not plan_topologies(topologies, checks, None, context.settings, named=named):
        raise UsageError(
            "nothing of what was asked for is there to be verified in these topologies",
            hint="commands name their topologies in harness.toml, and paths of your host are taken in environments",
        )
    if arguments.dry_run:
        _print_plan(
            plan_topologies(topologies, checks, None, context.settings, named=named),
            topologies,
            context.settings.target,
            context.settings.catalogue,
        )
        return 0
    run = execute(context, topologies, context.settings.catalogue, checks, named=named)
    paths = fill(evidence_here(context.settings), context.settings)
    recap([run])
    say_where(context, run.folder, paths)
    say_issues(context, [run])
    return exit_code(context, [run], strict=arguments.strict)


def prove(context: Context, arguments: Namespace) -> int:
    """Run every check under each of its controls."""
    topologies = named_topologies(context.settings, arguments.topologies)
    checks = context.settings.catalogue.select(arguments.suite, arguments.check)
    named = bool(arguments.suite or arguments.check)
    if not context.settings.target.is_reference:
        raise UsageError(
            "prove breaks the reference layer, to show that each check can fail; it has nothing to break elsewhere",
            hint="leave out --audit-target; `verify --audit-target` judges a trail with the checks that were proven",
        )
    if arguments.dry_run:
        _print_plan(
            plan_topologies(topologies, checks, None, context.settings, named=named),
            topologies,
            context.settings.target,
            context.settings.catalogue,
        )
        return 0
    run = execute(context, topologies, context.settings.catalogue, checks, proving=True, named=named)
    fill(evidence_here(context.settings), context.settings)
    longest = width(each.name for each in topologies)
    for topology in topologies:
        proofs = [each for each in run.proofs if each.topology == topology.name]
        proven = sum(each.proven for each in proofs)
        unproven = sum(each.applicable and not each.proven for each in proofs)
        sys.stdout.write(
            f"{topology.name:<{longest}} proven={proven} unproven={unproven} na={len(proofs) - proven - unproven}\n"
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
        told = {"stayed green": broken.missed, "turned to Issue, and should not have": broken.unexpected}
        for how, names in told.items():
            if names:
                sys.stdout.write(
                    f"UNPROVEN {broken.topology}: under the break {broken.name} {', '.join(names)} {how}\n"
                )
    code = exit_code(context, [run], strict=arguments.strict)
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
    if arguments.check and not arguments.into:
        raise UsageError("--check says whether a document is up to date; which one?", hint="report --into FILE --check")
    if arguments.complete and arguments.from_:
        raise UsageError("--complete runs what is missing here, and --from takes evidence from elsewhere; choose one")
    if arguments.from_:
        evidence = evidence_from(settings, arguments.from_)
    else:
        require_writable(settings.reports)
        evidence = evidence_here(settings)
    fresh: list[StoredRun] = []
    if arguments.complete:
        known = [each for each in evidence.names() if each not in settings.environments]
        missing = [each for each in known if arguments.fresh or each in evidence.missing(settings.engine)]
        for name in known:
            if name not in missing:
                context.terminal.say(f"{name}: its evidence for this code is complete; --fresh runs it again")
        for part in _in_parts(settings, missing):
            if context.signals.received:
                break
            if fresh:
                fill(evidence, settings)
                done = ", ".join(fresh[-1].record.topologies)
                context.terminal.say(f"the tables of {done} are in {settings.rendered}/; the others follow")
            topologies = named_topologies(settings, part)
            fresh.append(execute(context, topologies, settings.catalogue, settings.catalogue.checks))
            evidence = evidence_here(settings)
    for why in evidence.left_out:
        context.terminal.say(f"note: {why}")
    current = [put_into(Path(each), evidence, settings, check=arguments.check) for each in arguments.into]
    for name, told in zip(arguments.into, current, strict=True):
        outdated = "is not up to date" if arguments.check else "was filled anew"
        context.terminal.say(f"{name}: {'up to date' if told else outdated}")
    if arguments.check:
        return 0 if all(current) else EXIT_ISSUE
    paths = fill(evidence, settings)
    if arguments.markdown:
        sys.stdout.write((settings.rendered / "report.md").read_text(encoding="utf-8"))
    else:
        recap_evidence(evidence)
    say_where(context, fresh[-1].folder if fresh else None, paths)
    for row in evidence.rows:
        if row.status is Status.ISSUE:
            context.terminal.say(issue_line(row.result))
    if context.signals.received:
        return EXIT_INTERRUPTED
    results = [row.result for row in evidence.rows]
    if any(each.status is Status.ISSUE and each.known is None for each in results):
        return EXIT_ISSUE
    if not any(each.status is not Status.NOT_RUN for each in results):
        return EXIT_NOTHING
    if any(not stood.stood for run in fresh for stood in run.record.topologies.values()):
        return EXIT_NOTHING
    return EXIT_NOT_RUN if arguments.strict and any(each.status is Status.NOT_RUN for each in results) else 0


def _in_parts(settings: Settings, missing: list[str]) -> list[list[str]]:
    """Return the topologies to run at a time.

    The native engine is for who wants to see something soon: the three pool modes that people compare come first.
    """
    if settings.engine != "native":
        return [missing] if missing else []
    first = [name for name in missing if name in _FIRST]
    return [part for part in (first, [name for name in missing if name not in _FIRST]) if part]


# --- running -----------------------------------------------------------------------------------------------


def execute(
    context: Context,
    topologies: list[Topology],
    catalogue: Catalogue,
    checks: tuple[Check, ...],
    *,
    proving: bool = False,
    named: bool = False,
    reproduce: str = "",
) -> StoredRun:
    """Stand topologies up, run checks there, and return the evidence.

    :param reproduce: of every row, in place of the command that verifies a check.
    """
    settings, tell = context.settings, context.terminal
    settings.target.require_installable()
    if settings.commands:  # what they print may be of this shell
        context.redactor.learn(*secrets_of(os.environ, settings.environments.values(), settings.paths))
    require_writable(settings.reports)
    wanted = tuple(product for topology in topologies for product in wanted_by(topology))
    engine = choose(settings.engine, settings.images, wanted, tell, settings.storage)
    try:
        for line in engine.reap():
            tell(Notice(f"removed what an earlier run left: {line}"))
        owner = Owner.me(new_run_id())
        plan = plan_topologies(topologies, checks, engine, settings, named=named)
        if reproduce:
            plan = tuple(replace(row, reproduce=reproduce) for row in plan)
        store = RunStore(settings.reports, new_record(owner.run_id, settings, plan, engine), context.redactor)
        try:
            tell(RunStarted(store.record, str(store.folder)))
            run = Run(
                RunSettings(
                    topologies=tuple(topologies),
                    plan=plan,
                    catalogue=catalogue,
                    target=settings.target,
                    jobs=settings.jobs or _jobs(),
                    at_a_time=2 * (settings.jobs or _jobs()),
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


def _jobs() -> int:
    """Return how many checks run at a time in one topology; most of a check is waiting for servers."""
    return max(2, min(8, 2 * (os.cpu_count() or 2)))


def _print_plan(
    plan: tuple[PlannedCheck, ...], topologies: list[Topology], target: AuditTarget, catalogue: Catalogue
) -> None:
    known, checks = {each.name: each for each in topologies}, {each.id: each for each in catalogue.checks}
    for row in plan:
        lacking = checks[row.check].lacking(known[row.target], target)
        sys.stdout.write(f"{row.target:<12} {row.check}" + (f"  N/A: {lacking}" if lacking else "") + "\n")
