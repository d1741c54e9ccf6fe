"""The judge of jobs: what a job engine did, by the effects of its jobs and by its own tables.

The history holds what the harness asked for: jobs enqueued, cancelled, approved, and faults. The final state holds the
effects, which jobs wrote past the pooler, and what the engine says about each job. A job is acknowledged once its
program has reported that its transaction is committed; another one may be there or not, and is not lost.

At least once is the promise. An effect that happens twice is counted and shown, and breaks an expectation only where
the engine promises more, or where no fault was injected.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from harness.checks.judges import Judge, compared
from harness.checks.judges.job_state import Effect, JobsState
from harness.job_engines.target_file import Case
from harness.model import Expectation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.model.history import History

Phase = Literal["enqueued", "begin", "done", "failed", "waiting"]

#: names of expectations that controls break, and that a target's `documented` entries name
INSTALLED = "installed through the chain"
NOT_ENQUEUED = "enqueues that failed"
LOST, LATE_LOST, LATE_FAILED = "jobs lost", "jobs lost that were enqueued after the faults", "late enqueues that failed"
UNFINISHED, STUCK = "jobs begun and never finished", "jobs stuck"
STATES, TWICE = "jobs whose state is another", "jobs done twice"
EXITS, LOOPS = "exits of workers", "workers that exit again and again"
IDLE, SLOWER = "jobs that an idle worker began too late", "slower to begin than next to the pooler"
KEPT_BY_FROZEN, EARLY, STALE, AGAIN = (
    "jobs of a frozen worker that were not taken over",
    "jobs taken over before their lease ended",
    "results of stale workers that counted",
    "jobs begun again after their end",
)
KEPT, RENEWED = "jobs without a heartbeat that were not taken over", "jobs with a heartbeat that were taken over"
ATTEMPTS = "jobs with another number of attempts"
FORBIDDEN = "jobs that began and must not"
UNAPPROVED = "jobs that went on without their approval"
WAITED = "jobs that went on too late after their approval"
WINDOWS, NO_WINDOW = "cron windows with two runs", "cron windows without a run"
ORDER = "parents that ended before their children"
CHANGES, ACTOR, CORRELATION, JOB = (
    "audited changes missing or repeated",
    "audited changes with another actor",
    "audited changes without the correlation",
    "audited changes without the id of the job",
)
LOCKS, TRANSACTIONS, PINNED, STATEMENTS, CHANNELS = (
    "advisory locks left",
    "sessions left in a transaction",
    "server connections that an idle worker keeps",
    "prepared statements left on shared server connections",
    "channels left on shared server connections",
)
#: the names of everything that a worker may leave
LEFT = (LOCKS, TRANSACTIONS, PINNED, STATEMENTS, CHANNELS)
#: what the engine says about a job that it no longer has, and about one whose result counts
DELETED = "deleted"
ENDED = frozenset({"done", DELETED})
#: words for the table, of expectations whose names are long
SHORT = {
    EARLY: "taken over early",
    KEPT_BY_FROZEN: "not taken over",
    STALE: "stale result counts",
    AGAIN: "begun again",
    KEPT: "silent job kept",
    RENEWED: "renewed job taken over",
    STATES: "other states",
    ATTEMPTS: "other attempts",
    FORBIDDEN: "begun, must not",
    UNAPPROVED: "unapproved",
    WINDOWS: "cron twice",
    NO_WINDOW: "no cron",
    ORDER: "parent ends first",
    CHANGES: "changes missing",
    ACTOR: "other actor",
    CORRELATION: "no correlation",
    JOB: "no job id",
    LOCKS: "locks left",
    TRANSACTIONS: "transactions left open",
    PINNED: "connections kept",
    STATEMENTS: "statements left",
    CHANNELS: "channels left",
    LATE_FAILED: "late enqueues failed",
}
#: the keys of jobs of a second worker, which has the same settings and a direct connection, begin here
TWIN = 100
#: operations of the history, by the client that stands for them
ENQUEUE, LATE, WARM_UP, APPROVE = "enqueue", "enqueue late", "warm up", "approve"
#: the jobs of the case of heartbeats: the first one renews its lease, and the second one does not
RENEWING, SILENT = 1, 2
#: the job that starts the others
PARENT = 1
#: operations after which a job exists
_MAKE = frozenset({ENQUEUE, LATE, "fork", "wait"})
#: what a row of the table says where everything is as it should be
WORKS = "works"
#: an idle worker may be later than it promises by this much, since other programs run on the machine, too
_MARGIN_S = 5.0
#: the machine kept the harness itself waiting for this long: nothing about times is shown then, seconds
TOO_SLOW_S = 2.0
#: a job that begins so much later than it does next to the pooler, at the same time, is noticed, seconds
_NOTICED_S = 1.0
#: of the beginning of a job, which follows its claim, and of clocks that are read one after the other
_CLOCK_S = 0.5


class Jobs:
    """The jobs of a history, with the questions that cases ask."""

    def __init__(self, history: History, state: JobsState) -> None:
        self.history = history
        self.state = state
        self.by_key: dict[int, list[Effect]] = defaultdict(list)
        for effect in sorted(state.effects, key=lambda effect: effect.seconds):
            self.by_key[effect.key].append(effect)

    def times(self, key: int, phase: Phase) -> list[float]:
        """Return when a job was in a phase, in order."""
        return [effect.seconds for effect in self.by_key[key] if effect.phase == phase]

    def count(self, key: int, phase: Phase) -> int:
        """Return how often a job was in a phase."""
        return len(self.times(key, phase))

    @cached_property
    def acknowledged(self) -> list[int]:
        """The jobs that must end as `done`, and whose transaction is committed.

        Their program reported it, or the command that made them ended well. Children exist once their parent does.
        """
        made = {int(one.key) for one in self.history.operations if one.operation in _MAKE and one.outcome == "ok"}
        made |= {key for key in self.state.ends if self.count(key, "enqueued")}
        if self.state.case is Case.CHILDREN and PARENT in made:
            made |= self.state.ends.keys()
        return [key for key, end in self.state.ends.items() if end == "done" and key in made]

    @cached_property
    def late(self) -> set[int]:
        """The jobs that were enqueued after the faults."""
        return {int(one.key) for one in self.history.operations if one.operation == LATE}

    @cached_property
    def refused(self) -> list[str]:
        """The errors of the commands that make jobs, and failed before the faults."""
        early = (_MAKE | {WARM_UP}) - {LATE}
        return [one.error for one in self.history.operations if one.operation in early and one.outcome == "fail"]

    def unanswered(self, operation: str) -> set[int]:
        """The jobs whose command of this kind the harness ended: nobody knows what it did."""
        return {
            int(one.key) for one in self.history.operations if one.operation == operation and one.outcome == "unknown"
        }

    @cached_property
    def unfinished(self) -> list[int]:
        """The acknowledged jobs without an effect."""
        return [key for key in self.acknowledged if not self.count(key, "done")]

    def is_held(self, key: int) -> bool:
        """Return whether the engine still holds an unfinished job: it waits, or some worker has it."""
        return self.state.states.get(key) in {"waiting", "running"}

    @cached_property
    def twice(self) -> list[int]:
        """The jobs whose effect happened more than once."""
        return [key for key in self.state.ends if self.count(key, "done") > 1]

    def begun_after_end(self, key: int, lease_s: float, clock_s: float) -> int:
        """Return how often a job began after the worker that held it last was done with it, within its lease.

        A worker that was taken over is done with nothing, and one that needs longer than its lease may be taken over.
        """
        held: Effect | None = None
        ended: float | None = None
        again = 0
        for effect in self.by_key[key]:
            if effect.phase == "begin":
                again += ended is not None and effect.seconds > ended + clock_s
                held = effect
            elif effect.phase == "done" and held and effect.worker == held.worker and ended is None:
                ended = effect.seconds if effect.seconds + clock_s < held.seconds + lease_s else None
        return again

    @cached_property
    def waits(self) -> list[float]:
        """The seconds from the first answer to an approval to the end of its job, for jobs that ended after it."""
        approved: dict[int, float] = {}
        for one in self.history.operations:
            if one.operation == APPROVE and one.outcome == "ok" and one.answered_s is not None:
                approved[int(one.key)] = min(one.answered_s, approved.get(int(one.key), one.answered_s))
        return [max(0.0, done[0] - at) for key, at in approved.items() if (done := self.times(key, "done"))]

    @property
    def promised_s(self) -> float:
        """Within how many seconds an idle worker begins or goes on, as the engine promises it, with a margin."""
        settings = self.state.settings
        # a notification may come with a new job only: one that was approved is then found by the next poll
        promised = max(settings.idle_s, settings.poll_s) if self.state.case is Case.APPROVE else settings.idle_s
        return promised + _MARGIN_S + self.state.pause_s

    @cached_property
    def pick_ups(self) -> list[float]:
        """The seconds from each acknowledged enqueue to the begin of the job."""
        return self._waits_of(self.acknowledged)

    @cached_property
    def twin_pick_ups(self) -> list[float]:
        """The same of the worker with a direct connection."""
        return self._waits_of([key for key in self.by_key if key > TWIN])

    def _waits_of(self, keys: Iterable[int]) -> list[float]:
        return [
            max(0.0, begun[0] - enqueued[0])
            for key in keys
            if (begun := self.times(key, "begin")) and (enqueued := self.times(key, "enqueued"))
        ]


def _enqueued(jobs: Jobs) -> Iterator[Expectation]:
    """Yield whether each job was enqueued before the faults."""
    yield compared(NOT_ENQUEUED, len(jobs.refused), 0)


def _delivery(jobs: Jobs) -> Iterator[Expectation]:
    """Yield whether what was enqueued before the faults has happened."""
    yield from _enqueued(jobs)
    early = [key for key in jobs.unfinished if key not in jobs.late]
    yield compared(LOST, sum(not jobs.is_held(key) and not jobs.count(key, "begin") for key in early), 0)
    begun = sum(not jobs.is_held(key) and bool(jobs.count(key, "begin")) for key in early)
    yield compared(UNFINISHED, begun, 0)
    yield compared(STUCK, sum(jobs.is_held(key) for key in jobs.unfinished), 0)


def _states(jobs: Jobs) -> Iterator[Expectation]:
    """Yield whether the engine says the same as the effects. A job that it has deleted says nothing."""
    wrong = sum(
        jobs.state.states[key] != end
        for key, end in jobs.state.ends.items()
        if key in jobs.state.states
        and end != "never"
        and key not in jobs.unfinished
        and (end != "done" or key in jobs.acknowledged)
        and key not in jobs.unanswered("cancel")
    )
    yield compared(STATES, wrong, 0)


def _works(jobs: Jobs) -> Iterator[Expectation]:
    yield compared(INSTALLED, jobs.state.not_installed or "yes", "yes")
    yield from _delivery(jobs)
    yield from _states(jobs)
    yield compared(TWICE, len(jobs.twice), 0)


def _idle(jobs: Jobs) -> Iterator[Expectation]:
    late = sum(seconds > jobs.promised_s for seconds in jobs.pick_ups)
    never = sum(not jobs.count(key, "begin") for key in jobs.acknowledged)
    yield compared(IDLE, late + never, 0)
    if jobs.twin_pick_ups and jobs.pick_ups:
        expected = max(jobs.state.settings.idle_s, statistics.median(jobs.twin_pick_ups))
        slower = statistics.median(jobs.pick_ups) - expected
        yield compared(SLOWER, int(slower > _NOTICED_S + jobs.state.pause_s), 0)
    yield from _delivery(jobs)
    yield from _enqueued(jobs)


def _faults(jobs: Jobs) -> Iterator[Expectation]:
    yield from _delivery(jobs)
    lost = sum(key in jobs.late and not jobs.is_held(key) for key in jobs.unfinished)
    yield compared(LATE_LOST, lost, 0)
    failed = sum(one.operation == LATE and one.outcome == "fail" for one in jobs.history.operations)
    yield compared(LATE_FAILED, failed, 0)
    yield compared(LOOPS, len(jobs.state.given_up), 0)
    if jobs.state.settings.exactly_once:
        yield compared(TWICE, len(jobs.twice), 0)


def _claims(jobs: Jobs) -> Iterator[Expectation]:
    """A worker was frozen while it ran a job, past its lease; another one took it over, and the first came back."""
    state = jobs.state
    lease_s, clock_s = state.settings.lease_s or 0.0, _CLOCK_S + state.pause_s
    taken_over = [times for key in state.ends if len(times := jobs.times(key, "begin")) > 1]
    yield compared(EARLY, sum(times[1] - times[0] < lease_s - clock_s for times in taken_over), 0)
    if KEPT_BY_FROZEN in state.left:
        yield compared(KEPT_BY_FROZEN, state.left[KEPT_BY_FROZEN], 0)
    yield compared(STALE, sum(found in ENDED for found in state.after_stale.values()), 0)
    yield compared(AGAIN, sum(jobs.begun_after_end(key, lease_s, clock_s) for key in state.ends), 0)
    # the frozen worker may exit once after it: its lease has ended
    begun = [effect.worker for effects in jobs.by_key.values() for effect in effects if effect.phase == "begin"]
    exits = Counter(one.worker for one in state.exits)
    yield compared(EXITS, sum(exits.values()) - min(1, sum(exits[worker] for worker in begun[:1])), 0)
    yield from _delivery(jobs)


def _heartbeat(jobs: Jobs) -> Iterator[Expectation]:
    """Both jobs run longer than the lease."""
    if jobs.state.pause_s <= TOO_SLOW_S:  # where the machine kept a worker from renewing its lease, nothing is shown
        yield compared(RENEWED, int(jobs.count(RENEWING, "begin") > 1), 0)
        if SILENT in jobs.state.ends:
            yield compared(KEPT, int(jobs.count(SILENT, "begin") == 1), 0)
    yield from _delivery(jobs)


def _retries(jobs: Jobs) -> Iterator[Expectation]:
    """Job 1 fails twice, job 2 always, and job 3 once; their worker is killed between two attempts.

    An attempt whose failure the engine had not recorded by then happens once more: it is promised at least once.
    """
    wanted = {1: 3, 2: jobs.state.settings.attempts, 3: 2}
    wrong = sum(
        not wanted[key] <= jobs.count(key, "begin") <= wanted[key] + (key in jobs.state.interrupted)
        for key in jobs.state.ends
        if key in wanted and (jobs.count(key, "enqueued") or jobs.count(key, "begin"))
    )
    yield compared(ATTEMPTS, wrong, 0)
    yield from _delivery(jobs)
    yield from _states(jobs)


def _never(jobs: Jobs) -> Iterator[Expectation]:
    """Some jobs must not begin, and those next to them must be done."""
    forbidden = {key for key, end in jobs.state.ends.items() if end in {"cancelled", "never"}}
    begun = sum(bool(jobs.count(key, "begin")) for key in forbidden - jobs.unanswered("cancel"))
    # a job whose transaction was rolled back is not even in the engine's table
    there = sum(end == "never" and key in jobs.state.states for key, end in jobs.state.ends.items())
    yield compared(FORBIDDEN, begun + there, 0)
    yield from _delivery(jobs)
    yield from _states(jobs)


def _approve(jobs: Jobs) -> Iterator[Expectation]:
    """Each job waits for an approval, which is delivered twice at the same time."""
    approved = {int(one.key): one.invoked_s for one in jobs.history.operations if one.operation == APPROVE}
    before = sum(
        key not in approved or done < approved[key] - _CLOCK_S
        for key in jobs.state.ends
        for done in jobs.times(key, "done")
    )
    yield compared(UNAPPROVED, before, 0)
    yield compared(WAITED, sum(seconds > jobs.promised_s for seconds in jobs.waits), 0)
    yield compared(TWICE, len(jobs.twice), 0)
    yield from _delivery(jobs)


def _cron(jobs: Jobs) -> Iterator[Expectation]:
    """Two schedulers; each run of the schedule carries its window as the attempt."""
    windows = Counter(effect.attempt for effect in jobs.state.effects if effect.phase == "begin")
    yield compared(WINDOWS, sum(runs > 1 for runs in windows.values()), 0)
    if not jobs.unanswered("schedule"):
        yield compared(NO_WINDOW, int(not windows), 0)


def _children(jobs: Jobs) -> Iterator[Expectation]:
    """One job starts the others, and is done after them."""
    ended = max(
        (jobs.times(key, "done")[0] for key in jobs.state.ends if key != PARENT and jobs.count(key, "done")), default=0
    )
    done = jobs.times(PARENT, "done")
    yield compared(ORDER, int(bool(done) and done[0] < ended - _CLOCK_S), 0)
    yield compared(TWICE, len(jobs.twice), 0)
    yield from _delivery(jobs)


def _once(jobs: Jobs) -> Iterator[Expectation]:
    yield compared(TWICE, len(jobs.twice), 0)
    yield from _delivery(jobs)


def _audited(jobs: Jobs) -> Iterator[Expectation]:
    """Job 1 succeeds at once, and job 2 in its second attempt; each attempt writes one audited change."""
    changes, state = jobs.state.changes, jobs.state
    found = Counter(change.key for change in changes)
    yield compared(CHANGES, sum(found[key] != jobs.count(key, "begin") for key in state.ends), 0)
    yield compared(ACTOR, sum(change.actor != state.actor for change in changes), 0)
    yield compared(CORRELATION, sum(change.correlation != state.correlation for change in changes), 0)
    ids = {effect.key: effect.job for effect in state.effects if effect.phase == "begin"}
    yield compared(JOB, sum(not change.job or change.job != ids.get(change.key) for change in changes), 0)
    yield from _delivery(jobs)


def _leaves_nothing(jobs: Jobs) -> Iterator[Expectation]:
    for name in LEFT:
        if name in jobs.state.left:
            yield compared(name, jobs.state.left[name], 0)
    yield from _enqueued(jobs)


_CASES: dict[Case, Callable[[Jobs], Iterator[Expectation]]] = {
    Case.WORKS: _works,
    Case.IDLE: _idle,
    Case.FAULTS: _faults,
    Case.CLAIMS: _claims,
    Case.HEARTBEAT: _heartbeat,
    Case.RETRIES: _retries,
    Case.CANCEL: _never,
    Case.APPROVE: _approve,
    Case.CRON: _cron,
    Case.FORK: _once,
    Case.CHILDREN: _children,
    Case.TRANSACTION: _never,
    Case.AUDITED: _audited,
    Case.LEAVES_NOTHING: _leaves_nothing,
}


#: cases in which a fault may end a worker; that of claims looks at its exits itself
_MAY_EXIT = frozenset({Case.FAULTS, Case.CLAIMS})


def _compare(jobs: Jobs) -> Iterator[Expectation]:
    """Yield what a case expects. No worker exits without a fault, even if it is started again and goes on."""
    yield from _CASES[jobs.state.case](jobs)
    if jobs.state.case not in _MAY_EXIT:
        yield compared(EXITS, len(jobs.state.exits), 0)


def judge_jobs(history: History, state: Any) -> tuple[Expectation, ...]:
    """Compare what a job engine did with what its case expects; a documented limit holds, and says so."""
    foreseen = {one.expectation: one.outcome for one in state.foreseen}

    def limited(found: Expectation) -> Expectation:
        outcome = foreseen.get(found.name, foreseen.get(""))
        if found.held or outcome is None:
            return found
        return Expectation(name=found.name, expected=f"documented: {outcome}", observed=found.observed, held=True)

    return tuple(limited(found) for found in _compare(Jobs(history, state)))


#: decides about every case of the suite `jobs`
JOBS_JUDGE = Judge(name="jobs", state=JobsState, judge=judge_jobs)
