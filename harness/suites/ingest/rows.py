"""The checks of the suite: one for each case, about the pipeline under test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import Recorded
from harness.checks.judges.ingest import INGEST_JUDGE
from harness.checks.judges.ingest_words import WORKS, outcome
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, check
from harness.errors import HarnessError
from harness.ingest.cases import IngestCase
from harness.model import IngestLabel, Section, Severity
from harness.suites.ingest import address_cases, cases, service_cases, trace_cases, worker_cases
from harness.suites.ingest.conclusion import (
    DISTURBED,
    UNDECIDED,
    disturbances,
    final_state,
    keep_logs,
    late_file,
    record_facts,
    undecided,
    unnamed_state,
)
from harness.suites.ingest.description import DescriptionError
from harness.suites.ingest.running import IngestRun
from harness.suites.ingest.sabotage import controls_of
from harness.suites.ingest.service_sabotage import service_controls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.ingest.loading import LoadedPipeline

#: the most that a case needs: its waits, the starts of its programs, and an installation
_LONGEST_S = 300.0


class CaseRow(Struct, frozen=True, kw_only=True):
    """One case, as it is planned."""

    case: IngestCase
    #: what is true of a pipeline when the case is OK
    claim: str
    #: creates the situation
    scenario: Callable[[IngestRun], None]
    severity: Severity = P1
    #: whether it restarts servers
    own_servers: bool = False
    #: what the audit trail has to record
    records: tuple[Recorded, ...] = ()


#: in the order of the report
CASES: tuple[CaseRow, ...] = (
    CaseRow(
        case=IngestCase.END_TO_END,
        claim="from an empty database, a sample is indexed with the checksum of its bytes within two minutes",
        scenario=cases.end_to_end,
    ),
    CaseRow(
        case=IngestCase.LATENCY,
        claim="95 % of single uploads are indexed within the time that the pipeline promises",
        scenario=cases.latency,
    ),
    CaseRow(
        case=IngestCase.THREE_RUNS,
        claim="three runs in a row, each from a migrated database, have no failure in between",
        scenario=cases.three_runs,
    ),
    CaseRow(
        case=IngestCase.RETRIES,
        claim="failed downloads are repeated up to the cap, after delays that grow and differ between uploads",
        scenario=cases.retries,
    ),
    CaseRow(
        case=IngestCase.STORE_FAILS,
        claim="files are indexed although their first downloads fail, are cut, or end early",
        scenario=cases.store_fails,
    ),
    CaseRow(
        case=IngestCase.DATABASE_FAILS,
        claim="files are indexed although PostgreSQL restarts while they are processed",
        scenario=cases.database_fails,
        own_servers=True,
    ),
    CaseRow(
        case=IngestCase.PERMANENT_FAILURE,
        claim="an upload whose downloads always fail is marked as failed after the cap, and not tried again",
        scenario=cases.permanent_failure,
    ),
    CaseRow(
        case=IngestCase.LATE_UPLOAD,
        claim="a file that is uploaded late, while its address is valid, is indexed",
        scenario=cases.late_upload,
    ),
    CaseRow(
        case=IngestCase.KILLED_WORKER,
        claim="the uploads of a worker that was killed are indexed by another one",
        scenario=worker_cases.killed_worker,
    ),
    CaseRow(
        case=IngestCase.DUPLICATES,
        claim="two uploads with the same bytes at the same time are both indexed, with the same checksum",
        scenario=cases.duplicates,
    ),
    CaseRow(
        case=IngestCase.OTHER_METADATA,
        claim="an upload with the bytes of another project keeps its own metadata, and gets no text of the other one",
        scenario=cases.other_metadata,
        severity=P0,
    ),
    CaseRow(
        case=IngestCase.TWO_WORKERS,
        claim="two workers download each file once, also one whose download is longer than the lease",
        scenario=worker_cases.two_workers,
    ),
    CaseRow(
        case=IngestCase.CORRUPT_DOWNLOAD,
        claim="a file that arrives changed is downloaded again, and not indexed with another checksum",
        scenario=cases.corrupt_download,
        severity=P0,
    ),
    CaseRow(
        case=IngestCase.STOPS,
        claim="programs end on SIGTERM, and another worker goes on with what one of them gave back",
        scenario=worker_cases.stops,
    ),
    CaseRow(
        case=IngestCase.READINESS,
        claim="its probes follow the database, down and back, and show the time of the last indexing",
        scenario=service_cases.readiness,
        own_servers=True,
    ),
    CaseRow(
        case=IngestCase.LOGS,
        claim="each line that its programs print to stdout is a JSON object with time, zone, level and context",
        scenario=trace_cases.logs,
    ),
    CaseRow(
        case=IngestCase.CORRELATION,
        claim="the correlation id of a request is found in the API, in the worker's log and in the row",
        scenario=trace_cases.correlation,
    ),
    CaseRow(
        case=IngestCase.METRICS,
        claim="the counter of indexed uploads grows by exactly the uploads that were indexed",
        scenario=trace_cases.metrics,
    ),
    CaseRow(
        case=IngestCase.FAILURES,
        claim="while the store or the database fails, no request is accepted that is not kept",
        scenario=service_cases.failures,
        severity=P0,
        own_servers=True,
    ),
    CaseRow(
        case=IngestCase.ADDRESS,
        claim="a presigned address is usable by its client, for its object and its method only, until it ends",
        scenario=address_cases.address,
        severity=P0,
    ),
    CaseRow(
        case=IngestCase.AUDITED,
        claim="each audited change of an upload has an actor, and the correlation of its request",
        scenario=trace_cases.audited,
        severity=P0,
        records=(Recorded.ACTOR,),
    ),
)


def ingest_checks(pipeline: LoadedPipeline) -> Iterator[Check | Control]:
    """Yield the checks of a pipeline, and their controls."""
    for row in CASES:
        declared = _declared(pipeline, row)
        yield declared
        yield from controls_of(declared, row.case)
        yield from service_controls_of(declared, row.case)


def _declared(pipeline: LoadedPipeline, row: CaseRow) -> Check:
    return check(
        f"ingest.{row.case}",
        claim=row.claim,
        section=Section.INGEST,
        severity=row.severity,
        area="ingest pipeline",
        needs=(TRANSACTION_BLOCKS,),
        own_servers=row.own_servers,
        records=row.records,
        on_demand=True,
        longest_s=_LONGEST_S,
        ingest=IngestLabel(pipeline=pipeline.name, title=pipeline.title, case=row.case, file=pipeline.own_file),
    )(partial(run_case, pipeline, row))


def run_case(pipeline: LoadedPipeline, row: CaseRow, ctx: CheckContext) -> None:
    """Bring a pipeline into one situation, and judge what is left.

    What was seen is judged also if the case ended early: a wrong checksum is an Issue whatever happened after it. An
    upload that is not indexed is none then, because the harness did not wait for it.
    """
    with IngestRun(ctx, pipeline, row.case) as run:
        try:
            reason = _judged(run, row)
        except NotApplicableError:
            raise
        except (NotExercisedError, HarnessError):
            if said := disturbances(run.requests()):
                ctx.fact(DISTURBED, said)
            keep_logs(run)
            raise
        if reason or any(found.broken for found in ctx.expectations):
            keep_logs(run)
    if reason:
        raise NotExercisedError(reason)


def _judged(run: IngestRun, row: CaseRow) -> str:
    """Create the situation, judge what is left, and return why the situation did not come about; "" if it did."""
    ctx, reason = run.ctx, ""
    with ctx.history(INGEST_JUDGE, pipeline=run.pipeline.title, case=row.case) as journal:
        run.record(journal)
        try:
            row.scenario(run)
        except DescriptionError:
            raise
        except NotExercisedError as error:
            reason = str(error)
        if not run.database or (reason and not run.uploads):
            raise NotExercisedError(_disturbed(reason, disturbances(run.requests())))
        run.require_loadable()
        run.require_found()
        ctx.pipeline.at_end(run)
        reason = reason or unnamed_state(run) or late_file(run)
        state = final_state(run, reason)
        journal.keep_state(state)
    found = outcome(ctx.expectations)
    reason = undecided(state) or (reason and _disturbed(reason, disturbances(state.requests)))
    ctx.fact("outcome", UNDECIDED if reason and found == WORKS else found)
    record_facts(run, state)
    return reason


def _disturbed(reason: str, disturbance: str) -> str:
    return f"{reason}; {disturbance}" if disturbance else reason
