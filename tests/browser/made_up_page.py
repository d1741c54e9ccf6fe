"""Evidence that is made up so that its page has every kind of cell, and the same evidence with markup in every text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from harness.checks.judges.acknowledged import LOST
from harness.job_engines.target_file import Case
from harness.model import (
    BackendProbe,
    Behaviour,
    Expectation,
    FeatureOutcome,
    KnownIssue,
    Outcome,
    PathLabel,
    PlannedCheck,
    Proof,
    Result,
    Section,
    Severity,
    Status,
    TrailProof,
)
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.histories import StoredHistory
from harness.report.render import render
from tests.unit.histories import fault, operations, write_history
from tests.unit.job_engines import job_rows_of_many
from tests.unit.made_up import CHECKS, NAMES, mixed, planned, record, result, stood

if TYPE_CHECKING:
    from harness.model.history import Outcome as Ended
    from harness.report.tables import Report

#: a text that runs a script, loads an image, ends its element or attribute, or reorders a line, if it is not escaped
MARKUP = (
    "\"'><img src=x onerror=alert(1)></script></style></textarea><script>window.ran=1</script>"
    "<a href='javascript:alert(1)' onclick=alert(1)>{{ 7 * 7 }} \x85\x9b31m \u202eright to left\u2066 & | `x` \x1b]0;t\x07"
)
_WORKS = Outcome(behaviour=Behaviour.WORKS)
_SOURCE = "https://example.org/documentation/of-a-setting-that-has-a-long-name.html#max_prepared_statements_of_a_server"


class _Feature(msgspec.Struct, frozen=True):
    """One row of the feature map: what becomes of it in session mode and in transaction mode."""

    area: str
    session: Outcome
    transaction: Outcome
    #: whether the outcome in transaction mode is documented
    documented: bool = True
    #: whether it is a defect of the pooler that its issue tracker has
    defect: bool = False
    #: None if only a pooler has the feature
    direct: Outcome | None = _WORKS


#: by the name of the check; some have advice
FEATURES = {
    "pooling.advisory-lock": _Feature("locks", _WORKS, Outcome(behaviour=Behaviour.LEAKS)),
    "pooling.advisory-unlock": _Feature("locks", _WORKS, Outcome(behaviour=Behaviour.FAILS, sqlstate="57014")),
    "pooling.local-outside": _Feature("session settings", _WORKS, Outcome(behaviour=Behaviour.LOST)),
    "pooling.listen": _Feature("notifications", _WORKS, Outcome(behaviour=Behaviour.HANGS)),
    "pooling.simple-query": _Feature("queries", _WORKS, _WORKS),
    "pooling.deallocate": _Feature("queries", _WORKS, Outcome(behaviour=Behaviour.FAILS, sqlstate="26000")),
    "pooling.temp-table-kept": _Feature("queries", _WORKS, Outcome(behaviour=Behaviour.WRONG), documented=False),
    "pooling.cursor-with-hold": _Feature(
        "queries", Outcome(behaviour=Behaviour.LOST), Outcome(behaviour=Behaviour.LOST), defect=True
    ),
    "pooling.copy-both": _Feature(
        "queries", Outcome(behaviour=Behaviour.FAILS, sqlstate="08P01", closed=True), Outcome(behaviour=Behaviour.LEAKS)
    ),
    "pooling.cancel": _Feature("connections", _WORKS, Outcome(behaviour=Behaviour.LOST), direct=None),
}


def _feature_rows(check: str, feature: _Feature) -> list[Row]:
    rows = []
    outcomes = {"direct": feature.direct, "session": feature.session, "transaction": feature.transaction}
    for topology, outcome in outcomes.items():
        if outcome is None:
            continue
        behind = topology == "transaction"
        accepted = KnownIssue(check=check, link="https://example.org/defect", owner="the pooler", expires="")
        undocumented = behind and not feature.documented
        plan = PlannedCheck(
            target=topology,
            check=check,
            claim=f"the claim of {check}",
            section=Section.POOLING,
            severity=Severity.P1,
            area=feature.area,
            reproduce=f"nox -s topology-{topology} -- --check {check}",
            feature=f"the feature {check.partition('.')[2]}",
        )
        found = Result(
            target=topology,
            check=check,
            status=Status.ISSUE if undocumented or (behind and feature.defect) else Status.OK,
            reason="outcome: expected works, observed wrong" if undocumented else "",
            feature=FeatureOutcome(
                observed=outcome,
                expected=(_WORKS if undocumented else outcome,),
                source=_SOURCE if behind else "",
                defect=behind and feature.defect,
            ),
            known=accepted if behind and feature.defect else None,
            facts={"server connections": "2"},
            started_at="2026-01-01T00:00:02.000Z",
            duration_ms=1250.0,
            reproduce=plan.reproduce,
        )
        rows.append(Row(planned=plan, result=found, run_id=record().run_id))
    return rows


def _trail_rows() -> list[Row]:
    """Return rows of each status, with all the evidence that a row can have."""
    rows = []
    for number, found in enumerate(mixed()):
        full = replace(
            found,
            probes=(
                BackendProbe(how="both clients held it in turn", first_pid=101, second_pid=101),
                BackendProbe(how="the client moved", first_pid=101, second_pid=102),
            ),
            facts={
                "audit rows": "3",
                "log of pooler": "LOG closing because: server lifetime over",
                "a long value": "https://example.org/" + "a" * 200,
            },
            started_at=f"2026-01-01T00:00:0{number}.000Z",
            duration_ms=40.0 * (number + 1),
        )
        proof = Proof(
            topology=found.target,
            check=found.check,
            control="no-trigger",
            at="rows",
            proven=True,
            applicable=True,
            reason="",
        )
        rows.append(
            Row(planned=planned(found.target, found.check), result=full, run_id=record().run_id, proofs=(proof,))
        )
    return rows


def _path_rows() -> list[Row]:
    rows = []
    for label in (
        PathLabel(
            name="create-post", title="POST /api/organizations/{organization}/posts/{post}/comments", kind="HTTP"
        ),
        PathLabel(name="nightly-recalculation", title="example.jobs.NightlyRecalculationOfEveryAccount", kind="job"),
    ):
        plan = replace(planned("transaction", f"paths.{label.name}"), path=label)
        found = Result(
            target="transaction", check=plan.check, status=Status.OK, reproduce=plan.reproduce, duration_ms=30.0
        )
        rows.append(Row(planned=plan, result=found, run_id=record().run_id))
    return rows


#: checks under faults and load: their facts
_LOADS = {
    "resilience.server-link-black-holed-for-a-while": {
        "faults injected": "9 of 9",
        "units of work": "12345 acknowledged, 6789 failed, 12 unknown (5 of them happened)",
        "acknowledged again after the healing": "0.02 s the first writer, 0.15 s in the median, 0.52 s the last one",
    },
    "soak.pgbench": {"seconds": "30.1", "transactions per second": "99.8", "plain transactions per second": "100.1"},
}
_HISTORY = "history.jsonl"


def _load_rows() -> list[Row]:
    """Return rows under faults and load; in session mode acknowledged writes are missing."""
    rows = []
    for check, facts in _LOADS.items():
        for topology in NAMES:
            status = Status.ISSUE if topology == "session" else Status.OK
            plan = replace(
                planned("direct", CHECKS[0]), target=topology, check=check, section=Section(check.partition(".")[0])
            )
            observed = "2: client 1, 5; client 2, 9" if topology == "session" else "none"
            found = replace(
                result("direct", CHECKS[0], status, "" if status is Status.OK else f"{LOST}: observed {observed}"),
                target=topology,
                check=check,
                facts=facts,
                expectations=(Expectation(name=LOST, expected="none", observed=observed, held=observed == "none"),),
                started_at="2026-01-01T00:00:05.000Z",
            )
            rows.append(Row(planned=plan, result=found, run_id=record().run_id))
    return rows


#: job engines, and cases that have each kind of cell: OK, Issue, Not run and N/A
_ENGINES = frozenset({"pg-boss", "oban"})
_CASES = frozenset({Case.WORKS, Case.FAULTS, Case.IDLE, Case.FORK})


def _job_rows(engines: frozenset[str], cases: frozenset[Case]) -> list[Row]:
    """Return the rows of some cases of job engines behind the three topologies."""
    return [
        row
        for row in job_rows_of_many()
        if row.planned.target in NAMES
        and row.planned.job
        and row.planned.job.engine in engines
        and row.planned.job.case in cases
    ]


def evidence(*, whole: bool = False) -> Evidence:
    """Return evidence with every kind of cell; the whole of it has three engines with all of their cases."""
    proof = TrailProof(
        topology="direct",
        name="no-trigger",
        what="rows are not captured",
        tried=3,
        caught=("capture.insert",),
        missed=(),
        unexpected=(),
    )
    jobs = _job_rows(_ENGINES | {"absurd"}, frozenset(Case)) if whole else _job_rows(_ENGINES, _CASES)
    features = [row for check, feature in FEATURES.items() for row in _feature_rows(check, feature)]
    return Evidence(
        rows=(*_trail_rows(), *features, *_path_rows(), *_load_rows(), *jobs),
        topologies={name: stood(name) for name in NAMES},
        records=dict.fromkeys(NAMES, record()),
        folders={record().run_id: Path("runs") / record().run_id},
        left_out=("a run of other code was left out",),
        trail_proofs={proof.name: proof},
        shown=(record(),),
    )


def ordinary(*, whole: bool = False) -> Report:
    """Return a report with every kind of cell; the whole one is three times as large as most tests need."""
    histories = tuple(
        StoredHistory(target=topology, check=check, link=_HISTORY) for topology in NAMES for check in _LOADS
    )
    return replace(build_report(evidence(whole=whole), Path()), histories=histories)


def hostile() -> Report:
    """Return the report with markup at the end of every text and every name."""
    found: Report = _marked(ordinary())
    return found


def _marked(value: Any) -> Any:
    """Return a value with markup at the end of every text in it, also in the keys of dictionaries."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value + MARKUP if value else value
    if isinstance(value, msgspec.Struct):
        fields = {name: _marked(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if isinstance(value, dict):
        return {_marked(key): _marked(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_marked, value))
    return value


def written(report: Report, folder: Path) -> Path:
    """Write the documents of a report and the history of its plots, and return its page."""
    outcomes: dict[int, Ended] = {**dict.fromkeys(range(40, 60), "fail"), 60: "unknown"}
    records = [*operations(160, clients=8, outcomes=outcomes), *fault(1, "server-link-cut", 1.9, 3.0, 3.6)]
    write_history(folder, "direct", CHECKS[0], records).replace(folder / _HISTORY)
    return next(path for path in render(report, folder) if path.name == "report.html")
