"""Running a selection: choose an engine, start topologies, run the checks, read the evidence back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.observing import observed_in
from harness.checks.run_settings import RunSettings
from harness.checks.scheduler import Run
from harness.cli.earlier_runs import earlier_ends
from harness.cli.evidence import expired_sentence
from harness.cli.planning import new_record
from harness.cli.run_evidence import UNDER_FOLDER
from harness.cli.standing import reap_leftovers
from harness.engine.choice import choose
from harness.engine.owner import Owner
from harness.events import Notice, RunEnded, RunStarted
from harness.host.command import GRACE_S
from harness.host.env_secrets import secrets_of
from harness.host.subjects import CommandFolders, written_in
from harness.lab.topologies import wanted_by
from harness.provenance import fingerprint
from harness.store import RunStore, StoredRun, kept_runs, new_run_id, read_run, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.checks.collection import Catalogue
    from harness.cli.invocation import Invocation
    from harness.cli.selection import Selection
    from harness.cli.settings import Settings
    from harness.host.declarations import CommandDeclaration, MigrationDeclaration
    from harness.model import PlannedCheck


def run_selection(
    invocation: Invocation,
    selection: Selection,
    *,
    catalogue: Catalogue | None = None,
    proving: bool = False,
    under: str = "",
    reproduce: str = "",
    commands: Iterable[CommandDeclaration] = (),
) -> StoredRun:
    """Start topologies, run checks in them, remove the servers and return the evidence.

    :param catalogue: the checks; those of the settings by default.
    :param proving: run every check under each of its controls as well.
    :param under: run every check under the control of this name, and keep the run apart from the evidence.
    :param reproduce: command that reproduces every row, in place of the command that verifies its check.
    :param commands: foreign commands that harness.toml does not declare.
    """
    settings, terminal = invocation.settings, invocation.terminal
    settings.target.require_installable()
    if settings.commands or settings.migrations:  # their output may hold secrets of this shell
        invocation.redactor.learn(*secrets_of(os.environ, settings.environments.values(), settings.paths))
        invocation.signals.teardown = command_teardown()
    if selection.idle:
        terminal(Notice(f"not started, because no selected check runs there: {', '.join(selection.idle)}"))
    reports = _reports_folder(settings.reports, under)
    require_writable(reports)
    wanted = tuple(product for topology in selection.topologies for product in wanted_by(topology))
    engine = choose(settings.engine, settings.images, wanted, terminal, settings.storage)
    try:
        reap_leftovers(engine, terminal)
        owner = Owner.me(new_run_id())
        plan = selection.plan(settings, engine, under=under)
        if reproduce:
            plan = tuple(replace(row, reproduce=reproduce) for row in plan)
        checks = {row.check for row in plan}
        for entry in settings.expired_quarantine:
            if entry.check in checks:
                terminal(Notice(expired_sentence(entry)))
        folders = _folders(settings, plan, commands)
        for sentence in folders.notes():
            terminal(Notice(sentence))
        record = new_record(owner.run_id, settings, plan, engine, under=under, subjects=folders.subjects(ended=False))
        comparable = not (proving or under or selection.repeat > 1)
        earlier = earlier_ends(settings.reports, plan) if comparable else ()
        with invocation.signals.held_back():  # from here on, each planned row gets a result
            store = RunStore(reports, record, invocation.redactor)
            jobs = settings.jobs or derived_jobs()
            try:
                terminal(RunStarted(store.record, str(store.folder), earlier))
                run = Run(
                    RunSettings(
                        topologies=selection.topologies,
                        plan=plan,
                        catalogue=catalogue or settings.catalogue,
                        target=settings.target,
                        jobs=jobs,
                        at_a_time=2 * jobs,
                        known=settings.known_issues,
                        quarantine=settings.quarantine,
                        proving=proving,
                        observed_in=observed_in(selection.topologies, plan, settings.catalogue, settings.target)
                        if proving
                        else frozenset(),
                        under=under,
                        load=settings.load,
                    ),
                    engine,
                    owner,
                    store,
                    invocation.redactor,
                    terminal,
                )
                with invocation.signals.deferred_to(run.interrupt):
                    run.execute()
                if folders.commands and store.record.state == "finished":  # nobody waits for it after Ctrl-C
                    store.update(subjects={**store.record.subjects, **folders.subjects(ended=True)})
            finally:
                terminal(RunEnded(store.record))
                store.close()
    finally:
        engine.close()
    return read_run(store.folder)


def _folders(
    settings: Settings, plan: Iterable[PlannedCheck], commands: Iterable[CommandDeclaration]
) -> CommandFolders:
    """Read the folders of the foreign commands and of the migrations that are planned."""
    planned = {row.check for row in plan}
    declared: tuple[CommandDeclaration | MigrationDeclaration, ...] = (
        *settings.commands,
        *commands,
        *settings.migrations,
    )
    chosen = [command for command in declared if planned.intersection(command.checks)]
    runs = kept_runs(settings.reports, fingerprint())[0] if chosen else ()
    return CommandFolders(chosen, settings.reports, written_in(run.record.subjects for run in runs))


def command_teardown() -> str:
    """Return what a signal does to a running command, for the person who waits for it."""
    return f"tearing down; a running command gets SIGTERM, and SIGKILL after {GRACE_S:g} s"


def _reports_folder(reports: Path, under: str) -> Path:
    return reports / UNDER_FOLDER if under else reports


def derived_jobs() -> int:
    """Return how many checks run concurrently in one topology; a check mostly waits for servers."""
    return max(2, min(8, 2 * (os.cpu_count() or 2)))
