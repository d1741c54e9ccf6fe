"""Controls of the cases about a pipeline as a service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.judges import ingest_service as judged
from harness.checks.judges.ingest_service import Address, AuditedWrite, Refusal, ServiceSeen
from harness.checks.registry import Control
from harness.ingest.cases import IngestCase
from harness.suites.ingest.sabotage import Applied, Break

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.judges.ingest_state import IngestState
    from harness.checks.registry import Check

#: begins the command of a program, which then prints a line of plain text before its own
_CHATTY = ("/bin/sh", "-c", 'echo "starting up"; exec "$@"', "chatty")
#: runs the API behind a program that answers each of its failures with 200
_SWALLOWING = (sys.executable, "-I", str(Path(__file__).with_name("swallowing_api.py")))
#: an address that only other services of a network know, as RFC 6761 reserves it
_ELSEWHERE = "http://store.invalid:9000"
_ATTEMPTS = {
    "a-forged-address-is-accepted": "a forged signature",
    "an-address-opens-another-object": "another object",
    "an-upload-needs-no-signature": "an address without its signature",
    "an-address-for-uploads-reads": "reading with an address for uploads",
    "an-address-for-uploads-deletes": "deleting with an address for uploads",
    "an-address-does-not-end": "an address after its end",
}


def _sees(change: Callable[[ServiceSeen], ServiceSeen]) -> Callable[[IngestState], IngestState]:
    """Return a function that changes the observations."""
    return lambda state: replace(state, service=change(state.service or ServiceSeen()))


def _probes(route: str, phase: str, status: int) -> Callable[[IngestState], IngestState]:
    """Return a function that lets a route have answered something else."""

    def change(seen: ServiceSeen) -> ServiceSeen:
        return replace(
            seen,
            probes=tuple(
                replace(one, status=status) if (one.route, one.phase) == (route, phase) else one for one in seen.probes
            ),
        )

    return _sees(change)


def _lines(kind: str) -> Callable[[IngestState], IngestState]:
    return _sees(lambda seen: replace(seen, logs=tuple(replace(lines, **{kind: 1}) for lines in seen.logs)))


def _traces(place: str) -> Callable[[IngestState], IngestState]:
    return _sees(lambda seen: replace(seen, traces=tuple(replace(trace, **{place: False}) for trace in seen.traces)))


def _counts(more: float) -> Callable[[IngestState], IngestState]:
    """Return a function that lets the counter have grown by more."""

    def change(seen: ServiceSeen) -> ServiceSeen:
        before, after = seen.counter or (0.0, 0.0)
        return replace(seen, counter=(before, (after or 0.0) + more))

    return _sees(change)


def _broken(**changes: Any) -> Callable[[IngestState], IngestState]:
    return _sees(lambda seen: replace(seen, broken=tuple(replace(one, **changes) for one in seen.broken)))


def _accepts(attempt: str) -> Callable[[IngestState], IngestState]:
    """Return a function that lets an attempt have succeeded."""

    def change(seen: ServiceSeen) -> ServiceSeen:
        address = seen.address or Address(usable="yes")
        others = tuple(one for one in address.refusals if one.attempt != attempt)
        refusals = (*others, Refusal(attempt=attempt, status=200, changed=True))
        return replace(seen, address=replace(address, refusals=refusals))

    return _sees(change)


def _shows_secret(seen: ServiceSeen) -> ServiceSeen:
    return replace(seen, address=replace(seen.address or Address(usable="yes"), holds_secret=True))


def _changes(**changes: Any) -> Callable[[IngestState], IngestState]:
    """Return a function that changes what the trail has."""

    def change(seen: ServiceSeen) -> ServiceSeen:
        written: tuple[AuditedWrite, ...] = tuple(replace(one, **changes) for one in seen.changes)
        expected = seen.correlations or {one.number: "a correlation" for one in seen.changes}
        return replace(seen, changes=written, correlations=expected, actor=seen.actor or {"id": "ada"})

    return _sees(change)


_BREAKS: dict[IngestCase, tuple[Break, ...]] = {
    IngestCase.READINESS: (
        Break(name="readiness-ignores-the-database", at=judged.NOT_READY, wrap=_SWALLOWING),
        Break(name="readiness-does-not-return", at=judged.READY_AGAIN, state=_probes("ready", "back", 503)),
        Break(name="health-is-never-true", at=judged.HEALTHY, state=_probes("health", "up", 500)),
        Break(name="readiness-is-never-true", at=judged.READY, state=_probes("ready", "up", 503)),
        Break(
            name="the-time-of-the-last-indexing-stays",
            at=judged.LAST_INDEXED,
            state=_sees(lambda seen: replace(seen, shows_indexing=(True, False))),
        ),
    ),
    IngestCase.LOGS: (
        Break(name="a-line-is-plain-text", at=judged.NOT_JSON, wrap=_CHATTY),
        Break(name="a-line-lacks-a-key", at=judged.WITHOUT_KEYS, state=_lines("without_keys")),
        Break(name="a-time-lacks-its-zone", at=judged.TIMES, state=_lines("times")),
        Break(name="a-level-is-unknown", at=judged.LEVELS, state=_lines("levels")),
        Break(name="a-context-is-text", at=judged.CONTEXTS, state=_lines("contexts")),
    ),
    IngestCase.CORRELATION: (
        Break(name="the-api-forgets-the-correlation", at=judged.IN_API, state=_traces("api")),
        Break(name="the-worker-forgets-the-correlation", at=judged.IN_WORKER, state=_traces("worker")),
        Break(name="the-row-has-another-correlation", at=judged.IN_ROW, state=_traces("row")),
    ),
    IngestCase.METRICS: (
        Break(name="the-failed-upload-is-counted", at=judged.COUNTED, state=_counts(1.0)),
        Break(name="an-indexed-upload-is-not-counted", at=judged.COUNTED, state=_counts(-1.0)),
    ),
    IngestCase.FAILURES: (
        Break(name="failures-are-answered-as-successes", at=judged.KEPT, wrap=_SWALLOWING),
        Break(name="an-upload-is-indexed-without-its-file", at=judged.INDEXED_WITHOUT, state=_broken(indexed=True)),
        Break(
            name="a-failed-migration-exits-with-0",
            at=judged.MIGRATE_FAILS,
            state=_sees(lambda seen: replace(seen, migrate_exit=0)),
        ),
    ),
    IngestCase.ADDRESS: (
        Break(
            name="addresses-are-for-another-network", at=judged.USABLE, environment={"S3_PUBLIC_ENDPOINT": _ELSEWHERE}
        ),
        Break(
            name="addresses-are-for-the-pipeline", at=judged.PUBLIC, environment={"S3_PUBLIC_ENDPOINT": "{S3_ENDPOINT}"}
        ),
        Break(
            name="addresses-are-signed-with-another-key",
            at=judged.USABLE,
            environment={"AWS_SECRET_ACCESS_KEY": "another-secret-key"},
        ),
        Break(name="addresses-are-valid-for-hours", at=judged.VALID, environment={"URL_VALID_S": "86400"}),
        Break(name="addresses-hold-the-secret-key", at=judged.SECRET, state=_sees(_shows_secret)),
        *(Break(name=name, at=judged.refused(attempt), state=_accepts(attempt)) for name, attempt in _ATTEMPTS.items()),
    ),
    IngestCase.AUDITED: (
        Break(
            name="changes-are-not-audited",
            at=judged.CHANGES,
            state=_sees(lambda seen: replace(seen, changes=())),
        ),
        Break(name="changes-have-another-actor", at=judged.ACTOR, state=_changes(actor={"type": "user", "id": "x"})),
        Break(name="changes-have-no-actor", at=judged.ATTRIBUTED, state=_changes(actor=None)),
        Break(name="changes-have-another-correlation", at=judged.CORRELATION, state=_changes(correlation="another")),
    ),
}


def service_controls_of(check: Check, case: IngestCase) -> Iterator[Control]:
    """Yield the controls of a case about the service; none for the other cases."""
    for broken in _BREAKS.get(case, ()):
        yield Control(name=broken.name, check=check.id, at=broken.at, needs=(), apply=Applied(broken))
