"""Runs an audited path once, and reads the rows that it left in the trail. Checks judge the observations."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import replace

from harness.audit.target import Change
from harness.database import SqlError, describe
from harness.errors import ConfigError, DatabaseError, TimedOutError
from harness.host.audited_table import RowsNotSeenError, TableRows, rows_in_table, trail_is_of
from harness.host.command import run
from harness.host.declarations import Step
from harness.host.http_response import HttpResponse
from harness.host.job_table import ENDED, JobState, ObanJobs
from harness.host.journal import Write
from harness.host.site import Values, holds, value_at
from harness.host.trail_reader import Recorded, Trail
from harness.model import EvidenceClass
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.database import Client
    from harness.host.declarations import Expected, FailingVariant, ObanJob, PathDeclaration
    from harness.host.site import Site

#: how long to watch for rows beyond the expected ones, seconds; an environment is verified rarely, so it gets longer
_LATE_S = {EvidenceClass.CI: 0.3, EvidenceClass.HOST: 2.0}
#: a host that was idle for this long writes no more rows of the attempt, seconds
_IDLE_S = 0.8
#: environment variables of a command, with the values of the attempt
_UNIQUE, _CORRELATION, _ACTOR = "HARNESS_UNIQUE", "HARNESS_CORRELATION", "HARNESS_ACTOR"


class Attempt(Struct, frozen=True, kw_only=True):
    """One execution of a path: its values, what was sent, and what the caller saw."""

    values: Values
    answers: tuple[HttpResponse, ...] = ()
    #: the steps that were sent, in order; one response each
    steps: tuple[Step, ...] = ()
    #: declared values that the responses lack or contradict: names only, never values
    mismatches: tuple[str, ...] = ()
    #: the id of the job that was inserted into Oban's table
    job: int | None = None
    #: exit code of the command; None without one
    exit_code: int | None = None
    #: why the path was not exercised at all
    not_exercised: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the caller saw what is declared: every response and, for a command, exit code 0."""
        return (
            not self.mismatches
            and not self.not_exercised
            and self.exit_code in {None, 0}
            and all(
                not response.failure and response.status == step.status
                for response, step in zip(self.answers, self.steps, strict=True)
            )
        )

    @property
    def is_refused(self) -> bool:
        """Whether the host refused: a client error (4xx, RFC 9110), or a command that failed."""
        if self.exit_code is not None:
            return self.exit_code != 0
        last = self.answers[-1] if self.answers else None
        return last is not None and not last.failure and 400 <= last.status < 500  # noqa: PLR2004


class Seen(Struct, frozen=True, kw_only=True):
    """The rows of one attempt in the trail."""

    #: the changes that hold the identifying values of the attempt
    changes: tuple[Change, ...]
    #: all changes of the table in the same transactions, `changes` included
    all_changes: tuple[Change, ...]
    #: the action of each change
    actions: tuple[Recorded | None, ...]

    @property
    def transactions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(change.transaction_id or "" for change in self.changes))


class PathRun:
    """Runs one declared path at one site. Closing it closes its connections and removes the jobs that it inserted."""

    def __init__(
        self,
        declared: PathDeclaration,
        expected: Expected,
        site: Site,
        *,
        parent: PathRun | None = None,
        on_left_behind: Callable[[str], None],
    ) -> None:
        """Prepare to run a path; connect on first use.

        :param expected: the rows to look for in the trail.
        :param parent: another run of the same path that stays open longer; it cleans up after both.
        :param on_left_behind: called on close for each thing that could not be cleaned up.
        """
        from harness.host.http_client import HttpClient  # noqa: PLC0415 -- few processes send requests

        self.declared = declared
        self.expected = expected
        self.site = site
        self._stack = contextlib.ExitStack()
        self._http = self._stack.enter_context(HttpClient(site))
        self._trail: Trail | None = None
        self._clients: dict[Callable[[], Client], Client] = {}
        self._jobs = parent.jobs(declared.job) if parent and declared.job else None
        self._left_behind: list[str] = []
        self._on_left_behind = on_left_behind
        #: the values of each attempt, for the cleanup; shared with the parent
        self.attempts: list[Values] = parent.attempts if parent else []
        self._cleans_up = parent is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._cleans_up:
            done = [values.unique for values in self.attempts if self._clean_up(values)]
        self._stack.close()
        if self._cleans_up and self.site.journal and not self._left_behind:
            for unique in done:
                self.site.journal.end("path", self.declared.name, unique)
        for what in self._left_behind:
            self._on_left_behind(what)

    def _note(self, values: Values) -> None:
        """Note an attempt, so that a later run can clean up after a killed one."""
        journal, declared = self.site.journal, self.declared
        if journal and (declared.cleanup or declared.job):
            jobs = self._jobs.inserted if self._jobs else ()
            journal.begin(Write(kind="path", name=declared.name, mark=values.unique, values=values.known(), jobs=jobs))

    def _clean_up(self, values: Values) -> bool:
        """Send the cleanup of an attempt, and return whether everything is removed."""
        for number, step in enumerate(self.declared.cleanup, 1):
            try:
                response = self._http.send(step, values, self.declared.deadline_s)
            except ConfigError:  # the step needs a value that the attempt never received: it created nothing
                return True
            if response.failure or response.status != step.status:
                self._left_behind.append(
                    f"rows of {values.unique}: step {number} of the cleanup was answered {response}"
                )
                return False
        return True

    def execute(self, values: Values) -> Attempt:
        """Run the path once: first the steps that prepare it, then its subject.

        :raises ConfigError: for a placeholder without a value.
        :raises DatabaseError: when the job cannot be inserted.
        :raises UsageError: when the command cannot be started.
        :raises TimedOutError: when the command does not end in time.
        """
        prepared = self.prepare(values)
        return self.act(values, prepared) if prepared.succeeded else prepared

    def prepare(self, values: Values) -> Attempt:
        """Send the steps that prepare the path.

        Without a job or command, the last step is the subject of the path and is not sent here.
        """
        self.attempts.append(values)
        self._note(values)
        steps = self.declared.steps
        return self._send(steps if self._all_steps_prepare(self.declared.job) else steps[:-1], values)

    def act(self, values: Values, before: Attempt | None = None, *, variant: FailingVariant | None = None) -> Attempt:
        """Run the subject of the path: its last step, its job or its command.

        :param before: the preparation; its steps and responses come first in the result.
        :param variant: run this failing variant instead.
        """
        before = before or Attempt(values=values)
        job = (variant.job if variant else None) or self.declared.job
        if variant and variant.steps:
            done = self._send(variant.steps, values)
        elif not self._all_steps_prepare(job):
            done = self._send(self.declared.steps[-1:], values)
        elif job:
            identity = self.jobs(job).insert(job, values)
            values.keep("job_id", str(identity))
            self._note(values)
            done = Attempt(values=values, job=identity)
        else:
            done = Attempt(values=values, exit_code=self._run_command(values))
        return replace(done, steps=before.steps + done.steps, answers=before.answers + done.answers)

    def _all_steps_prepare(self, job: ObanJob | None) -> bool:
        """Return whether a job or a command, and not the last step, is the subject of the path."""
        return bool(job or self.declared.command)

    def _send(self, steps: Sequence[Step], values: Values) -> Attempt:
        """Send steps in order, and stop after the first response that is not as declared."""
        sent: list[Step] = []
        answers: list[HttpResponse] = []
        mismatches: list[str] = []
        for number, step in enumerate(steps, 1):
            if self.site.stopped():
                return Attempt(
                    values=values, steps=tuple(sent), answers=tuple(answers), not_exercised="the run was interrupted"
                )
            response = self._http.send(step, values, self.declared.deadline_s)
            sent.append(step)
            answers.append(response)
            if response.failure or response.status != step.status:
                if reason := response.why_not_exercised:
                    return Attempt(values=values, steps=tuple(sent), answers=tuple(answers), not_exercised=reason)
                break
            mismatches += self._keep(step, response, values, number)
            self._note(values)
            if mismatches:
                break
        return Attempt(values=values, steps=tuple(sent), answers=tuple(answers), mismatches=tuple(mismatches))

    def _keep(self, step: Step, response: HttpResponse, values: Values, number: int) -> list[str]:
        """Store the values that the step keeps; return what the response lacks or contradicts."""
        mismatches = []
        for name, path in step.keep.items():
            try:
                values.keep(name, value_at(response.data, path))
            except KeyError:
                mismatches.append(f"the response to step {number} has no {path}")
        mismatches += [
            f"the response to step {number} has an unexpected {path}"
            for path, wanted in step.answer.items()
            if not _contains(response, path, values.fill(wanted))
        ]
        return mismatches

    def _run_command(self, values: Values) -> int | None:
        given = {_UNIQUE: values.unique, _CORRELATION: values.correlation}
        given |= {f"{_ACTOR}_{name.upper()}": value for name, value in values.actor.items()}
        result = run(
            [values.text(argument) for argument in self.declared.command],
            folder=Path.cwd(),
            given=given,
            deadline_s=self.declared.deadline_s,
            say=_discard,
            stopped=self.site.stopped,
        )
        if result.reason:
            raise TimedOutError(f"the command was ended: {result.reason}")
        return result.exit_code

    def jobs(self, job: ObanJob) -> ObanJobs:
        """Return the jobs of this path; they are removed when the path run closes."""
        if self._jobs is None:
            self._jobs = ObanJobs(self.site.application, job.prefix)
            self._stack.callback(self._remove_jobs)
        return self._jobs

    def _remove_jobs(self) -> None:
        if self._jobs:
            with contextlib.suppress(SqlError):
                self._left_behind += self._jobs.remove_all()

    def job_ended(self, attempt: Attempt) -> JobState | None:
        """Wait for the inserted job to reach a final state; None when the attempt inserted no job.

        :raises TimedOutError: with the last known progress.
        """
        if attempt.job is None or self._jobs is None:
            return None
        return self._jobs.when(attempt.job, ENDED, self.declared.deadline_s)

    def inserted_job(self, attempt: Attempt) -> tuple[ObanJobs, int]:
        """Return the jobs of this path and the id of the inserted one.

        :raises ValueError: when the attempt inserted no job.
        """
        if attempt.job is None or self._jobs is None:
            raise ValueError("the attempt inserted no job")
        return self._jobs, attempt.job

    def job_state(self, attempt: Attempt) -> JobState | None:
        """Return the progress of the inserted job; None when there is no such job, or no longer."""
        return self._jobs.state(attempt.job) if attempt.job is not None and self._jobs else None

    def look(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> Seen:
        """Wait for the expected rows in the trail, watch for unexpected ones, and return all of them.

        :param wanted: number of rows.
        :param deadline_s: for the expected rows; the path's own by default.
        :raises DatabaseError: when the trail cannot be read.
        """
        self.wait_for_rows(values, wanted=wanted, deadline_s=deadline_s)
        self.watch(values, wanted)
        return self.seen(values)

    def wait_for_rows(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> None:
        """Wait until the trail holds the wanted number of rows, the host is idle, or the deadline passes."""
        idle_since: float | None = None

        def probe() -> None:
            nonlocal idle_since
            is_idle = self._is_idle()
            found = self.count(values)
            if found >= wanted:
                return
            idle_since = (idle_since or time.monotonic()) if is_idle else None
            if idle_since is None or time.monotonic() - idle_since < _IDLE_S:
                raise NotYet(f"{found} rows")

        with contextlib.suppress(TimedOutError):
            deadline_s = self.declared.deadline_s if deadline_s is None else deadline_s
            poll(probe, what="rows", deadline_s=deadline_s, interval_s=0.03)

    def watch(self, values: Values, wanted: int) -> None:
        """Wait for a moment, or until more rows than wanted appear: the host may write twice, or after it answered."""

        def more() -> None:
            if self.count(values) <= wanted:
                raise NotYet("no more rows")

        with contextlib.suppress(TimedOutError):
            poll(more, what="more rows", deadline_s=_LATE_S[self.site.evidence_class], interval_s=0.15)

    def count(self, values: Values) -> int:
        """Return how many rows of this attempt the trail holds now."""
        return len(self.trail.rows_of(self.expected, values))

    def _is_idle(self) -> bool:
        """Return whether the host has no work in progress that could still write; False when that is unknown."""
        if self.site.is_idle is None or self.site.admin is None:
            return False
        with contextlib.suppress(SqlError):
            return self.site.is_idle(self._client(self.site.admin))
        return False

    def _client(self, connect: Callable[[], Client]) -> Client:
        """Return a connection that closes with this path run; the same one for the same function."""
        client = self._clients.get(connect)
        if client is None or client.closed:
            client = self._clients[connect] = self._stack.enter_context(contextlib.closing(connect()))
        return client

    def in_table(self, values: Values) -> TableRows:
        """Return the rows of this attempt in the audited table, read with the first role that can see them.

        :raises RowsNotSeenError: when no role can; with the reason for each.
        """
        reasons = []
        for connect in filter(None, (self.site.admin, self.site.trail, self.site.application)):
            try:
                return rows_in_table(self._client(connect), self.expected, values)
            except RowsNotSeenError as error:
                reasons.append(str(error))
            except SqlError as error:
                reasons.append(describe(error))
        raise RowsNotSeenError("; ".join(dict.fromkeys(reasons)))

    def is_of_the_trail(self, rows: TableRows) -> bool | None:
        """Return whether the transactions that wrote these rows also wrote to the trail; None when that is unknown."""
        with contextlib.suppress(SqlError):
            client = self._client(self.site.trail)
            return trail_is_of(client, self.site.target.tables, rows.written_by) if rows.written_by else None
        return None

    def seen(self, values: Values) -> Seen:
        """Return the rows of this attempt in the trail, as they are now.

        :raises DatabaseError: when the trail cannot be read.
        """
        changes = tuple(self.trail.rows_of(self.expected, values))
        transactions = dict.fromkeys(change.transaction_id for change in changes if change.transaction_id)
        all_changes = tuple(self.trail.rows_with(transactions, self.expected)) if transactions else ()
        by_id = {change.action_id: self.trail.action(change.action_id) for change in changes}
        return Seen(
            changes=changes, all_changes=all_changes, actions=tuple(by_id[change.action_id] for change in changes)
        )

    @property
    def trail(self) -> Trail:
        if self._trail is None:
            try:
                client = self._stack.enter_context(contextlib.closing(self.site.trail()))
            except SqlError as error:
                raise DatabaseError(f"the role that reads the audit trail cannot log in: {describe(error)}") from None
            self._trail = Trail(client, self.site.target)
        return self._trail


def _discard(_line: str) -> None:
    """Discard the output of a host's command: it may hold personal data."""


def _contains(response: HttpResponse, path: str, wanted: object) -> bool:
    try:
        return holds(value_at(response.data, path), wanted)
    except KeyError:
        return False
