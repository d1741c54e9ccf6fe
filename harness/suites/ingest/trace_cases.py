"""The cases about what a pipeline leaves for its operators: log lines, correlation ids, counters, and the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.judges.ingest_reading import counter_of, read_lines
from harness.checks.judges.ingest_service import AuditedWrite, ServiceSeen, Trace
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.database import SqlError, describe
from harness.ingest.pipeline_file import Status
from harness.ingest.store_requests import Fault
from harness.suites.ingest.asking import ask
from harness.suites.ingest.awaiting import FOLLOWS_S, PROBE_S, because, require_indexed, wait_for
from harness.suites.ingest.description import error_of, no_counter
from harness.suites.ingest.programs import API, WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.target import Change
    from harness.checks.judges.ingest_reading import LogLines
    from harness.checks.judges.ingest_state import Upload
    from harness.database import Client
    from harness.suites.ingest.asking import Reply
    from harness.suites.ingest.running import IngestRun

_A = WORKERS[0]
#: more lines of one start of a program are not kept
_MOST_LINES = 1000
_COUNTED = 3
#: begins the command of a program: what it writes to stderr is not a log line
_STDOUT_ONLY = ("/bin/sh", "-c", 'exec "$@" 2>/dev/null', "stdout-only")


def logs(run: IngestRun) -> None:
    """A file is indexed, a download fails, a request is invalid, and the programs end: all lines are read."""
    declared = run.pipeline.file.logs
    if declared is None:
        raise NotApplicableError("the pipeline declares no form of its log lines")
    run.ctx.pipeline.wrap = (*_STDOUT_ONLY, *run.ctx.pipeline.wrap)
    run.use_prepared_database()
    run.start(_A)
    require_indexed(run, run.upload())
    failing = run.presign(run.plan(end="any"))
    run.store.proxy.fail(Fault("unavailable", "GET", failing.key, first=1, side="internal"))
    failing = run.put(failing)
    failed = run.wait(
        lambda: any(request.fault for request in run.downloads(failing)), "a failed download", run.patience_s
    )
    ask("GET", f"http://127.0.0.1:{run.port}/no-such-route", deadline_s=PROBE_S)
    run.ctx.fact("answer to an invalid body", run.send_body(b"{").status or "none")
    run.end_programs()
    found = tuple(read_lines(program, _lines(run, program), declared) for program in (API, _A))
    run.service = ServiceSeen(logs=found)
    _name_first_wrong(run, found)
    if silent := [lines.program for lines in found if not lines.lines]:
        raise NotExercisedError(f"nothing was printed to stdout by {', '.join(silent)}")
    if not failed:
        raise NotExercisedError(f"no download failed, so what is printed about one is unknown{because(failing)}")


def _name_first_wrong(run: IngestRun, found: tuple[LogLines, ...]) -> None:
    for lines in found:
        if lines.first_wrong:
            run.ctx.fact(f"first wrong line of {lines.program}", lines.first_wrong)


def _lines(run: IngestRun, program: str) -> list[str]:
    """Return the lines that a program printed.

    :raises NotExercisedError: when there are more than are kept.
    """
    lines = list(run.printed.get(program, ()))
    if len(lines) >= _MOST_LINES:
        raise NotExercisedError(f"{program} printed more than {_MOST_LINES} lines, which are not kept")
    return lines


def correlation(run: IngestRun) -> None:
    """Two requests with a correlation id each: it is searched for as plain text."""
    if not run.pipeline.file.correlation_header:
        raise NotApplicableError("the pipeline declares no header for correlation ids")
    run.use_prepared_database()
    run.start(_A)
    uploads = [require_indexed(run, run.upload()) for _ in range(2)]

    def traces() -> tuple[Trace, ...]:
        return tuple(_trace(run, upload) for upload in uploads)

    # a program may write its lines after its rows
    if not wait_for(run, lambda: all(one.api and one.worker for one in traces()), "the correlation ids", FOLLOWS_S):
        run.require_a_responsive_machine()
    run.look()
    run.service = ServiceSeen(traces=traces())


def _trace(run: IngestRun, upload: Upload) -> Trace:
    searched = upload.correlation
    row = run.rows.get(upload.id)
    answer = run.answers.get(upload.number)
    said = [*answer.headers.values(), msgspec.json.encode(answer.data).decode()] if answer else []
    return Trace(
        number=upload.number,
        api=any(searched in text for text in (*said, *_lines(run, API))),
        worker=any(searched in line for line in _lines(run, _A)),
        row=row.correlation == searched if row and "correlation" in run.columns else None,
    )


def metrics(run: IngestRun) -> None:
    """Three files are indexed, and one fails finally: the counter grows by three."""
    file = run.pipeline.file
    if not file.metrics or not file.indexed_counter:
        raise NotApplicableError("the pipeline declares no counter of indexed uploads")

    def counter() -> float | None:
        return counter_of(exposition().text, file.indexed_counter)

    def exposition() -> Reply:
        return ask("GET", f"http://127.0.0.1:{run.port}{file.metrics}", deadline_s=PROBE_S)

    run.require_awaited(run.failed_s + run.next_s, "a permanent failure")
    run.use_prepared_database()
    run.start(_A)
    require_indexed(run, run.upload())
    # the first upload has to be counted, too
    if not wait_for(run, lambda: (counter() or 0) >= 1, "the counter", FOLLOWS_S):
        run.require_a_responsive_machine()
        if misfit := no_counter(file.metrics, file.indexed_counter, exposition()):
            raise error_of(run.pipeline, misfit)
    before = counter()
    failing = run.presign(run.plan(end="any"))
    run.store.proxy.fail(Fault("unavailable", "GET", failing.key, side="internal"))
    failing = run.put(failing)
    uploads = [run.upload() for _ in range(_COUNTED)]
    for upload in uploads:
        require_indexed(run, upload)
    has_failed = run.wait(
        lambda: run.status(failing) is Status.FAILED, "an upload to fail", run.failed_s + run.patience_s
    )
    if not wait_for(run, lambda: (counter() or 0) - (before or 0) >= _COUNTED, "the counter to grow", FOLLOWS_S):
        run.require_a_responsive_machine()
    after = counter()
    run.look()
    done = sum(run.status(upload) is Status.INDEXED for upload in (*uploads, failing))
    run.service = ServiceSeen(counter=(before, after), indexed=done)
    if not has_failed:
        raise NotExercisedError(f"the fourth upload did not fail, so the counter shows less{because(failing)}")


def audited(run: IngestRun) -> None:
    """Two files are indexed: each change of their rows has an actor, and the correlation of its request."""
    table, ctx = run.pipeline.file.audited_table, run.ctx
    if not table:
        raise NotApplicableError("the pipeline declares no audited table")
    if not run.pipeline.own_file and not ctx.target.is_reference:
        raise NotApplicableError("the shipped pipelines set the actor of the reference trail only")
    run.use_prepared_database()
    with ctx.lab.connect_admin(run.database) as admin:
        if admin.value("SELECT to_regclass(%s)", [table]) is None:
            raise NotExercisedError(f"the declared table {table} does not exist after the pipeline's migrations")
        ctx.target.attach(admin, table)
    run.start(_A)
    uploads = [require_indexed(run, run.upload()) for _ in range(2)]
    sends = bool(run.pipeline.file.correlation_header)
    with ctx.lab.connect_admin(run.database) as admin:
        try:
            correlations = run.ctx.target.correlations(admin)
            changes = tuple(_changes(run, admin, table, uploads, correlations))
        except SqlError as error:
            raise NotExercisedError(f"the audit trail cannot be read: {describe(error)}") from None
    run.service = ServiceSeen(
        audited=tuple(upload.number for upload in uploads),
        actor=_declared_actor(run),
        correlations={one.number: one.correlation for one in uploads} if sends and correlations is not None else {},
        changes=changes,
    )


def _changes(
    run: IngestRun, admin: Client, table: str, uploads: list[Upload], correlations: dict[str, str] | None
) -> Iterator[AuditedWrite]:
    for change in run.ctx.target.changes(admin, table):
        if upload := written_upload(change, uploads):
            yield AuditedWrite(
                number=upload.number,
                operation=change.op.lower(),
                actor=_actor(change.actor),
                correlation=(correlations or {}).get(change.action_id or ""),
            )


def written_upload(change: Change, uploads: list[Upload]) -> Upload | None:
    """Return the upload whose row a change has written; None for another row.

    An id may be a small number, which other columns hold, too: the key of the object is looked for first, and the
    primary key of the row before its other columns.
    """
    rows = [
        {str(value) for value in row.values()} for row in (change.table_pk, change.data_after) if isinstance(row, dict)
    ]
    by_key = (one for row in rows for one in uploads if one.key in row)
    by_id = (one for row in rows for one in uploads if one.id in row)
    return next(by_key, None) or next(by_id, None)


def _actor(value: Any) -> dict[str, str] | None:
    """Return an actor as the trail has it; one that is a text is an id."""
    if isinstance(value, dict):
        return {name: str(part) for name, part in value.items()} or None
    return {"id": str(value)} if value else None


def _declared_actor(run: IngestRun) -> dict[str, str]:
    """Return the actor that the harness asks as, in the form of the trail."""
    actor = run.caller.actor if run.caller else {}
    names_type = run.ctx.target.actor.names_type
    return {name: str(value) for name, value in actor.items() if names_type or name == "id"}
