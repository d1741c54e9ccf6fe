"""The judge of jobs: what a job engine did, by the effects of its jobs and by its own tables.

At least once is the promise. An effect that happens twice is counted and shown, and breaks an expectation only where
the engine promises more, or where no fault was injected.

Where the harness stopped to wait although jobs could still change, only what is certain counts: see `_FINAL`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.judges import Judge, compared
from harness.checks.judges.job_history import APPROVE, ENDED, LATE, PARENT, RENEWING, SILENT, Jobs
from harness.checks.judges.job_state import TERMINAL, JobsState
from harness.checks.pauses import TOO_SLOW_S
from harness.job_engines.target_file import Case
from harness.model import Expectation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.model.history import History

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
#: expectations that stay broken for however long the harness waits; of a count, the part that is certain. Only these
#: count where jobs could still change
_FINAL = frozenset(
    (
        *(INSTALLED, NOT_ENQUEUED, LOST, LATE_LOST, LATE_FAILED, UNFINISHED, STATES, TWICE, EXITS, LOOPS, IDLE),
        *(KEPT_BY_FROZEN, EARLY, STALE, AGAIN, RENEWED, ATTEMPTS, FORBIDDEN, UNAPPROVED, WAITED, WINDOWS, ORDER),
        *(ACTOR, CORRELATION, JOB, *LEFT),
    )
)
#: those of them that no lack of connections explains: it delays jobs, breaks attempts and ends programs
_WITHOUT_CONNECTIONS = frozenset(
    (LOST, LATE_LOST, UNFINISHED, STALE, FORBIDDEN, UNAPPROVED, ACTOR, CORRELATION, JOB, *LEFT)
)
#: a job that begins so much later than it does next to the pooler, at the same time, is noticed, seconds
_NOTICED_S = 1.0
#: of the beginning of a job, which follows its claim, and of clocks that are read one after the other
_CLOCK_S = 0.5


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
        jobs.state.states[key] != end and (not jobs.state.unsettled or jobs.state.states[key] in TERMINAL)
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
    yield compared(IDLE, late + (0 if jobs.state.unsettled else never), 0)
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
    if not jobs.state.settings.needs_supervisor:
        yield compared(EXITS, len(jobs.state.exits), 0)
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
    least = {} if jobs.state.unsettled else wanted
    wrong = sum(
        not least.get(key, 0) <= jobs.count(key, "begin") <= wanted[key] + (key in jobs.state.interrupted)
        for key in jobs.state.ends
        if key in wanted and (jobs.count(key, "enqueued") or jobs.count(key, "begin"))
    )
    yield compared(ATTEMPTS, wrong, 0)
    yield from _delivery(jobs)
    yield from _states(jobs)


def _never(jobs: Jobs) -> Iterator[Expectation]:
    """Some jobs must not begin, and those next to them must be done."""
    forbidden = {key for key, end in jobs.state.ends.items() if end in {"cancelled", "never"}}
    forbidden -= jobs.unanswered("cancel")
    if jobs.state.unsettled == "shortage":
        forbidden -= jobs.failed("cancel")
    begun = sum(bool(jobs.count(key, "begin")) for key in forbidden)
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


#: cases in which a fault may end a worker; they look at its exits themselves
_MAY_EXIT = frozenset({Case.FAULTS, Case.CLAIMS})


def _compare(jobs: Jobs) -> Iterator[Expectation]:
    """Yield what a case expects. No worker exits without a fault, even if it is started again and goes on."""
    yield from _CASES[jobs.state.case](jobs)
    if jobs.state.case not in _MAY_EXIT:
        yield compared(EXITS, len(jobs.state.exits), 0)


def _is_certain(name: str, state: JobsState) -> bool:
    """Return whether an expectation counts that does not hold: waiting for longer would not change it."""
    if state.unsettled == "shortage":
        return name in _WITHOUT_CONNECTIONS or (name == TWICE and state.settings.exactly_once)
    return not state.unsettled or name in _FINAL


def judge_jobs(history: History, state: Any) -> tuple[Expectation, ...]:
    """Compare what a job engine did with what its case expects; a documented limit holds, and says so."""
    foreseen = {one.expectation: one.outcome for one in state.foreseen}

    def limited(found: Expectation) -> Expectation:
        outcome = foreseen.get(found.name, foreseen.get(""))
        if found.held or outcome is None:
            return found
        return Expectation(name=found.name, expected=f"documented: {outcome}", observed=found.observed, held=True)

    found = _compare(Jobs(history, state))
    if state.unsettled:  # what holds so far may break later
        found = (one for one in found if not one.held and _is_certain(one.name, state))
    return tuple(map(limited, found))


def settled(history: History, state: JobsState) -> JobsState:
    """Return the final state of a case, settled if connections were missing and everything holds all the same."""
    whole = replace(state, unsettled="", foreseen=())
    if state.unsettled == "shortage" and all(found.held for found in judge_jobs(history, whole)):
        return replace(state, unsettled="")
    return state


#: decides about every case of the suite `jobs`
JOBS_JUDGE = Judge(name="jobs", state=JobsState, judge=judge_jobs)
