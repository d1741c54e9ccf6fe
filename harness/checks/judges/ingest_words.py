"""The words of a row of ingest pipelines, for the table: what was observed, in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.judges import ingest as judged
from harness.checks.judges import ingest_service as service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import Expectation

#: the outcome of a pipeline without a finding
WORKS = "works"
#: words for the table, of expectations whose names are long
SHORT = {
    judged.REFUSED: "refused",
    judged.LOST: "without a row",
    judged.NOT_INDEXED: "not indexed",
    judged.FAILED: "failed permanently",
    judged.CHECKSUM: "other checksum",
    judged.INDEXED_AT: "without a time",
    judged.MIGRATED: "not migrated",
    judged.IN_TIME: "too late",
    judged.LATE: "later than promised",
    judged.ATTEMPTS: "more downloads than the cap",
    judged.FEWER: "fewer downloads than the cap",
    judged.RETRIED: "not tried again",
    judged.GROWTH: "delays do not grow",
    judged.LONGEST: "delays too long",
    judged.JITTER: "no jitter",
    judged.NOT_FAILED: "never failed",
    judged.HELD_UP: "held up by a failing one",
    judged.STUCK: "stuck",
    judged.TWICE: "downloaded twice",
    judged.METADATA: "other metadata",
    judged.LEAKED: "text leaked",
    judged.IGNORED: "ignores SIGTERM",
    judged.LOOPS: "crash loop",
    judged.EXITS: "exits",
    judged.OUTSIDE: "outside of the prefix",
    judged.OTHERS: "objects of others lost",
    judged.OBJECTS: "uploaded files lost",
    service.READY: "not ready",
    service.HEALTHY: "not healthy",
    service.NOT_READY: "ready without a database",
    service.READY_AGAIN: "not ready again",
    service.LAST_INDEXED: "no time of the last indexing",
    service.NOT_JSON: "lines not JSON",
    service.WITHOUT_KEYS: "keys missing",
    service.TIMES: "times without a zone",
    service.LEVELS: "unknown levels",
    service.CONTEXTS: "no context",
    service.IN_API: "correlation not in the API",
    service.IN_WORKER: "correlation not in the worker's log",
    service.IN_ROW: "other correlation in the row",
    service.COUNTED: "counts wrong",
    service.KEPT: "accepted and not kept",
    service.INDEXED_WITHOUT: "indexed without a file",
    service.MIGRATE_FAILS: "a failed migration exits with 0",
    service.USABLE: "address not usable",
    service.PUBLIC: "address for another client",
    service.SECRET: "secret key in the address",
    service.VALID: "address valid too long",
    service.CHANGES: "not audited",
    service.ACTOR: "other actor",
    service.ATTRIBUTED: "no actor",
    service.CORRELATION: "other correlation",
}


def outcome(expectations: Iterable[Expectation]) -> str:
    """Return what a row of the table says, such as `works` or `stuck: 1`."""
    broken = [one for one in expectations if one.broken]
    if not broken:
        return WORKS
    return ", ".join(
        SHORT.get(one.name, one.name) + (f": {one.observed}" if one.expected == "0" else "") for one in broken
    )
