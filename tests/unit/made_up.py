"""Made-up evidence for tests of the store and the report."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.lab.topologies import load_topologies
from harness.model import (
    EvidenceClass,
    Expectation,
    KnownIssue,
    Limit,
    PlannedCheck,
    Provenance,
    Result,
    RunRecord,
    Section,
    ServiceEvidence,
    Severity,
    Status,
    TopologyEvidence,
)
from harness.redaction import Redactor
from harness.store import RunStore, StoredRun, read_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("direct", "session", "transaction")
CHECKS = ("capture.insert", "actor.many-clients", "capture.coverage")


STORAGE = "in memory, 1024 MiB at most"


def planned(topology: str, check: str) -> PlannedCheck:
    section = Section(check.partition(".")[0])
    return PlannedCheck(
        target=topology,
        check=check,
        claim=f"the claim of {check}",
        section=section,
        severity=Severity.P0,
        area="capture trigger",
        reproduce=f"nox -s topology-{topology} -- --check {check}",
    )


PLAN = tuple(planned(topology, check) for topology in NAMES for check in CHECKS)


def record(run_id: str = "20260101T000000Z-aaaaaaaa", *, fingerprint: str = "f1", state: str = "finished") -> RunRecord:
    return RunRecord(
        run_id=run_id,
        started_at=f"2026-01-01T00:00:0{run_id[-1] if run_id[-1].isdigit() else 0}.000Z",
        argv=("harness", "verify"),
        provenance=Provenance(
            tool_version="0.1.0", commit="c" * 40, dirty=False, fingerprint=fingerprint, python="3.11", psycopg="3.3"
        ),
        evidence_class=EvidenceClass.CI,
        engine="docker",
        engine_version="20.10",
        audit_target="reference",
        plan=PLAN,
        topologies={name: stood(name) for name in NAMES},
        ended_at="" if state == "running" else "2026-01-01T00:00:09.000Z",
        state=state,  # type: ignore[arg-type]
    )


@functools.cache  # a run has three, and reading their files takes longer than most tests
def stood(name: str) -> TopologyEvidence:
    declared = load_topologies()[name]
    services = [
        ServiceEvidence(
            name="postgres",
            product="postgres",
            version="17.5 (Debian)",
            origin="postgres:17@sha256:ab",
            settings={"default_transaction_isolation": "read committed"},
        )
    ]
    if declared.pooler:
        services.append(
            ServiceEvidence(
                name="pooler",
                product="pgbouncer",
                version="1.24.1",
                origin="edoburu/pgbouncer@sha256:cd",
                settings={
                    "pool_mode": declared.pooler.pool_mode,
                    "default_pool_size": "4",
                    "max_prepared_statements": "200",
                    "server_reset_query": "DISCARD ALL",
                },
            )
        )
    return TopologyEvidence(declared=declared, stood=True, services=tuple(services), storage=STORAGE, ready_ms=700.0)


def result(topology: str, check: str, status: Status = Status.OK, reason: str = "") -> Result:
    row = planned(topology, check)
    held = status is not Status.ISSUE
    return Result(
        target=topology,
        check=check,
        status=status,
        reason=reason,
        duration_ms=12.5,
        reproduce=row.reproduce,
        expectations=(Expectation(name="rows", expected="1", observed="1" if held else "0", held=held),)
        if status in {Status.OK, Status.ISSUE}
        else (),
    )


def mixed() -> list[Result]:
    """Return a result of every kind."""
    accepted = KnownIssue(check="capture.insert", link="https://example.org/1", owner="ada", expires="2099-01-01")
    return [
        result("direct", "capture.insert"),
        replace(
            result("direct", "actor.many-clients"), limit=Limit(outcome="it leaks", source="https://example.org/doc")
        ),
        result("direct", "capture.coverage", Status.NA, "there is no pooler in this chain"),
        replace(result("session", "capture.insert", Status.ISSUE, "rows: expected 1, observed 0"), known=accepted),
        result("session", "actor.many-clients", Status.ISSUE, "actor: expected a | b, observed <c>"),
        result("session", "capture.coverage", Status.NOT_RUN, "could not force a move"),
        result("transaction", "capture.insert"),
        result("transaction", "actor.many-clients"),
    ]


def store_run(
    folder: Path,
    results: list[Result],
    written: RunRecord | None = None,
    *,
    redact: Callable[[str], str] | None = None,
) -> StoredRun:
    store = RunStore(folder, written or record(), redact or Redactor())
    with contextlib.closing(store):
        for result in results:
            store.append(result)
    return read_run(store.folder)
