"""The sentences of verdicts: what they compare with, and what they must not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.checks.registry import TRANSACTION_BLOCKS
from harness.model import (
    NOT_BEGUN,
    Behaviour,
    Confidence,
    EndedBy,
    EnvironmentEvidence,
    FeatureOutcome,
    Finding,
    KnownIssue,
    Outcome,
    Quarantine,
    Section,
    Status,
)
from harness.recognition.security import security_fixes
from harness.report.evidence import NOBODY_RAN_IT, Evidence, Row
from harness.report.job_rows import JOBS
from harness.report.limits import SECURITY_CHECK
from harness.report.merging import merge
from harness.report.verdicts import verdicts
from harness.suites.catalogue import catalogue
from tests.unit.made_up import PLAN, planned, record, result, stood, store_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import TopologyEvidence

FAILS = Outcome(behaviour=Behaviour.FAILS, sqlstate="42P05")
WORKS = Outcome(behaviour=Behaviour.WORKS)
LOST = Outcome(behaviour=Behaviour.LOST)


def feature(topology: str, check: str, observed: Outcome) -> Row:
    plan = replace(
        planned("direct", check), target=topology, section=Section.POOLING, feature=check, area="session settings"
    )
    outcome = FeatureOutcome(observed=observed, expected=(observed,))
    return Row(planned=plan, result=replace(result(topology, check), feature=outcome), run_id="r")


def trail(check: str, status: Status, *, known: bool = False) -> Row:
    accepted = KnownIssue(check=check, link="https://example.org/1", owner="ada", expires="2999-01-01")
    found = replace(result("direct", check, status, "a reason"), known=accepted if known else None)
    return Row(planned=planned("direct", check), result=found, run_id="r")


def sentences(name: str, *rows: Row, topologies: dict[str, TopologyEvidence] | None = None) -> tuple[str, ...]:
    evidence = Evidence(rows=rows, topologies=topologies or {}, records={}, folders={})
    return verdicts(evidence, [name])[0].sentences[1:]


def test_a_feature_that_fails_on_a_direct_connection_too_is_not_called_changed() -> None:
    rows = (
        feature("direct", "pooling.a", FAILS),
        feature("transaction", "pooling.a", FAILS),
        feature("transaction", "pooling.b", LOST),
    )
    assert sentences("transaction", *rows) == (
        "1 of 2 PostgreSQL features do not work as on a direct connection, 1 of them without an error",
    )


def test_without_a_direct_connection_nothing_is_said_about_one() -> None:
    rows = (feature("transaction", "pooling.a", FAILS), feature("transaction", "pooling.b", WORKS))
    assert sentences("transaction", *rows) == ("1 of 2 PostgreSQL features do not work",)


def test_the_direct_connection_to_the_same_version_of_postgresql_is_the_baseline() -> None:
    rows = (
        feature("direct", "pooling.a", WORKS),
        feature("direct+postgres-18", "pooling.a", FAILS),
        feature("transaction+postgres-18+pgbouncer-1.26", "pooling.a", FAILS),
        feature("transaction+postgres-18+pgbouncer-1.26", "pooling.b", WORKS),
    )
    assert sentences("transaction+postgres-18+pgbouncer-1.26", *rows) == (
        "all 2 PostgreSQL features work as on a direct connection",
    )


@pytest.mark.parametrize("name", ["direct", "direct+postgres-18"])
def test_a_direct_connection_works_where_its_features_work(name: str) -> None:
    rows = (feature(name, "pooling.a", FAILS), feature(name, "pooling.b", WORKS), feature("direct", "pooling.c", FAILS))
    tried = 3 if name == "direct" else 2
    [sentence] = sentences(name, *rows, topologies={name: stood("direct")})
    assert sentence.startswith(f"1 of {tried} PostgreSQL features work")


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ([(Status.ISSUE, True)], "the audit trail holds in no check: 1 known Issue"),
        (
            [(Status.ISSUE, True), (Status.NA, False), (Status.NA, False), (Status.OK, False)],
            "most cannot run here, because a reason: 2 checks of the audit trail are N/A, 1 OK, 1 known Issue",
        ),
        (
            [(Status.ISSUE, True), (Status.NOT_RUN, False), (Status.OK, False)],
            "the audit trail holds in 1 check, except for 1 known Issue, and 1 is Not run",
        ),
        ([(Status.NA, False)], "the audit trail was not verified here"),
        ([(Status.OK, False), (Status.NOT_RUN, False)], "the audit trail holds in 1 check, and 1 is Not run"),
    ],
)
def test_a_verdict_on_the_trail_hides_no_issue(statuses: list[tuple[Status, bool]], words: str) -> None:
    checks = ("capture.insert", "capture.update", "capture.delete", "capture.bulk")
    rows = [trail(check, status, known=known) for check, (status, known) in zip(checks, statuses, strict=False)]
    evidence = Evidence(rows=tuple(rows), topologies={}, records={}, folders={})
    assert verdicts(evidence, ["direct"])[0].sentences[0] == words


def test_a_topology_with_a_break_is_not_called_whole() -> None:
    rows = (trail("capture.insert", Status.OK), feature("direct", "pooling.a", WORKS))
    broken = replace(feature("direct", "pooling.a", LOST), planned=feature("unpeered", "pooling.a", LOST).planned)
    evidence = Evidence(rows=(*rows, broken), topologies={}, records={}, folders={})
    whole, found = verdicts(evidence, ["direct", "unpeered"])
    assert (whole.tone, found.tone) == ("holds", "breaks")
    assert found.silent == 1


def test_a_feature_that_breaks_silently_on_a_direct_connection_too_is_counted_apart() -> None:
    rows = (
        feature("direct", "pooling.a", LOST),
        feature("transaction", "pooling.a", LOST),
        feature("transaction", "pooling.b", LOST),
    )
    [found] = verdicts(Evidence(rows=rows, topologies={}, records={}, folders={}), ["transaction"])
    assert (found.silent, found.silent_on_direct) == (1, 1)


def test_checks_of_the_hosts_paths_do_not_speak_for_the_trail() -> None:
    row = trail("capture.insert", Status.OK)
    row = replace(row, planned=replace(row.planned, section=Section.PATHS))
    [found] = verdicts(Evidence(rows=(row,), topologies={}, records={}, folders={}), ["direct"])
    assert found.sentences == ("only audited paths of the host ran here, and the trail holds in 1 check",)


def test_a_mode_without_transactions_has_no_audited_transaction() -> None:
    found = trail("capture.insert", Status.NA)
    row = replace(found, result=replace(found.result, reason=TRANSACTION_BLOCKS.lacking))
    rows = (row, trail("capture.update", Status.NA), trail("capture.delete", Status.OK))
    [verdict] = verdicts(Evidence(rows=rows, topologies={}, records={}, folders={}), ["direct"])
    assert verdict.sentences[0] == (
        "no audited transaction can run here, because statement pooling refuses transaction blocks: "
        "2 checks of the audit trail are N/A, 1 OK"
    )


# --- what no run was asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([Status.OK], "the audit trail holds in 1 check; 2 more were not asked for"),
        ([Status.OK, Status.OK], "the audit trail holds in 2 checks; 1 more was not asked for"),
        (
            [Status.OK, Status.NOT_RUN],
            "the audit trail holds in 1 check, and 1 is Not run; 1 more was not asked for",
        ),
        ([], "the audit trail was not verified here"),
    ],
)
def test_what_no_run_was_asked_for_is_not_called_not_run(asked: list[Status], words: str, tmp_path: Path) -> None:
    plan = tuple(row for row in PLAN if row.target == "direct")
    results = [
        result("direct", row.check, status, "a reason" if status is Status.NOT_RUN else "")
        for row, status in zip(plan, asked, strict=False)
    ]
    run = store_run(tmp_path, results, replace(record(), plan=plan[: len(asked)]))
    [found] = verdicts(merge([run], PLAN), ["direct"])
    assert found.sentences[0] == words
    assert NOBODY_RAN_IT not in found.text
    assert found.tone == "open", "a verdict about some checks is not one about all of them"


# --- security fixes -------------------------------------------------------------------------------------


def running(version: str, title: str = "PgBouncer") -> TopologyEvidence:
    found = stood("transaction")
    services = [
        replace(service, title=title, version=version) if service.name == "pooler" else service
        for service in found.services
    ]
    return replace(found, services=tuple(services))


def security(**evidence: object) -> str:
    empty: dict[str, object] = {"rows": (), "topologies": {}, "records": {}, "folders": {}}
    return verdicts(Evidence(**(empty | evidence)), ["transaction"])[0].security  # type: ignore[arg-type]


@pytest.mark.parametrize(("version", "unless"), [("1.24.1", ", unless Debian 13 has backported them"), ("1.24.0", "")])
def test_a_verdict_names_the_security_fixes_that_the_pooler_lacks(version: str, unless: str) -> None:
    table = security_fixes()
    missing = table.above("PgBouncer", version)
    assert security(topologies={"transaction": running(version)}) == (
        f"PgBouncer {version} lacks {len(missing)} published security fixes up to 1.26.1 (as of {table.as_of}){unless}"
    )


def test_a_pooler_without_a_missing_fix_has_no_such_sentence() -> None:
    newest = max((fix.fixed_in for fix in security_fixes().fix), key=lambda text: [*map(int, text.split("."))])
    for found in (running(newest), running("4.5.0", "Pgpool-II"), stood("direct")):
        assert security(topologies={"transaction": found}) == ""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.26.0", "PgBouncer 1.26.0 lacks "),
        (">= 1.21, < 1.24", "the pooler likely lacks published security fixes: missing before 1.26.1"),
    ],
)
def test_the_pooler_of_an_operator_is_judged_as_far_as_it_was_recognised(version: str, expected: str) -> None:
    values = {"product": "PgBouncer", "version": version, "security_fixes": "missing before 1.26.1"}
    sure = {"product", "version"} if version == "1.26.0" else {"product"}
    findings = tuple(
        Finding(
            fact=fact,
            value=value,
            how="it was asked",
            confidence=Confidence.CERTAIN if fact in sure else Confidence.LIKELY,
        )
        for fact, value in values.items()
    )
    found = EnvironmentEvidence(name="transaction", reached=True, findings=findings)
    assert security(environments={"transaction": found}).startswith(expected)


def test_the_sentence_leads_to_the_row_that_judged_it() -> None:
    assert SECURITY_CHECK in {check.id for check in catalogue().checks}
    row = feature("transaction", SECURITY_CHECK, WORKS)
    evidence = Evidence(rows=(row,), topologies={"transaction": running("1.24.0")}, records={}, folders={})
    [found] = verdicts(evidence, ["transaction"])
    assert (found.security_check, found.security_at) == (SECURITY_CHECK, "transaction")
    assert found.security in found.text


def under_load(check: str, status: Status) -> Row:
    section = Section(check.partition(".")[0])
    found = trail("capture.insert", status)
    area = JOBS if ".jobs-" in check else found.planned.area
    plan = replace(found.planned, check=check, section=section, area=area)
    return replace(found, planned=plan, result=replace(found.result, check=check))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ()),
        ([("resilience.a", Status.NA)], ()),
        (
            [("resilience.a", Status.OK), ("resilience.jobs-a", Status.OK), ("resilience.jobs-b", Status.NOT_RUN)],
            (
                "acknowledged work survives 1 fault",
                "jobs survive the end of their runner in 1 case, and 1 is Not run",
            ),
        ),
        (
            [("resilience.a", Status.OK), ("resilience.jobs-a", Status.ISSUE)],
            (
                "acknowledged work survives 1 fault",
                "jobs do not survive the end of their runner in 1 of 1 case",
            ),
        ),
        ([("resilience.a", Status.OK), ("resilience.b", Status.NA)], ("acknowledged work survives 1 fault",)),
        (
            [("resilience.a", Status.OK), ("resilience.b", Status.NOT_RUN), ("soak.mix", Status.OK)],
            ("acknowledged work survives 1 fault, and 1 is Not run", "every write is right under 1 load"),
        ),
        (
            [("resilience.a", Status.OK), ("resilience.b", Status.ISSUE), ("soak.mix", Status.ISSUE)],
            ("acknowledged work does not survive 1 of 2 faults", "not every write is right under 1 of 1 load"),
        ),
    ],
)
def test_faults_and_loads_have_sentences_of_their_own(
    rows: list[tuple[str, Status]], expected: tuple[str, ...]
) -> None:
    found = [under_load(check, status) for check, status in rows]
    assert sentences("direct", trail("capture.insert", Status.OK), *found) == expected


def interrupted(found: Row) -> Row:
    return replace(found, result=replace(found.result, reason=NOT_BEGUN, ended_by=EndedBy.INTERRUPTION))


def said_of(*rows: Row) -> tuple[str, ...]:
    [found] = verdicts(Evidence(rows=rows, topologies={}, records={}, folders={}), ["direct"])
    return found.sentences


def test_a_verdict_says_what_an_interruption_left() -> None:
    ok = trail("capture.a", Status.OK)
    missing = [trail(f"capture.{name}", Status.NOT_RUN) for name in "bc"]
    faults = [under_load("resilience.a", Status.OK), interrupted(under_load("resilience.b", Status.NOT_RUN))]
    some, by_faults = said_of(ok, missing[0], interrupted(missing[1]), *faults)
    assert some == "the audit trail holds in 1 check, and 2 are Not run, 1 of them because the run was interrupted"
    assert by_faults == "acknowledged work survives 1 fault, and 1 is Not run, because the run was interrupted"
    nothing, no_fault = said_of(*map(interrupted, missing), faults[1])
    assert nothing == (
        "the audit trail was not verified here, and 2 checks are Not run, because the run was interrupted"
    )
    assert no_fault == "1 fault is Not run, because the run was interrupted"


def quarantined(found: Row) -> Row:
    entry = Quarantine(check=found.planned.check, link="https://example.org/2", owner="ada", expires="2999-01-01")
    return replace(found, result=replace(found.result, quarantine=entry))


def known(found: Row) -> Row:
    entry = KnownIssue(check=found.planned.check, link="https://example.org/1", owner="ada", expires="2999-01-01")
    return replace(found, result=replace(found.result, known=entry))


@pytest.mark.parametrize(
    ("checks", "others", "expected"),
    [
        (("resilience.a",), (Status.OK,), "acknowledged work survives 1 fault, except for 1 known Issue"),
        (
            ("resilience.a",),
            (Status.OK, Status.NOT_RUN),
            "acknowledged work survives 1 fault, except for 1 known Issue, and 1 is Not run",
        ),
        (("resilience.a",), (), "acknowledged work survives no fault: 1 known Issue"),
        (("resilience.a", "resilience.b"), (Status.NA,), "acknowledged work survives no fault: 2 known Issues"),
        (
            ("resilience.jobs-a",),
            (Status.NOT_RUN,),
            "jobs survive the end of their runner in no case: 1 known Issue, and 1 is Not run",
        ),
        (("soak.mix",), (Status.OK,), "every write is right under 1 load, except for 1 known Issue"),
        (("soak.mix",), (), "every write is right in no load: 1 known Issue"),
    ],
)
def test_a_sentence_about_load_hides_no_accepted_issue(
    checks: tuple[str, ...], others: tuple[Status, ...], expected: str
) -> None:
    accepted = [known(under_load(check, Status.ISSUE)) for check in checks]
    kind = ".jobs-" if ".jobs-" in checks[0] else "."
    section = checks[0].partition(".")[0]
    rest = [under_load(f"{section}{kind}other-{number}", status) for number, status in enumerate(others)]
    assert sentences("direct", trail("capture.insert", Status.OK), *accepted, *rest) == (expected,)


def test_an_issue_in_quarantine_is_not_called_known() -> None:
    issues = [trail(check, Status.ISSUE) for check in ("capture.update", "capture.delete")]
    rows = (trail("capture.insert", Status.OK), quarantined(issues[0]), known(issues[1]))
    fault = quarantined(under_load("resilience.a", Status.ISSUE))
    for found, words in ((rows[:2], ""), (rows, "1 known Issue and ")):
        evidence = Evidence(rows=(*found, fault), topologies={}, records={}, folders={})
        assert verdicts(evidence, ["direct"])[0].sentences == (
            f"the audit trail holds in 1 check, except for {words}1 Issue in quarantine",
            "acknowledged work survives no fault: 1 Issue in quarantine",
        )
