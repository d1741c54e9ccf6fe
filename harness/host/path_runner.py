"""Taking an audited path once, and looking for what it left in the trail. What was seen is judged elsewhere."""

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
from harness.host.http_client import Exchange, HttpResponse
from harness.host.job_table import ENDED, JobState, ObanJobs
from harness.host.site import holds, place
from harness.host.trail_reader import Recorded, Trail
from harness.model import EvidenceClass
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.database import Client
    from harness.host.declarations import Expected, FailingVariant, ObanJob, PathDeclaration
    from harness.host.site import Site, Values

#: for rows beyond those that were expected to come, seconds; where the path is taken for once, there is more time
_LATE_S = {EvidenceClass.CI: 0.3, EvidenceClass.HOST: 2.0}
#: a host that has nothing under way for so long writes no more rows of what was asked of it, seconds
_IDLE_S = 0.8
#: what a command is told of the time the path is taken
_UNIQUE, _CORRELATION, _ACTOR = "HARNESS_UNIQUE", "HARNESS_CORRELATION", "HARNESS_ACTOR"


class Taken(Struct, frozen=True, kw_only=True):
    """What was done, and what came of it as far as a caller can tell."""

    answers: tuple[HttpResponse, ...] = ()
    #: the steps that were sent, in their order
    steps: tuple[Step, ...] = ()
    #: what is wrong with the answers' content: names only, never values
    amiss: tuple[str, ...] = ()
    #: the id of the job that was put into Oban's table
    job: int | None = None
    #: exit code of the command, if there is one
    exit_code: int | None = None
    #: why the path was not exercised at all
    not_exercised: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether every step was answered as declared, as far as there are steps."""
        return (
            not self.amiss
            and not self.not_exercised
            and self.exit_code in {None, 0}
            and all(
                not answer.trouble and answer.status == step.status
                for answer, step in zip(self.answers, self.steps, strict=True)
            )
        )

    @property
    def is_refused(self) -> bool:
        """Whether the host said no: a status of the client's fault (RFC 9110), or a command that failed."""
        if self.exit_code is not None:
            return self.exit_code != 0
        last = self.answers[-1] if self.answers else None
        return last is not None and not last.trouble and 400 <= last.status < 500  # noqa: PLR2004


class Seen(Struct, frozen=True, kw_only=True):
    """What was found in the trail of one time that a path was taken."""

    #: the changes that hold what tells this request from others
    changes: tuple[Change, ...]
    #: all changes of that table in their transactions
    beside: tuple[Change, ...]
    #: the actions of those transactions
    actions: tuple[Recorded | None, ...]

    @property
    def transactions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.transaction_id or "" for each in self.changes))


class PathRun:
    """One declared path at one site. Its connections end with it, and so do the jobs that it put in."""

    def __init__(
        self,
        declared: PathDeclaration,
        expected: Expected,
        site: Site,
        *,
        beside: PathRun | None = None,
        tell: Callable[[str], None],
    ) -> None:
        """Connect to nothing yet.

        :param beside: the same path, that lives longer, and takes away what both made once it was judged.
        :param tell: hears what could not be taken away when it is closed.
        """
        self.declared = declared
        self.expected = expected
        self.site = site
        self._stack = contextlib.ExitStack()
        self._exchange = self._stack.enter_context(Exchange(site))
        self._trail: Trail | None = None
        self._clients: dict[Callable[[], Client], Client] = {}
        self._jobs = beside.jobs(declared.job) if beside and declared.job else None
        #: what could not be taken back, once the path is closed
        self.left_behind: list[str] = []
        self._tell = tell
        #: the times it was taken, each to be cleaned up after
        self.times: list[Values] = beside.times if beside else []
        self._cleans_up = beside is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for values in self.times if self._cleans_up else ():
            self._clean_up(values)
        self._stack.close()
        for each in self.left_behind:
            self._tell(each)

    def _clean_up(self, values: Values) -> None:
        for number, step in enumerate(self.declared.cleanup, 1):
            try:
                answer = self._exchange.send(step, values, self.declared.deadline_s)
            except ConfigError:  # it names what was never kept: there is nothing to take away
                return
            if answer.trouble or answer.status != step.status:
                self.left_behind.append(
                    f"what {values.unique} made: step {number} of its cleanup was answered {answer}"
                )
                return

    def take(self, values: Values) -> Taken:
        """Take the path once: what prepares it, then what it is about.

        :raises ConfigError: for a name in the declaration that nothing has.
        :raises DatabaseError: when the job cannot be put in, or the command cannot be run.
        """
        prepared = self.prepare(values)
        return self.act(values, prepared) if prepared.succeeded else prepared

    def prepare(self, values: Values) -> Taken:
        """Send the steps before the one that the path is about."""
        self.times.append(values)
        steps = self.declared.steps
        return self._send(steps if self._is_beside_http(self.declared.job) else steps[:-1], values)

    def act(self, values: Values, before: Taken | None = None, *, variant: FailingVariant | None = None) -> Taken:
        """Do what the path is about: its last step, its job or its command.

        :param before: what prepared it, to be told with it.
        :param variant: the declared one that fails.
        """
        before = before or Taken()
        job = (variant.job if variant else None) or self.declared.job
        if variant and variant.steps:
            done = self._send(variant.steps, values)
        elif not self._is_beside_http(job):
            done = self._send(self.declared.steps[-1:], values)
        elif job:
            identity = self.jobs(job).put_in(job, values)
            values.keep("job_id", str(identity))
            done = Taken(job=identity)
        else:
            done = Taken(exit_code=self._run_command(values))
        return replace(done, steps=before.steps + done.steps, answers=before.answers + done.answers)

    def _is_beside_http(self, job: ObanJob | None) -> bool:
        return bool(job or self.declared.command)

    def _send(self, steps: Sequence[Step], values: Values) -> Taken:
        """Send steps in their order, until one is not answered as declared."""
        sent: list[Step] = []
        answers: list[HttpResponse] = []
        amiss: list[str] = []
        for number, step in enumerate(steps, 1):
            if self.site.stopped():
                return Taken(steps=tuple(sent), answers=tuple(answers), not_exercised="the run was interrupted")
            answer = self._exchange.send(step, values, self.declared.deadline_s)
            sent.append(step)
            answers.append(answer)
            if answer.trouble or answer.status != step.status:
                if why := answer.why_not_exercised:
                    return Taken(steps=tuple(sent), answers=tuple(answers), not_exercised=why)
                break
            amiss += self._keep(step, answer, values, number)
            if amiss:
                break
        return Taken(steps=tuple(sent), answers=tuple(answers), amiss=tuple(amiss))

    def _keep(self, step: Step, answer: HttpResponse, values: Values, number: int) -> list[str]:
        amiss = []
        for name, where in step.keep.items():
            try:
                values.keep(name, place(answer.data, where))
            except KeyError:
                amiss.append(f"step {number} answers without {where}")
        amiss += [
            f"step {number} answers with another {where} than it was given"
            for where, wanted in step.answer.items()
            if not _answered(answer, where, values.fill(wanted))
        ]
        return amiss

    def _run_command(self, values: Values) -> int | None:
        given = {_UNIQUE: values.unique, _CORRELATION: values.correlation}
        given |= {f"{_ACTOR}_{name.upper()}": value for name, value in values.actor.items()}
        ended = run(
            [values.text(each) for each in self.declared.command],
            folder=Path.cwd(),
            given=given,
            deadline_s=self.declared.deadline_s,
            say=_unheard,
            stopped=self.site.stopped,
        )
        if ended.reason:
            raise TimedOutError(f"the command was ended: {ended.reason}")
        return ended.exit_code

    def jobs(self, job: ObanJob) -> ObanJobs:
        """Return the jobs of this path; they are taken back when it is closed."""
        if self._jobs is None:
            self._jobs = ObanJobs(self.site.application, job.prefix)
            self._stack.callback(self._take_back)
        return self._jobs

    def _take_back(self) -> None:
        if self._jobs:
            with contextlib.suppress(SqlError):
                self.left_behind += self._jobs.take_back()

    def job_ended(self, taken: Taken) -> JobState | None:
        """Wait for the job that was put in to end, for good or for the better; None where there is none.

        :raises TimedOutError: saying how far it got.
        """
        if taken.job is None or self._jobs is None:
            return None
        return self._jobs.when(taken.job, ENDED, self.declared.deadline_s)

    def put_in(self, taken: Taken) -> tuple[ObanJobs, int]:
        """Return the job that was put in, and where to ask for it.

        :raises ValueError: when there is none.
        """
        if taken.job is None or self._jobs is None:
            raise ValueError("no job was put in")
        return self._jobs, taken.job

    def job_state(self, taken: Taken) -> JobState | None:
        return self._jobs.state(taken.job) if taken.job is not None and self._jobs else None

    def look(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> Seen:
        """Look for the rows until as many as wanted are there; then once more, for those that nobody expected.

        :raises DatabaseError: when the trail cannot be read.
        """
        self.wait_for_rows(values, wanted=wanted, deadline_s=deadline_s)
        self.watch(values, wanted)
        return self.seen(values)

    def wait_for_rows(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> None:
        """Look for the rows until as many as wanted are there, none can come any more, or the deadline has passed."""
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
        """Watch for a moment whether more rows come, as of what is done twice, or after the answer."""

        def more() -> None:
            if self.count(values) <= wanted:
                raise NotYet("no more rows")

        with contextlib.suppress(TimedOutError):
            poll(more, what="more rows", deadline_s=_LATE_S[self.site.evidence_class], interval_s=0.15)

    def count(self, values: Values) -> int:
        """Return how many rows the trail holds of this time by now."""
        return len(self.trail.rows_of(self.expected, values))

    def _is_idle(self) -> bool:
        """Say whether the host has nothing under way that could still write; False where nobody can tell."""
        if self.site.is_idle is None or self.site.admin is None:
            return False
        with contextlib.suppress(SqlError):
            return self.site.is_idle(self._client(self.site.admin))
        return False

    def _client(self, connect: Callable[[], Client]) -> Client:
        """Return a connection of this path, which ends with it."""
        client = self._clients.get(connect)
        if client is None or client.closed:
            client = self._clients[connect] = self._stack.enter_context(contextlib.closing(connect()))
        return client

    def in_table(self, values: Values) -> TableRows:
        """Return the rows that the audited table itself holds of this time, as the first sees them who can.

        :raises RowsNotSeenError: when nobody can; with what each was told.
        """
        told = []
        for connect in filter(None, (self.site.admin, self.site.trail, self.site.application)):
            try:
                return rows_in_table(self._client(connect), self.expected, values)
            except RowsNotSeenError as error:
                told.append(str(error))
            except SqlError as error:
                told.append(describe(error))
        raise RowsNotSeenError("; ".join(dict.fromkeys(told)))

    def is_of_the_trail(self, rows: TableRows) -> bool | None:
        """Say whether those rows were written by transactions that wrote to the trail; None when nobody can tell."""
        with contextlib.suppress(SqlError):
            client = self._client(self.site.trail)
            return trail_is_of(client, self.site.target.tables, rows.written_by) if rows.written_by else None
        return None

    def seen(self, values: Values) -> Seen:
        """Return what the trail holds of this time that the path was taken."""
        changes = tuple(self.trail.rows_of(self.expected, values))
        transactions = dict.fromkeys(each.transaction_id for each in changes if each.transaction_id)
        beside = tuple(self.trail.rows_with(transactions, self.expected)) if transactions else ()
        by_id = {each.action_id: self.trail.action(each.action_id) for each in changes}
        return Seen(changes=changes, beside=beside, actions=tuple(by_id[each.action_id] for each in changes))

    @property
    def trail(self) -> Trail:
        if self._trail is None:
            try:
                client = self._stack.enter_context(contextlib.closing(self.site.trail()))
            except SqlError as error:
                raise DatabaseError(f"who reads the audit trail cannot log in: {describe(error)}") from None
            self._trail = Trail(client, self.site.target)
        return self._trail


def _unheard(_line: str) -> None:
    """Keep nothing of it: what a host's command says is the host's, and may hold anything."""


def _answered(answer: HttpResponse, where: str, wanted: object) -> bool:
    try:
        return holds(place(answer.data, where), wanted)
    except KeyError:
        return False
