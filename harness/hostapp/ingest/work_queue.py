"""The queue of uploads: claimed with a lease, postponed, given back, finished. Each change is one short transaction.

A claim has a number. Each statement about an upload names it, so a worker that lost its claim changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct

from .audit import WORKER, Action

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from psycopg import Connection

    from .content import Content

    Connect = Callable[[], AbstractContextManager[Connection[tuple[Any, ...]]]]

# rows that another worker is claiming are skipped. A worker never claims what it still works on, although the lease has
# passed while the database was away
_CLAIM = """
WITH due AS (
    SELECT w.upload_id FROM ingest.work w
    WHERE w.due_at <= now() AND (w.lease_until IS NULL OR w.lease_until < now())
      AND w.upload_id <> ALL (%(held)s::uuid[])
    ORDER BY w.due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE ingest.work w
SET claims = w.claims + 1, worker = %(worker)s, processing = false,
    lease_until = now() + make_interval(secs => %(lease_s)s)
FROM due JOIN ingest.uploads u ON u.id = due.upload_id
WHERE w.upload_id = due.upload_id
RETURNING w.upload_id::text, w.claims, w.attempts, w.looks, u.object_key, u.content_type, u.correlation_id,
          u.url_expires_at < now()
"""
_MINE = "upload_id = %(id)s AND claims = %(claim)s AND worker = %(worker)s"
# a claim that was postponed or given back has no lease any more, and begins no attempt.
# counted before the download: one that never ends, because it kills its worker, is counted as well
_BEGIN_ATTEMPT = f"""
UPDATE ingest.work SET attempts = attempts + 1, processing = true,
                       lease_until = now() + make_interval(secs => %(lease_s)s)
WHERE {_MINE} AND lease_until IS NOT NULL RETURNING attempts
"""
_POSTPONE = f"""
UPDATE ingest.work SET due_at = now() + make_interval(secs => %(delay_s)s), looks = looks + %(looks)s,
                       processing = false, lease_until = NULL
WHERE {_MINE}
"""
_GIVE_BACK = f"""
UPDATE ingest.work SET due_at = now(), attempts = attempts - processing::integer, processing = false,
                       lease_until = NULL
WHERE {_MINE}
"""
# a claim that was postponed or given back meanwhile has no lease, and gets none: nobody would claim it until it passes
_RENEW = """
UPDATE ingest.work w SET lease_until = now() + make_interval(secs => %(lease_s)s)
FROM unnest(%(ids)s::uuid[], %(claims)s::integer[]) AS held (upload_id, claim)
WHERE w.upload_id = held.upload_id AND w.claims = held.claim AND w.worker = %(worker)s AND w.lease_until IS NOT NULL
RETURNING w.upload_id::text
"""
_TAKE_OUT = f"DELETE FROM ingest.work WHERE {_MINE} RETURNING attempts"
_INDEXED = """
UPDATE ingest.uploads SET status = 'indexed', checksum = %(checksum)s, size_bytes = %(size)s, extracted_text = %(text)s,
                          attempts = %(attempts)s, worker = %(worker)s, indexed_at = now()
WHERE id = %(id)s
"""
_FAILED = """
UPDATE ingest.uploads SET status = 'index_error', error = %(error)s, attempts = %(attempts)s, worker = %(worker)s
WHERE id = %(id)s
"""
# the answer to a commit may get lost with its connection
_IS_FINISHED = "SELECT FROM ingest.uploads WHERE id = %(id)s AND worker = %(worker)s AND status = %(status)s"


class Claimed(Struct, frozen=True, kw_only=True):
    """An upload that this worker has claimed."""

    id: str
    claim: int
    #: downloads so far
    attempts: int
    #: how often it was looked for so far, before it was there
    looks: int
    key: str
    content_type: str
    correlation: str
    #: nobody can upload the file any more
    is_expired: bool


#: classes of SQLSTATE whose cause ends: connections, rollbacks, resources, locks, shutdown, errors of the system
_TRANSIENT = {"08", "40", "53", "55", "57", "58"}
#: a server that a failover has not finished with, and a transaction that was frozen
_TRANSIENT_STATES = {"25006", "25P03"}


def is_transient(error: psycopg.Error) -> bool:
    """Return whether the same statement may succeed later: the database is away, full, busy or read-only.

    It also may if this process was frozen inside a transaction, which the database then ended.
    """
    state = error.sqlstate
    if state is None:  # errors of the pool and of libpq have no SQLSTATE
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state[:2] in _TRANSIENT or state in _TRANSIENT_STATES


class LostClaimError(Exception):
    """The lease has passed, and another worker has claimed the upload."""


class WorkQueue:
    """The queue, as one worker uses it. May be used by several threads at a time."""

    def __init__(self, connect: Connect, *, worker: str, lease_s: float) -> None:
        """Use a queue.

        :param connect: yields a connection with autocommit, and takes it back.
        :param worker: a name that no other worker has or will have.
        """
        self._connect = connect
        self._worker = worker
        self._lease_s = lease_s

    def claim(self, most: int, held: list[str]) -> list[Claimed]:
        """Claim uploads that are due.

        :param held: ids of the uploads that this worker still works on.
        :raises psycopg.Error: a lost answer leaves uploads claimed until their lease passes.
        """
        with self._connect() as connection:
            rows = connection.execute(_CLAIM, self._with(held=held, most=most)).fetchall()
        return [Claimed(**dict(zip(Claimed.__struct_fields__, row, strict=True))) for row in rows]

    def begin_attempt(self, upload: Claimed) -> int:
        """Count a download, and return its number, from 1.

        :raises LostClaimError: when another worker has claimed the upload.
        """
        with self._connect() as connection:
            row = connection.execute(_BEGIN_ATTEMPT, self._of(upload)).fetchone()
        if row is None:
            raise LostClaimError
        return int(row[0])

    def postpone(self, upload: Claimed, delay_s: float, *, looked: bool = False) -> None:
        """Let a claim go until a later time.

        :param looked: whether the file was not there, so that no attempt was made.
        :raises LostClaimError: when another worker has claimed the upload.
        """
        self._change(_POSTPONE, self._of(upload, delay_s=delay_s, looks=int(looked)))

    def give_back(self, upload: Claimed) -> None:
        """Let a claim go now, without counting an attempt that this worker ended itself.

        :raises LostClaimError: when another worker has claimed the upload.
        """
        self._change(_GIVE_BACK, self._of(upload))

    def renew(self, claims: Mapping[str, int]) -> set[str]:
        """Renew leases, and return the ids of the uploads that are still this worker's.

        :param claims: the number of the claim by id of the upload.
        """
        values = self._with(ids=list(claims), claims=list(claims.values()))
        with self._connect() as connection:
            return {str(row[0]) for row in connection.execute(_RENEW, values)}

    def finish(self, upload: Claimed, content: Content) -> None:
        """Mark an upload as indexed. May be called again when the first answer got lost.

        :raises LostClaimError: when another worker has claimed the upload.
        """
        values = {"checksum": content.sha256, "size": content.size, "text": content.text}
        self._end(upload, "upload_indexed", "indexed", _INDEXED, values)

    def fail(self, upload: Claimed, error: str) -> None:
        """Mark an upload as failed permanently. May be called again when the first answer got lost.

        :raises LostClaimError: when another worker has claimed the upload.
        """
        self._end(upload, "upload_failed", "index_error", _FAILED, {"error": error})

    def _end(self, upload: Claimed, action: str, status: str, statement: str, values: dict[str, Any]) -> None:
        audited = Action(name=action, actor=WORKER, correlation=upload.correlation, job=upload.id)
        with self._connect() as connection, audited.transaction(connection):
            taken = connection.execute(_TAKE_OUT, self._of(upload)).fetchone()
            if taken:
                connection.execute(statement, self._of(upload, attempts=taken[0], **values))
            elif connection.execute(_IS_FINISHED, self._of(upload, status=status)).rowcount:
                # the action was recorded with the result, and is not recorded twice
                raise psycopg.Rollback
            else:
                raise LostClaimError

    def _change(self, statement: str, values: dict[str, Any]) -> None:
        with self._connect() as connection:
            if not connection.execute(statement, values).rowcount:
                raise LostClaimError

    def _with(self, **values: Any) -> dict[str, Any]:
        return {"worker": self._worker, "lease_s": self._lease_s, **values}

    def _of(self, upload: Claimed, **values: Any) -> dict[str, Any]:
        return self._with(id=upload.id, claim=upload.claim, **values)
