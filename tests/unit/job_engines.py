"""Made-up rows of job engines, for tests of their table and of the page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.job_engines.target_file import Case
from harness.model import Expectation, JobLabel, Limit, PlannedCheck, Result, Section, Severity, Status
from harness.report.evidence import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTED = "https://example.org/documented"
#: engines with their versions; each is tried in two variants
ENGINES = ("DBOS 3.4.0", "procrastinate 3.10.0", "PgQueuer 1.6.0", "Oban 0.7.0", "absurd 0.5.1", "pg-boss 12.38.0")
TOPOLOGIES = ("direct", "session", "transaction", "transaction-unprepared", "statement")


def job_row(
    case: Case = Case.WORKS,
    status: Status = Status.OK,
    outcome: str = "",
    *,
    topology: str = "transaction",
    title: str = "pg-boss 12.38.0",
    variant: str = "default",
    reason: str = "",
    limit: str = "",
    instead: str = "",
) -> Row:
    """Return the row of one case; an outcome needs a row that is OK or an Issue."""
    engine = title.partition(" ")[0].lower()
    check = f"jobs.{engine}-{variant}-{case}"
    ran = status in {Status.OK, Status.ISSUE}
    facts = {"outcome": outcome or "works", "settings": "poll 1 s, lease 10 s", "versions": title} if ran else {}
    if instead:
        facts |= {"instead": instead, "source": DOCUMENTED}
    planned = PlannedCheck(
        target=topology,
        check=check,
        claim=f"the claim of the case {case}",
        section=Section.JOBS,
        severity=Severity.P1,
        area="job engine",
        reproduce=f"harness verify {topology} --check {check}",
        job=JobLabel(engine=engine, title=title, variant=variant, case=case),
    )
    held = status is not Status.ISSUE
    result = Result(
        target=topology,
        check=check,
        status=status,
        reason=reason or ("" if status is Status.OK else "jobs lost: expected none, observed 2"),
        facts=facts,
        limit=Limit(outcome=limit, source=DOCUMENTED) if limit else None,
        expectations=(Expectation(name="jobs lost", expected="none", observed="none" if held else "2", held=held),)
        if ran
        else (),
        reproduce=planned.reproduce,
        started_at="2026-01-01T00:00:05.000Z",
        duration_ms=1250.0,
    )
    return Row(planned=planned, result=result, run_id="20260101T000000Z-aaaaaaaa")


def job_rows_of_many() -> Iterator[Row]:
    """Yield the rows of engines in two variants, with each kind of cell."""
    for title in ENGINES:
        for variant in ("default", "recommended"):
            for topology in TOPOLOGIES:
                for case in Case:
                    yield _of_many(title, variant, topology, case)


def _of_many(title: str, variant: str, topology: str, case: Case) -> Row:
    engine = title.partition(" ")[0]
    newcomer = engine if variant == "default" else ""
    row = partial(job_row, case, topology=topology, title=title, variant=variant)
    if case in {Case.FORK, Case.CHILDREN} and engine != "DBOS":
        return row(Status.NA, reason="the engine does not claim it")
    if why := _not_run(engine, topology, case):
        return row(Status.NOT_RUN, reason=why)
    if topology == "statement" and engine in _IN_TRANSACTION:
        said = "installing it is refused, because statement pooling refuses transaction blocks"
        return row(outcome="cannot install (08P01)", limit=said, instead="use transaction mode")
    if issue := _ISSUES.get((newcomer, topology, case)):
        outcome, instead, reason = issue
        return row(Status.ISSUE, outcome, instead=instead, reason=reason)
    return row(outcome="twice 3" if case is Case.FAULTS and topology != "direct" else "")


_IN_TRANSACTION = frozenset({"procrastinate", "DBOS", "Oban"})
_EXITS = ("crash loop (42P05)", "connect with prepare_threshold=None", "exits of workers: expected 0, observed 13")
#: by engine, topology and case, in the variant of a newcomer: outcome, what to do instead, and reason
_ISSUES = {
    ("pg-boss", "transaction", Case.IDLE): (
        "idle 27 s",
        "keep useListenNotify off behind a transaction pool, or give the worker a direct connection",
        "an idle worker begins a new job: expected within 3 s, observed after 27.2 s",
    ),
    ("PgQueuer", "transaction-unprepared", Case.WORKS): _EXITS,
    ("PgQueuer", "transaction-unprepared", Case.FAULTS): _EXITS,
    ("PgQueuer", "transaction-unprepared", Case.CLAIMS): ("stuck 4 h", "", "stuck jobs: expected 0, observed 4"),
}


def _not_run(engine: str, topology: str, case: Case) -> str:
    """Return why a case is Not run; "" for one that runs."""
    if (engine, topology) == ("Oban", "session"):
        return "its packages need Python 3.12 or later"
    if topology == "statement" and engine in _IN_TRANSACTION and case is not Case.WORKS:
        return "it could not be installed through the chain"
    return "the machine was too slow" if (engine, topology, case) == ("absurd", "transaction", Case.CRON) else ""
