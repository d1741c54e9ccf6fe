"""Merging of stored runs: which result a row gets, what is left out, and the sentence that says why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from harness.model import (
    Confidence,
    EnvironmentEvidence,
    Finding,
    PlannedCheck,
    Proof,
    Result,
    Section,
    ServiceEvidence,
    Status,
    Subject,
    TopologyEvidence,
    TrailProof,
)
from harness.report.evidence import NOBODY_RAN_IT, Evidence
from harness.report.merging import merge
from harness.report.spans import elapsed_s
from harness.store import StoredRun
from tests.tables import each_row
from tests.unit.made_up import CHECKS, NAMES, PLAN, planned, record, result, stood

if TYPE_CHECKING:
    from collections.abc import Iterable

INSERT, ACTOR, COVERAGE = CHECKS
SERVERS = "postgres 17.5 (Debian) from postgres:17@sha256:ab"
OTHER_SERVERS = "a newer run used other servers; this run used "
ROW = planned("direct", INSERT)


def run_id(number: int) -> str:
    return f"20260101T000000Z-0000000{number}"


def run(
    number: int,
    *results: Result,
    proofs: Iterable[Proof] = (),
    trail_proofs: Iterable[TrailProof] = (),
    torn: int = 0,
    fingerprint: str = "f1",
    **facts: Any,
) -> StoredRun:
    """Return a run as if it were read from disk; `facts` are fields of its record."""
    return StoredRun(
        Path("runs") / run_id(number),
        replace(record(run_id(number), fingerprint=fingerprint), **facts),
        results,
        tuple(proofs),
        tuple(trail_proofs),
        torn,
    )


def issue(topology: str, check: str) -> Result:
    return result(topology, check, Status.ISSUE, "rows: expected 1, observed 0")


def statuses(evidence: Evidence, target: str) -> list[str]:
    return [str(row.status) for row in evidence.of(target)]


# --- rows ------------------------------------------------------------------------------------------------


def test_a_row_that_no_run_exercised_says_so_and_names_its_command() -> None:
    (row,) = merge([], [ROW]).rows
    assert (row.planned, row.run_id, row.proofs) == (ROW, "", ())
    assert row.result == Result(
        target="direct", check=INSERT, status=Status.NOT_RUN, reason=NOBODY_RAN_IT, reproduce=ROW.reproduce
    )


def test_rows_that_a_run_planned_follow_those_that_the_report_needs() -> None:
    unplanned, extra = planned("direct", "capture.new"), planned("session", "capture.extra")
    evidence = merge([run(1, plan=(extra, ROW))], [unplanned, ROW])
    assert [row.planned for row in evidence.rows] == [unplanned, ROW, extra]
    assert evidence.names() == ["direct", "session"]


REACHED = EnvironmentEvidence(name="staging", reached=True)
OK, ISSUE, NA, NOT_RUN = Status.OK, Status.ISSUE, Status.NA, Status.NOT_RUN


@each_row(
    ("environments", "state", "older", "newer", "wins"),
    [
        # in a topology, Not run replaces only Not run
        *(({}, "finished", older, NOT_RUN, older) for older in (OK, ISSUE, NA)),
        # an environment changes without the harness, but an Issue stays until a run shows that it is fixed
        *(({"staging": REACHED}, "finished", older, NOT_RUN, NOT_RUN) for older in (OK, NA)),
        ({"staging": REACHED}, "finished", ISSUE, NOT_RUN, ISSUE),
        # an interrupted run shows nothing about an environment
        *(({"staging": REACHED}, "interrupted", older, NOT_RUN, older) for older in (OK, ISSUE, NA)),
        # every other result replaces the older one
        *(({}, "interrupted", older, newer, newer) for older in (ISSUE, NOT_RUN) for newer in (OK, ISSUE, NA)),
        ({"staging": REACHED}, "interrupted", ISSUE, OK, OK),
    ],
)
def test_the_newest_result_wins_except_that_not_run_hides_nothing(
    environments: dict[str, EnvironmentEvidence], state: str, older: Status, newer: Status, wins: Status
) -> None:
    row = planned("staging", INSERT)
    first, second = (
        run(number, result("staging", INSERT, status), plan=(row,), environments=environments, state=state)
        for number, status in ((1, older), (2, newer))
    )
    (merged,) = merge([first, second], [row]).rows
    assert merged.status is wins
    assert merged.run_id == (run_id(1) if wins is not newer else run_id(2))


def test_the_newest_reason_of_a_row_that_is_not_run_wins() -> None:
    runs = [run(number, result("direct", INSERT, NOT_RUN, f"reason {number}"), plan=(ROW,)) for number in (1, 2)]
    (row,) = merge(runs, [ROW]).rows
    assert (row.run_id, row.result.reason) == (run_id(2), "reason 2")


def test_a_row_without_a_result_keeps_the_reason_of_the_run() -> None:
    (row,) = merge([run(1, plan=(ROW,), state="failed", failure="the disk is full")], [ROW]).rows
    assert row.result.reason == "the run failed before this check finished: the disk is full"
    assert row.run_id == run_id(1)


# --- what is left out ------------------------------------------------------------------------------------


def test_a_run_of_other_code_is_left_out_and_named() -> None:
    runs = [run(1, issue("direct", INSERT), fingerprint="other"), run(2, result("direct", INSERT))]
    evidence = merge(runs, PLAN, left_out=["run x cannot be read: not a run folder"])
    assert evidence.left_out == (
        "run x cannot be read: not a run folder",
        f"run {run_id(1)} is left out: it ran other harness code",
    )
    assert list(evidence.folders.items()) == [(run_id(2), Path("runs") / run_id(2))]


def test_the_code_of_the_report_need_not_be_that_of_the_newest_run() -> None:
    runs = [run(1, issue("direct", INSERT), fingerprint="other"), run(2, result("direct", INSERT))]
    evidence = merge(runs, PLAN, fingerprint="other")
    assert evidence.rows[0].run_id == run_id(1)
    assert evidence.left_out == (f"run {run_id(2)} is left out: it ran other harness code",)


def test_damaged_rows_are_counted_also_in_a_run_of_other_code() -> None:
    runs = [run(1, torn=1, fingerprint="other"), run(2, torn=2), run(3)]
    assert merge(runs, PLAN).left_out == (
        f"run {run_id(1)} is left out: it ran other harness code",
        f"run {run_id(1)} has 1 damaged rows; they count as Not run",
        f"run {run_id(2)} has 2 damaged rows; they count as Not run",
    )


def test_a_run_on_other_servers_is_left_out_for_each_topology_with_its_issues() -> None:
    old = run(
        1,
        issue("direct", INSERT),
        issue("direct", COVERAGE),
        result("direct", ACTOR),
        issue("session", INSERT),
        topologies={name: stood(name) for name in ("direct", "transaction")},
    )
    new = run(2, result("transaction", INSERT), engine="native", topologies={"direct": stood("direct")})
    evidence = merge([old, new], PLAN)
    assert evidence.left_out == (
        f"run {run_id(1)} is left out for direct, including its Issue rows (2): {OTHER_SERVERS}docker: {SERVERS}",
    )
    assert statuses(evidence, "direct") == ["Not run"] * 3
    assert statuses(evidence, "session") == ["Issue", "Not run", "Not run"]  # rows after those that were left out
    assert {name: found.run_id for name, found in evidence.records.items()} == {
        "direct": run_id(2),
        "transaction": run_id(1),
    }


@pytest.mark.parametrize("service", ["postgres", "pooler"])
@pytest.mark.parametrize("field", ["product", "version", "origin"])
def test_another_server_or_pooler_outdates_a_run(service: str, field: str) -> None:
    def changed(found: ServiceEvidence) -> ServiceEvidence:
        return replace(found, **{field: "another"}) if found.name == service else found

    session = stood("session")
    session = replace(session, services=tuple(map(changed, session.services)))
    old = run(1, result("session", INSERT), topologies={"session": session})
    assert statuses(merge([old, run(2)], PLAN), "session") == ["Not run"] * 3


def test_the_reference_host_is_not_one_of_the_servers_that_outdate_a_run() -> None:
    """It is started only for audited paths."""
    host = ServiceEvidence(name="hostapp", product="hostapp", version="1", origin="x")
    direct = replace(stood("direct"), services=(*stood("direct").services, host))
    evidence = merge([run(1, issue("direct", INSERT), topologies={"direct": direct}), run(2)], PLAN)
    assert (statuses(evidence, "direct")[0], evidence.left_out) == ("Issue", ())


def test_a_run_without_an_issue_is_left_out_without_a_count() -> None:
    runs = [run(1, result("direct", INSERT), engine="native"), run(2)]
    assert merge(runs, PLAN).left_out[0] == (
        f"run {run_id(1)} is left out for direct: {OTHER_SERVERS}native: {SERVERS}"
    )


def test_a_topology_file_that_has_changed_leaves_out_its_rows_servers_and_proofs() -> None:
    declared = {"direct": replace(stood("direct").declared, summary="another")}
    evidence = merge(
        [run(1, result("direct", INSERT), proofs=[proof_of("direct"), proof_of("session")])], PLAN, declared=declared
    )
    why = "its topology file has changed since, or a newer run read another one"
    assert evidence.left_out == (f"run {run_id(1)} is left out for direct: {why}",)
    assert statuses(evidence, "direct") == ["Not run"] * 3
    assert list(evidence.topologies) == ["session", "transaction"]
    assert {row.planned.target for row in evidence.rows if row.proofs} == {"session"}


def test_a_declaration_of_a_check_that_has_changed_is_named_once() -> None:
    rows = tuple(replace(planned(target, INSERT), declared_as="d1") for target in NAMES)
    now = [replace(row, declared_as="d2") for row in rows[:2]]
    evidence = merge([run(1, *(result(target, INSERT) for target in NAMES), plan=rows)], now)
    assert evidence.left_out == (
        f"run {run_id(1)} is left out for {INSERT}: its declaration in harness.toml has changed since",
    )
    assert [str(row.status) for row in evidence.rows] == ["Not run", "Not run", "OK"]


def test_a_topology_that_did_not_start_never_replaces_one_that_did() -> None:
    def failed(reason: str) -> dict[str, TopologyEvidence]:
        return {"direct": replace(stood("direct"), stood=False, reason=reason, services=())}

    runs = [run(1, topologies=failed("first")), run(2, topologies=failed("second"))]
    evidence = merge(runs, PLAN)
    assert (evidence.topologies["direct"].reason, evidence.records["direct"].run_id) == ("second", run_id(2))
    evidence = merge([*runs, run(3), run(4, topologies=failed("fourth"))], PLAN)
    assert (evidence.topologies["direct"].reason, evidence.records["direct"].run_id) == ("", run_id(3))
    assert evidence.left_out == ()


# --- audit targets ---------------------------------------------------------------------------------------


def test_a_report_is_about_the_audit_target_of_the_newest_run() -> None:
    runs = [
        run(1, issue("direct", INSERT), audit_target="mine 1a"),
        run(2, result("direct", INSERT), audit_target="reference 2b"),
    ]
    evidence = merge(runs, [ROW])
    assert (evidence.rows[0].run_id, evidence.left_out) == (run_id(2), ())
    evidence = merge(runs, [ROW], target="mine 1a")
    assert (evidence.rows[0].run_id, evidence.left_out) == (run_id(1), ())


def test_another_version_of_the_audit_target_is_left_out_and_named() -> None:
    runs = [run(1, issue("direct", INSERT), audit_target="mine 1a"), run(2, audit_target="mine 2b")]
    evidence = merge(runs, [ROW])
    assert evidence.rows[0].status is Status.NOT_RUN
    assert evidence.left_out == (f"run {run_id(1)} is left out: it tested another version of audit target mine",)


def test_servers_of_another_audit_target_do_not_outdate_a_run() -> None:
    runs = [
        run(1, result("direct", INSERT), audit_target="mine 1a"),
        run(2, result("direct", INSERT), audit_target="reference 2b", engine="native"),
    ]
    evidence = merge(runs, [ROW], target="mine 1a")
    assert (evidence.rows[0].run_id, evidence.left_out) == (run_id(1), ())


def test_a_name_with_blanks_is_the_name_of_an_audit_target() -> None:
    runs = [run(1, issue("direct", INSERT), audit_target="my trail 1a"), run(2, audit_target="my trail 2b")]
    assert merge(runs, [ROW]).left_out == (
        f"run {run_id(1)} is left out: it tested another version of audit target my trail",
    )
    other = [run(1, issue("direct", INSERT), audit_target="my trail 1a"), run(2, audit_target="my other 2b")]
    assert merge(other, [ROW]).left_out == ()


# --- subjects --------------------------------------------------------------------------------------------

SUITE = replace(planned("direct", INSERT), check="command.suite", section=Section.COMMANDS)


def about(revision: str, **facts: str) -> dict[str, Subject]:
    return {"command.suite": Subject(facts={"commit": revision, "uncommitted changes": "none", **facts})}


def suite_run(number: int, status: Status, subjects: dict[str, Subject], **facts: Any) -> StoredRun:
    found = replace(result("direct", INSERT, status, "" if status is OK else "it failed"), check="command.suite")
    return run(number, found, plan=(SUITE,), subjects=subjects, **facts)


def test_a_result_about_another_revision_does_not_count_and_says_how_to_run_again() -> None:
    evidence = merge([suite_run(1, OK, about("a1"))], [], subjects=about("b2"))
    (row,) = evidence.rows
    why = "commit a1, now b2"
    assert (row.status, row.result.reason) == (NOT_RUN, f"what the evidence is about has changed: {why}")
    left_out = f"run {run_id(1)} is left out for command.suite on direct: what it tested has changed: {why}; "
    assert evidence.left_out == (f"{left_out}run it again: {SUITE.reproduce}",)
    assert (evidence.shown, evidence.span()) == ((), ("", ""))


@pytest.mark.parametrize("expected", [[], [SUITE]])
def test_evidence_about_another_revision_is_never_complete(expected: list[PlannedCheck]) -> None:
    evidence = merge([suite_run(1, OK, about("a1"))], expected, subjects=about("b2"))
    # a run of all planned rows exercises what is planned; a command of `exec` has to run by itself
    assert evidence.missing() == (["direct"] if expected else [])
    assert [row.planned.check for row in evidence.to_repeat("direct")] == ([] if expected else ["command.suite"])


def test_other_rows_that_are_not_planned_are_missing_as_before() -> None:
    evidence = merge([run(1, result("direct", INSERT, NOT_RUN, "it could not be forced"), plan=(ROW,))], [])
    assert (evidence.missing(), evidence.to_repeat("direct")) == (["direct"], [])


def test_two_revisions_never_stand_side_by_side() -> None:
    session = replace(SUITE, target="session")
    old = replace(suite_run(1, OK, about("a1")).results[0], target="session")
    runs = [run(1, old, plan=(session,), subjects=about("a1")), suite_run(2, OK, about("b2"))]
    evidence = merge(runs, [])
    assert {row.planned.target: row.status for row in evidence.rows} == {"session": NOT_RUN, "direct": OK}
    assert [record.run_id for record in evidence.shown] == [run_id(2)]


def test_the_same_revision_counts_whatever_else_ran() -> None:
    evidence = merge([suite_run(1, OK, about("a1")), suite_run(2, NOT_RUN, about("a1"))], [], subjects=about("a1"))
    assert (evidence.rows[0].status, evidence.left_out) == (OK, ())
    assert evidence.subjects() == about("a1")


@pytest.mark.parametrize(
    ("now", "status"), [("a digest", Status.NA), ("another digest", NOT_RUN)], ids=["a commit", "a declaration"]
)
def test_a_row_that_the_declaration_makes_not_applicable_stays_so_after_a_commit(now: str, status: Status) -> None:
    declared = replace(SUITE, declared_as="a digest")
    found = replace(suite_run(1, Status.NA, about("a1")).results[0], reason="the project declares no command for it")
    stored = run(1, found, plan=(declared,), subjects=about("a1"))
    evidence = merge([stored], [replace(declared, declared_as=now)], subjects=about("b2"))
    assert evidence.rows[0].status is status
    assert evidence.subjects() == {}  # it shows nothing about a revision


def test_a_new_result_replaces_the_sentence_about_another_revision() -> None:
    evidence = merge([suite_run(1, OK, about("a1")), suite_run(2, Status.ISSUE, about("b2"))], [SUITE])
    assert (evidence.rows[0].status, evidence.rows[0].result.reason) == (Status.ISSUE, "it failed")


def test_a_run_that_does_not_say_what_it_tested_does_not_count() -> None:
    evidence = merge([suite_run(1, OK, {})], [SUITE])
    assert evidence.rows[0].result.reason.endswith("the run does not say which revision it tested")


def test_proofs_about_another_revision_do_not_count() -> None:
    proof = replace(proof_of("direct"), check="command.suite")
    runs = [suite_run(1, OK, about("a1"), proofs=[proof]), suite_run(2, OK, about("b2"))]
    assert [row.proofs for row in merge(runs, [SUITE]).rows] == [()]
    assert [row.proofs for row in merge(runs[:1], [SUITE]).rows] == [(proof,)]


def test_the_span_is_that_of_the_rows_that_are_shown() -> None:
    first, second = (
        replace(result("direct", check), started_at=f"2026-01-01T0{hour}:00:00.000Z", duration_ms=1500.0)
        for hour, check in enumerate((INSERT, ACTOR))
    )
    replaced = replace(first, started_at="2025-01-01T00:00:00.000Z")
    evidence = merge([run(1, replaced), run(2, first, second)], PLAN)
    assert evidence.span() == ("2026-01-01T00:00:00.000Z", "2026-01-01T01:00:01.500Z")
    evidence = merge([run(1, replaced, plan=(ROW,)), run(2, first, plan=(ROW,))], [ROW])
    assert [record.run_id for record in evidence.shown] == [run_id(2)]


# --- proofs ----------------------------------------------------------------------------------------------


def proof_of(topology: str, control: str = "no_trigger", *, proven: bool = True) -> Proof:
    return Proof(topology=topology, check=INSERT, control=control, at="rows", proven=proven, applicable=True, reason="")


def trail_proof_of(topology: str, name: str, *, tried: int = 1) -> TrailProof:
    return TrailProof(
        topology=topology,
        name=name,
        what="the trail loses rows",
        tried=tried,
        caught=(INSERT,),
        missed=(),
        unexpected=(),
    )


def test_a_row_has_the_newest_proof_of_each_of_its_controls() -> None:
    evidence = merge(
        [
            run(1, proofs=[proof_of("direct", proven=False), proof_of("direct", "no_row"), proof_of("session")]),
            run(2, proofs=[proof_of("direct")]),
        ],
        PLAN,
    )
    assert {(row.planned.target, row.planned.check): row.proofs for row in evidence.rows if row.proofs} == {
        ("direct", INSERT): (proof_of("direct"), proof_of("direct", "no_row")),
        ("session", INSERT): (proof_of("session"),),
    }


def test_proofs_count_for_every_audit_target_on_the_same_servers() -> None:
    """Proofs are about the checks, and not about the audit target."""
    proofs = [proof_of("direct"), proof_of("session")]
    mine = run(1, proofs=proofs, audit_target="mine 1a")
    reference = run(2, audit_target="reference 2b", engine="native", topologies={"direct": stood("direct")})
    evidence = merge([mine, reference], PLAN, target="reference 2b")
    assert [(row.planned.target, row.proofs) for row in evidence.rows if row.proofs] == [("session", (proofs[1],))]
    assert evidence.left_out == ()


def test_the_newest_proof_of_each_break_of_the_trail_counts() -> None:
    evidence = merge(
        [
            run(1, trail_proofs=[trail_proof_of("direct", "no_actor"), trail_proof_of("direct", "no_rows")]),
            run(2, trail_proofs=[trail_proof_of("direct", "no_actor", tried=9)]),
        ],
        PLAN,
    )
    assert evidence.trail_proofs == {
        "no_actor": trail_proof_of("direct", "no_actor", tried=9),
        "no_rows": trail_proof_of("direct", "no_rows"),
    }


def test_a_proof_of_the_trail_on_other_servers_does_not_count() -> None:
    old = run(1, trail_proofs=[trail_proof_of("direct", "a"), trail_proof_of("session", "b")], engine="native")
    new = run(2, topologies={"direct": stood("direct")})
    assert list(merge([old, new], PLAN).trail_proofs) == ["b"]


# --- environments ----------------------------------------------------------------------------------------


def environment(*, reached: bool = True, reason: str = "", app: str = "", declared_as: str = "d1") -> dict[str, Any]:
    versions = {"app": app} if app else {}
    return {
        "environments": {
            "staging": EnvironmentEvidence(
                name="staging", reached=reached, reason=reason, versions=versions, declared_as=declared_as
            )
        }
    }


def test_a_run_that_did_not_reach_an_environment_keeps_what_an_older_run_found() -> None:
    runs = [
        run(1, **environment(reached=False, reason="no route")),
        run(2, **environment(app="1")),
        run(3, **environment(reached=False, reason="refused")),
    ]
    evidence = merge(runs[:1], [])
    assert (evidence.environments["staging"].reason, evidence.left_out) == ("no route", ())
    evidence = merge(runs, [])
    assert evidence.environments["staging"].reached
    assert evidence.records["staging"].run_id == run_id(2)
    assert evidence.left_out == (
        f"run {run_id(3)} did not reach staging: refused; the report shows what an older run found there",
    )


def test_the_newest_run_that_reached_an_environment_describes_it() -> None:
    evidence = merge([run(1, **environment()), run(2, **environment())], [])
    assert evidence.records["staging"].run_id == run_id(2)


def test_an_environment_that_has_changed_leaves_out_older_evidence() -> None:
    row = planned("staging", INSERT)
    runs = [
        run(1, issue("staging", INSERT), plan=(row,), **environment(app="1")),
        run(2, plan=(row,), **environment(app="2")),
    ]
    evidence = merge(runs, [row])
    (note,) = evidence.left_out
    assert note == (
        f"run {run_id(1)} is left out for staging, including its Issue rows (1): the environment has changed since: "
        "the version of app"
    )
    assert statuses(evidence, "staging") == ["Not run"]
    assert evidence.environments["staging"].versions == {"app": "2"}


@pytest.mark.parametrize(
    ("fact", "older", "kept"),
    [
        *((fact, "another", False) for fact in ("pooler", "product", "pool_mode", "server_version")),
        # a fact that was not found does not show a change, and the size of a pool is not part of the chain
        ("product", "", True),
        ("pool_size", "another", True),
    ],
)
def test_facts_of_the_chain_tell_whether_an_environment_has_changed(fact: str, older: str, kept: bool) -> None:
    row = planned("staging", INSERT)

    def found(value: str) -> dict[str, Any]:
        finding = Finding(fact=fact, value=value, how="it was asked", confidence=Confidence.CERTAIN)
        return {"environments": {"staging": replace(REACHED, findings=(finding,))}}

    evidence = merge([run(1, issue("staging", INSERT), plan=(row,), **found(older)), run(2, **found("now"))], [row])
    assert statuses(evidence, "staging") == (["Issue"] if kept else ["Not run"])
    assert [note.endswith(f": the environment has changed since: {fact}") for note in evidence.left_out] == (
        [] if kept else [True]
    )


def test_another_database_behind_the_same_chain_is_another_environment() -> None:
    row = planned("staging", INSERT)
    runs = [
        run(number, result("staging", INSERT), plan=(row,), environments={"staging": replace(REACHED, database=digest)})
        for number, digest in ((1, "d1"), (2, "d2"))
    ]
    assert merge(runs, [row]).left_out == (
        f"run {run_id(1)} is left out for staging: the environment has changed since: the database",
    )
    # a role that may not read it shows no other database
    unknown = replace(runs[1], record=replace(runs[1].record, environments={"staging": REACHED}))
    assert merge([runs[0], unknown], [row]).left_out == ()


def test_an_environment_that_is_declared_otherwise_now_leaves_out_its_evidence() -> None:
    row = planned("staging", INSERT)
    runs = [run(1, result("staging", INSERT), plan=(row,), **environment())]
    assert merge(runs, [row], environments={"staging": "d1"}).left_out == ()
    evidence = merge(runs, [row], environments={"staging": "d2"})
    assert evidence.left_out == (
        f"run {run_id(1)} is left out for staging: its declaration in harness.toml has changed since",
    )
    assert (evidence.environments, "staging" in evidence.records) == ({}, False)
    assert statuses(evidence, "staging") == ["Not run"]


# --- what a report still needs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engines", "missing"),
    [
        ((), ["session"]),
        (("auto",), ["session"]),
        (("docker",), ["session"]),
        (("native",), ["direct", "session"]),
    ],
)
def test_a_topology_is_missing_without_a_result_or_on_another_engine(
    engines: tuple[str, ...], missing: list[str]
) -> None:
    rows = [planned("direct", INSERT), planned("session", ACTOR), planned("session", INSERT)]
    evidence = merge([run(1, result("direct", INSERT), result("session", INSERT), plan=tuple(rows))], rows)
    assert evidence.missing(*engines) == missing


# --- times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ran", "seconds"),
    [
        ([], 0.0),
        ([("", 5000.0)], 0.0),
        ([("2026-01-01T00:00:00.000Z", 1500.0)], 1.5),
        ([("2026-01-01T00:00:02.000Z", 500.0), ("2026-01-01T00:00:00.000Z", 9000.0), ("", 99000.0)], 9.0),
        ([("2026-01-01T00:00:00.000Z", 1000.0), ("2026-01-01T00:01:00.000Z", 2000.0)], 62.0),
    ],
)
def test_the_duration_of_concurrent_checks_is_from_the_first_start_to_the_last_end(
    ran: list[tuple[str, float]], seconds: float
) -> None:
    results = [replace(result("direct", INSERT), started_at=start, duration_ms=duration) for start, duration in ran]
    assert elapsed_s(results) == seconds
