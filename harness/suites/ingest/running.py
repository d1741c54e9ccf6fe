"""A pipeline under test in one check: what happens to its uploads, by its tables and by the store's journal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.judges.ingest_state import UploadRow
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.database import SqlError, describe, is_lost
from harness.errors import TimedOutError
from harness.ingest.pipeline_file import Status
from harness.suites.ingest.description import Misfit, error_of, other_id, table_with
from harness.suites.ingest.uploading import Uploading
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.checks.context import CheckContext
    from harness.checks.judges.ingest_service import ServiceSeen
    from harness.checks.judges.ingest_state import Upload
    from harness.database import Client
    from harness.ingest.cases import IngestCase
    from harness.ingest.loading import LoadedPipeline
    from harness.ingest.store_requests import StoreRequest
    from harness.suites.ingest.description import DescriptionError

#: between two looks at the rows, seconds
_LOOK_S = 0.05
#: a worker begins its first upload within, seconds: it starts, imports its packages, and connects
STARTS_S = 30.0
#: added to what a pipeline's settings need, seconds; no case waits longer than this, seconds, and less under a control
_MARGIN_S, LONGEST_WAIT_S, _UNDER_CONTROL_S = 8.0, 60.0, 15.0
#: jitter makes delays longer by at most this factor
_JITTER = 1.5
_OPTIONAL = (
    *("checksum", "indexed_at", "worker", "text"),
    *("project", "filename", "content_type", "correlation"),
)


class IngestRun(Uploading):
    """One pipeline in one check."""

    def __init__(self, ctx: CheckContext, pipeline: LoadedPipeline, case: IngestCase) -> None:
        """Install the packages of the pipeline, and prepare its part of the store.

        :raises NotExercisedError: when the packages cannot be installed here, or the store is unavailable.
        """
        self._admin: Client | None = None
        super().__init__(ctx, pipeline, case)
        #: what the pipeline says, by the id of the upload; of earlier databases, too
        self.rows: dict[str, UploadRow] = {}
        self.columns: tuple[str, ...] = ()
        #: whether the query has found an upload of this check
        self._fits = False
        #: why the last look at the rows lost its connection; "" if it did not
        self._lost = ""
        #: the workers of all uploads so far: a pipeline may clear the name when an upload is indexed
        self.worker_names: set[str] = set()
        #: when the worker of the case was killed
        self.healed_s: float | None = None
        self.floor_s = 0.0
        self.total_s = 0.0
        #: what a case about the service saw
        self.service: ServiceSeen | None = None

    # --- observations ------------------------------------------------------------------------------

    def requests(self) -> tuple[StoreRequest, ...]:
        """Return all requests that reached the store so far; their seconds count from the beginning of the check."""
        return tuple(
            replace(request, at=round(request.at - self.began, 4), seconds=round(request.seconds, 4))
            for request in self.store.proxy.requests()
        )

    def downloads(self, *uploads: Upload) -> list[StoreRequest]:
        """Return the requests of the pipeline's programs for the contents of objects, in their order."""
        keys = {upload.key for upload in uploads or self.uploads.values()}
        return [request for request in self.requests() if request.is_attempt and request.key in keys]

    def look(self) -> dict[str, UploadRow]:
        """Read the pipeline's own tables, note the states of uploads, and return all rows so far.

        :raises NotExercisedError: when its query fails, or lacks a column.
        """
        if (rows := self._read()) is None:
            return self.rows  # the database is down just now
        if not self._fits:
            self._require_fitting_rows(rows)
        self.rows = self.rows | rows
        self.worker_names.update(row.worker for row in rows.values() if row.worker)
        for upload in list(self.uploads.values()):
            row = rows.get(upload.id)
            if row is None or (upload.seen and upload.seen[-1] is row.status):
                continue
            indexed_s = self.seconds if row.status is Status.INDEXED and upload.indexed_s is None else upload.indexed_s
            self._keep(replace(upload, seen=(*upload.seen, row.status), indexed_s=indexed_s))
        return self.rows

    def _read(self) -> dict[str, UploadRow] | None:
        try:
            if self._admin is None or self._admin.closed or self._admin.info.dbname != self.database:
                self._disconnect()
                self._admin = self.ctx.lab.connect_admin(self.database)
            cursor = self._admin.execute(self.pipeline.file.sql.uploads.encode())
            names = [column.name for column in cursor.description or ()]
            found = [dict(zip(names, row, strict=True)) for row in cursor] if names else []
            self._lost = ""
        except SqlError as error:
            self._disconnect()
            if is_lost(error):
                self._lost = describe(error)
                return None
            raise self._wrong_query(f"the query fails: {describe(error)}") from None
        if missing := [name for name in ("id", "key", "status") if name not in names]:
            said = ", ".join(names) or "nothing"
            raise self._wrong_query(f"the query returns {said}, and no column {', '.join(missing)}")
        self.columns = tuple(names)
        return {row.id: row for row in map(self._row, found)}

    def _wrong_query(self, problem: str) -> DescriptionError:
        return error_of(self.pipeline, Misfit("sql.uploads", problem))

    def _require_fitting_rows(self, rows: dict[str, UploadRow]) -> None:
        """Require that the query names uploads as the API does; the first one that it names shows it.

        :raises DescriptionError: when it does not.
        """
        uploads = [upload for upload in self.uploads.values() if upload.id]
        self._fits = any(upload.id in rows for upload in uploads)
        ids = {row.key: row.id for row in rows.values()}
        for upload in () if self._fits else uploads:
            if misfit := other_id(self.pipeline.file.presign, upload.id, upload.key, ids):
                raise error_of(self.pipeline, misfit)

    def require_found(self) -> None:
        """Require that the query finds the uploads that the pipeline's tables have.

        :raises DescriptionError: when it has found none, and a table has one.
        """
        self.look()
        if self._lost and self.ctx.lab.answers():
            self.look()  # the connection may have ended with a server that is back
            if self._lost:
                raise self._wrong_query(f"the query ends its connection: {self._lost}")
        if self._fits or self._admin is None:
            return
        for upload in self.uploads.values():
            # another key may be anywhere by chance
            if upload.stored_s is None or not upload.key.startswith(self.store.prefix):
                continue
            try:
                table = table_with(self._admin, upload.key, self.ctx.lab.roles.app.name)
            except SqlError:
                self._disconnect()
                return
            if table:
                raise self._wrong_query(
                    f"the query has no row for the object {upload.key!r}, and the table {table} has"
                )

    def _row(self, found: dict[str, Any]) -> UploadRow:
        word = str(found["status"])
        optional = {name: None if found.get(name) is None else str(found[name]) for name in _OPTIONAL}
        return UploadRow(
            id=str(found["id"]),
            key=str(found["key"]),
            status=self.pipeline.status_of(word),
            word=word,
            **optional,
        )

    def _disconnect(self) -> None:
        if self._admin is not None:
            with contextlib.suppress(SqlError):
                self._admin.close()
        self._admin = None

    def end_programs(self) -> None:
        """End all programs; the next look at the rows reads the database that is used then."""
        self._disconnect()
        super().end_programs()

    def status(self, upload: Upload) -> Status | None:
        """Return the state that an upload was last seen in; None for one without a row."""
        row = self.rows.get(upload.id)
        return row.status if row else None

    def require_columns(self, *names: str) -> None:
        """Require columns of the pipeline's query.

        :raises NotApplicableError: when it lacks one: the property cannot be seen then.
        """
        self.look()
        if missing := [name for name in names if name not in self.columns]:
            raise NotApplicableError(f"the pipeline's query for uploads returns no column {', '.join(missing)}")

    # --- waiting -----------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float:
        """How long nothing may happen before an upload counts as stuck, seconds: lease, polls, retries, and a margin."""
        return self.settings.lease_s + self.settings.longest_delay_s + self.next_s

    def retries_s(self, number: int) -> float:
        """Return how long a pipeline needs at most for the delays after so many failed downloads, seconds."""
        return _JITTER * sum(map(self.settings.nominal_s, range(number))) + number * self.settings.poll_s

    @property
    def failed_s(self) -> float:
        """How long a pipeline needs at most until an upload whose downloads fail has failed permanently, seconds."""
        return self.retries_s(self.settings.attempts)

    @property
    def next_s(self) -> float:
        """How long a pipeline needs at most for an upload that is due, seconds."""
        return 4 * self.settings.poll_s + _MARGIN_S

    def require_awaited(self, needed_s: float, what: str, limit_s: float = LONGEST_WAIT_S) -> None:
        """Require that the harness waits as long as the pipeline's own settings need.

        :param what: subject of the sentence, such as `its retries`.
        :raises NotExercisedError: when it does not: a missing result would show nothing.
        """
        if needed_s > limit_s:
            raise NotExercisedError(
                f"by the pipeline's settings, {what} can take {needed_s:.0f} s, and no more than {limit_s:g} s are awaited"
            )

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float) -> bool:
        """Wait until a condition holds, and return whether it does in time. The rows are read before each look."""

        def seen() -> None:
            self.ctx.require_undisturbed()
            self.require_loadable()
            self.look()
            if condition():
                return
            if self.has_lost_its_workers:
                raise TimedOutError(f"no worker runs any more, waiting for {what}")
            raise NotYet(what)

        longest_s = _UNDER_CONTROL_S if self.ctx.control else LONGEST_WAIT_S
        try:
            poll(seen, what=what, deadline_s=min(deadline_s, longest_s), interval_s=_LOOK_S / 5)
        except TimedOutError:
            return False
        return True

    def wait_until(self, status: Status, uploads: Iterable[Upload] | None = None, deadline_s: float = 0.0) -> bool:
        """Wait until uploads are in a state, as long as there is progress, and return whether they are.

        :param uploads: by default all whose file the store has.
        :param deadline_s: how long no upload may change, seconds; by default what the pipeline's own settings need.
        """
        wanted = [one for one in (self.uploads.values() if uploads is None else uploads) if one.stored_s is not None]
        left = {one.number for one in wanted}
        ended_s = self.seconds + 3 * LONGEST_WAIT_S
        first = True
        while left and self.seconds < ended_s:
            before = set(left)

            def progressed() -> bool:
                left.difference_update(one.number for one in wanted if self.status(self.uploads[one.number]) is status)
                return left != before or not left  # noqa: B023 -- called in this round only

            quiet_s = deadline_s or self.patience_s + (STARTS_S - _MARGIN_S if first else 0.0)
            if not self.wait(progressed, f"{len(left)} uploads to be {status}", quiet_s):
                return False
            first = False
        return not left
