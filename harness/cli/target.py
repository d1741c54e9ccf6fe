"""`target try`: the changes that a few writes leave in an audit trail, for the author of its target file."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.trial import Trial, spelled
from harness.checks.claims import unjudged_claims
from harness.checks.judging import describe_answer
from harness.checks.record import NotExercisedError
from harness.checks.workspace import Workspace, ended_service
from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.parser import Group
from harness.cli.settings import audit_target
from harness.cli.standing import removed_by, require_transactions, standing
from harness.database import SqlError
from harness.engine.owner import Owner
from harness.errors import DatabaseError, HarnessError
from harness.printable import one_line
from harness.store import new_run_id
from harness.suites.catalogue import FIXTURES
from harness.suites.claim_trials import try_claims
from harness.suites.target_trial import TriedWrite, try_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget, Change
    from harness.lab.lab import Lab

_TOPOLOGY = "direct"
#: the longest value that is shown
_LONGEST = 300
#: the changes are shown as the statement returns them
_TEXTS = "values are texts here, and the checks read them back as the types of their columns"


@command(
    "try",
    examples=(
        "harness target try path/to/my-trail.toml",
        "harness target try plain-trigger",
        "harness target try threadline --audit-sql migrations/audit.sql --topology transaction",
    ),
    exit_codes=(
        ("0", "everything that the file promises is there"),
        ("1", "something that the file promises is missing, or one of its statements does not run"),
        ("2", "invalid usage or configuration, such as a target file with an unknown key"),
        ("3", "nothing was tried: servers or a topology are not available"),
    ),
)
@click.argument(
    "named",
    metavar="NAME|FILE.toml",
    shell_complete=completion.target_names,
    help="a name from `harness list targets`, or the path of a file of your own",
)
@options.option(
    "--topology",
    default=_TOPOLOGY,
    metavar="NAME",
    section="Selection",
    shell_complete=completion.topology_names,
    help=f"a name from `list topologies` (default: {_TOPOLOGY})",
)
@options.option(
    "--audit-sql",
    "sql",
    multiple=True,
    metavar="FILE",
    section="Selection",
    shell_complete=completion.file_names,
    help="SQL that installs the audit trail; may be repeated",
)
@options.standing
def try_target(invocation: Invocation, named: str, *, topology: str, sql: tuple[str, ...]) -> int:
    """Show what an audit trail records of a few writes, before any check runs.

    Starts the topology, installs the trail and attaches it. Then it shows the changes, as the file's statements return
    them, of an insert, an update, a delete, a TRUNCATE, a rollback and two concurrent updates, and says what is missing
    for the properties that every trail needs, and for the claims of the file. No report shows it:
    `harness verify TOPOLOGY --audit-target NAME|FILE.toml` runs the checks.
    """
    settings = invocation.settings
    target = audit_target(named, sql)
    target.require_installable()
    (chosen,) = named_topologies(settings, [topology])
    require_used(settings, [chosen])
    require_transactions([chosen])
    unjudged = unjudged_claims(settings.catalogue.checks, target)
    stop = Event()
    wrong: list[str] = []
    hint = ""
    with standing(invocation, chosen, Owner.me(new_run_id()), stop) as lab:
        try:
            wrong.extend(_tried(invocation, lab, target, unjudged, stop))
            if wrong:
                _require_running(lab)
        except DatabaseError as error:
            _require_running(lab)
            if not _is_of(target, error):
                raise
            hint = error.hint and f"  try: {error.hint}"
            wrong.append(str(error).removesuffix(hint).rstrip())
    for claim in unjudged:
        _print(f"note: no check can judge the claim {claim} of this target", invocation.redactor)
    for sentence in wrong:
        _print(f"missing: {sentence}", invocation.redactor)
    if hint:
        _print(hint, invocation.redactor)
    number = f"{len(wrong)} thing{'' if len(wrong) == 1 else 's'}"
    sys.stdout.write(f"{f'{number} missing' if wrong else 'everything that the file promises is there'}\n")
    return ExitCode.ISSUE if wrong else ExitCode.OK


def _require_running(lab: Lab) -> None:
    """Raise an error if a server has ended: what was not recorded then says nothing about the trail.

    :raises HarnessError: with the service.
    """
    if ended := ended_service(lab):
        raise HarnessError(ended.what, where=f"topology {lab.topology.name}")


def _is_of(target: AuditTarget, error: DatabaseError) -> bool:
    """Return whether an error is about a file of the target, and not about the servers."""
    return any(error.where.startswith(str(path)) for path in (Path(target.where), *target.install))


def _tried(
    invocation: Invocation, lab: Lab, target: AuditTarget, unjudged: list[TrailFeature], stop: Event
) -> Iterator[str]:
    """Run the trial in a lab, and yield what is missing, in one sentence each.

    :param unjudged: the claims that are not tried.
    :raises InterruptedRunError: after Ctrl-C.
    :raises HarnessError: when nothing could be tried.
    """
    try:
        with removed_by(stop, lab), contextlib.closing(Workspace(lab, target, FIXTURES)) as workspace:
            show, trial = _Shown(workspace.target, invocation.redactor), workspace.target.trial
            yield from _missing(trial)
            if trial and trial.failed is Recorded.ACTOR:
                _print("note: nothing else is tried, because every write begins with the declaration", show.redact)
                return
            with workspace.context("target.try") as ctx:
                if trial and ctx.target.texts:
                    _print(f"note: {_TEXTS}", show.redact)
                    ctx.target = replace(ctx.target, trial=replace(trial, texts=frozenset()))
                yield from try_writes(ctx, show.write)
            with workspace.context("target.claims") as ctx:
                for claim, sentence in try_claims(ctx, unjudged).items():
                    yield f"the claim {claim}: {sentence}"
    except NotExercisedError as error:
        raise HarnessError(str(error), where=f"topology {lab.topology.name}") from None
    except SqlError as error:
        raise DatabaseError(describe_answer(error), where=target.where) from None


def _missing(trial: Trial | None) -> Iterator[str]:
    """Yield each property that every trail needs, and that this one lacks."""
    for property_, sentence in (trial.missing if trial else {}).items():
        yield f"{property_.check}: {sentence}"


class _Shown:
    """Prints the changes of a trial."""

    def __init__(self, target: AuditTarget, redact: Callable[[str], str]) -> None:
        self.redact = redact
        self._has = target.records

    def write(self, tried: TriedWrite) -> None:
        """Print one step, with a block for each of its changes."""
        _print(f"{tried.step}{'' if tried.changes else ': no change'}", self.redact)
        for change in tried.changes:
            key = spelled(change.table_pk)
            _print(f"  {change.op} {change.table_schema}.{change.table_name} {key}", self.redact)
            for name, value in self._lines(change):
                _print(f"    {name:<14}{value}", self.redact)
        if tried.wrong:
            _print(f"  wrong: {tried.wrong}", self.redact)
        sys.stdout.flush()

    def _lines(self, change: Change) -> Iterator[tuple[str, str]]:
        yield "row after", spelled(change.data_after)
        if change.changed_fields is not None:
            yield "changed", ", ".join(change.changed_fields)
        if change.changed_from is not None:
            yield "prior values", spelled(change.changed_from)
        if self._has(Recorded.ACTOR):
            yield "actor", spelled(change.actor)
        if self._has(Recorded.TRANSACTION_ID):
            yield "transaction", str(change.transaction_id)
        if change.captured_at is not None:
            yield "time", change.captured_at.isoformat(sep=" ", timespec="milliseconds")
        if change.action_id is not None:
            yield "action", change.action_id


def _print(line: str, redact: Callable[[str], str]) -> None:
    shown = one_line(redact(line))
    sys.stdout.write(f"{shown if len(shown) <= _LONGEST else f'{shown[: _LONGEST - 1]}…'}\n")


target = Group(
    "target",
    section="Your own systems",
    help="Try an audit target.",
    examples=("harness target try path/to/my-trail.toml", "harness target try plain-trigger"),
    commands=[try_target],
)
