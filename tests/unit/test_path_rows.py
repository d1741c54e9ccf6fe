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
from harness.report.evidence import Evidence, merge
from harness.report.path_rows import PathRow, path_rows
from tests.unit.made_up import record, store_run

if TYPE_CHECKING:
    from pathlib import Path

CI, HOST = "CI-class: the reference host, not yours", "host-class: the operator's own host"
POST = PathLabel(name="new-post", title="POST /posts", kind="HTTP")
JOB = PathLabel(name="retitle", title="the job that changes a title", kind="job")
ASPECTS = ("two-callers", "repeated", "failure", "no-trigger")


def planned(where: str, label: PathLabel, aspect: str = "") -> PlannedCheck:
    check = f"path.{label.name}" + (f"-{aspect}" if aspect else "")
    return PlannedCheck(
        topology=where,
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
        topology=row.topology,
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
    """Return a path that holds in every aspect."""
    found = [(row := planned(where, label), answer(row, facts={"audit transaction": "7"}))]
    for aspect in ASPECTS:
        saw = {
            "repeated": {"the second time": "refused"},
            "no-trigger": {"without the audit trigger": "fails closed: answers 500"},
        }
        row = planned(where, label, aspect)
        found.append((row, answer(row, facts=saw.get(aspect))))
    return found


def evidence(
    folder: Path,
    answers: list[tuple[PlannedCheck, Result]],
    *,
    environments: tuple[str, ...] = (),
    written: bool = True,
) -> Evidence:
    """Return what a run that was written down is merged to.

    :param environments: names of what was verified as an operator's environment.
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
    """Return what is merged of a run with one answer of a path, and a later one with another."""
    [(row, result)] = [each for each in sound("staging", POST) if not (each[0].path and each[0].path.aspect)]
    found = {"staging": EnvironmentEvidence(name="staging", reached=True)} if environment else {}
    made = []
    for number, (how, became) in enumerate(((before, "finished"), (status, state)), 1):
        run = replace(record(f"20260101T000000Z-0000000{number}", state=became), plan=(row,), topologies={})
        run = replace(run, environments=found)
        made.append(store_run(folder / str(number), [replace(result, status=how, reason="it is down")], run))
    return merge(made, [row])


def test_an_environment_that_could_not_be_exercised_any_more_is_not_ok(tmp_path: Path) -> None:
    rows = path_rows(twice(tmp_path, Status.NOT_RUN), ["staging"])
    assert row_of(rows, "new-post").status is Status.NOT_RUN
    assert "it is down" in row_of(rows, "new-post").notes


def test_what_was_shown_to_be_wrong_stands_until_it_is_shown_to_be_right(tmp_path: Path) -> None:
    rows = path_rows(twice(tmp_path, Status.NOT_RUN, before=Status.ISSUE), ["staging"])
    assert row_of(rows, "new-post").status is Status.ISSUE


def test_an_interrupted_run_takes_no_answer_away(tmp_path: Path) -> None:
    assert row_of(path_rows(twice(tmp_path, Status.NOT_RUN, state="interrupted")), "new-post").status is Status.OK


def test_a_topology_stood_up_by_the_same_code_keeps_its_answer(tmp_path: Path) -> None:
    assert row_of(path_rows(twice(tmp_path, Status.NOT_RUN, environment=False)), "new-post").status is Status.OK


def test_a_limit_of_a_path_is_told_with_it(tmp_path: Path) -> None:
    [(row, result), *others] = sound("staging", POST)
    limited = replace(result, limit=Limit(outcome="its rows came later", source="README.md"))
    rows = path_rows(evidence(tmp_path, [(row, limited), *others], environments=("staging",)))
    assert "a limit: its rows came later" in row_of(rows, "new-post").notes


def row_of(found: tuple[PathRow, ...], name: str) -> PathRow:
    return next(each for each in found if f"({name})" in each.path)


def test_a_path_that_holds_is_ok_with_what_reproduces_it_and_where_it_is_in_the_trail(tmp_path: Path) -> None:
    rows = path_rows(evidence(tmp_path, sound("direct", POST) + sound("direct", JOB)))
    # what the reference host does is not what the operator's own host owes
    assert [each.status for each in rows] == [Status.OK, Status.OK, Status.NOT_RUN, Status.NOT_RUN]
    post = row_of(rows, "new-post")
    assert (post.path, post.kind) == ("POST /posts (new-post) on direct", "HTTP")
    assert post.evidence == "verify direct --check path.new-post"
    assert "audit transaction 7" in post.notes
    assert post.notes.endswith(CI)
    assert row_of(rows, "retitle").kind == "job"


def test_what_was_seen_of_a_path_that_holds_is_told_by_its_aspects(tmp_path: Path) -> None:
    """What comes of the same a second time, and of a missing trigger, is what a reader of the row asks next."""
    notes = row_of(path_rows(evidence(tmp_path, sound("direct", POST))), "new-post").notes
    assert "the same twice OK: refused" in notes
    assert "the audit trigger missing OK: fails closed" in notes


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
        ("two-callers", "two callers at a time"),
        ("repeated", "the same twice"),
        ("failure", "a failure in the middle"),
        ("no-trigger", "the audit trigger missing"),
    ],
)
def test_an_issue_of_an_aspect_only_makes_the_row_an_issue(tmp_path: Path, aspect: str, called: str) -> None:
    row = row_of(
        path_rows(evidence(tmp_path, with_aspect("direct", aspect, Status.ISSUE, "1 row of another"))), "new-post"
    )
    assert row.status is Status.ISSUE
    assert f"{called} Issue: 1 row of another" in row.notes


def test_an_issue_of_an_aspect_only_points_to_what_shows_it(tmp_path: Path) -> None:
    """The command of the path itself would show that it holds."""
    answers = with_aspect("direct", "failure", Status.ISSUE, "half of it is there")
    row = row_of(path_rows(evidence(tmp_path, answers)), "new-post")
    assert "--check path.new-post-failure" in row.evidence


@pytest.mark.parametrize("main", [Status.NOT_RUN, Status.OK])
def test_an_issue_is_never_hidden_by_what_was_not_run(tmp_path: Path, main: Status) -> None:
    answers = with_aspect("direct", "two-callers", Status.ISSUE, "a row of another")
    reason = "" if main is Status.OK else "the check was given up"
    answers[0] = (answers[0][0], answer(answers[0][0], main, reason))
    assert row_of(path_rows(evidence(tmp_path, answers)), "new-post").status is Status.ISSUE


def test_an_aspect_that_was_not_tried_is_named_and_the_path_stays_ok(tmp_path: Path) -> None:
    answers = with_aspect("direct", "no-trigger", Status.NOT_RUN, "not safe in an environment that others use")
    row = row_of(path_rows(evidence(tmp_path, answers)), "new-post")
    assert row.status is Status.OK
    assert "the audit trigger missing Not run: not safe in an environment that others use" in row.notes


def test_na_carries_its_reason_and_nothing_else(tmp_path: Path) -> None:
    reason = "no background job executor in this deployment"
    answers = [(row, answer(row, Status.NA, reason)) for row, _ in sound("direct", JOB)]
    row = row_of(path_rows(evidence(tmp_path, answers)), "retitle")
    assert (row.status, row.evidence, row.notes) == (Status.NA, "", reason)


def test_a_path_that_nobody_took_is_not_run(tmp_path: Path) -> None:
    row = row_of(path_rows(evidence(tmp_path, sound("direct", POST), written=False)), "new-post")
    assert row.status is Status.NOT_RUN
    assert "no run of this code has exercised it" in row.notes
    assert row.evidence == "verify direct --check path.new-post"


def test_where_nothing_is_declared_both_kinds_are_owed() -> None:
    rows = path_rows(merge([], ()))
    assert [(each.kind, each.status, each.evidence) for each in rows] == [
        ("HTTP", Status.NOT_RUN, ""),
        ("job", Status.NOT_RUN, ""),
    ]
    assert rows[0].notes == "in scope and not yet exercised: no environment of class host is declared"
    assert rows[1].path == "an audited write by a job: your own host"


def test_where_one_kind_is_declared_the_other_is_owed(tmp_path: Path) -> None:
    rows = path_rows(evidence(tmp_path, sound("staging", POST), environments=("staging",)), ["staging"])
    assert rows[1].notes == "in scope and not yet exercised: no audited write by a job is declared"
    assert [(each.kind, each.status) for each in rows] == [("HTTP", Status.OK), ("job", Status.NOT_RUN)]


def test_na_is_an_answer_to_what_is_owed(tmp_path: Path) -> None:
    row = planned("staging", JOB)
    answers = [*sound("staging", POST), (row, answer(row, Status.NA, "no background job executor in this deployment"))]
    found = path_rows(evidence(tmp_path, answers, environments=("staging",)), ["staging"])
    assert [each.kind for each in found] == ["HTTP", "job"]


# --- whose host it is ---------------------------------------------------------------------------------------


def test_an_operators_own_host_is_told_from_the_reference_host(tmp_path: Path) -> None:
    ours = evidence(tmp_path / "ci", sound("direct", POST))
    theirs = evidence(tmp_path / "host", sound("staging", POST), environments=("staging",))
    both = replace(
        ours,
        rows=ours.rows + theirs.rows,
        records=ours.records | theirs.records,
        environments=theirs.environments,
    )
    rows = [each for each in path_rows(both) if each.status is Status.OK]
    assert [each.path for each in rows] == ["POST /posts (new-post) on direct", "POST /posts (new-post) on staging"]
    assert CI in rows[0].notes
    assert HOST not in rows[0].notes
    assert HOST in rows[1].notes
    assert CI not in rows[1].notes


def test_an_environment_that_was_not_reached_is_still_the_operators(tmp_path: Path) -> None:
    answers = [
        (row, answer(row, Status.NOT_RUN, "the environment was not reached")) for row, _ in sound("staging", POST)
    ]
    row = row_of(path_rows(evidence(tmp_path, answers, environments=("staging",))), "new-post")
    assert (row.status, row.notes) == (Status.NOT_RUN, f"the environment was not reached; {HOST}")


def test_an_environment_that_nobody_verified_is_not_called_the_reference_host(tmp_path: Path) -> None:
    """Nothing of it is on disk; its name is no topology's."""
    row = row_of(path_rows(evidence(tmp_path, sound("staging", POST), written=False), ["staging"]), "new-post")
    assert row.status is Status.NOT_RUN
    assert CI not in row.notes


def test_an_answer_to_another_declaration_is_none(tmp_path: Path) -> None:
    row = planned("direct", POST)
    run = replace(record(), plan=(row,))
    stored = store_run(tmp_path, [answer(row)], run)
    assert merge([stored], [row]).rows[0].status is Status.OK
    changed = merge([stored], [replace(row, declared_as="another")])
    assert changed.rows[0].status is Status.NOT_RUN
    assert "its declaration in harness.toml has changed since" in changed.left_out[0]
