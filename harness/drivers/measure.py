"""The comparison of drivers behind a pooler: the same application runs with each driver and its settings.

The clients run in several processes, because asyncpg numbers its statements per process. Within a process, two
connections never generate the same statement name, and no client gets another client's answer. The worst result, a
wrong answer without an error, occurs between processes only.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.drivers.worker import Workers
from harness.drivers.workload import Job, Share
from harness.errors import HarnessError, TimedOutError, UsageError
from harness.redaction import Redactor
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.database import Endpoint

#: seconds for the processes to report their results after the deadline of the clients
_TO_REPORT_S = 15.0
_FEWEST_PROCESSES = 2


class Driver(Struct, frozen=True, kw_only=True):
    """A driver with its settings."""

    name: str
    title: str
    #: the required distributions, which have the same names as their modules
    requires: tuple[str, ...]
    #: the settings and their effect, in words
    settings: str


DRIVERS: tuple[Driver, ...] = (
    Driver(
        name="psycopg",
        title="psycopg",
        requires=("psycopg",),
        settings="default settings: a statement is prepared under a name when it runs for the sixth time",
    ),
    Driver(
        name="psycopg-unprepared",
        title="psycopg, prepare_threshold=None",
        requires=("psycopg",),
        settings="prepare_threshold=None: no statement is prepared under a name",
    ),
    Driver(
        name="asyncpg",
        title="asyncpg",
        requires=("asyncpg",),
        settings="default settings: every statement is prepared under a name when it first runs, and kept",
    ),
    Driver(
        name="asyncpg-uncached",
        title="asyncpg, statement_cache_size=0",
        requires=("asyncpg",),
        settings="statement_cache_size=0: every statement is prepared without a name, each time it runs",
    ),
    Driver(
        name="sqlalchemy-psycopg",
        title="SQLAlchemy on psycopg",
        requires=("sqlalchemy", "greenlet", "psycopg"),
        settings="default settings: every query is in a transaction, and psycopg prepares as without SQLAlchemy",
    ),
    Driver(
        name="sqlalchemy-asyncpg",
        title="SQLAlchemy on asyncpg",
        requires=("sqlalchemy", "greenlet", "asyncpg"),
        settings="default settings: every query is in a transaction, and SQLAlchemy caches the statements of asyncpg",
    ),
)


class Measured(Struct, frozen=True, kw_only=True):
    """The results of one driver on one endpoint."""

    driver: str
    versions: str
    #: the number of queries sent, including those that failed
    queries: int
    #: counts by SQLSTATE, or by the exception's class without one; the most frequent first
    errors: dict[str, int]
    #: the number of wrong answers, which belong to another query and raised no error
    wrong: int
    #: the first message of each kind of error, and the first wrong answer
    examples: tuple[str, ...]
    #: the number of server processes that answered
    server_pids: int
    duration_s: float

    @property
    def clean(self) -> bool:
        """Return whether queries were sent, and every answer was correct."""
        return self.queries > 0 and not self.errors and not self.wrong


class NotInstalledError(HarnessError):
    """A driver is not installed."""


def installed(driver: Driver) -> str:
    """Return the versions of a driver's distributions, such as `asyncpg 0.30.0`; "" if one is missing."""
    versions = {name: _version(name) for name in driver.requires}
    return ", ".join(f"{name} {version}" for name, version in versions.items()) if all(versions.values()) else ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def measure(
    driver: Driver,
    endpoint: Endpoint,
    *,
    clients: int = 24,
    queries: int = 60,
    processes: int = 4,
    deadline_s: float = 60.0,
    require_undisturbed: Callable[[], object] = lambda: None,
    workers: Workers | None = None,
) -> Measured:
    """Run the application with one driver and return the results. The clients' processes have ended on return.

    :param clients: the number of connections, which are open at the same time.
    :param queries: the number of queries of each client. They are four texts in turn, so that psycopg prepares few
        statements below about thirty.
    :param processes: the number of processes for the clients, at least two.
    :param deadline_s: seconds for the clients, and before that for loading the driver; clients that hang until then are
        counted as errors.
    :param require_undisturbed: called again and again; an exception ends the run, and is raised.
    :param workers: lends the process that loads the driver; without it, that process ends with the measurement.
    :raises UsageError: for too few processes, clients or queries.
    :raises NotInstalledError: when the driver is missing.
    :raises WorkerFailedError: when a process ends without a result; the detail has the end of its output.
    :raises TimedOutError: when the processes do not end in time.
    """
    if not (clients >= processes >= _FEWEST_PROCESSES and queries >= 1):
        raise UsageError(
            f"found {clients} clients, {processes} processes and {queries} queries; expected at least "
            f"{_FEWEST_PROCESSES} processes, a client for each process, and a query for each client"
        )
    if missing := [name for name in driver.requires if not _version(name)]:
        raise NotInstalledError(
            f"{driver.title} needs packages that are not installed: {', '.join(missing)}",
            hint="pip install 'pooler-harness[drivers]'",
        )
    redact = Redactor()
    redact.learn(endpoint.password)
    job = Job(
        driver=driver.name,
        endpoint=replace(endpoint, closing=None),  # an event of this process
        shares=tuple(tuple(range(first, clients, processes)) for first in range(processes)),
        queries=queries,
    )
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context((workers or stack.enter_context(Workers())).taken())
        worker.assign(job, driver.title, redact)

        def wait(reached: Callable[[], bool], for_what: str, within_s: float) -> None:
            def probe() -> None:
                if not reached():
                    require_undisturbed()
                    raise NotYet("the process is running")

            try:
                poll(
                    probe,
                    what=f"{driver.title} at {endpoint!r} to {for_what}",
                    deadline_s=within_s,
                    interval_s=0.005,
                )
            except TimedOutError as error:
                raise TimedOutError(error.what, detail=worker.tail()) from None

        # the time for loading is not measured
        wait(worker.is_ready, "be loaded", deadline_s)
        worker.begin(deadline_s)
        wait(worker.has_result, "end", deadline_s + _TO_REPORT_S)
        return merge(driver, worker.shares(), redact)


def merge(driver: Driver, shares: Sequence[Share], redact: Callable[[str], str]) -> Measured:
    """Return the results of all processes in one.

    :param redact: removes secrets from the examples.
    """
    errors: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for share in shares:
        errors.update(share.errors)
        examples = share.examples | examples
    return Measured(
        driver=driver.name,
        versions=installed(driver),
        queries=sum(share.queries for share in shares),
        errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
        wrong=sum(share.wrong for share in shares),
        examples=tuple(redact(f"{kind}: {text}") for kind, text in sorted(examples.items())),
        server_pids=len({pid for share in shares for pid in share.server_pids}),
        duration_s=max((share.duration_s for share in shares), default=0.0),
    )
