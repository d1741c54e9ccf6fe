"""What changed between two runs: which rows, features and durations, and what may be the cause."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.model import (
    TRAIL,
    Behaviour,
    EnvironmentEvidence,
    Expectation,
    FeatureOutcome,
    Finding,
    KnownIssue,
    Limit,
    Outcome,
    Result,
    Section,
    Status,
    Subject,
)
from harness.model.run_record import Confidence
from harness.report.building import build_report
from harness.report.changes import Change, Changes, Kind, compare
from harness.report.evidence import Evidence, Row
from harness.report.factors import Factor
from harness.report.render import changes_in_markdown, render, scrubbed
from harness.report.row_states import Direction
from harness.report.sides import THIS_REPORT, side_of
from tests.tables import each_row
from tests.unit.made_up import CHECKS, NAMES, planned, record, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.model import PlannedCheck, RunRecord, TopologyEvidence

OLD, NEW = "20260101T000000Z-00000001", "20260101T000000Z-00000002"
ACCEPTED = KnownIssue(check="any", link="https://example.org/1", owner="ada", expires="2099-01-01")


def evidence(results: Iterable[Result], written: RunRecord | None = None, *, edited: tuple[str, ...] = ()) -> Evidence:
    """Return the evidence of one run."""
    written = written or record(OLD)
    rows = tuple(Row(planned=_planned(found), result=found, run_id=written.run_id) for found in results)
    targets = dict.fromkeys((*written.topologies, *written.environments))
    return Evidence(
        rows=rows,
        topologies=written.topologies,
        environments=written.environments,
        records=dict.fromkeys(targets, written),
        folders={written.run_id: Path("runs") / written.run_id},
        shown=(written,),
        edited=edited,
    )


def _planned(found: Result) -> PlannedCheck:
    row = planned(found.target, found.check)
    return replace(row, section=Section.POOLING, feature=f"the feature {found.check}") if found.feature else row


def issue(target: str = "transaction", check: str = CHECKS[0], *, broken: str = "rows") -> Result:
    found = result(target, check, Status.ISSUE, f"{broken}: expected 1, observed 0")
    return replace(found, expectations=(Expectation(name=broken, expected="1", observed="0", held=False),))


def feature(behaviour: Behaviour, *, status: Status = Status.OK, sqlstate: str = "", closed: bool = False) -> Result:
    outcome = Outcome(behaviour=behaviour, sqlstate=sqlstate, closed=closed)
    return replace(
        result("transaction", "pooling.listen", status),
        feature=FeatureOutcome(observed=outcome, expected=(outcome,)),
    )


def one(before: Iterable[Result], after: Iterable[Result]) -> Change:
    [change] = compare(evidence(before), evidence(after, record(NEW))).changes
    return change


# --- properties ------------------------------------------------------------------------------------------

statuses = st.sampled_from(list(Status))
outcomes = st.builds(
    lambda behaviour, sqlstate, closed: FeatureOutcome(
        observed=Outcome(behaviour=behaviour, sqlstate=sqlstate, closed=closed), expected=()
    ),
    st.sampled_from(list(Behaviour)),
    st.sampled_from(["", "26000", "42P05"]),
    st.booleans(),
)
results = st.builds(
    lambda row, feature, known, limit, duration_ms, broken: replace(
        row,
        feature=feature,
        known=ACCEPTED if known and row.status is Status.ISSUE else None,
        limit=Limit(outcome="it leaks", source="https://example.org/doc") if limit else None,
        duration_ms=duration_ms,
        expectations=(Expectation(name=broken, expected="1", observed="0", held=row.status is not Status.ISSUE),),
    ),
    st.builds(result, st.sampled_from(NAMES), st.sampled_from([*CHECKS, "pooling.listen"]), statuses, st.just("why")),
    st.none() | outcomes,
    st.booleans(),
    st.booleans(),
    st.floats(0, 10_000),
    st.sampled_from(["rows", "actor"]),
)
many = st.lists(results, max_size=8, unique_by=lambda found: (found.target, found.check))


@given(many)
def test_a_run_does_not_differ_from_itself(found: list[Result]) -> None:
    changes = compare(evidence(found), evidence(found))
    assert changes.empty
    assert (changes.compared, changes.same) == (0, len(found))
    assert changes.void


@given(many)
def test_a_repetition_with_the_same_results_has_no_change(found: list[Result]) -> None:
    changes = compare(evidence(found), evidence(found, record(NEW)))
    assert changes.empty
    assert (changes.compared, changes.same) == (len(found), 0)


def test_a_side_of_several_runs_is_one_line() -> None:
    runs = [
        replace(record(f"r{day}"), started_at=f"2026-01-0{day}T00:00:00.000Z", topologies={}) for day in range(1, 9)
    ]
    rows = [
        replace(row, planned=replace(row.planned, target=f"t{place}"))
        for place in range(9)
        for row in evidence([result("direct", CHECKS[0])]).rows
    ]
    side = side_of(replace(evidence([]), rows=tuple(rows), topologies={}, shown=tuple(runs)), "runs")
    assert side.description == (
        "8 runs, 2026-01-01 00:00 UTC to 2026-01-08 00:00 UTC; commit cccccccccccc; t0, t1, t2, t3, t4, t5 and 3 more"
    )
    assert side_of(replace(evidence([]), shown=()), "x").description == "no run with a row that counts"


@given(many, many, st.sampled_from(["before", "after"]))
def test_nothing_is_said_about_edited_evidence(before: list[Result], after: list[Result], side: str) -> None:
    edited = {side: ("run x was edited",)}
    changes = compare(
        evidence(before, edited=edited.get("before", ())), evidence(after, record(NEW), edited=edited.get("after", ()))
    )
    assert changes.empty
    assert not changes.new_issues
    assert changes.summary == changes.void == "a run was edited, so nothing follows"


def mirrored(changes: Changes) -> tuple[object, ...]:
    """Return what a comparison in the other direction must find, without the order of the topologies."""
    swapped = {
        Direction.WORSE: Direction.BETTER,
        Direction.BETTER: Direction.WORSE,
        Direction.OTHER: Direction.OTHER,
        None: None,
    }
    present = [change for change in changes.changes if change.before]
    return (
        {
            (target, change.check, change.after, change.before, swapped[change.direction])
            for change in present
            for target in change.targets
        },
        {(found.target, found.check, found.after_ms, found.before_ms) for found in changes.durations},
        (changes.only_after, changes.only_before, changes.compared),
        {(found.factor, found.name, found.after, found.before) for found in changes.differences},
    )


def as_found(changes: Changes) -> tuple[object, ...]:
    present = [change for change in changes.changes if change.before]
    return (
        {
            (target, change.check, change.before, change.after, change.direction)
            for change in present
            for target in change.targets
        },
        {(found.target, found.check, found.before_ms, found.after_ms) for found in changes.durations},
        (changes.only_before, changes.only_after, changes.compared),
        {(found.factor, found.name, found.before, found.after) for found in changes.differences},
    )


@given(many, many, st.booleans())
def test_the_other_direction_mirrors_every_change(first: list[Result], second: list[Result], other: bool) -> None:
    newer = record(NEW)
    if other:
        newer = replace(newer, provenance=replace(newer.provenance, fingerprint="f2", psycopg="3.4"), engine="native")
    then, now = evidence(first), evidence(second, newer)
    assert mirrored(compare(then, now)) == as_found(compare(now, then))


@given(many, many)
def test_every_row_that_says_something_else_is_a_change(first: list[Result], second: list[Result]) -> None:
    then, now = ({(found.target, found.check): found for found in side} for side in (first, second))
    changes = compare(evidence(first), evidence(second, record(NEW)))
    changed = {(target, change.check) for change in changes.changes for target in change.targets}
    assert changed >= {key for key in then.keys() & now.keys() if then[key].status is not now[key].status}
    open_issues = {key for key, found in now.items() if found.status is Status.ISSUE and not found.known}
    there = {key for key, found in then.items() if found.status is Status.ISSUE}
    assert open_issues - there <= changes.new_issues <= open_issues


# --- rows ------------------------------------------------------------------------------------------------


@each_row(
    ("before", "after", "kind"),
    [
        (result("transaction", CHECKS[0]), issue(), Kind.NEW_ISSUE),
        (result("transaction", CHECKS[0], Status.NOT_RUN, "x"), issue(), Kind.NEW_ISSUE),
        (issue(broken="rows"), issue(broken="actor"), Kind.NEW_ISSUE),
        (result("transaction", CHECKS[0]), replace(issue(), known=ACCEPTED), Kind.STATUS),
        (replace(issue(), known=ACCEPTED), issue(), Kind.STATUS),
        (issue(), result("transaction", CHECKS[0]), Kind.FIXED),
        (issue(), result("transaction", CHECKS[0], Status.NA, "x"), Kind.FIXED),
        (issue(), result("transaction", CHECKS[0], Status.NOT_RUN, "x"), Kind.UNVERIFIED),
        (result("transaction", CHECKS[0], Status.NOT_RUN, "x"), result("transaction", CHECKS[0]), Kind.VERIFIED),
        (result("transaction", CHECKS[0]), result("transaction", CHECKS[0], Status.NA, "x"), Kind.STATUS),
        (feature(Behaviour.WORKS), feature(Behaviour.LOST, status=Status.ISSUE), Kind.NEW_ISSUE),
        (feature(Behaviour.LEAKS, status=Status.ISSUE), feature(Behaviour.LOST, status=Status.ISSUE), Kind.NEW_ISSUE),
        (feature(Behaviour.WORKS), feature(Behaviour.LOST), Kind.FEATURE),
    ],
)
def test_the_kind_of_a_change(before: Result, after: Result, kind: Kind) -> None:
    assert one([before], [after]).kind is kind


def test_an_issue_with_fewer_broken_expectations_is_not_new() -> None:
    both = replace(issue(), expectations=(*issue(broken="rows").expectations, *issue(broken="actor").expectations))
    assert one([both], [issue()]).kind is Kind.STATUS


@pytest.mark.parametrize(
    ("before", "after", "direction", "words"),
    [
        (feature(Behaviour.WORKS), feature(Behaviour.FAILS, sqlstate="26000"), Direction.WORSE, "an error now"),
        (feature(Behaviour.LOST), feature(Behaviour.FAILS, sqlstate="0A000"), Direction.BETTER, "an error now"),
        (feature(Behaviour.FAILS), feature(Behaviour.LEAKS), Direction.WORSE, "state or data of one client reaches"),
        (feature(Behaviour.LOST), feature(Behaviour.WRONG), Direction.OTHER, "a wrong result without an error now"),
        (
            feature(Behaviour.FAILS, sqlstate="26000"),
            feature(Behaviour.FAILS, sqlstate="42P05"),
            Direction.OTHER,
            "another error now",
        ),
        (
            feature(Behaviour.FAILS, sqlstate="26000"),
            feature(Behaviour.FAILS, sqlstate="26000", closed=True),
            Direction.WORSE,
            "the client loses its connection",
        ),
    ],
)
def test_a_feature_is_better_or_worse_for_an_application(
    before: Result, after: Result, direction: Direction, words: str
) -> None:
    change = one([before], [after])
    assert change.direction is direction
    assert words in change.reason


def test_a_change_is_grouped_over_topologies() -> None:
    change = one([result(name, CHECKS[0]) for name in NAMES], [issue(name) for name in NAMES])
    assert change.targets == NAMES
    assert (change.before, change.after) == ("OK", "Issue")


def test_an_issue_of_a_row_that_did_not_exist_is_new() -> None:
    changes = compare(evidence([result("direct", CHECKS[0])]), evidence([result("direct", CHECKS[0]), issue()]))
    assert changes.new_issues == {("transaction", CHECKS[0])}
    assert [found.targets for found in changes.only_after] == [("transaction",)]
    assert changes.only_after[0].whole


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "changed"),
    [
        (1000, 2000, True),
        (2000, 1000, True),
        (1000, 1999, False),
        (100, 1099, False),
        (5000, 9000, False),
        (0, 5000, False),
    ],
)
def test_a_duration_changed_if_it_doubled_and_by_a_second(before_ms: float, after_ms: float, *, changed: bool) -> None:
    then, now = (replace(result("direct", CHECKS[0]), duration_ms=ms) for ms in (before_ms, after_ms))
    changes = compare(evidence([then]), evidence([now], record(NEW)))
    assert bool(changes.durations) is changed
    assert not changes.changes


def test_the_time_of_a_check_that_did_not_run_is_not_compared() -> None:
    then = replace(result("direct", CHECKS[0]), duration_ms=100)
    now = replace(result("direct", CHECKS[0], Status.NOT_RUN, "x"), duration_ms=60_000)
    assert compare(evidence([then]), evidence([now], record(NEW))).durations == ()


def test_another_version_of_a_topology_is_compared_with_the_topology() -> None:
    newest = "transaction+postgres-18"
    written = record(NEW)
    stood = written.topologies["transaction"]
    postgres, pooler = stood.services
    services = (replace(postgres, version="18.1 (Debian)", origin="postgres:18@sha256:ef"), pooler)
    written = replace(written, topologies={newest: replace(stood, services=services)})
    changes = compare(
        evidence([result("transaction", CHECKS[0])]), evidence([replace(issue(), target=newest)], written)
    )
    assert changes.new_issues == {(newest, CHECKS[0])}
    [change] = changes.changes
    assert change.cause == "likely server version of postgres: 17.5 → 18.1"
    assert not changes.only_before


def test_a_topology_that_both_have_is_not_compared_with_its_other_version() -> None:
    both = [result("transaction", CHECKS[0]), result("transaction+postgres-18", CHECKS[0])]
    changes = compare(evidence(both), evidence(both[:1], record(NEW)))
    assert changes.compared == 1
    assert [found.targets for found in changes.only_before] == [("transaction+postgres-18",)]


# --- causes ----------------------------------------------------------------------------------------------


def other_provenance(**values: object) -> Callable[[RunRecord], RunRecord]:
    return lambda written: replace(written, provenance=replace(written.provenance, **values))


def other_topology(change: Callable[[TopologyEvidence], TopologyEvidence]) -> Callable[[RunRecord], RunRecord]:
    return lambda written: replace(
        written,
        topologies={name: change(found) for name, found in written.topologies.items()},
    )


def other_service(number: int, **values: object) -> Callable[[RunRecord], RunRecord]:
    def change(found: TopologyEvidence) -> TopologyEvidence:
        services = list(found.services)
        if number < len(services):
            services[number] = replace(services[number], **values)
        return replace(found, services=tuple(services))

    return other_topology(change)


def smaller_pool(found: TopologyEvidence) -> TopologyEvidence:
    pooler = found.declared.pooler
    return replace(found, declared=replace(found.declared, pooler=pooler and replace(pooler, default_pool_size=2)))


CASES: dict[Factor, Callable[[RunRecord], RunRecord]] = {
    Factor.HARNESS: other_provenance(fingerprint="f2", commit="d" * 40),
    Factor.CLIENT: other_provenance(fingerprint="f2", psycopg="3.4"),
    Factor.SUBJECT: lambda written: replace(written, audit_target="reference 123"),
    Factor.ENGINE: lambda written: replace(written, engine="native", engine_version=""),
    Factor.STORAGE: other_topology(lambda found: replace(found, storage="on disk, without fsync")),
    Factor.DECLARATION: other_topology(smaller_pool),
    # other versions come from other images, and have other defaults
    Factor.SERVER: other_service(0, version="18.1", origin="postgres:18@sha256:ef", settings={"a": "b"}),
    Factor.POOLER: other_service(1, version="1.25.0", origin="x", settings={}),
    Factor.BUILD: other_service(1, origin="edoburu/pgbouncer@sha256:ef"),
    Factor.SETTINGS: other_service(1, settings={"pool_mode": "transaction", "server_reset_query": ""}),
}


@each_row("factor", CASES)
def test_the_one_thing_that_differs_is_the_likely_cause(factor: Factor) -> None:
    now = CASES[factor](record(NEW))
    changes = compare(evidence([result("transaction", CHECKS[0])]), evidence([issue()], now))
    [difference] = [found for found in changes.differences if "transaction" in found.targets]
    assert difference.factor is factor
    [change] = changes.changes
    assert change.causes == (difference.text,)
    assert change.cause == f"likely {difference.text}"


def test_of_several_things_that_differ_none_is_the_cause() -> None:
    now = CASES[Factor.POOLER](CASES[Factor.HARNESS](record(NEW)))
    [change] = compare(evidence([result("transaction", CHECKS[0])]), evidence([issue()], now)).changes
    assert change.cause == "not known, 2 things differ: harness code; pooler version of pgbouncer"


def test_a_thing_that_differs_elsewhere_is_not_the_cause() -> None:
    now = CASES[Factor.POOLER](record(NEW))
    then = evidence([result("direct", CHECKS[0])])
    [change] = compare(then, evidence([issue("direct")], now)).changes
    assert change.cause == "nothing that is recorded differs"


def test_a_row_that_is_not_run_has_its_reason_and_not_a_cause() -> None:
    now = evidence(
        [result("transaction", CHECKS[0], Status.NOT_RUN, "the time limit")], CASES[Factor.POOLER](record(NEW))
    )
    [change] = compare(evidence([result("transaction", CHECKS[0])]), now).changes
    assert (change.reason, change.cause, change.causes) == ("the time limit", "", ())


def test_code_that_only_prints_is_not_a_difference() -> None:
    now = other_provenance(commit="d" * 40)(record(NEW))
    assert compare(evidence([]), evidence([], now)).differences == ()


def test_an_image_that_was_built_again_from_the_same_recipe_is_not_a_difference() -> None:
    built = [
        other_service(0, origin=f"pooler-harness/postgres-base:17-f44d@sha256:{digest}")(record(run_id))
        for digest, run_id in (("aa", OLD), ("bb", NEW))
    ]
    rows = [result("direct", CHECKS[0])]
    assert compare(evidence(rows, built[0]), evidence(rows, built[1])).differences == ()


@pytest.mark.parametrize("commit", ["b" * 40, "unknown: not a repository"])
def test_the_revision_of_a_command_concerns_its_own_rows(commit: str) -> None:
    check = "command.mix-test"
    then, now = (
        replace(record(run_id), subjects={check: Subject(facts={"commit": found}), TRAIL: Subject(facts={})})
        for run_id, found in ((OLD, "unknown: not a repository"), (NEW, commit))
    )
    rows = [replace(result("direct", name), check=check) for name in CHECKS[:1]]
    both = [Row(planned=replace(planned("direct", CHECKS[0]), check=check), result=rows[0], run_id=OLD)]
    changes = compare(replace(evidence([], then), rows=tuple(both)), replace(evidence([], now), rows=tuple(both)))
    [difference] = changes.differences
    assert (difference.factor, difference.checks) == (Factor.SUBJECT, (check,))
    assert not difference.concerns("direct", CHECKS[0])


def environment(**values: str) -> EnvironmentEvidence:
    findings = tuple(
        Finding(fact=fact, value=value, how="it said so", confidence=Confidence.CERTAIN)
        for fact, value in values.items()
    )
    return EnvironmentEvidence(name="staging", reached=True, findings=findings)


def test_what_differs_in_an_environment() -> None:
    then = replace(record(OLD), environments={"staging": environment(server_version="17.5", pool_mode="session")})
    now = replace(record(NEW), environments={"staging": environment(server_version="17.5", pool_mode="transaction")})
    before = evidence([replace(result("direct", CHECKS[0]), target="staging")], then)
    after = evidence([replace(issue(), target="staging")], now)
    [change] = compare(before, after).changes
    assert change.cause == "likely settings of pool_mode: session → transaction"


def test_a_row_that_is_shown_alike_says_what_differs() -> None:
    ok = result("transaction", CHECKS[0])
    before, after = (replace(ok, limit=Limit(outcome=text, source="https://example.org/doc")) for text in ("a", "b"))
    change = one([before], [after])
    assert (change.before, change.after) == ("OK, documented limit", "OK, documented limit")
    assert change.reason == "another documented limit: a → b"
    change = one([issue(broken="rows")], [issue(broken="actor")])
    assert (change.before, change.after) == ("Issue", "Issue")
    assert change.reason == "actor broken now; rows no longer broken; actor: expected 1, observed 0"


# --- outputs ---------------------------------------------------------------------------------------------


def test_an_edited_run_is_named_everywhere(tmp_path: Path) -> None:
    sentence = "run x was edited: results.jsonl: line 2"
    now = evidence([issue()], record(NEW))
    found = compare(evidence([result("transaction", CHECKS[0])], edited=(sentence,)), now, ("x", THIS_REPORT))
    assert found.edited == (sentence,)
    report = replace(build_report(now, tmp_path), changes=found)
    written = {path.name: path.read_text(encoding="utf-8") for path in render(report, tmp_path)}
    for name in ("changes.md", "report.md", "report.html", "report.json"):
        assert sentence in written[name], name


def test_the_page_links_a_change_to_its_evidence(tmp_path: Path) -> None:
    now = evidence([issue()], record(NEW))
    found = compare(evidence([result("transaction", CHECKS[0])]), now, ("x", THIS_REPORT))
    written = {
        path.name: path.read_text() for path in render(replace(build_report(now, tmp_path), changes=found), tmp_path)
    }
    part = written["report.html"].partition('<section id="changes"')[2].partition("</section>")[0]
    assert f'href="#row=transaction/{CHECKS[0]}"' in part
    assert "1 row was compared: 1 new Issue." in part


def test_without_another_run_the_report_has_no_changes(tmp_path: Path) -> None:
    report = build_report(evidence([issue()]), tmp_path)
    written = {path.name: path.read_text() for path in render(report, tmp_path)}
    assert "changes.md" not in written
    assert "What changed" not in written["report.md"]
    assert 'id="changes"' not in written["report.html"]


@given(st.text(max_size=30))
def test_text_from_a_run_is_inert_in_markdown(text: str) -> None:
    now = replace(issue(), reason=f"|{text}<script>\n# x")
    found = compare(evidence([result("transaction", CHECKS[0])]), evidence([now], record(NEW)), (f"`{text}", "b"))
    written = changes_in_markdown(scrubbed(found))
    assert "<script>" not in written
    rows = [line for line in written.splitlines() if line.startswith("| new Issue")]
    assert len(rows) == 1
