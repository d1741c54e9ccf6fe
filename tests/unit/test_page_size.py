"""The page stays small enough to open, to mail and to keep as an artifact of CI."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.job_engines.target_file import Case
from harness.model import (
    BackendProbe,
    Behaviour,
    FeatureOutcome,
    Outcome,
    PlannedCheck,
    Result,
    Section,
    Severity,
    Status,
)
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.histories import StoredHistory
from harness.report.render import html_page
from harness.suites.catalogue import catalogue
from tests.unit.histories import fault, operations, write_history
from tests.unit.job_engines import ENGINES, job_row
from tests.unit.made_up import record, result, stood

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harness.checks.registry import Check
    from harness.model.history import Outcome as Ended

MAIN_JOB, EVERYTHING = 700_000, 3_000_000
WORKS = Outcome(behaviour=Behaviour.WORKS)
OUTCOMES = tuple(Outcome(behaviour=behaviour) for behaviour in Behaviour)


def row(topology: str, check: Check, seed: random.Random) -> Row:
    """Return a row as large as those of a real run, with values that differ from row to row."""
    command = f"python -m harness verify {topology} --check {check.id}"
    planned = PlannedCheck(
        target=topology,
        check=check.id,
        claim=check.claim,
        section=check.section,
        severity=Severity.P1,
        area=check.area,
        reproduce=command,
        feature=f"the feature of {check.id}, in some more words" if check.section is Section.POOLING else "",
    )
    (held,) = result("session", "capture.insert").expectations
    found = Result(
        target=topology,
        check=check.id,
        status=Status.OK,
        reproduce=command,
        duration_ms=seed.uniform(5, 5000),
        started_at=f"2026-01-01T00:{seed.randrange(60):02}:{seed.randrange(60):02}.{seed.randrange(1000):03}Z",
        expectations=tuple(
            replace(held, name=f"what {check.id} compares ({number})", observed=str(seed.randrange(10**6)))
            for number in range(3)
        ),
        facts={"server version": "17.5", f"a value of {check.id}": str(seed.random())},
    )
    if planned.feature:
        pid = seed.randrange(100, 1000)
        probe = BackendProbe(
            how="two clients, one after the other, on one server connection", first_pid=pid, second_pid=pid
        )
        observed = seed.choice(OUTCOMES)
        feature = FeatureOutcome(observed=observed, expected=(observed,), source="https://example.org/documented")
        found = replace(found, probes=(probe,), feature=feature)
    return Row(planned=planned, result=found, run_id=record().run_id)


def stored(folder: Path, topologies: Iterable[str]) -> tuple[StoredHistory, ...]:
    """Return twelve histories of each topology, which all are the same file, with three faults and its widest plot."""
    outcomes: dict[int, Ended] = {**dict.fromkeys(range(40, 60), "fail"), 60: "unknown"}
    faults = [step for number in range(1, 4) for step in fault(number, "server-link-black-holed", number, number + 0.3)]
    path = write_history(folder, "direct", "capture.insert", [*operations(100, outcomes=outcomes), *faults])
    return tuple(
        StoredHistory(target=name, check=f"resilience.server-link-black-holed-{number}", link=str(path))
        for name in topologies
        for number in range(12)
    )


def job_engine_rows(names: Iterable[str]) -> Iterator[Row]:
    """Yield 14 rows of cases for each of 12 engines with their settings, behind each topology."""
    for title in ENGINES:
        for variant in ("default", "recommended"):
            for name in names:
                for case in Case:
                    yield job_row(case, topology=name, title=title, variant=variant)


def size_of_page(folder: Path, topologies: int, under_faults: int, with_job_engines: int = 0) -> int:
    seed = random.Random(1)  # noqa: S311 -- the same rows in each run
    names = [f"transaction-{number}" for number in range(topologies)]
    checks = [check for check in catalogue().checks if not check.on_demand]
    rows = tuple(
        row(name, check, seed)
        for number, name in enumerate(names)
        for check in checks
        # as in the main job, where three of eight topologies run the faults
        if check.section is not Section.RESILIENCE or number < under_faults
    )
    assert len(rows) > 200 * topologies
    rows = (*rows, *job_engine_rows(names[:with_job_engines]))
    evidence = Evidence(
        rows=rows,
        topologies=dict.fromkeys(names, stood("transaction")),
        records=dict.fromkeys(names, record()),
        folders={record().run_id: folder},
        shown=(record(),),
    )
    report = replace(build_report(evidence, folder), histories=stored(folder, names[:under_faults]))
    return sum(len(piece.encode()) for piece in html_page(report, folder))


def test_the_page_of_the_main_job(tmp_path: Path) -> None:
    assert size_of_page(tmp_path, 8, 3) < MAIN_JOB


def test_the_page_of_forty_topologies_with_job_engines_in_each(tmp_path: Path) -> None:
    assert size_of_page(tmp_path, 40, 15, 40) < EVERYTHING
