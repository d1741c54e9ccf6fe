"""Retention: a policy for the age of the trail, and a purge that deletes older rows in batches.

Each batch is a transaction. The cutoff uses the database's clock, which also wrote the times it is compared with.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit import telemetry
from harness.database import fetch, is_idle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.telemetry import Telemetry
    from harness.database import AnyConnection

_log = logging.getLogger("harness.audit.purge")
_DAY_S = 86_400
_LONGEST_S = 1000 * 365 * _DAY_S
_COUNTED = ("changes", "transactions", "actions")
_BATCH = "retention purge batch %d: changes=%d transactions=%d actions=%d"
_FIRST_UUID = "00000000-0000-0000-0000-000000000000"


class RetentionError(ValueError):
    """An invalid retention policy, or a purge that it does not permit."""


class Policy(Struct, frozen=True, kw_only=True):
    """The age up to which the trail is kept.

    :raises RetentionError: unless exactly one of keep_days and max_age_seconds is given, and positive.
    """

    enabled: bool = False
    keep_days: int | None = None
    max_age_seconds: int | None = None
    #: also delete transactions that have no change left
    delete_empty_transactions: bool = True
    #: also delete actions that no transaction is linked to
    delete_unlinked_actions: bool = True

    def __post_init__(self) -> None:
        for name in ("enabled", "delete_empty_transactions", "delete_unlinked_actions"):
            if not isinstance(getattr(self, name), bool):
                raise RetentionError(f"retention: {name} must be true or false, found {getattr(self, name)!r}")
        windows = {
            name: getattr(self, name) for name in ("keep_days", "max_age_seconds") if getattr(self, name) is not None
        }
        if len(windows) != 1:
            found = "both" if windows else "neither"
            raise RetentionError(f"retention: exactly one of keep_days and max_age_seconds is needed, found {found}")
        for name, value in windows.items():
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise RetentionError(f"retention: {name} must be a positive whole number, found {value!r}")
        if self.seconds > _LONGEST_S:
            raise RetentionError(
                "retention: found more than a thousand years; to keep the trail for ever, do not purge"
            )

    @property
    def seconds(self) -> int:
        return self.max_age_seconds or (self.keep_days or 0) * _DAY_S


class Purged(Struct, frozen=True, kw_only=True):
    """The counts of rows that a purge deleted or, in a dry run, would delete."""

    cutoff: datetime
    deleted_changes: int
    deleted_transactions: int
    deleted_actions: int
    batches: int
    #: False when rows before the cutoff are left: the purge reached max_batches, or another purge has locked them
    complete: bool
    dry_run: bool


def cutoff_of(connection: AnyConnection, policy: Policy, earlier: datetime | None = None) -> datetime:
    """Return the time before which rows may be deleted. Rows of exactly that time are kept.

    :param earlier: the caller's own cutoff, at or before the policy's.
    :raises RetentionError: for a cutoff after the policy's, or one without a time zone.
    """
    [(text,)] = fetch(
        connection,  # a fixed format, whatever the client's DateStyle
        "SELECT to_char((clock_timestamp() - make_interval(secs => %s)) AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD HH24:MI:SS.US')",
        [policy.seconds],
    )
    cutoff = datetime.fromisoformat(text).replace(tzinfo=UTC)
    if earlier is None:
        return cutoff
    if earlier.tzinfo is None:
        raise RetentionError("retention: a cutoff needs a time zone")
    if earlier > cutoff:
        raise RetentionError(f"retention: the cutoff {earlier.isoformat()} is after the policy's {cutoff.isoformat()}")
    return earlier


def purge(
    connection: AnyConnection,
    policy: Policy,
    *,
    batch_size: int = 1000,
    max_batches: int = 10_000,
    cutoff: datetime | None = None,
    dry_run: bool = False,
    to: Telemetry = telemetry.default,
) -> Purged:
    """Delete the rows that the policy no longer keeps.

    :param connection: of the trail's owner, in autocommit mode.
    :param batch_size: the most rows to delete in one transaction.
    :param max_batches: the most batches of changes, transactions and actions together; `complete` in the result is
        False when more rows are left.
    :param cutoff: an earlier cutoff than the policy's.
    :param dry_run: delete nothing, and count exactly the rows that a complete purge would delete.
    :param to: receives the events `threadline.retention.batch_purged` and `threadline.retention.purged`.
    :raises RetentionError: for a disabled policy, sizes below 1, an invalid cutoff, or a connection with an open
        transaction or without autocommit: it would hold all locks to the end.
    """
    if not policy.enabled:
        raise RetentionError("retention: the policy is disabled, so nothing is deleted; set enabled to true")
    if batch_size < 1 or max_batches < 1:
        raise RetentionError(
            f"retention: batch_size and max_batches must be at least 1, found {batch_size}, {max_batches}"
        )
    before = cutoff_of(connection, policy, cutoff)
    if dry_run:
        return _preview(connection, policy, before)
    if not connection.autocommit or not is_idle(connection):
        raise RetentionError("retention: a purge needs a connection in autocommit mode, outside a transaction")
    began, batches = time.monotonic(), 0
    changes = transactions = actions = 0
    for deleted in _batches(connection, policy, before, batch_size):
        if not any(deleted):
            continue
        batches += 1
        changes, transactions, actions = changes + deleted[0], transactions + deleted[1], actions + deleted[2]
        so_far = (changes, transactions, actions)
        _log.info(_BATCH + "; so far changes=%d transactions=%d actions=%d", batches, *deleted, *so_far)
        to.emit("threadline.retention.batch_purged", **dict(zip(_COUNTED, deleted, strict=True)))
        if batches >= max_batches:
            break
    left = _preview(connection, policy, before)
    complete = not (left.deleted_changes or left.deleted_transactions or left.deleted_actions)
    _log.info(
        "retention purge %s: changes=%d transactions=%d actions=%d batches=%d",
        *("complete" if complete else "stopped early", changes, transactions, actions, batches),
    )
    to.emit(
        "threadline.retention.purged",
        changes=changes,
        transactions=transactions,
        actions=actions,
        batches=batches,
        complete=int(complete),
        duration_ms=round((time.monotonic() - began) * 1000, 1),
    )
    return Purged(
        cutoff=before,
        deleted_changes=changes,
        deleted_transactions=transactions,
        deleted_actions=actions,
        batches=batches,
        complete=complete,
        dry_run=False,
    )


def _batches(
    connection: AnyConnection, policy: Policy, before: datetime, batch_size: int
) -> Iterator[tuple[int, int, int]]:
    """Yield the counts of each batch: changes with their transactions, then empty transactions, then actions."""
    since: object = "-infinity"
    while since:
        [(since, changes, transactions)] = fetch(
            connection,
            "SELECT last::text, changes, transactions FROM public.threadline_purge_changes(%s, %s, %s, %s)",
            [before, batch_size, policy.delete_empty_transactions, since],
        )
        yield changes, transactions, 0
    after = _FIRST_UUID
    while policy.delete_empty_transactions and after:
        [(after, transactions)] = fetch(
            connection,
            "SELECT last::text, transactions FROM public.threadline_purge_transactions(%s, %s, %s)",
            [before, batch_size, after],
        )
        yield 0, transactions, 0
    while policy.delete_unlinked_actions:
        [(actions,)] = fetch(connection, "SELECT public.threadline_purge_actions(%s, %s)", [before, batch_size])
        yield 0, 0, actions
        if not actions:
            break


def _preview(connection: AnyConnection, policy: Policy, before: datetime) -> Purged:
    [(changes, transactions, actions)] = fetch(
        connection,
        "SELECT changes, transactions, actions FROM public.threadline_purge_preview(%s, %s, %s)",
        [before, policy.delete_empty_transactions, policy.delete_unlinked_actions],
    )
    return Purged(
        cutoff=before,
        deleted_changes=changes,
        deleted_transactions=transactions,
        deleted_actions=actions,
        batches=0,
        complete=True,
        dry_run=True,
    )
