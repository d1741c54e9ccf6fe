"""A job engine under test in one check: the jobs that it is asked for, and what it did with them."""

from __future__ import annotations

import contextlib
import time
from threading import Lock
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import APPROVE, ENQUEUE, TWIN, WARM_UP
from harness.checks.judges.job_state import Effect
from harness.checks.pauses import TOO_SLOW_S
from harness.checks.record import NotExercisedError
from harness.database import fetch
from harness.errors import TimedOutError
from harness.suites.jobs.effects import keys_of, progress_of
from harness.suites.jobs.programs import PAYLOAD, WORKERS, Programs, tail_of, why_failed
from harness.suites.jobs.states import read_states
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.checks.judges.job_state import AuditedChange, End, Unsettled
    from harness.database import Client
    from harness.host.command import CommandResult
    from harness.job_engines.loading import JobEngine
    from harness.job_engines.target_file import Case
    from harness.model.history import Outcome
    from harness.store import Journal

#: between two looks at the effects, seconds
_LOOK_S = 0.05
#: how long anything is awaited under a control that keeps it from happening, seconds
_IN_VAIN_S = 12.0
#: a worker begins its first job within, seconds: it starts, imports its packages, and connects
STARTS_S = 30.0
#: an idle worker is awaited for the longest poll that any engine here falls back to, seconds
LONGEST_POLL_S = 40.0
#: added to what an engine's settings need, seconds; no case waits for jobs longer than this, seconds
_MARGIN_S, _LONGEST_WAIT_S = 8.0, 90.0
#: an engine records what a job did within, seconds
SETTLES_S = 10.0
#: a job may begin so many times more than the engine has attempts: faults and takeovers are not always counted
_MORE_BEGINS = 3
#: a longer lease is not awaited, seconds
LONGEST_LEASE_S = 15.0


class JobRun(Programs):
    """One job engine in one check."""

    def __init__(self, ctx: CheckContext, engine: JobEngine, variant: str, case: Case) -> None:
        """Install the packages of the engine.

        :raises NotExercisedError: when they cannot be installed here.
        """
        super().__init__(ctx, engine, variant)
        self.case = case
        #: how each job has to end, by key
        self.ends: dict[int, End] = {}
        self.after_stale: dict[int, str] = {}
        self.interrupted: tuple[int, ...] = ()
        self.left: dict[str, int] = {}
        self.changes: tuple[AuditedChange, ...] = ()
        #: how long nothing had happened when the last wait ended, seconds
        self.waited_s = 0.0
        #: how much had happened, and when the last of it was seen, or the harness did something
        self._progressed, self._changed = 0, time.monotonic()
        #: why the last wait ended although jobs were being done; "" if it did not
        self.not_awaited = ""
        #: why the first command without an answer ended; "" if each one has an answer
        self.without_answer = ""
        self._began = self.effects_database.value("SELECT clock_timestamp()")
        self._journal: Journal | None = None
        #: jobs whose command failed, or did not end: nobody waits for them
        self._unanswered: set[int] = set()
        #: the last number of each operation
        self._numbers: dict[str, int] = {}
        self._numbering = Lock()

    # --- jobs --------------------------------------------------------------------------------------

    def record(self, journal: Journal) -> None:
        """Write operations to this history from now on."""
        self._journal = journal

    def plan(
        self, key: int, *, seconds: float = 0.0, failures: int = 0, heartbeat: bool = False, sql: str = ""
    ) -> None:
        """Say what a job does."""
        self.effects_database.run(
            "INSERT INTO plan (key, seconds, failures, heartbeat, sql) VALUES (%s, %s, %s, %s, %s)",
            [key, seconds, failures, heartbeat, sql],
        )

    def expect(self, end: End, *keys: int) -> None:
        """Say how jobs have to end."""
        self.ends |= dict.fromkeys(keys, end)

    def enqueue(self, first: int, last: int, operation: str = ENQUEUE) -> CommandResult:
        """Enqueue jobs that have to be done."""
        keys = range(first, last + 1)
        self.expect("done", *(key for key in keys if key not in self.ends))
        return self.operate(operation, "enqueue", *keys, first=first, last=last)

    def operate(self, operation: str, which: str, *keys: int, **values: object) -> CommandResult:
        """Run a command about some jobs, and record it as an operation for each of them."""
        journal = self._journal
        numbers = [self._number(operation) for _ in keys]
        if journal:
            for key, number in zip(keys, numbers, strict=True):
                journal.invoke(_client(operation), number, operation, key=str(key))
        found = self.command(which, values)
        self._changed = time.monotonic()
        reported = keys_of(self.effects(), "enqueued")
        if found.exit_code != 0:
            self.ctx.fact(f"output of {operation}", tail_of(found))
        if journal:
            for key, number in zip(keys, numbers, strict=True):
                done = found.exit_code == 0 or (which == "enqueue" and key in reported)
                outcome: Outcome = "ok" if done else "unknown" if found.exit_code is None else "fail"
                journal.answer(_client(operation), number, outcome, "" if done else why_failed(found))
                if not done:
                    # an engine may refuse the second approval; the job goes on after the first one
                    self._unanswered |= set() if operation == APPROVE else {key}
                    if found.exit_code is None and not self.without_answer:
                        self.without_answer = f"the command `{which}` of job {key} {found.reason}"
        return found

    def warm_up(self) -> bool:
        """Start the first worker, and return whether it has done a job that the case does not count."""
        self.start_worker(WORKERS[0])
        found = self.operate(WARM_UP, "enqueue", 0, first=0, last=0)
        if found.exit_code == 0 and self.wait_for_phase(0, "done", STARTS_S + LONGEST_POLL_S):
            return True
        self.expect("done", 0)
        return False

    def warm_up_twin(self) -> bool:
        """Return whether the twin has done a job that the case does not count."""
        self.enqueue_for_twin(TWIN)
        return self.wait_for_phase(TWIN, "done", STARTS_S + LONGEST_POLL_S)

    def enqueue_for_twin(self, key: int) -> None:
        """Enqueue a job for the twin, on its direct connection."""
        self.command("enqueue", {"first": key, "last": key}, chain=False, database=self.twin_database)

    def _number(self, operation: str) -> int:
        with self._numbering:  # two approvals run at the same time
            self._numbers[operation] = self._numbers.get(operation, 0) + 1
            return self._numbers[operation]

    # --- observations ------------------------------------------------------------------------------

    def effects(self) -> tuple[Effect, ...]:
        """Return all effects so far, in their order."""
        rows = fetch(
            self.effects_database,
            "SELECT extract(epoch FROM at - %s)::float8, key, phase, worker, attempt, job FROM effects ORDER BY id",
            [self._began],
        )
        return tuple(
            Effect(seconds=round(seconds, 3), key=key, phase=phase, worker=worker, attempt=attempt, job=job)
            for seconds, key, phase, worker, attempt, job in rows
        )

    def states(self, admin: Client | None = None) -> dict[int, str]:
        """Return what the engine says about each job.

        :param admin: a connection to its database, for many looks in a short time.
        :raises NotExercisedError: when the target's query fails, or returns other words.
        """
        if admin is None:
            with self.ctx.lab.connect_admin(self.database) as made:
                return self.states(made)
        return read_states(admin, self.ctx.engine_states or self.engine.file.sql.state)

    def lost_payloads(self) -> tuple[int, ...]:
        """Return the jobs that began without what they were enqueued with, by key."""
        rows = fetch(
            self.effects_database,
            "SELECT DISTINCT key FROM effects WHERE phase = 'begin' AND NOT coalesce(payload @> %s::jsonb, false) "
            "ORDER BY key",
            [PAYLOAD],
        )
        return tuple(key for (key,) in rows)

    def wait(
        self,
        condition: Callable[[tuple[Effect, ...]], bool],
        what: str,
        deadline_s: float,
        interval_s: float = _LOOK_S,
    ) -> bool:
        """Wait until a condition on the effects holds, and return whether it does in time.

        :param interval_s: the first pause between two looks, seconds; it grows to ten times that.
        """
        if self.ends and self.ends.keys() <= self._unanswered:
            return condition(self.effects())  # no job was enqueued, so none begins

        def seen() -> None:
            self.ctx.require_undisturbed()
            stopped, effects = self.none_works, self.effects()
            self._note(effects)
            if not condition(effects):
                if stopped:
                    raise TimedOutError(f"no worker runs any more, waiting for {what}")
                raise NotYet(what)

        try:
            poll(seen, what=what, deadline_s=min(deadline_s, self._longest_wait_s), interval_s=interval_s)
        except TimedOutError:
            return False
        return True

    def wait_until_done(
        self, *keys: int, quiet_s: float = 0.0, look: Callable[[tuple[Effect, ...]], bool] | None = None
    ) -> bool:
        """Wait until jobs are done, as long as there is progress, and return whether they are.

        :param keys: those that are awaited; by default all that have to be done.
        :param quiet_s: how long nothing may happen, seconds; by default what the engine's own settings need.
        :param look: called with the effects at each look; returns whether to go on.
        """
        wanted = set(keys) or {key for key, end in self.ends.items() if end == "done"}
        wanted -= self._unanswered
        self._changed = time.monotonic()
        return self._wait_until_done(wanted, quiet_s, look)

    def wait_for_the_rest(self) -> None:
        """Wait until jobs are done, or nothing has happened for long enough, in a case that ended early."""
        wanted = {key for key, end in self.ends.items() if end == "done"} - self._unanswered
        if self.has_workers:
            with contextlib.suppress(NotExercisedError):  # the case has its reason
                self._wait_until_done(wanted)

    def _wait_until_done(
        self, wanted: set[int], quiet_s: float = 0.0, look: Callable[[tuple[Effect, ...]], bool] | None = None
    ) -> bool:
        began = time.monotonic()
        while True:
            effects, now = self.effects(), time.monotonic()
            self._note(effects)
            goes_on = look is None or look(effects)
            goes_on = goes_on and not self.none_works
            if done := wanted <= keys_of(effects, "done"):
                break
            begun = bool(keys_of(effects, "begin"))
            quiet = quiet_s or (self.patience_s if begun else STARTS_S)
            if not goes_on or now - self._changed > min(quiet, self._longest_wait_s):
                break
            if now - began > _LONGEST_WAIT_S:
                self.not_awaited = (
                    f"jobs were still being done after {_LONGEST_WAIT_S:g} s, and the rest was not awaited"
                )
                break
            self.ctx.let_pass(_LOOK_S)
        self.waited_s = time.monotonic() - self._changed
        return done

    def _note(self, effects: tuple[Effect, ...]) -> None:
        """Note when there was progress."""
        # where the machine keeps workers waiting, their leases end, and jobs begin once more
        most = self.settings.attempts + _MORE_BEGINS if self.pauses.longest_s <= TOO_SLOW_S else None
        if (progress := len(self.exits) + progress_of(effects, most)) != self._progressed:
            self._progressed, self._changed = progress, time.monotonic()

    @property
    def _longest_wait_s(self) -> float:
        return _IN_VAIN_S if self.ctx.awaited_in_vain else _LONGEST_WAIT_S

    def wait_for_phase(self, key: int, phase: str, deadline_s: float, times: int = 1) -> bool:
        """Wait until a job was in a phase so many times."""
        return self.wait(
            lambda effects: sum(effect.key == key and effect.phase == phase for effect in effects) >= times,
            f"{phase} of job {key}",
            deadline_s,
        )

    def wait_for_phase_of(self, key: int, phase: str, worker: str, deadline_s: float) -> bool:
        """Wait until one worker reported a phase of a job."""
        return self.wait(
            lambda effects: any((one.key, one.phase, one.worker) == (key, phase, worker) for one in effects),
            f"{phase} of job {key} by {worker}",
            deadline_s,
        )

    def was_in_phase(self, key: int, phase: str, worker: str) -> bool:
        """Return whether a worker has reported a phase of a job."""
        return any((one.key, one.phase, one.worker) == (key, phase, worker) for one in self.effects())

    def wait_for_state(self, key: int, state: str, deadline_s: float) -> bool:
        """Wait until the engine says so about a job, or has deleted it."""
        return self.wait(
            lambda _effects: self.states().get(key, state) == state, f"job {key} to be {state}", deadline_s
        )

    def wait_for_ends(self, deadline_s: float) -> bool:
        """Wait until the engine says how each job ended: it may do so after the effect."""
        ends = {key: end for key, end in self.ends.items() if end != "never" and key not in self._unanswered}

        def agree(_effects: tuple[Effect, ...]) -> bool:
            states = self.states()
            return all(states.get(key, end) == end for key, end in ends.items())

        return self.wait(agree, "the engine to report how jobs ended", deadline_s)

    @property
    def is_done(self) -> bool:
        """Whether all jobs that have to be done are."""
        done = keys_of(self.effects(), "done")
        wanted = {key for key, end in self.ends.items() if end == "done"}
        return not self._unanswered and bool(wanted) and wanted <= done

    def unsettled(self) -> tuple[Unsettled, str]:
        """Return why jobs can still change, in a word for the judge and in a sentence; both are "" if they cannot."""
        if shortage := self.shortage:
            return "shortage", shortage
        return ("progress", self.not_awaited) if self.not_awaited and not self.is_done else ("", "")

    def fault(self, number: int, name: str, inject: Callable[[JobRun], str]) -> None:
        """Inject a fault, and record it in the history."""
        if self._journal is None:
            raise NotExercisedError("no history can be kept here")
        self._journal.fault(number, name, "inject")
        effect = inject(self)
        for step in ("injected", "heal", "healed"):
            self._journal.fault(number, name, step, effect if step == "injected" else "")
        self._changed = time.monotonic()

    @property
    def patience_s(self) -> float:
        """How long nothing may happen before jobs are taken as stuck, seconds: lease, poll, later attempt, and a margin.

        A lease that nobody would wait for is not awaited.
        """
        settings = self.settings
        lease_s = settings.lease_s if settings.lease_s and settings.lease_s <= LONGEST_LEASE_S else 0.0
        return lease_s + 2 * settings.poll_s + settings.backoff_s + _MARGIN_S


def _client(operation: str) -> int:
    """Return the client of the history that stands for an operation: its numbers are its own."""
    return sum(operation.encode())
