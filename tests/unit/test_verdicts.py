"""The sentences of verdicts: what they compare with, and what they must not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.model import Behaviour, FeatureOutcome, KnownIssue, Outcome, Section, Status
from harness.report.evidence import Evidence, Row
from harness.report.verdicts import verdicts
from tests.unit.made_up import planned, result, stood

if TYPE_CHECKING:
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
    rows = (feature("direct", "pooling.a", FAILS), feature("transaction", "pooling.a", FAILS), feature("transaction", "pooling.b", LOST))
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
            "most of the audit trail does not apply here: 2 checks are N/A, 1 OK, 1 known Issue",
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
