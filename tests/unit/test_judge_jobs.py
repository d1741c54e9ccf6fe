"""The judge of jobs: a sound course of each case holds, and each single mutation breaks the expectation that names it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from harness.checks.judges import jobs as judged
from harness.checks.judges.job_history import ENQUEUE, LATE, TWIN, WARM_UP
from harness.checks.judges.job_state import AuditedChange, Effect, ExitedWorker, Foreseen, JobsState
from harness.checks.judges.job_words import outcome
from harness.checks.judges.jobs import judge_jobs, settled
from harness.job_engines.target_file import Case, Settings
from harness.model.history import History, Opening, Operation
from tests.tables import each_row

OPENING = Opening(topology="transaction", check="jobs.an-engine", judge="jobs", started_at="2026-11-28T12:00:00Z")
SETTINGS = Settings(lease_s=3, poll_s=1, idle_s=1, attempts=3)


def operation(name: str, key: int, *, seq: int = 1, at_s: float = 0.0, result: Any = "ok") -> Operation:
    return Operation(
        client=1,
        seq=seq,
        operation=name,
        key=str(key),
        value="",
        actor="",
        invoked_s=at_s,
        outcome=result,
        answered_s=None if result == "unknown" else at_s,
    )


def course(key: int, *phases: tuple[str, float], worker: str = "a", job: str = "") -> tuple[Effect, ...]:
    return tuple(
        Effect(seconds=seconds, key=key, phase=phase, worker=worker, job=job or f"job-{key}")
        for phase, seconds in phases
    )


def done(key: int, at_s: float = 1.0) -> tuple[Effect, ...]:
    return course(key, ("enqueued", 0.0), ("begin", at_s), ("done", at_s + 0.1))


def sound(case: Case) -> tuple[History, JobsState]:
    """Return a course of a case in which everything is as it should be."""
    history = History(opening=OPENING, complete=True)
    state = JobsState(case=case, settings=SETTINGS, ends={1: "done", 2: "done"}, effects=done(1) + done(2))
    match case:
        case Case.FAULTS:
            history = replace(history, operations=(operation(LATE, 2, at_s=5.0),))
        case Case.CLAIMS:
            taken_over = course(1, ("enqueued", 0.0), ("begin", 1.0), ("done", 4.2)) + course(
                1, ("begin", 4.1), ("done", 5.6), worker="b"
            )
            state = replace(state, ends={1: "done"}, effects=taken_over, after_stale={1: "running"})
        case Case.HEARTBEAT:
            state = replace(state, effects=done(1) + done(2) + course(2, ("begin", 4.5)))
        case Case.RETRIES:
            first = course(1, ("enqueued", 0.0), *(("begin", at) for at in (1.0, 2.0, 3.0)), ("done", 3.1))
            always = course(2, ("enqueued", 0.0), *(("begin", at) for at in (1.0, 2.0, 3.0)))
            third = course(3, ("enqueued", 0.0), ("begin", 1.0), ("begin", 2.0), ("done", 2.1))
            ends = {1: "done", 2: "failed", 3: "done"}
            state = replace(
                state, ends=ends, effects=first + always + third, states={1: "done", 2: "failed", 3: "done"}
            )
        case Case.CANCEL:
            state = replace(state, ends={1: "cancelled", 2: "done"}, effects=course(1, ("enqueued", 0.0)) + done(2))
        case Case.TRANSACTION:
            state = replace(state, ends={1: "never", 2: "done"}, effects=done(2))
        case Case.APPROVE:
            history = replace(history, operations=(operation("approve", 1, at_s=0.9),))
            state = replace(state, ends={1: "done"}, effects=done(1))
        case Case.CRON:
            runs = tuple(
                replace(effect, attempt=number) for number in (1, 2) for effect in course(1, ("begin", number))
            )
            state = replace(state, ends={1: "never"}, effects=runs)
        case Case.CHILDREN:
            state = replace(state, effects=done(1, 3.0) + done(2, 1.0))
        case Case.AUDITED:
            changes = tuple(AuditedChange(key=key, actor="ada", correlation="c", job=f"job-{key}") for key in (1, 2))
            state = replace(state, changes=changes, actor="ada", correlation="c")
        case Case.LEAVES_NOTHING:
            state = replace(state, ends={}, effects=(), left=dict.fromkeys(judged.LEFT, 0))
    return history, state


def broken(history: History, state: JobsState) -> set[str]:
    return {found.name for found in judge_jobs(history, state) if not found.held}


def without(state: JobsState, key: int, *phases: str) -> JobsState:
    kept = tuple(effect for effect in state.effects if effect.key != key or effect.phase not in phases)
    return replace(state, effects=kept)


def more(state: JobsState, *effects: Effect) -> JobsState:
    return replace(state, effects=(*state.effects, *effects))


@pytest.mark.parametrize(
    ("pause_s", "expected"), [(0.0, {judged.EARLY}), (2.0, set())], ids=["responsive machine", "slow machine"]
)
def test_a_pause_of_the_machine_shortens_no_lease(pause_s: float, expected: set[str]) -> None:
    history, state = sound(Case.CLAIMS)
    early = without(state, 1, "begin", "done"), course(1, ("begin", 1.0), ("begin", 2.5)) + course(1, ("done", 3.0))
    assert broken(history, replace(more(*early[:1], *early[1]), pause_s=pause_s)) == expected


def test_a_job_that_outlasts_its_lease_may_be_taken_over_again() -> None:
    history, state = sound(Case.CLAIMS)
    slow = course(1, ("begin", 4.1), ("done", 7.3), worker="b") + course(1, ("begin", 8.2), worker="a")
    assert broken(history, more(without(state, 1, "done", "begin"), *course(1, ("begin", 1.0)), *slow)) == set()


@each_row("case", Case)
def test_a_sound_course_holds(case: Case) -> None:
    history, state = sound(case)
    assert judge_jobs(history, state)
    assert broken(history, state) == set()
    assert outcome(history, state, judge_jobs(history, state)) == "works"


MUTATIONS = [
    (Case.WORKS, judged.INSTALLED, lambda state: replace(state, not_installed="08P01: no transaction blocks")),
    (Case.WORKS, judged.LOST, lambda state: without(state, 1, "begin", "done")),
    (Case.WORKS, judged.UNFINISHED, lambda state: without(state, 1, "done")),
    (Case.WORKS, judged.STUCK, lambda state: replace(without(state, 1, "done"), states={1: "running"})),
    (Case.WORKS, judged.STATES, lambda state: replace(state, states={1: "failed"})),
    (Case.WORKS, judged.TWICE, lambda state: more(state, *course(1, ("done", 2.0)))),
    *(
        (case, judged.EXITS, lambda state: replace(state, exits=(ExitedWorker(worker="a", code=1, seconds=1.0),)))
        for case in Case
        if case not in {Case.FAULTS, Case.CLAIMS}
    ),
    (Case.IDLE, judged.IDLE, lambda state: replace(state, effects=done(1) + done(2, 27.2))),
    (Case.IDLE, judged.IDLE, lambda state: without(state, 1, "begin", "done")),
    (
        Case.IDLE,
        judged.SLOWER,
        lambda state: replace(state, effects=done(1, 2.6) + done(2, 2.7) + done(TWIN + 1, 0.1)),
    ),
    (Case.FAULTS, judged.LATE_LOST, lambda state: without(state, 2, "begin", "done")),
    (Case.FAULTS, judged.LOOPS, lambda state: replace(state, given_up=("a",))),
    (
        Case.FAULTS,
        judged.TWICE,
        lambda state: replace(more(state, *course(1, ("done", 2.0))), settings=replace(SETTINGS, exactly_once=True)),
    ),
    (
        Case.CLAIMS,
        judged.EARLY,
        lambda state: more(without(state, 1, "begin"), *course(1, ("begin", 1.0), ("begin", 2.0))),
    ),
    (Case.CLAIMS, judged.KEPT_BY_FROZEN, lambda state: replace(state, left={judged.KEPT_BY_FROZEN: 1})),
    (
        Case.CLAIMS,
        judged.EARLY,
        lambda state: more(without(state, 1, "begin"), *course(1, ("begin", 1.0), ("begin", 2.0))),
    ),
    (Case.CLAIMS, judged.STALE, lambda state: replace(state, after_stale={1: "done"})),
    # an engine that deletes a job when it is done deleted it while another worker ran it
    (Case.CLAIMS, judged.STALE, lambda state: replace(state, after_stale={1: "deleted"})),
    (Case.CLAIMS, judged.AGAIN, lambda state: more(state, *course(1, ("begin", 9.0)))),
    (Case.HEARTBEAT, judged.RENEWED, lambda state: more(state, *course(1, ("begin", 4.5)))),
    (Case.HEARTBEAT, judged.KEPT, lambda state: replace(state, effects=done(1) + done(2))),
    (Case.RETRIES, judged.ATTEMPTS, lambda state: more(state, *course(2, ("begin", 4.0)))),
    (Case.RETRIES, judged.STATES, lambda state: replace(state, states={2: "done"})),
    (Case.CANCEL, judged.FORBIDDEN, lambda state: more(state, *course(1, ("begin", 1.0)))),
    (Case.CANCEL, judged.STATES, lambda state: replace(state, states={1: "waiting"})),
    (Case.TRANSACTION, judged.FORBIDDEN, lambda state: more(state, *course(1, ("begin", 1.0)))),
    (Case.APPROVE, judged.UNAPPROVED, lambda state: replace(state, effects=done(1, 0.1))),
    (Case.APPROVE, judged.WAITED, lambda state: replace(state, effects=done(1, 61.0))),
    (Case.APPROVE, judged.TWICE, lambda state: more(state, *course(1, ("done", 2.0)))),
    (Case.CRON, judged.WINDOWS, lambda state: more(state, replace(state.effects[0], worker="b"))),
    (Case.CRON, judged.NO_WINDOW, lambda state: replace(state, effects=())),
    (Case.FORK, judged.TWICE, lambda state: more(state, *course(2, ("done", 2.0)))),
    (Case.CHILDREN, judged.ORDER, lambda state: replace(state, effects=done(1, 1.0) + done(2, 3.0))),
    (Case.AUDITED, judged.CHANGES, lambda state: replace(state, changes=state.changes[:1])),
    (Case.AUDITED, judged.ACTOR, lambda state: replace(state, actor="bob")),
    (Case.AUDITED, judged.CORRELATION, lambda state: replace(state, correlation="d")),
    (
        Case.AUDITED,
        judged.JOB,
        lambda state: replace(state, changes=tuple(replace(one, job="") for one in state.changes)),
    ),
    *(
        (Case.LEAVES_NOTHING, name, lambda state, name=name: replace(state, left={**state.left, name: 1}))
        for name in judged.LEFT
    ),
]


@each_row(("case", "name", "mutate"), MUTATIONS)
def test_a_mutation_breaks_the_expectation_that_names_it(case: Case, name: str, mutate: Any) -> None:
    history, state = sound(case)
    mutated = mutate(state)
    assert name in broken(history, mutated)
    assert outcome(history, mutated, judge_jobs(history, mutated)) != "works"


def test_an_attempt_that_the_engine_had_not_recorded_when_its_worker_was_killed_happens_once_more() -> None:
    history, state = sound(Case.RETRIES)
    again = more(state, *course(2, ("begin", 9.0), ("failed", 9.1)))
    assert broken(history, again) == {judged.ATTEMPTS}
    assert not broken(history, replace(again, interrupted=(2,)))
    assert broken(history, replace(more(again, *course(2, ("begin", 9.5))), interrupted=(2,))) == {judged.ATTEMPTS}


def test_a_late_enqueue_that_fails_is_an_issue_and_one_without_an_answer_is_not() -> None:
    history, state = sound(Case.FAULTS)
    for result, expected in (("fail", {judged.LATE_FAILED}), ("unknown", set())):
        late = replace(history, operations=(operation(LATE, 2, result=result),))
        assert broken(late, without(state, 2, "enqueued", "begin", "done")) == expected


def test_an_enqueue_that_fails_without_a_fault_is_an_issue() -> None:
    history, state = sound(Case.WORKS)
    refused = replace(operation(ENQUEUE, 1, result="fail"), error="08P01: transaction blocks not allowed")
    failed = replace(history, operations=(refused,))
    without_it = without(state, 1, "enqueued", "begin", "done")
    assert broken(failed, without_it) == {judged.NOT_ENQUEUED}
    assert outcome(failed, without_it, judge_jobs(failed, without_it)) == "cannot enqueue 1 (08P01)"


@pytest.mark.parametrize("case", [Case.IDLE, Case.LEAVES_NOTHING])
def test_a_worker_that_cannot_be_given_a_job_shows_nothing(case: Case) -> None:
    history, state = sound(case)
    failed = replace(history, operations=(operation(WARM_UP, 0, result="fail"),))
    assert broken(failed, state) == {judged.NOT_ENQUEUED}


@pytest.mark.parametrize(("case", "name"), [(Case.FORK, "fork"), (Case.APPROVE, "wait")])
def test_a_job_that_cannot_be_made_is_an_issue(case: Case, name: str) -> None:
    history, state = sound(case)
    refused = replace(history, operations=(*history.operations, operation(name, 2, seq=9, result="fail")))
    assert broken(refused, state) == {judged.NOT_ENQUEUED}


def test_a_job_of_a_transaction_that_was_rolled_back_is_not_in_the_engine_s_table() -> None:
    history, state = sound(Case.TRANSACTION)
    assert broken(history, replace(state, states={1: "waiting"})) == {judged.FORBIDDEN}


def test_nothing_follows_from_a_cancellation_that_the_harness_ended() -> None:
    history, state = sound(Case.CANCEL)
    unknown = replace(history, operations=(operation("cancel", 1, result="unknown"),))
    assert broken(unknown, replace(more(state, *course(1, ("begin", 1.0))), states={1: "done"})) == set()


def test_on_a_machine_that_was_too_slow_nothing_is_said_about_heartbeats() -> None:
    history, state = sound(Case.HEARTBEAT)
    slow = more(replace(state, pause_s=9.0), *course(1, ("begin", 4.5)))
    assert broken(history, slow) == set()


def test_the_worker_that_was_frozen_may_exit_once() -> None:
    history, state = sound(Case.CLAIMS)
    once = ExitedWorker(worker="a", code=1, seconds=5.0)
    assert broken(history, replace(state, exits=(once,))) == set()
    assert broken(history, replace(state, exits=(once, once))) == {judged.EXITS}


def test_a_job_that_was_not_acknowledged_is_not_lost() -> None:
    history, state = sound(Case.FAULTS)
    assert broken(history, without(state, 1, "enqueued", "begin", "done")) == set()


def test_a_double_under_faults_is_shown_and_is_no_issue() -> None:
    history, state = sound(Case.FAULTS)
    twice = more(state, *course(1, ("done", 2.0)))
    assert broken(history, twice) == set()
    assert outcome(history, twice, judge_jobs(history, twice)) == "twice 1"


def test_a_documented_limit_holds_and_says_so() -> None:
    history, state = sound(Case.IDLE)
    limited = replace(
        state, effects=done(1) + done(2, 27.2), foreseen=(Foreseen(expectation=judged.IDLE, outcome="LISTEN is lost"),)
    )
    found = judge_jobs(history, limited)[0]
    assert (found.held, found.expected, found.observed) == (True, "documented: LISTEN is lost", "1")
    assert outcome(history, limited, (found,)) == "idle 27 s"


@pytest.mark.parametrize("case", [Case.FAULTS, Case.CLAIMS])
def test_a_worker_may_exit_after_a_fault(case: Case) -> None:
    history, state = sound(case)
    exits = (ExitedWorker(worker="a", code=1, seconds=1.0, sqlstates=("57P01",)),)
    assert broken(history, replace(state, exits=exits)) == set()


def test_a_worker_that_needs_no_supervisor_does_not_exit_after_a_fault() -> None:
    history, state = sound(Case.FAULTS)
    promised = replace(state, settings=replace(state.settings, needs_supervisor=False))
    assert broken(history, promised) == set()
    exits = (ExitedWorker(worker="a", code=1, seconds=1.0, sqlstates=("57P01",)),)
    assert broken(history, replace(promised, exits=exits)) == {judged.EXITS}


def test_a_worker_that_was_not_frozen_does_not_exit() -> None:
    history, state = sound(Case.CLAIMS)
    exits = (ExitedWorker(worker="b", code=1, seconds=1.0, sqlstates=("42P05",)),)
    assert broken(history, replace(state, exits=exits)) == {judged.EXITS}


def test_a_job_that_is_as_late_next_to_the_pooler_is_no_finding() -> None:
    history, state = sound(Case.IDLE)
    twin = done(TWIN + 1, 2.5) + done(TWIN + 2, 2.4)
    assert broken(history, replace(state, effects=done(1, 2.6) + done(2, 2.7) + twin)) == set()


@pytest.mark.parametrize(
    ("twin_s", "pause_s", "word"),
    [(0.0, 0.0, "begins 0.6 s later"), (0.0, 0.4, "works"), (0.4, 0.0, "works"), (2.0, 0.0, "works")],
)
def test_a_pooler_that_costs_less_than_the_margin_is_named_by_the_median(
    twin_s: float, pause_s: float, word: str
) -> None:
    history, state = sound(Case.IDLE)
    effects = done(1, 0.6) + done(2, 0.6) + done(TWIN + 1, twin_s) + done(TWIN + 2, twin_s)
    later = replace(state, effects=effects, pause_s=pause_s)
    assert broken(history, later) == set()
    assert outcome(history, later, judge_jobs(history, later)) == word


def test_a_long_lease_is_named_where_jobs_are_stuck() -> None:
    history, state = sound(Case.FAULTS)
    stuck = replace(
        without(state, 1, "done"), states={1: "running"}, settings=replace(SETTINGS, lease_s=14_400), waited_s=40
    )
    assert broken(history, stuck) == {judged.STUCK}
    assert outcome(history, stuck, judge_jobs(history, stuck)) == "stuck 4 h"


def test_the_sqlstate_of_a_crash_loop_is_named() -> None:
    history, state = sound(Case.FAULTS)
    exits = tuple(ExitedWorker(worker="a", code=1, seconds=n, sqlstates=("42P05",)) for n in range(12))
    loop = replace(state, exits=exits, given_up=("a",))
    assert outcome(history, loop, judge_jobs(history, loop)) == "crash loop (42P05)"


@pytest.mark.parametrize(("count", "word"), [(1, "exits 1 (42P05), stuck 1"), (5, "crash loop (42P05), stuck 1")])
def test_one_exit_is_not_a_crash_loop(count: int, word: str) -> None:
    history, state = sound(Case.WORKS)
    exits = tuple(ExitedWorker(worker="a", code=1, seconds=n, sqlstates=("42P05",)) for n in range(count))
    stuck = replace(without(state, 1, "done"), states={1: "running"}, exits=exits, waited_s=40)
    assert outcome(history, stuck, judge_jobs(history, stuck)) == word


def test_a_job_that_never_begins_is_not_only_late() -> None:
    history, state = sound(Case.IDLE)
    never = replace(state, effects=done(1, 3.0) + course(2, ("enqueued", 0.0)))
    assert outcome(history, never, judge_jobs(history, never)) == "never begins"


@pytest.mark.parametrize(
    ("case", "at_s", "name", "held"),
    [
        # a job that was approved may send no notification, and then waits for the poll; a new job does not
        (Case.APPROVE, 28.0, judged.WAITED, True),
        (Case.APPROVE, 40.0, judged.WAITED, False),
        (Case.IDLE, 28.0, judged.IDLE, False),
    ],
)
def test_an_approved_job_may_wait_for_the_poll(case: Case, at_s: float, name: str, held: bool) -> None:
    history, state = sound(case)
    state = replace(state, settings=replace(SETTINGS, poll_s=30, idle_s=0.5), effects=done(1, at_s))
    [found] = [found for found in judge_jobs(history, state) if found.name == name]
    assert found.held is held


CRASHED = ExitedWorker(worker="a", code=1, seconds=1.0, sqlstates=("42P05",))
TWICE_IN_FULL = replace(SETTINGS, exactly_once=True)
#: what waiting could still change, or too few connections explain, and what they do not: case, course, and what is
#: broken while jobs are being done, and while connections are missing
UNSETTLED = [
    (
        "a job waits",
        Case.WORKS,
        lambda state: replace(without(state, 1, "begin", "done"), states={1: "waiting"}),
        "",
        "",
    ),
    ("a job runs", Case.WORKS, lambda state: replace(without(state, 1, "done"), states={1: "running"}), "", ""),
    ("a job is gone", Case.WORKS, lambda state: without(state, 1, "begin", "done"), judged.LOST, judged.LOST),
    (
        "the engine believes that a job is done",
        Case.FAULTS,
        lambda state: replace(without(state, 1, "done"), states={1: "done", 2: "done"}),
        judged.UNFINISHED,
        judged.UNFINISHED,
    ),
    (
        "a late job is gone",
        Case.FAULTS,
        lambda state: without(state, 2, "begin", "done"),
        judged.LATE_LOST,
        judged.LATE_LOST,
    ),
    # the attempts of a job fail for want of a connection, too
    (
        "a job failed for good",
        Case.WORKS,
        lambda state: replace(without(state, 1, "done"), states={1: "failed"}),
        judged.UNFINISHED,
        "",
    ),
    ("a job was done twice", Case.WORKS, lambda state: more(state, *course(1, ("done", 2.0))), judged.TWICE, ""),
    (
        "a job was done twice, in spite of the promise",
        Case.FAULTS,
        lambda state: replace(more(state, *course(1, ("done", 2.0))), settings=TWICE_IN_FULL),
        judged.TWICE,
        judged.TWICE,
    ),
    ("a double that is no finding", Case.FAULTS, lambda state: more(state, *course(1, ("done", 2.0))), "", ""),
    (
        "the engine has not recorded an end yet",
        Case.WORKS,
        lambda state: replace(state, states={1: "running", 2: "done"}),
        "",
        "",
    ),
    (
        "a job that was done has failed",
        Case.WORKS,
        lambda state: replace(state, states={1: "failed"}),
        judged.STATES,
        "",
    ),
    ("a worker exited", Case.WORKS, lambda state: replace(state, exits=(CRASHED,)), judged.EXITS, ""),
    ("a worker stays down", Case.FAULTS, lambda state: replace(state, given_up=("a",)), judged.LOOPS, ""),
    ("a job began late", Case.IDLE, lambda state: replace(state, effects=done(1) + done(2, 27.2)), judged.IDLE, ""),
    ("a job has not begun", Case.IDLE, lambda state: without(state, 1, "begin", "done"), judged.LOST, judged.LOST),
    (
        "jobs begin later than next to the pooler so far",
        Case.IDLE,
        lambda state: replace(state, effects=done(1, 2.6) + done(2, 2.7) + done(TWIN + 1, 0.1)),
        "",
        "",
    ),
    (
        "a job was taken over early",
        Case.CLAIMS,
        lambda state: more(without(state, 1, "begin"), *course(1, ("begin", 1.0), ("begin", 2.0))),
        judged.EARLY,
        "",
    ),
    (
        "a stale result counted",
        Case.CLAIMS,
        lambda state: replace(state, after_stale={1: "done"}),
        judged.STALE,
        judged.STALE,
    ),
    (
        "a job with a heartbeat was taken over",
        Case.HEARTBEAT,
        lambda state: more(state, *course(1, ("begin", 4.5))),
        judged.RENEWED,
        "",
    ),
    ("a silent job has its worker", Case.HEARTBEAT, lambda state: replace(state, effects=done(1) + done(2)), "", ""),
    (
        "attempts are missing",
        Case.RETRIES,
        lambda state: replace(without(state, 1, "begin", "done"), states={1: "waiting"}),
        "",
        "",
    ),
    (
        "there were too many attempts",
        Case.RETRIES,
        lambda state: more(state, *course(2, ("begin", 4.0))),
        judged.ATTEMPTS,
        "",
    ),
    (
        "a cancelled job began",
        Case.CANCEL,
        lambda state: more(state, *course(1, ("begin", 1.0))),
        judged.FORBIDDEN,
        judged.FORBIDDEN,
    ),
    (
        "a job went on without its approval",
        Case.APPROVE,
        lambda state: replace(state, effects=done(1, 0.1)),
        judged.UNAPPROVED,
        judged.UNAPPROVED,
    ),
    (
        "a job went on late",
        Case.APPROVE,
        lambda state: replace(state, effects=done(1, 61.0)),
        judged.WAITED,
        "",
    ),
    (
        "children do not exist yet",
        Case.CHILDREN,
        lambda state: replace(state, effects=course(1, ("begin", 1.0)), states={1: "running"}),
        "",
        "",
    ),
    (
        "a parent was done first",
        Case.CHILDREN,
        lambda state: replace(state, effects=done(1, 1.0) + done(2, 3.0)),
        judged.ORDER,
        "",
    ),
    ("a change is missing so far", Case.AUDITED, lambda state: replace(state, changes=state.changes[:1]), "", ""),
    ("another actor", Case.AUDITED, lambda state: replace(state, actor="bob"), judged.ACTOR, judged.ACTOR),
    (
        "a lock is left",
        Case.LEAVES_NOTHING,
        lambda state: replace(state, left={**state.left, judged.LOCKS: 1}),
        judged.LOCKS,
        judged.LOCKS,
    ),
]


@each_row(
    ("case", "mutate", "during_progress", "without_connections"),
    [row[1:] for row in UNSETTLED],
    ids=[row[0] for row in UNSETTLED],
)
def test_what_waiting_could_change_is_no_finding_and_what_is_certain_stays_one(
    case: Case, mutate: Any, during_progress: str, without_connections: str
) -> None:
    history, state = sound(case)
    assert broken(history, replace(mutate(state), unsettled="progress")) == {*filter(None, [during_progress])}
    assert broken(history, replace(mutate(state), unsettled="shortage")) == {*filter(None, [without_connections])}


@each_row("case", Case)
@pytest.mark.parametrize("unsettled", ["progress", "shortage"])
def test_nothing_holds_for_good_while_jobs_can_change(case: Case, unsettled: Any) -> None:
    history, state = sound(case)
    assert judge_jobs(history, replace(state, unsettled=unsettled)) == ()


@each_row("case", Case)
def test_a_case_in_which_everything_holds_needed_no_more_connections(case: Case) -> None:
    history, state = sound(case)
    assert settled(history, replace(state, unsettled="shortage")) == state
    running = replace(state, unsettled="progress")
    assert settled(history, running) == running
    # an exit may be the shortage, also where it is documented
    exits = replace(state, unsettled="shortage", exits=(CRASHED, CRASHED), given_up=("a",))
    exits = replace(exits, foreseen=(Foreseen(expectation="", outcome="workers exit"),))
    assert settled(history, exits) == exits
    assert broken(history, replace(exits, foreseen=())) == set()


def test_a_command_that_failed_for_want_of_a_connection_is_no_finding() -> None:
    history, state = sound(Case.CANCEL)
    operations = (operation("cancel", 1, result="fail"), operation(ENQUEUE, 3, result="fail"))
    failed = replace(history, operations=operations)
    began = more(state, *course(1, ("begin", 1.0)))
    assert broken(failed, replace(began, unsettled="shortage")) == set()
    assert broken(failed, replace(began, unsettled="progress")) == {judged.FORBIDDEN, judged.NOT_ENQUEUED}


def test_a_job_that_began_late_and_another_that_has_not_begun_is_late() -> None:
    history, state = sound(Case.IDLE)
    late = replace(state, effects=done(1, 27.2) + course(2, ("enqueued", 0.0)), states={2: "waiting"})
    late = replace(late, unsettled="progress")
    assert outcome(history, late, judge_jobs(history, late)) == "idle 27 s"
