"""Runs an audited path once: its steps, its job or its command. Checks judge the observations."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import replace

from harness.database import SqlError
from harness.errors import ConfigError, TimedOutError
from harness.host.command import run
from harness.host.declarations import Step
from harness.host.http_response import HttpResponse
from harness.host.job_table import ENDED, JobState, ObanJobs
from harness.host.journal import Write
from harness.host.path_rows import PathRows
from harness.host.site import Values, holds, value_at
from harness.model import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.host.declarations import Expected, FailingVariant, ObanJob, PathDeclaration
    from harness.host.site import Site

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
        #: the rows that attempts left in the trail and in the audited table
        self.rows = PathRows(expected, site, deadline_s=declared.deadline_s, stack=self._stack)
        self._jobs = parent.jobs(declared.job) if parent and declared.job else None
        self._left_behind: list[str] = []
        self._on_left_behind = on_left_behind
        #: the values of each attempt, for the cleanup; shared with the parent
        self.attempts: list[Values] = parent.attempts if parent else []
        #: the unique texts of attempts that may have changed something; shared with the parent
        self.begun: set[str] = parent.begun if parent else set()
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
        if values.unique not in self.begun:
            return True
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
            self.begun.add(values.unique)
            identity = self.jobs(job).insert(job, values)
            values.keep("job_id", str(identity))
            self._note(values)
            done = Attempt(values=values, job=identity)
        else:
            self.begun.add(values.unique)
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
                return Attempt(values=values, steps=tuple(sent), answers=tuple(answers), not_exercised=INTERRUPTED)
            response = self._http.send(step, values, self.declared.deadline_s)
            if response.arrived:
                self.begun.add(values.unique)
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


def _discard(_line: str) -> None:
    """Discard the output of a host's command: it may hold personal data."""


def _contains(response: HttpResponse, path: str, wanted: object) -> bool:
    try:
        return holds(value_at(response.data, path), wanted)
    except KeyError:
        return False
