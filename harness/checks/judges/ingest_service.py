"""The judge of a pipeline as a service: probes, logs, counters, addresses, and answers while something fails.

Each case of the suite records observations; these functions turn them into expectations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from harness.checks.judges import compared
from harness.checks.judges.ingest_reading import LogLines
from harness.ingest.cases import IngestCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.model import Expectation

#: names of expectations, which controls break
READY = "ready while the database is up"
HEALTHY = "healthy while the database is up"
NOT_READY = "ready while the database is down"
READY_AGAIN = "ready again after the database is back"
LAST_INDEXED = "the probes show the time of the last indexing"
NOT_JSON = "lines that are not JSON objects"
WITHOUT_KEYS = "lines without a declared key"
TIMES = "lines whose time is not ISO 8601 with a zone"
LEVELS = "lines with an unknown level"
CONTEXTS = "lines whose context is not an object"
IN_API = "requests whose correlation id is neither in the API's answer nor in its log"
IN_WORKER = "uploads whose correlation id is not in the worker's log"
IN_ROW = "uploads whose row has another correlation id"
COUNTED = "growth of the counter of indexed uploads"
KEPT = "requests that were accepted and not kept"
INDEXED_WITHOUT = "uploads indexed while the store was down"
MIGRATE_FAILS = "migrating without a database fails"
USABLE = "the address is usable by its client"
PUBLIC = "the address is the one for clients"
SECRET = "the address holds the secret key"  # noqa: S105 -- the name of an expectation
VALID = "the address is valid no longer than promised"
CHANGES = "uploads without an audited change"
ACTOR = "audited changes without the actor of their request"
ATTRIBUTED = "audited changes without an actor"
CORRELATION = "audited changes with another correlation id"
#: whatever the store answers: a pipeline that got a wrong answer, or none, does not have to break these
OF_THE_SERVICE = frozenset({KEPT, SECRET, VALID})
_OK = range(200, 300)


def is_ok(status: int) -> bool:
    """Return whether an HTTP status is a success."""
    return status in _OK


class Probe(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of a route for probes."""

    route: Literal["health", "ready"]
    #: of the database
    phase: Literal["up", "down", "back"]
    #: 0 for no answer in time
    status: int = 0


class Trace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the correlation id of one upload was found."""

    number: int
    api: bool = False
    worker: bool = False
    #: None where the pipeline's query has no correlation
    row: bool | None = None


class Refusal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt at a presigned address that has to be refused."""

    #: such as `a forged signature`
    attempt: str
    status: int = 0
    #: whether the store has another content afterwards
    changed: bool = False


class Address(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A presigned address, and what could be done with it."""

    #: how the upload of its client ended: `yes`, or the error
    usable: str = ""
    #: the listener that the upload reached; "" for none
    side: str = ""
    holds_secret: bool = False
    #: what the address itself says, and what was promised; None where it says nothing
    valid_s: float | None = None
    promised_s: float = 0.0
    refusals: tuple[Refusal, ...] = ()


class BrokenDependency(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for an address while a dependency was broken."""

    #: such as `PostgreSQL is down`
    dependency: str
    status: int = 0
    #: whether the answer was a success, and the upload has a row afterwards
    accepted: bool = False
    kept: bool = False
    #: whether the upload was indexed while its file could not be downloaded
    indexed: bool = False


class AuditedWrite(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of the audited table."""

    number: int
    operation: str
    actor: dict[str, str] | None = None
    correlation: str | None = None


class ServiceSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The observations of a case about the service; a case has those that it is about."""

    probes: tuple[Probe, ...] = ()
    #: whether the probes showed the time of the first indexing, and of one after the failure; None if not looked at
    shows_indexing: tuple[bool, ...] = ()
    logs: tuple[LogLines, ...] = ()
    traces: tuple[Trace, ...] = ()
    #: the counter before and after, None where the metrics have no such counter; and how many uploads were indexed
    counter: tuple[float | None, float | None] | None = None
    indexed: int = 0
    broken: tuple[BrokenDependency, ...] = ()
    #: of the migrations while the database was down; None if they were not tried, or ended by the harness
    migrate_exit: int | None = None
    address: Address | None = None
    #: uploads whose changes were looked for, the actor of their requests, and whether the trail has correlations
    audited: tuple[int, ...] = ()
    actor: dict[str, str] = {}
    correlations: dict[int, str] = {}
    changes: tuple[AuditedWrite, ...] = ()


def service_measured(seen: ServiceSeen) -> str:
    """Return what was measured in a case about the service, in a few words."""
    words = [f"{one.route}, database {one.phase}: {one.status or 'no answer'}" for one in seen.probes]
    words += [f"{one.lines} lines of {one.program}" for one in seen.logs]
    words += [f"{one.dependency}: {one.status or 'no answer'}" for one in seen.broken]
    if seen.counter:
        words.append(f"counter from {seen.counter[0] or 0:g} to {seen.counter[1] or 0:g} for {seen.indexed} uploads")
    if seen.address:
        words += [f"{one.attempt}: {one.status}" for one in seen.address.refusals]
    if seen.audited:
        words.append(f"{len(seen.changes)} audited changes of {len(seen.audited)} uploads")
    return "; ".join(words)


# --- judging ---------------------------------------------------------------------------------------------


def _yes(name: str, holds: bool, otherwise: str = "no") -> Expectation:
    return compared(name, "yes" if holds else otherwise, "yes")


def _readiness(seen: ServiceSeen) -> Iterator[Expectation]:
    for probe in seen.probes:
        said = str(probe.status or "no answer")
        match probe.route, probe.phase:
            case "health", "up":
                yield _yes(HEALTHY, is_ok(probe.status), said)
            case "ready", "up":
                yield _yes(READY, is_ok(probe.status), said)
            case "ready", "down":
                yield compared(NOT_READY, said if is_ok(probe.status) else "no", "no")
            case "ready", "back":
                yield _yes(READY_AGAIN, is_ok(probe.status), said)
            case _:
                pass
    if seen.shows_indexing:
        yield _yes(LAST_INDEXED, all(seen.shows_indexing))


def _logs(seen: ServiceSeen) -> Iterator[Expectation]:
    for name, number in (
        (NOT_JSON, sum(found.not_json for found in seen.logs)),
        (WITHOUT_KEYS, sum(found.without_keys for found in seen.logs)),
        (TIMES, sum(found.times for found in seen.logs)),
        (LEVELS, sum(found.levels for found in seen.logs)),
        (CONTEXTS, sum(found.contexts for found in seen.logs)),
    ):
        yield compared(name, number, 0)


def _correlation(seen: ServiceSeen) -> Iterator[Expectation]:
    yield compared(IN_API, sum(not trace.api for trace in seen.traces), 0)
    yield compared(IN_WORKER, sum(not trace.worker for trace in seen.traces), 0)
    if any(trace.row is not None for trace in seen.traces):
        yield compared(IN_ROW, sum(trace.row is False for trace in seen.traces), 0)


def _metrics(seen: ServiceSeen) -> Iterator[Expectation]:
    if seen.counter is None:
        return
    before, after = seen.counter
    grown = "the metrics have no such counter" if after is None else f"{after - (before or 0.0):g}"
    yield compared(COUNTED, grown, f"{seen.indexed}")


def _failures(seen: ServiceSeen) -> Iterator[Expectation]:
    yield compared(KEPT, sum(one.accepted and not one.kept for one in seen.broken), 0)
    yield compared(INDEXED_WITHOUT, sum(one.indexed for one in seen.broken), 0)
    if seen.migrate_exit is not None:
        yield _yes(MIGRATE_FAILS, seen.migrate_exit != 0, "exit code 0")


def _address(seen: ServiceSeen) -> Iterator[Expectation]:
    address = seen.address
    if address is None:
        return
    yield compared(USABLE, address.usable, "yes")
    if address.side:
        yield compared(PUBLIC, address.side, "public")
    yield compared(SECRET, "yes" if address.holds_secret else "no", "no")
    if address.valid_s is not None:
        # some clients round up
        held = address.valid_s <= address.promised_s + 1
        yield _yes(VALID, held, f"{address.valid_s:g} s, promised {address.promised_s:g} s")
    for refusal in address.refusals:
        accepted = f"changed the object ({refusal.status})" if refusal.changed else f"{refusal.status}"
        yield compared(refused(refusal.attempt), accepted if refusal.changed or is_ok(refusal.status) else "yes", "yes")


def refused(attempt: str) -> str:
    """Return the name of the expectation about an attempt."""
    return f"{attempt} is refused"


def _audited(seen: ServiceSeen) -> Iterator[Expectation]:
    found = {change.number for change in seen.changes}
    yield compared(CHANGES, sum(number not in found for number in seen.audited), 0)
    if seen.actor:
        inserts = (change for change in seen.changes if change.operation == "insert")
        # a trail may add what the request does not say
        yield compared(ACTOR, sum(not seen.actor.items() <= (change.actor or {}).items() for change in inserts), 0)
    yield compared(ATTRIBUTED, sum(not change.actor for change in seen.changes), 0)
    if seen.correlations:
        other = (change.correlation != seen.correlations.get(change.number) for change in seen.changes)
        yield compared(CORRELATION, sum(other), 0)


_CASES: dict[IngestCase, Callable[[ServiceSeen], Iterator[Expectation]]] = {
    IngestCase.READINESS: _readiness,
    IngestCase.LOGS: _logs,
    IngestCase.CORRELATION: _correlation,
    IngestCase.METRICS: _metrics,
    IngestCase.FAILURES: _failures,
    IngestCase.ADDRESS: _address,
    IngestCase.AUDITED: _audited,
}


def judge_service(case: IngestCase, seen: ServiceSeen | None) -> tuple[Expectation, ...]:
    """Compare the observations of a case; nothing for the other cases, and where nothing was observed."""
    own = _CASES.get(case)
    return tuple(own(seen)) if own and seen else ()
