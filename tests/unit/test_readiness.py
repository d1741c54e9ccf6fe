"""The readiness map and the decisions, from evidence that is made up."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.config import convert
from harness.errors import ConfigError
from harness.host.readiness_file import GUIDANCE, Guidance, GuidanceItem, ReadinessArea, Workflow
from harness.model import (
    EnvironmentEvidence,
    EvidenceClass,
    KnownIssue,
    Limit,
    PlannedCheck,
    Result,
    Section,
    Severity,
    Status,
)
from harness.preflight.declaration import GateResult
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.readiness import MEANINGS, Decision, Stance, decide, readiness
from harness.report.render import fragments
from harness.report.tables import ParityRow
from harness.report.trials import REQUIRED, Trial
from tests.tables import each_row
from tests.unit.made_up import record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KNOWN = KnownIssue(check="actor.residue", link="https://example.org/7", owner="ada", expires="2099-01-01")
LIMIT = Limit(outcome="notifications are lost", source="https://example.org/doc")
TODAY = date(2026, 3, 1)


def row(
    check: str,
    status: Status = Status.OK,
    topology: str = "transaction",
    *,
    known: KnownIssue | None = None,
    limit: Limit | None = None,
) -> Row:
    command = f"nox -s topology-{topology} -- --check {check}"
    return Row(
        planned=PlannedCheck(
            target=topology,
            check=check,
            claim=f"the claim of {check}",
            section=Section.PATHS if check.startswith("path.") else Section.ACTOR,
            severity=Severity.P0,
            area="",
            reproduce=command,
        ),
        result=Result(
            target=topology,
            check=check,
            status=status,
            reason="" if status is Status.OK else "for a reason",
            known=known,
            limit=limit,
            reproduce=command,
        ),
        run_id="r",
    )


def replace_section(row: Row, section: Section) -> Row:
    return replace(row, planned=replace(row.planned, section=section))


def evidence(rows: Iterable[Row], hosts: tuple[str, ...] = ("staging",)) -> Evidence:
    rows = tuple(rows)
    records = {
        name: replace(record(), evidence_class=EvidenceClass.HOST if name in hosts else EvidenceClass.CI)
        for name in dict.fromkeys(row.planned.target for row in rows)
    }
    return Evidence(rows=rows, topologies={}, records=records, folders={})


def area(*checks: str, **more: Any) -> ReadinessArea:
    return ReadinessArea(
        area="actor on jobs", checks=checks or ("actor",), host_responsibility="set the actor in every job", **more
    )


def stance(rows: Iterable[Row], declared: ReadinessArea | None = None) -> Stance:
    return readiness([declared or area()], evidence(rows))[0].stance


# --- the map ---------------------------------------------------------------------------------------------


@each_row(
    ("rows", "expected"),
    [
        ([row("actor.a"), row("actor.b")], Stance.PROVEN),
        ([row("actor.a"), row("actor.b", Status.NA)], Stance.PROVEN),
        ([row("actor.a", limit=LIMIT)], Stance.WITH_LIMITS),
        ([row("actor.a"), row("actor.b", Status.ISSUE, known=KNOWN)], Stance.WITH_LIMITS),
        ([row("actor.a", Status.ISSUE, known=KNOWN)], Stance.NOT_SHOWN),
        ([row("actor.a"), row("actor.b", Status.NOT_RUN)], Stance.NOT_SHOWN),
        ([row("actor.a", Status.NA)], Stance.NOT_SHOWN),
        ([row("capture.a")], Stance.NOT_SHOWN),
        ([], Stance.NOT_SHOWN),
        ([row("actor.a"), row("actor.b", Status.ISSUE)], Stance.NOT_READY),
        ([row("actor.a", Status.NOT_RUN), row("actor.b", Status.ISSUE)], Stance.NOT_READY),
    ],
)
def test_the_stance_follows_from_the_evidence(rows: list[Row], expected: Stance) -> None:
    assert stance(rows) is expected


def test_a_missing_row_of_a_check_is_not_shown() -> None:
    declared = area("actor.a", "actor.b", topologies=("direct", "transaction"))
    found = readiness([declared], evidence([row("actor.a"), row("actor.b"), row("actor.b", topology="direct")]))[0]
    assert found.stance is Stance.NOT_SHOWN
    assert found.reasons == ("the evidence has no row for actor.a in direct",)
    declared = area("actor.a", topologies=("direct", "session", "transaction"))
    assert readiness([declared], evidence([row("actor.a")]))[0].reasons == (
        "the evidence has no row for actor.a in direct, session",
    )


def test_only_the_named_topologies_count() -> None:
    rows = [row("actor.a"), row("actor.a", Status.ISSUE, "statement")]
    assert stance(rows, area(topologies=("transaction",))) is Stance.PROVEN
    assert stance(rows) is Stance.NOT_READY


def test_limits_and_known_issues_are_named_with_their_sources() -> None:
    rows = [row("actor.a", limit=LIMIT), row("actor.b", Status.ISSUE, known=KNOWN)]
    found = readiness([area()], evidence(rows))[0]
    assert (
        found.reasons[0] == "actor.b in transaction is a known Issue (owner ada, https://example.org/7): for a reason"
    )
    assert "notifications are lost (https://example.org/doc)" in found.reasons[1]
    assert found.shown == "1 OK (1 with a documented limit), 1 Issue in transaction"
    assert found.meaning == MEANINGS[Stance.WITH_LIMITS]


def test_commands_name_checks_if_they_are_few_else_suites() -> None:
    few = readiness([area()], evidence([row("actor.a"), row("actor.b"), row("actor.a", topology="direct")]))[0]
    assert few.commands == (
        "nox -s topology-transaction -- --check actor.a --check actor.b",
        "nox -s topology-direct -- --check actor.a",
    )
    many = readiness([area()], evidence(row(f"actor.{letter}") for letter in "abcdefg"))[0]
    assert many.commands == ("nox -s topology-transaction -- --suite actor",)


@each_row(
    ("rows", "hosts", "expected"),
    [
        ([row("path.posts", topology="staging")], ("staging",), Stance.PROVEN),
        (
            [row("path.posts", topology="staging"), row("path.posts-twice", Status.NA, "staging")],
            ("staging",),
            Stance.PROVEN,
        ),
        ([row("path.posts", Status.NA, "staging")], ("staging",), Stance.NOT_SHOWN),
        ([row("path.posts-twice", topology="staging")], ("staging",), Stance.NOT_SHOWN),
        ([row("path.posts", topology="staging")], (), Stance.NOT_SHOWN),
        ([row("path.posts", topology="elsewhere")], ("elsewhere",), Stance.NOT_SHOWN),
        (
            [row("path.posts", topology="staging"), row("path.posts-twice", Status.ISSUE, "staging")],
            ("staging",),
            Stance.NOT_READY,
        ),
        ([], ("staging",), Stance.NOT_SHOWN),
    ],
)
def test_a_host_path_counts_only_if_the_host_ran_it(rows: list[Row], hosts: tuple[str, ...], expected: Stance) -> None:
    declared = area("actor.a", environment="staging", paths=("posts",))
    found = readiness([declared], evidence([row("actor.a"), *rows], hosts))[0]
    assert found.stance is expected


@given(
    st.lists(
        st.tuples(st.sampled_from(Status), st.booleans(), st.booleans()).map(
            lambda drawn: row(
                "actor.a",
                drawn[0],
                known=KNOWN if drawn[1] and drawn[0] is Status.ISSUE else None,
                limit=LIMIT if drawn[2] and drawn[0] is Status.OK else None,
            )
        ),
        max_size=6,
    )
)
def test_another_issue_never_improves_a_stance(rows: list[Row]) -> None:
    order = list(Stance)
    found = stance(rows)
    assert (found is Stance.PROVEN) == (
        any(row.status is Status.OK for row in rows)
        and all(row.status in {Status.OK, Status.NA} and not row.result.limit for row in rows)
    )
    worse = stance([*rows, row("actor.z", Status.ISSUE)])
    assert order.index(worse) <= order.index(found)


# --- the decision ----------------------------------------------------------------------------------------


def item(name: Guidance, on: str = "2026-02-01") -> GuidanceItem:
    return GuidanceItem(
        item=name, done_by="ada", on=on, statement="written down in the runbook", link="docs/rollout.md"
    )


WORKFLOW = Workflow(
    name="invoice reminders",
    release="0.4.0",
    checks=("actor",),
    topologies=("transaction",),
    guidance=tuple(item(name) for name in GUIDANCE),
    environment="staging",
    paths=("reminder",),
)
TRIALS = (
    row("capture.insert"),
    *(replace_section(row(check), Section.RESILIENCE) for check in REQUIRED[Trial.RESILIENCE]),
    replace_section(row("soak.pgbench"), Section.SOAK),
    replace_section(row("soak.mix"), Section.SOAK),
)
GREEN = (
    row("actor.a"),
    row("path.reminder", topology="staging"),
    row("path.reminder-twice", topology="staging"),
    *TRIALS,
)


def _decide(workflow: Workflow = WORKFLOW, rows: Iterable[Row] = GREEN, version: str = "0.4.0") -> Decision:
    return decide(workflow, evidence(rows), library_version=version, today=TODAY)


def test_yes_requires_all_three_conditions() -> None:
    found = _decide()
    assert found.answer == "yes"
    assert [conjunct.held for conjunct in found.conjuncts] == [True, True, True]
    assert found.missing == ()
    assert (
        "versions-recorded: ada on 2026-02-01: written down in the runbook (docs/rollout.md)"
        in found.conjuncts[0].shown
    )


def test_the_guidance_has_eight_items_and_each_must_be_signed() -> None:
    assert set(get_args(Guidance)) == set(GUIDANCE)
    assert len(GUIDANCE) == 8
    for missing in GUIDANCE:
        found = _decide(replace(WORKFLOW, guidance=tuple(item(name) for name in GUIDANCE if name != missing)))
        assert found.answer == "not yet"
        assert found.missing == (f"{missing} is not signed: {GUIDANCE[missing]}",)


@pytest.mark.parametrize("day", ["2026-03-02", "2026-02-30"])
def test_a_signature_needs_a_valid_date_that_is_not_in_the_future(day: str) -> None:
    found = _decide(replace(WORKFLOW, guidance=tuple(item(name, day) for name in GUIDANCE)))
    assert [conjunct.held for conjunct in found.conjuncts] == [False, True, True]
    assert found.missing[-1].endswith(f" is signed for {day}, expected a date up to 2026-03-01")


def test_a_signature_of_today_counts() -> None:
    assert _decide(replace(WORKFLOW, guidance=tuple(item(name, "2026-03-01") for name in GUIDANCE))).answer == "yes"


@pytest.mark.parametrize(
    ("verification", "sentence"),
    [
        ([row("actor.a", Status.ISSUE)], "actor.a in transaction is Issue: for a reason"),
        ([row("actor.a"), row("actor.b", Status.NOT_RUN)], "actor.b in transaction is Not run: for a reason"),
        (
            [row("actor.a", Status.NA)],
            "actor is OK in no topology: its rows are N/A or known Issues",
        ),
        ([row("actor.a", topology="direct")], "the evidence has no row for actor in transaction"),
        ([], "the evidence has no row for actor in transaction"),
    ],
)
def test_verification_that_is_not_green_is_named(verification: list[Row], sentence: str) -> None:
    found = _decide(rows=[*verification, *GREEN[1:]])
    assert found.answer == "not yet"
    assert found.conjuncts[1].missing == (sentence,)


@pytest.mark.parametrize(
    ("trials", "sentences"),
    [
        (
            [],
            [
                "smoke in transaction: no run has exercised it",
                "resilience in transaction: no run has exercised it: harness verify transaction --suite resilience",
                "soak in transaction: no run has exercised it: harness verify transaction --suite soak",
            ],
        ),
        (
            [*TRIALS, replace_section(row("resilience.pooler-killed", Status.NOT_RUN), Section.RESILIENCE)],
            ["resilience: resilience.pooler-killed in transaction is Not run: for a reason"],
        ),
        (
            [*TRIALS[:-1], replace_section(row("soak.mix", Status.ISSUE), Section.SOAK)],
            ["soak: soak.mix in transaction is Issue: for a reason"],
        ),
        (
            [
                *TRIALS[:-2],
                *(replace_section(row(f"soak.{load}", Status.NA), Section.SOAK) for load in ("mix", "pgbench")),
            ],
            ["soak: it is OK in no topology: its rows are N/A or known Issues"],
        ),
        (
            [*TRIALS[:-2], TRIALS[-1]],
            ["soak in transaction: no run has exercised soak.pgbench"],
        ),
        ([*TRIALS, replace_section(row("soak.mix", Status.ISSUE, known=KNOWN), Section.SOAK)], []),
        ([*TRIALS, replace_section(row("soak.mix", Status.ISSUE, topology="direct"), Section.SOAK)], []),
    ],
)
def test_smoke_resilience_and_soak_are_part_of_the_verification(trials: list[Row], sentences: list[str]) -> None:
    found = _decide(rows=[*GREEN[:3], *trials])
    assert list(found.missing) == sentences
    assert (found.answer == "yes") is (not sentences)


def test_without_named_topologies_one_must_answer_each_question() -> None:
    open_workflow = replace(WORKFLOW, topologies=())
    assert _decide(open_workflow).answer == "yes"
    found = _decide(open_workflow, rows=GREEN[:-2])
    assert found.missing == ("soak: no run has exercised it: harness verify TOPOLOGY --suite soak",)


def test_a_known_issue_is_green_and_named() -> None:
    found = _decide(rows=[*GREEN, row("actor.b", Status.ISSUE, known=KNOWN)])
    assert found.answer == "yes"
    assert any("a known Issue (owner ada, " in sentence for sentence in found.conjuncts[1].shown)


def test_evidence_of_another_or_an_unrecorded_release_does_not_count() -> None:
    assert _decide(version="v0.4.0").answer == "yes"
    assert _decide(version="0.3.9").missing == ("the evidence is about release 0.3.9, expected 0.4.0",)
    unrecorded = _decide(version="")
    assert unrecorded.answer == "not yet"
    assert unrecorded.missing == ("the evidence does not record the library's version, expected 0.4.0",)


def test_a_host_that_runs_another_release_has_not_verified_this_one() -> None:
    runs = EnvironmentEvidence(name="staging", reached=True, versions={"library": "reminders 0.3.9"})
    found = decide(
        WORKFLOW, replace(evidence(GREEN), environments={"staging": runs}), library_version="0.4.0", today=TODAY
    )
    assert found.missing == ("staging runs release 0.3.9, expected 0.4.0",)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ([], "no run has exercised the path reminder in staging"),
        ([row("path.other", topology="staging")], "no run has exercised the path reminder in staging"),
        ([row("path.reminder", Status.NOT_RUN, "staging")], "path.reminder in staging is Not run: for a reason"),
        ([row("path.reminder", Status.NA, "staging")], "path.reminder in staging is N/A: for a reason"),
        (
            [GREEN[1], row("path.reminder-twice", Status.ISSUE, "staging")],
            "path.reminder-twice in staging is Issue: for a reason",
        ),
        (
            [row("path.reminder", Status.ISSUE, "staging", known=KNOWN)],
            "path.reminder in staging is a known Issue (owner ada, https://example.org/7): for a reason",
        ),
    ],
)
def test_the_hosts_own_path_must_be_ok(host: list[Row], sentence: str) -> None:
    found = _decide(rows=[GREEN[0], *TRIALS, *host])
    assert [conjunct.held for conjunct in found.conjuncts] == [True, True, False]
    assert sentence in found.missing


def test_a_path_on_a_topology_of_the_harness_is_not_the_hosts() -> None:
    found = decide(WORKFLOW, evidence(GREEN, hosts=()), library_version="0.4.0", today=TODAY)
    assert found.answer == "not yet"
    assert found.missing == ("the evidence of staging is CI-class: the harness ran the path, not the host",)


def test_a_path_on_a_lab_that_is_called_an_environment_is_not_the_hosts() -> None:
    lab = EnvironmentEvidence(name="staging", reached=True, is_a_lab=True)
    found = decide(
        WORKFLOW, replace(evidence(GREEN), environments={"staging": lab}), library_version="0.4.0", today=TODAY
    )
    assert found.answer == "not yet"
    assert found.missing == ("the evidence of staging is CI-class: the harness started its servers",)


def test_no_path_or_no_environment_is_never_yes() -> None:
    assert _decide(replace(WORKFLOW, paths=())).missing == (
        "the workflow names no audited path that the host runs through its own worker",
    )
    assert _decide(replace(WORKFLOW, environment="")).missing == (
        "no environment is named in which the host ran reminder",
    )


# --- declared and printed --------------------------------------------------------------------------------


def test_declarations_are_validated_when_they_are_read() -> None:
    good = {"area": "jobs", "checks": ["actor"], "host_responsibility": "set the actor in every job"}
    assert convert(good, ReadinessArea, where="harness.toml").checks == ("actor",)
    for bad in ({**good, "stance": "Proven"}, {**good, "checks": [""]}, {**good, "host_responsibility": ""}):
        with pytest.raises(ConfigError, match=r"harness\.toml"):
            convert(bad, ReadinessArea, where="harness.toml")
    with pytest.raises(ConfigError, match=r"allowed: .*versions-recorded"):
        convert({**_signed(), "item": "all-done"}, GuidanceItem, where="harness.toml")


def _signed() -> dict[str, str]:
    return {
        "item": "versions-recorded",
        "done_by": "ada",
        "on": "2026-02-01",
        "statement": "written down in the runbook",
        "link": "docs/rollout.md",
    }


def _printed(name: str, folder: Path, **tables: Any) -> str:
    """Return the Markdown of one table, as it is spliced into a document."""
    empty = build_report(Evidence(rows=(), topologies={}, records={}, folders={}), folder)
    return fragments(replace(empty, **tables))[name]


def _cells(rendered: str, first: str) -> list[list[str]]:
    """Return header and rows of the table that begins with a column, without the line between them."""
    lines = rendered.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[start:end]
        if not line.startswith("|---")
    ]


def test_the_map_and_the_decisions_are_printed_with_hostile_text_inert(tmp_path: Path) -> None:
    evil = replace(area(), area="a | b\n<script>", host_responsibility="| x |\r\n# heading")
    rows = readiness([evil, area("nothing.here")], evidence([row("actor.a", limit=LIMIT)]))
    rendered = _printed("readiness", tmp_path, readiness=rows, decisions=(_decide(replace(WORKFLOW, paths=())),))
    header, *cells = _cells(rendered, "Area")
    assert header == ["Area", "Stance", "Evidence", "Host responsibility"]
    assert [len(row) for row in cells] == [4, 4]
    assert [row[1] for row in cells] == ["Proven with limits", "Not shown"]
    assert "<script>" not in rendered
    assert "\n*Not shown*: " in rendered
    assert "### invoice reminders on 0.4.0: not yet" in rendered
    assert [row[1] for row in _cells(rendered, "Condition")[1:]] == ["yes", "yes", "no"]


def test_a_table_without_a_declaration_is_not_run(tmp_path: Path) -> None:
    assert _printed("readiness", tmp_path, readiness=(), decisions=()).count("Not run: `harness.toml` declares no") == 2
    assert "Not run: `harness.toml`" in _printed("preflight", tmp_path, preflight=())
    assert "Not run: no run of this code ran a command" in _printed("parity", tmp_path, parity=())


def test_preflight_and_parity_have_their_columns(tmp_path: Path) -> None:
    item = GateResult(item="a | b", status=Status.OK, evidence="pyproject.toml:3", notes="x")
    suite = ParityRow(
        check="unit tests, on direct", target="direct", id="command.t", status=Status.OK, command="nox -s t", notes="x"
    )
    assert _cells(_printed("preflight", tmp_path, preflight=(item,)), "Item") == [
        ["Item", "Status", "Evidence / notes"],
        [r"a \| b", "OK", "`pyproject.toml:3`: x"],
    ]
    assert _cells(_printed("parity", tmp_path, parity=(suite,)), "Check") == [
        ["Check", "Status", "Evidence"],
        ["unit tests, on direct", "OK", "`nox -s t`: x"],
    ]
