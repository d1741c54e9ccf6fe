"""Rows that are tried several times: the bound, the rule, the store, the merge, and three consecutive runs."""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.ordering import by_attempt
from harness.model import (
    EvidenceClass,
    KnownIssue,
    Quarantine,
    Repetition,
    Result,
    RunRecord,
    Section,
    Severity,
    Status,
    Subject,
    spelled,
    total,
)
from harness.model.repetition import upper_bound
from harness.report.merging import merge
from harness.report.repetition import consecutive_runs, repeated_rows
from harness.store import RunStore, StoredRun, Verdict, read_run
from harness.store.attempts import answer
from harness.store.rules import ContradictionError
from tests.tables import each_row
from tests.unit.made_up import planned, record, result, stood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.evidence import Evidence

OK, ISSUE, NA, NOT_RUN = Status.OK, Status.ISSUE, Status.NA, Status.NOT_RUN
CHECK = "capture.insert"
OTHER = "actor.many-clients"
BOTH = (CHECK, OTHER)
MISSING = "the run was interrupted"
_REASONS = {ISSUE: "rows: expected 1, observed 0", NA: "there is no pooler", NOT_RUN: "could not force a move"}


def attempts(*statuses: Status, check: str = CHECK) -> tuple[Result, ...]:
    return tuple(
        replace(result("direct", check, status, _REASONS.get(status, "")), attempt=number)
        for number, status in enumerate(statuses, 1)
    )


def row(times: int, check: str = CHECK) -> Any:
    return replace(planned("direct", check), attempts=times)


# --- the bound -------------------------------------------------------------------------------------------


@each_row(
    ("failures", "tried", "words"),
    [
        (0, 0, "up to 100 %"),
        (0, 3, "below 63.2 %"),
        (0, 20, "below 14.0 %"),
        (0, 58, "below 5.1 %"),
        (0, 59, "below 5.0 %"),
        (0, 299, "below 1.0 %"),
        (1, 20, "below 21.7 %"),
        (3, 20, "below 34.4 %"),
        (20, 20, "up to 100 %"),
        (0, 10_000, "below 0.1 %"),
        (5_000, 10_000, "below 50.9 %"),
    ],
)
def test_the_bound_is_rounded_up(failures: int, tried: int, words: str) -> None:
    assert spelled(upper_bound(failures, tried)) == words


def test_59_attempts_without_an_issue_are_the_fewest_that_show_less_than_5_percent() -> None:
    assert next(tried for tried in count() if upper_bound(0, tried) < 0.05) == 59


@pytest.mark.parametrize(("failures", "tried"), [(-1, 3), (4, 3), (1, 0)])
def test_counts_that_no_attempts_have_are_rejected(failures: int, tried: int) -> None:
    with pytest.raises(ValueError, match=f"found {failures} failures in {tried} attempts"):
        upper_bound(failures, tried)


PAIRS = st.integers(1, 120).flatmap(lambda tried: st.tuples(st.integers(0, tried - 1), st.just(tried)))


@given(PAIRS)
@example((0, 59))
def test_at_the_bound_so_few_failures_have_a_probability_of_5_percent(pair: tuple[int, int]) -> None:
    """Computed a second time, exactly."""
    failures, tried = pair
    rate = Fraction(upper_bound(failures, tried))
    probability = sum(comb(tried, k) * rate**k * (1 - rate) ** (tried - k) for k in range(failures + 1))
    assert float(probability) == pytest.approx(0.05, rel=1e-6)
    assert failures / tried < rate <= 1


@given(PAIRS)
def test_more_attempts_lower_the_bound_and_a_failure_raises_it(pair: tuple[int, int]) -> None:
    failures, tried = pair
    assert upper_bound(failures, tried + 1) < upper_bound(failures, tried) < upper_bound(failures + 1, tried)


@given(st.floats(0, 1))
def test_what_is_printed_is_never_below_the_bound(bound: float) -> None:
    words = spelled(bound)
    assert words == "up to 100 %" if bound >= 1 else float(words.split()[1]) / 100 > bound - 1e-12


# --- the rule --------------------------------------------------------------------------------------------


@each_row(
    ("statuses", "planned_times", "status", "reason"),
    [
        ((OK, OK, OK), 3, OK, ""),
        ((OK, ISSUE, OK), 3, ISSUE, _REASONS[ISSUE]),
        ((ISSUE, NOT_RUN, NA), 3, ISSUE, _REASONS[ISSUE]),
        ((NA, NA), 2, NA, _REASONS[NA]),
        ((OK, NOT_RUN, OK), 3, NOT_RUN, f"of 3 attempts 1 Not run, 2 OK: {_REASONS[NOT_RUN]}"),
        ((OK, NA), 2, NOT_RUN, f"of 2 attempts 1 N/A, 1 OK: {_REASONS[NA]}"),
        ((OK,), 3, NOT_RUN, f"of 3 attempts 2 Not run, 1 OK: {MISSING}"),
        ((NA,), 2, NOT_RUN, f"of 2 attempts 1 Not run, 1 N/A: {MISSING}"),
        ((NOT_RUN,), 3, NOT_RUN, _REASONS[NOT_RUN]),
        ((), 3, NOT_RUN, MISSING),
        ((), 1, NOT_RUN, MISSING),
    ],
)
def test_the_status_of_a_row_follows_from_its_attempts(
    statuses: tuple[Status, ...], planned_times: int, status: Status, reason: str
) -> None:
    found = answer(row(planned_times), attempts(*statuses), MISSING)
    assert (found.status, found.reason) == (status, reason)
    assert (found.target, found.check, found.reproduce) == ("direct", CHECK, row(1).reproduce)


@given(st.lists(st.sampled_from(Status), max_size=8), st.integers(0, 3), st.randoms())
def test_the_rule_holds_for_any_attempts_in_any_order(statuses: list[Status], missing: int, random: Any) -> None:
    times = max(len(statuses) + missing, 2)
    stored = list(attempts(*statuses))
    expected = answer(row(times), stored, MISSING)
    random.shuffle(stored)
    found = answer(row(times), stored, MISSING)
    assert found == expected
    counts = found.repetition
    assert counts is not None
    assert counts.attempts == times
    assert (found.status is ISSUE) == (ISSUE in statuses)
    assert (found.status is OK) == (statuses.count(OK) == times)
    assert (found.status is NA) == (statuses.count(NA) == times)
    assert found.flaky == ({OK, ISSUE} <= set(statuses))
    if found.status is not NOT_RUN:
        assert replace(found, repetition=None) in stored
    else:
        assert found.reason
        assert counts.not_run or (counts.na and counts.ok)


def test_the_most_severe_issue_is_shown_then_the_first() -> None:
    first, second, third = (
        replace(found, severity=severity)
        for found, severity in zip(attempts(ISSUE, ISSUE, ISSUE), (Severity.P1, Severity.P0, None), strict=True)
    )
    assert answer(row(3), (third, second, first), "").attempt == 2
    assert answer(row(3), (third, first), "").attempt == 3  # its check is a P0


def test_a_row_that_is_tried_once_is_its_attempt() -> None:
    (only,) = attempts(ISSUE)
    assert answer(row(1), [only], "") is only


def test_counts_in_words() -> None:
    assert str(Repetition(ok=17, issue=3)) == "Issue in 3 of 20 attempts"
    assert str(Repetition(ok=1, na=2, not_run=3)) == "Issue in 0 of 1 attempt, 2 more N/A, 3 more Not run"
    assert total([Repetition(ok=1), Repetition(issue=2, na=1), Repetition(not_run=4)]) == Repetition(
        ok=1, issue=2, na=1, not_run=4
    )


@given(st.lists(st.integers(1, 4), max_size=5))
def test_each_row_is_tried_as_often_as_planned_and_all_rows_before_a_second_time(times: list[int]) -> None:
    rows = [
        replace(planned("direct", f"capture.c{number}"), attempts=number_of) for number, number_of in enumerate(times)
    ]
    tried = [(attempt, found.check) for attempt, together in by_attempt(rows) for found in together]
    assert sorted(tried) == sorted((attempt, found.check) for found in rows for attempt in range(1, found.attempts + 1))
    assert [attempt for attempt, _ in tried] == sorted(attempt for attempt, _ in tried)


# --- the store -------------------------------------------------------------------------------------------


def a_record(times: int, *checks: str, **changes: Any) -> RunRecord:
    plan = tuple(row(times, check) for check in checks or (CHECK,))
    return replace(record(), plan=plan, topologies={"direct": stood("direct")}, **changes)


def store_of(folder: Path, times: int, **changes: Any) -> RunStore:
    return RunStore(folder, a_record(times, **changes), str)


def test_every_verdict_is_kept_in_the_chain(tmp_path: Path) -> None:
    store = store_of(tmp_path, 3)
    for found in attempts(OK, ISSUE, OK):
        store.append(found)
    store.close()
    run = read_run(store.folder)
    assert run.integrity.verdict is Verdict.WHOLE
    assert run.results == attempts(OK, ISSUE, OK)
    (found,) = run.answers()
    assert (found.status, found.attempt, found.repetition) == (ISSUE, 2, Repetition(ok=2, issue=1))


def test_a_killed_run_keeps_the_attempts_that_ended(tmp_path: Path) -> None:
    store = store_of(tmp_path, 3, state="running", ended_at="")
    for found in attempts(OK, OK):
        store.append(found)
    (found,) = read_run(store.folder).answers()
    assert found.status is NOT_RUN
    assert found.reason.startswith("of 3 attempts 1 Not run, 2 OK: the run has no result of this check")
    assert found.repetition == Repetition(ok=2, not_run=1)
    store.close()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attempt": 4}, "attempt 4 of capture.insert on direct, which is planned 3x"),
        ({"attempt": 0}, "attempt 0 of capture.insert on direct, which is planned 3x"),
        ({"attempt": 2}, "more than one row of direct capture.insert attempt 2"),
        ({"attempt": 1}, "more than one row of direct capture.insert"),
        ({"attempt": 3, "repetition": Repetition(ok=3)}, "the counts of other attempts in the row of one"),
        (
            {
                "attempt": 3,
                "quarantine": Quarantine(check=OTHER, link="https://e.org", owner="a", expires="2099-01-01"),
            },
            "a quarantine of another check or topology",
        ),
    ],
)
def test_an_attempt_that_contradicts_the_plan_is_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    store = store_of(tmp_path, 3)
    for found in attempts(OK, OK):
        store.append(found)
    with pytest.raises(ContradictionError) as refused:
        store.append(replace(attempts(OK)[0], **changes))
    assert str(refused.value) == sentence
    store.close()


def test_a_plan_without_attempts_is_an_edit(tmp_path: Path) -> None:
    store = store_of(tmp_path, 0)
    store.close()
    run = read_run(store.folder)
    assert run.integrity.verdict is Verdict.EDITED
    assert any("capture.insert on direct is planned 0x" in sentence for sentence in run.integrity.reasons)


def test_a_number_of_attempts_that_was_edited_breaks_the_chain(tmp_path: Path) -> None:
    store = store_of(tmp_path, 3)
    for found in attempts(OK, ISSUE, OK):
        store.append(found)
    store.close()
    path = store.folder / "run.json"
    path.write_text(path.read_text().replace('"attempts": 3', '"attempts": 1'))
    assert read_run(store.folder).integrity.verdict is Verdict.EDITED


# --- the merge -------------------------------------------------------------------------------------------


def a_run(number: int, times: int, *results: Result, checks: Sequence[str] = (CHECK,), **changes: Any) -> StoredRun:
    run_id = f"20260101T000000Z-0000000{number}"
    written = replace(a_record(times, *checks), run_id=run_id, started_at=f"2026-01-01T00:00:0{number}.000Z", **changes)
    return StoredRun(Path("runs") / run_id, written, results, (), (), 0)


def once(status: Status, check: str = CHECK) -> Result:
    return attempts(status, check=check)[0]


def merged(*runs: StoredRun, **changes: Any) -> Evidence:
    return merge(runs, (), **changes)


def test_a_row_is_flaky_across_runs_on_the_same_subject_and_keeps_them_apart() -> None:
    evidence = merged(a_run(1, 3, *attempts(OK, OK, ISSUE)), a_run(2, 1, once(OK)))
    (found,) = evidence.rows
    assert found.status is OK  # of the newest run
    assert found.result.flaky
    assert found.result.repetition == Repetition(ok=3, issue=1)
    assert [(run.run_id[-1], run.counts) for run in found.runs] == [
        ("1", Repetition(ok=2, issue=1)),
        ("2", Repetition(ok=1)),
    ]
    (shown,) = repeated_rows(evidence.rows)
    assert (shown.flaky, str(shown.counts), shown.rate) == ("yes", "Issue in 1 of 4 attempts", "below 75.2 %")


def test_a_copy_of_a_run_counts_once() -> None:
    evidence = merged(a_run(1, 3, *attempts(OK, OK, OK)), a_run(1, 3, *attempts(OK, OK, OK)))
    assert [found.result.repetition for found in evidence.rows] == [Repetition(ok=3)]
    (found,) = consecutive_runs(merged(both(1), both(1), both(1)))
    assert (found.status, len(found.runs)) == (NOT_RUN, 1)


def test_repeated_rows_that_are_not_flaky_are_counted() -> None:
    first = a_run(1, 2, *attempts(OK, OK), *attempts(OK, OK, check=OTHER), checks=BOTH)
    assert [(found.check, found.number) for found in repeated_rows(merged(first).rows)] == [("", 2)]
    second = a_run(1, 2, *attempts(OK, ISSUE), *attempts(OK, OK, check=OTHER), checks=BOTH)
    assert [(found.check, found.number) for found in repeated_rows(merged(second).rows)] == [(CHECK, 1), (OTHER, 1)]


def test_runs_that_agree_and_repeat_nothing_say_nothing_about_attempts() -> None:
    (found,) = merged(a_run(1, 1, once(OK)), a_run(2, 1, once(OK))).rows
    assert (found.runs, found.result.repetition) == ((), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": replace(record().provenance, fingerprint="f2")},
        {"audit_target": "other 1234"},
        {"engine": "native"},
        {"topologies": {"direct": replace(stood("direct"), declared=stood("session").declared)}},
    ],
)
def test_another_verdict_about_something_else_makes_no_row_flaky(changes: dict[str, Any]) -> None:
    evidence = merged(a_run(1, 1, once(ISSUE), **changes), a_run(2, 1, once(OK)))
    (found,) = evidence.rows
    assert (found.status, found.result.flaky) == (OK, False)


def test_an_environment_may_change_between_two_runs() -> None:
    plan = (replace(planned("staging", CHECK), evidence_class=EvidenceClass.HOST),)
    evidence = merged(
        *(
            a_run(number, 1, replace(once(status), target="staging"), plan=plan, topologies={})
            for number, status in ((1, ISSUE), (2, OK))
        )
    )
    assert [found.result.flaky for found in evidence.rows] == [False]
    assert consecutive_runs(evidence) == ()


# --- three consecutive runs ------------------------------------------------------------------------------


def both(number: int, first: Status = OK, second: Status = OK, **changes: Any) -> StoredRun:
    return a_run(number, 1, once(first), once(second, OTHER), checks=BOTH, **changes)


@each_row(
    ("runs", "status", "notes"),
    [
        ((both(1), both(2)), NOT_RUN, "2 of 3 runs that tried every row (2) on the same subject"),
        ((both(1), both(2), both(3)), OK, "every row has an answer and none is an Issue (2 in each run)"),
        ((both(1), both(2, NA), both(3)), OK, "every row has an answer and none is an Issue (2 in each run)"),
        (
            (both(1, ISSUE), both(2), both(3), both(4)),
            OK,
            "every row has an answer and none is an Issue (2 in each run)",
        ),
        ((both(1, ISSUE), both(2), both(3)), ISSUE, "Issue in run 20260101T000000Z-00000001: capture.insert"),
        ((both(1), both(2, NOT_RUN), both(3)), NOT_RUN, "Not run in run 20260101T000000Z-00000002: capture.insert"),
        # a run of some rows is not one of the three, and its Issue counts
        (
            (both(1), both(2), a_run(3, 1, once(OK))),
            NOT_RUN,
            "2 of 3 runs that tried every row (2) on the same subject",
        ),
        (
            (both(1), both(2), a_run(3, 1, once(ISSUE)), both(4)),
            ISSUE,
            "Issue in run 20260101T000000Z-00000003: capture.insert",
        ),
        (
            (both(1), both(2), both(3, state="interrupted"), replace(both(4), results=(once(OK),))),
            NOT_RUN,
            "Not run in run 20260101T000000Z-00000004: actor.many-clients",
        ),
    ],
)
def test_three_consecutive_runs(runs: tuple[StoredRun, ...], status: Status, notes: str) -> None:
    (found,) = consecutive_runs(merged(*runs))
    assert (found.topology, found.status, found.notes) == ("direct", status, notes)
    assert list(found.runs) == sorted(found.runs, reverse=True)


@pytest.mark.parametrize(
    ("checks", "command"),
    [
        ((CHECK, OTHER), ""),
        (("resilience.server-killed", CHECK), ""),
        (("resilience.jobs-queued", CHECK, OTHER), " -- --suite resilience --suite capture --suite actor"),
    ],
)
def test_the_command_of_the_next_run_tries_every_row(checks: tuple[str, ...], command: str) -> None:
    """A check on demand runs only if its suite is named, and the options of one row are not those of a run."""
    reproduce = {check: f"nox -s topology-direct -- --check {check} --repeat 3" for check in checks}
    reproduce |= {check: f"{line} --rounds 2" for check, line in reproduce.items() if check.startswith("resilience.")}
    results = [replace(once(OK, check), reproduce=reproduce[check]) for check in checks]
    run = a_run(1, 1, *results, checks=checks)
    plan = tuple(
        replace(row, section=Section(row.check.partition(".")[0]), reproduce=reproduce[row.check])
        for row in run.record.plan
    )
    (found,) = consecutive_runs(merged(replace(run, record=replace(run.record, plan=plan))))
    assert found.command == f"nox -s topology-direct{command}"


def test_a_row_that_only_exec_tried_is_owed_by_no_run() -> None:
    script = "capture.script"
    alone = a_run(4, 1, once(OK, script), checks=(script,))
    plan = tuple(replace(row, section=Section.COMMANDS) for row in alone.record.plan)
    of_exec = replace(alone, record=replace(alone.record, plan=plan, subjects={script: Subject(facts={"commit": "a1"})}))
    (found,) = consecutive_runs(merged(both(1), both(2), both(3), of_exec))
    assert (found.status, found.notes) == (OK, "every row has an answer and none is an Issue (2 in each run)")
    assert consecutive_runs(merged(of_exec)) == ()


def test_known_issues_and_quarantine_do_not_count_and_are_named() -> None:
    known = KnownIssue(check=CHECK, link="https://e.org", owner="ada", expires="2099-01-01")
    apart = Quarantine(check=OTHER, link="https://e.org", owner="ada", expires="2099-01-01")
    first = a_run(
        1,
        1,
        replace(once(ISSUE), known=known),
        replace(once(NOT_RUN, OTHER), quarantine=apart),
        checks=BOTH,
    )
    (found,) = consecutive_runs(merged(first, both(2), both(3)))
    assert found.status is OK
    assert found.notes.endswith(
        "known Issues do not count: 1 row of these runs; rows in quarantine do not count: actor.many-clients"
    )
