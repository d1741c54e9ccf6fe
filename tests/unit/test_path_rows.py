"""The rows of audited paths, from evidence that is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.model import (
    EnvironmentEvidence,
    EvidenceClass,
    Expectation,
    Limit,
    PathLabel,
    PlannedCheck,
    Result,
    Section,
    Severity,
    Status,
)
from harness.report.merging import merge
from harness.report.path_rows import PathRow, path_rows
from tests.unit.made_up import record, stood, store_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.evidence import Evidence

CI, HOST = "CI-class: the reference host, not yours", "host-class: the operator's own host"
POST = PathLabel(name="new-post", title="POST /posts", kind="HTTP")
JOB = PathLabel(name="retitle", title="the job that changes a title", kind="job")
ASPECTS = ("two-callers", "repeated", "failure", "no-trigger")


def planned(where: str, label: PathLabel, aspect: str = "") -> PlannedCheck:
    check = f"path.{label.name}" + (f"-{aspect}" if aspect else "")
    return PlannedCheck(
        target=where,
        check=check,
        claim=f"{label.title}: the claim of {aspect or 'the path itself'}",
        section=Section.PATHS,
        severity=Severity.P0,
        area=f"audited path, {label.kind}",
        path=replace(label, aspect=aspect),
        reproduce=f"verify {where} --check {check}",
    )


def answer(
    row: PlannedCheck, status: Status = Status.OK, reason: str = "", facts: dict[str, str] | None = None
) -> Result:
    held = status is not Status.ISSUE
    judged = status in {Status.OK, Status.ISSUE}
    return Result(
        target=row.target,
        check=row.check,
        status=status,
        reason=reason,
        facts=facts or {},
        reproduce=row.reproduce,
        expectations=(Expectation(name="rows", expected="1", observed="1" if held else "0", held=held),)
        if judged
        else (),
    )


def sound(where: str, label: PathLabel) -> list[tuple[PlannedCheck, Result]]:
    """Return a path that is OK in every aspect, with its results."""
    facts = {
        "repeated": {"the second time": "refused"},
        "no-trigger": {"without the audit trigger": "fails closed: answers 500"},
    }
    found = [(row := planned(where, label), answer(row, facts={"audit transaction": "7"}))]
    for aspect in ASPECTS:
        row = planned(where, label, aspect)
        found.append((row, answer(row, facts=facts.get(aspect))))
    return found


def evidence(
    folder: Path,
    answers: list[tuple[PlannedCheck, Result]],
    *,
    environments: tuple[str, ...] = (),
    written: bool = True,
) -> Evidence:
    """Store a run with these results, and merge it.

    :param environments: which of the targets are an operator's environments.
    :param written: False for a plan that no run has exercised.
    """
    plan = tuple(row for row, _ in answers)
    if not written:
        return merge([], plan)
    run = record()
    run = replace(
        run, plan=plan, topologies={name: run.topologies[name] for name in run.topologies if not environments}
    )
    if environments:
        found = {name: EnvironmentEvidence(name=name, reached=True) for name in environments}
        run = replace(run, evidence_class=EvidenceClass.HOST, engine="attached", engine_version="", environments=found)
    return merge([store_run(folder, [result for _, result in answers], run)], plan)


def twice(
    folder: Path,
    status: Status,
    *,
    before: Status = Status.OK,
    state: str = "finished",
    environment: bool = True,
) -> Evidence:
    """Merge two runs of one path.

    :param status: of the path in the newer run, which ended with `state`.
    :param before: its status in the older run, which finished.
    :param environment: the runs verified an operator's environment, not a topology.
    """
    row, result = sound("staging", POST)[0]
    environments = {"staging": EnvironmentEvidence(name="staging", reached=True)} if environment else {}
    topologies = {} if environment else {"staging": stood("direct")}
    runs = []
    for number, (found, ended) in enumerate(((before, "finished"), (status, state)), 1):
        run = replace(record(f"20260101T000000Z-0000000{number}", state=ended), plan=(row,), topologies=topologies)
        run = replace(run, environments=environments)
        answer = replace(result, status=found, reason="" if found is Status.OK else "it is down")
        if found is Status.ISSUE:
            broken = Expectation(name="rows", expected="1", observed="0", held=False)
            answer = replace(answer, expectations=(broken,))
        runs.append(store_run(folder / str(number), [answer], run))
    return merge(runs, [row])


def test_an_environment_that_stopped_working_is_not_ok(tmp_path: Path) -> None:
    rows = path_rows(twice(tmp_path, Status.NOT_RUN), ["staging"])
    assert row_of(rows, "new-post").status is Status.NOT_RUN
    assert "it is down" in row_of(rows, "new-post").notes


def test_an_issue_stays_until_a_run_shows_that_it_is_fixed(tmp_path: Path) -> None:
    rows = path_rows(twice(tmp_path, Status.NOT_RUN, before=Status.ISSUE), ["staging"])
    assert row_of(rows, "new-post").status is Status.ISSUE


def test_an_interrupted_run_does_not_replace_a_result(tmp_path: Path) -> None:
    assert row_of(path_rows(twice(tmp_path, Status.NOT_RUN, state="interrupted")), "new-post").status is Status.OK


def test_a_topology_keeps_its_result_if_a_newer_run_has_none(tmp_path: Path) -> None:
    assert row_of(path_rows(twice(tmp_path, Status.NOT_RUN, environment=False)), "new-post").status is Status.OK


def test_a_documented_limit_is_one_of_the_notes(tmp_path: Path) -> None:
    [(row, result), *others] = sound("staging", POST)
    limited = replace(result, limit=Limit(outcome="its rows came later", source="README.md"))
    rows = path_rows(evidence(tmp_path, [(row, limited), *others], environments=("staging",)))
    assert "documented limit: its rows came later" in row_of(rows, "new-post").notes


def row_of(found: tuple[PathRow, ...], name: str) -> PathRow:
    return next(row for row in found if f"({name})" in row.path)


def test_a_path_that_is_ok_names_its_command_and_its_audit_transaction(tmp_path: Path) -> None:
    rows = path_rows(evidence(tmp_path, sound("direct", POST) + sound("direct", JOB)))
    # paths of the reference host do not replace those of the operator's own host
    assert [row.status for row in rows] == [Status.OK, Status.OK, Status.NOT_RUN, Status.NOT_RUN]
    post = row_of(rows, "new-post")
    assert (post.path, post.kind) == ("POST /posts (new-post) on direct", "HTTP")
    assert post.evidence == "verify direct --check path.new-post"
    assert "audit transaction 7" in post.notes
    assert post.notes.endswith(CI)
    assert row_of(rows, "retitle").kind == "job"


def test_the_notes_say_what_the_aspects_observed(tmp_path: Path) -> None:
    notes = row_of(path_rows(evidence(tmp_path, sound("direct", POST))), "new-post").notes
    assert "repeated: OK, refused" in notes
    assert "audit trigger missing: OK, fails closed" in notes


def test_an_issue_of_the_path_is_an_issue_with_its_reason(tmp_path: Path) -> None:
    answers = sound("direct", POST)
    answers[0] = (answers[0][0], answer(answers[0][0], Status.ISSUE, "actor: expected ada, observed another value"))
    row = row_of(path_rows(evidence(tmp_path, answers)), "new-post")
    assert row.status is Status.ISSUE
    assert row.notes.startswith("actor: expected ada, observed another value")
    assert "audit transaction" not in row.notes


def with_aspect(where: str, aspect: str, status: Status, reason: str) -> list[tuple[PlannedCheck, Result]]:
    return [
        (row, answer(row, status, reason) if row.check.endswith(aspect) else result)
        for row, result in sound(where, POST)
    ]


@pytest.mark.parametrize(
    ("aspect", "called"),
    [
        ("two-callers", "two concurrent callers"),
        ("repeated", "repeated"),
        ("failure", "failure midway"),
        ("no-trigger", "audit trigger missing"),
    ],
)
def test_an_issue_of_one_aspect_makes_the_row_an_issue(tmp_path: Path, aspect: str, called: str) -> None:
    row = row_of(
        path_rows(evidence(tmp_path, with_aspect("direct", aspect, Status.ISSUE, "1 row of another"))), "new-post"
    )
    assert row.status is Status.ISSUE
    assert f"{called}: Issue, 1 row of another" in row.notes
    assert row.notes.startswith("the path itself: OK; audit transaction 7; ")


def test_an_issue_of_one_aspect_names_the_command_of_that_aspect(tmp_path: Path) -> None:
    """The command of the path itself would end with OK."""
    answers = with_aspect("direct", "failure", Status.ISSUE, "half of it is there")
    row = row_of(path_rows(evidence(tmp_path, answers)), "new-post")
    assert "--check path.new-post-failure" in row.evidence


@pytest.mark.parametrize("main", [Status.NOT_RUN, Status.OK])
def test_not_run_never_hides_an_issue(tmp_path: Path, main: Status) -> None:
    answers = with_aspect("direct", "two-callers", Status.ISSUE, "a row of another")
    reason = "" if main is Status.OK else "the check was given up"
    answers[0] = (answers[0][0], answer(answers[0][0], main, reason))
    assert row_of(path_rows(evidence(tmp_path, answers)), "new-post").status is Status.ISSUE


def test_an_aspect_that_is_not_run_is_named_and_the_path_stays_ok(tmp_path: Path) -> None:
    answers = with_aspect("direct", "no-trigger", Status.NOT_RUN, "not safe in an environment that others use")
    row = row_of(path_rows(evidence(tmp_path, answers)), "new-post")
    assert row.status is Status.OK
    assert "audit trigger missing: Not run, not safe in an environment that others use" in row.notes


def test_the_notes_of_na_are_its_reason_only(tmp_path: Path) -> None:
    reason = "no background job executor in this deployment"
    answers = [(row, answer(row, Status.NA, reason)) for row, _ in sound("direct", JOB)]
    row = row_of(path_rows(evidence(tmp_path, answers)), "retitle")
    assert (row.status, row.evidence, row.notes) == (Status.NA, "", reason)


def test_a_path_that_no_run_exercised_is_not_run(tmp_path: Path) -> None:
    row = row_of(path_rows(evidence(tmp_path, sound("direct", POST), written=False)), "new-post")
    assert row.status is Status.NOT_RUN
    assert "no run of this code has exercised it" in row.notes
    assert row.evidence == "verify direct --check path.new-post"


def test_without_a_declared_path_both_kinds_are_not_run() -> None:
    rows = path_rows(merge([], ()))
    assert [(row.kind, row.status, row.evidence) for row in rows] == [
        ("HTTP", Status.NOT_RUN, ""),
        ("job", Status.NOT_RUN, ""),
    ]
    assert rows[0].notes == "in scope and not yet exercised: no environment of class host is declared"
    assert rows[0].path == "an audited write by an HTTP request: your own host"
    assert rows[1].path == "an audited write by a job: your own host"


def test_a_kind_that_is_not_declared_is_not_run(tmp_path: Path) -> None:
    rows = path_rows(evidence(tmp_path, sound("staging", POST), environments=("staging",)), ["staging"])
    assert rows[1].notes == "in scope and not yet exercised: no audited write by a job is declared"
    assert [(row.kind, row.status) for row in rows] == [("HTTP", Status.OK), ("job", Status.NOT_RUN)]
    assert rows[1].path == "an audited write by a job on staging"
    (first, _) = path_rows(merge([], ()), ["staging"])
    assert first.path == "an audited write by an HTTP request on staging"
    assert first.notes == "in scope and not yet exercised: no audited write by an HTTP request is declared"


def test_an_aspect_without_its_path_has_no_row(tmp_path: Path) -> None:
    aspects = [(row, found) for row, found in sound("direct", POST) if row.path and row.path.aspect]
    assert [row.kind for row in path_rows(evidence(tmp_path, aspects)) if "direct" in row.path] == []


def test_a_kind_that_is_na_is_not_missing(tmp_path: Path) -> None:
    row = planned("staging", JOB)
    answers = [*sound("staging", POST), (row, answer(row, Status.NA, "no background job executor in this deployment"))]
    found = path_rows(evidence(tmp_path, answers, environments=("staging",)), ["staging"])
    assert [row.kind for row in found] == ["HTTP", "job"]


# --- evidence classes ---------------------------------------------------------------------------------------


def test_host_class_and_ci_class_are_labelled(tmp_path: Path) -> None:
    ours = evidence(tmp_path / "ci", sound("direct", POST))
    theirs = evidence(tmp_path / "host", sound("staging", POST), environments=("staging",))
    both = replace(
        ours,
        rows=ours.rows + theirs.rows,
        records=ours.records | theirs.records,
        environments=theirs.environments,
    )
    rows = [row for row in path_rows(both) if row.status is Status.OK]
    assert [row.path for row in rows] == ["POST /posts (new-post) on direct", "POST /posts (new-post) on staging"]
    assert CI in rows[0].notes
    assert HOST not in rows[0].notes
    assert HOST in rows[1].notes
    assert CI not in rows[1].notes


def test_an_environment_that_was_not_reached_is_still_host_class(tmp_path: Path) -> None:
    answers = [
        (row, answer(row, Status.NOT_RUN, "the environment was not reached")) for row, _ in sound("staging", POST)
    ]
    found = evidence(tmp_path, answers, environments=("staging",))
    # its record alone says so, and the environment alone
    for merged in (found, replace(found, environments={}), replace(found, records={})):
        assert row_of(path_rows(merged), "new-post").notes == f"the environment was not reached; {HOST}"
    row = row_of(path_rows(found), "new-post")
    assert (row.status, row.notes) == (Status.NOT_RUN, f"the environment was not reached; {HOST}")


def test_an_environment_that_no_run_verified_is_host_class(tmp_path: Path) -> None:
    """Only `hosts` says so, because no evidence exists."""
    row = row_of(path_rows(evidence(tmp_path, sound("staging", POST), written=False), ["staging"]), "new-post")
    assert row.status is Status.NOT_RUN
    assert row.notes == f"no run of this code has exercised it; {HOST}"


def test_a_lab_that_is_called_an_environment_is_ci_class(tmp_path: Path) -> None:
    found = evidence(tmp_path, sound("staging", POST), environments=("staging",))
    lab = {"staging": replace(found.environments["staging"], is_a_lab=True)}
    notes = row_of(path_rows(replace(found, environments=lab)), "new-post").notes
    assert "CI-class: servers that the harness started, not yours" in notes
    assert HOST not in notes


def test_the_versions_of_a_host_are_named(tmp_path: Path) -> None:
    found = evidence(tmp_path, sound("staging", POST), environments=("staging",))
    staging = replace(found.environments["staging"], versions={"library": "audit 0.4.0", "app": "app 7c1"})
    notes = row_of(path_rows(replace(found, environments={"staging": staging})), "new-post").notes
    assert notes.endswith(f"; {HOST} (audit 0.4.0, app 7c1)")


def test_a_result_for_another_declaration_does_not_count(tmp_path: Path) -> None:
    row = planned("direct", POST)
    run = replace(record(), plan=(row,))
    stored = store_run(tmp_path, [answer(row)], run)
    assert merge([stored], [row]).rows[0].status is Status.OK
    changed = merge([stored], [replace(row, declared_as="another")])
    assert changed.rows[0].status is Status.NOT_RUN
    assert "its declaration in harness.toml has changed since" in changed.left_out[0]
