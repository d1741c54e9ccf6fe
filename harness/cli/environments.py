"""`verify --environment`: the checks that are safe in an environment that others use."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.environment_workspace import EnvironmentRun
from harness.checks.registry import Safety
from harness.cli.earlier_runs import earlier_ends
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import exit_code, rows_of
from harness.cli.filling import fill, preflight_of
from harness.cli.named_topologies import require_names_known, require_used
from harness.cli.planning import declared_as, new_record, plan_environment
from harness.cli.recap import print_recap, say_issues, say_where
from harness.cli.selection import print_plan
from harness.config import nearest
from harness.errors import UsageError
from harness.events import RunEnded, RunStarted
from harness.host.env_secrets import looked_up, require_set, variables_of
from harness.host.environment import resolve
from harness.host.journal import Journal
from harness.store import RunStore, new_run_id, read_run, require_writable
from harness.suites.catalogue import whole_catalogue

if TYPE_CHECKING:
    from harness.checks.registry import Check
    from harness.cli.invocation import Invocation
    from harness.cli.settings import Settings
    from harness.model import PlannedCheck

_NOT_SAFE = "Not run: not safe in an environment that others use"
_EFFECTS = {
    Safety.READS: "reads",
    Safety.WRITES: "writes to the canary table or the scratch schema",
    Safety.PATH: "runs a declared path",
}


def verify_environment(
    invocation: Invocation, name: str, checks: tuple[Check, ...], *, dry_run: bool, strict: bool
) -> int:
    """Verify an environment of harness.toml.

    :raises UsageError: for an unknown environment, or when no check applies to it.
    """
    settings = invocation.settings
    if name not in settings.environments:
        declare = f"declare it in harness.toml: [environments.{name}]"
        hint = nearest(name, settings.environments) if settings.environments else declare
        raise UsageError(f"unknown environment {name!r}", hint=hint)
    require_names_known(settings)
    require_used(settings, ())
    plan = plan_environment(name, checks, settings)
    if not plan:
        raise UsageError(f"no selected check runs in the environment {name}")
    if dry_run:
        _print_effects(plan, settings)
        _warn_of_unset(invocation, name)
        return 0
    preflight_of(settings)  # a mistake in [preflight] is an error before anything is written
    environment = resolve(name, settings.environments[name], os.environ, invocation.redactor)
    planned = {row.path.name for row in plan if row.path}
    paths = tuple(
        looked_up(path, os.environ, invocation.redactor) if path.name in planned else path for path in settings.paths
    )
    require_writable(settings.reports)
    record = new_record(new_run_id(), settings, plan)
    environment = replace(environment, journal=Journal(name, environment.place, record.run_id))
    terminal, earlier = invocation.terminal, earlier_ends(settings.reports, plan)
    with invocation.signals.held_back():  # from here on, each planned row gets a result
        store = RunStore(settings.reports, record, invocation.redactor)
        try:
            terminal(RunStarted(store.record, str(store.folder), earlier))
            run = EnvironmentRun(
                environment,
                plan,
                whole_catalogue(paths, settings.commands, settings.job_engines, settings.migrations, settings.pipeline),
                settings.target,
                settings.known_issues,
                store,
                invocation.redactor,
                terminal,
                declared_as=declared_as(name, settings),
                paths=paths,
                quarantine=settings.quarantine,
            )
            with invocation.signals.deferred_to(run.interrupt):
                run.execute()
        finally:
            terminal(RunEnded(store.record))
            store.close()
    done = read_run(store.folder)
    rendered = fill(evidence_here(settings.of_project), settings)
    print_recap(done)
    say_where(invocation, done.folder, rendered)
    say_issues(invocation, rows_of(done))
    return exit_code(invocation, rows_of(done), [done], strict=strict)


def _print_effects(plan: tuple[PlannedCheck, ...], settings: Settings) -> None:
    """Print what each row would do to the environment; count the checks that are not safe there."""
    safety = {check.id: check.environment_safety for check in settings.catalogue.checks}
    shown = [row for row in plan if row.owed or row.path]
    print_plan(shown, (_effect(row, safety[row.check], settings) for row in shown))
    if unsafe := len(plan) - len(shown):
        sys.stdout.write(f"and {unsafe} more: {_NOT_SAFE}\n")


def _warn_of_unset(invocation: Invocation, name: str) -> None:
    """Name the variables without which the run that was planned cannot begin."""
    try:
        require_set(variables_of(invocation.settings.environments[name]), os.environ, f"environment {name}")
    except UsageError as error:
        invocation.terminal.say(f"warning: {error.what}; {error.hint}")


def _effect(row: PlannedCheck, safety: Safety, settings: Settings) -> str:
    if row.path:
        path = next(path for path in settings.paths if path.name == row.path.name)
        if path.not_applicable:
            return f"N/A: {path.not_applicable}"
    return _EFFECTS[safety] if row.owed else _NOT_SAFE
