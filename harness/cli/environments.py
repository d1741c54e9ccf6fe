"""`verify --environment`: what is safe where others work."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from harness.checks.environment_workspace import EnvironmentRun
from harness.checks.registry import Safety
from harness.cli.filling import fill, preflight_of
from harness.cli.planning import declared_as, evidence_here, new_record, plan_environment
from harness.cli.recap import exit_code, recap, say_issues, say_where
from harness.config import nearest
from harness.errors import UsageError
from harness.events import RunEnded, RunStarted
from harness.host.env_secrets import looked_up
from harness.host.environment import resolve
from harness.store import RunStore, new_run_id, read_run, require_writable
from harness.suites.catalogue import whole_catalogue

if TYPE_CHECKING:
    from argparse import Namespace

    from harness.checks.registry import Check
    from harness.cli.context import Context
    from harness.cli.settings import Settings
    from harness.model import PlannedCheck


def verify_environment(context: Context, arguments: Namespace, checks: tuple[Check, ...]) -> int:
    settings, name = context.settings, arguments.environment
    if arguments.topologies:
        raise UsageError("found topologies and --environment; needed one or the other")
    if name not in settings.environments:
        raise UsageError(
            f"there is no environment {name!r}",
            hint=nearest(name, settings.environments)
            if settings.environments
            else f"declare it in harness.toml: [environments.{name}]",
        )
    plan = plan_environment(name, checks, settings)
    if not plan:
        raise UsageError(f"nothing of what was asked for is there to be verified in {name}")
    if arguments.dry_run:
        _print_plan(plan, settings)
        return 0
    preflight_of(settings)  # a project that is not there is told before anything is written to
    environment = resolve(name, settings.environments[name], os.environ, context.redactor)
    taken = {row.path.name for row in plan if row.path}
    paths = tuple(
        looked_up(each, os.environ, context.redactor) if each.name in taken else each for each in settings.paths
    )
    require_writable(settings.reports)
    store = RunStore(settings.reports, new_record(new_run_id(), settings, plan), context.redactor)
    tell = context.terminal
    try:
        tell(RunStarted(store.record, str(store.folder)))
        run = EnvironmentRun(
            environment,
            plan,
            whole_catalogue(paths, settings.commands),
            settings.target,
            settings.known_issues,
            store,
            context.redactor,
            tell,
            declared_as=declared_as(name, settings),
        )
        with context.signals.deferred_to(run.interrupt):
            run.execute()
    finally:
        tell(RunEnded(store.record))
        store.close()
    done = read_run(store.folder)
    rendered = fill(evidence_here(settings), settings)
    recap([done])
    say_where(context, done.folder, rendered)
    say_issues(context, [done])
    return exit_code(context, [done], strict=arguments.strict)


def _print_plan(plan: tuple[PlannedCheck, ...], settings: Settings) -> None:
    """Say what would be done; what is not safe there is counted."""
    environment_safety = {each.id: each.environment_safety for each in settings.catalogue.checks}
    paths = {each.name: each for each in settings.paths}
    left_out = 0
    for row in plan:
        does = _DOES[environment_safety[row.check]]
        if row.path:
            path = paths[row.path.name]
            if path.not_applicable:
                does = f"N/A: {path.not_applicable}"
            elif row.path.aspect == "no-trigger" or (row.path.aspect == "failure" and path.fails is None):
                does = "Not run: not safe where others work"
        if environment_safety[row.check] is Safety.NO:
            left_out += 1
        else:
            sys.stdout.write(f"{row.target:<12} {row.check}  {does}\n")
    if left_out:
        sys.stdout.write(f"and {left_out} more: {_DOES[Safety.NO]}\n")


_DOES = {
    Safety.NO: "Not run: not safe where others work",
    Safety.READS: "reads",
    Safety.WRITES: "writes to the canary table or the scratch schema",
    Safety.PATH: "takes a declared path",
}
