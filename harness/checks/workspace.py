"""A running lab that is ready for checks: a template database with the trail, and a clone of it for each check."""

from __future__ import annotations

import contextlib
import re
import secrets
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock, local
from typing import TYPE_CHECKING, cast

from harness.checks.context import CheckContext
from harness.checks.judging import Failure
from harness.checks.load import LoadSettings
from harness.checks.provisioning import provision
from harness.checks.record import NotExercisedError
from harness.database import Client, SqlError, create_database, drop_database, leave_database
from harness.errors import HarnessError, ServiceFailedError, TimedOutError
from harness.events import Listener, silent
from harness.host.reference import HOST_DATABASE, stand_up_reference
from harness.waiting import NotYet, poll
from harness.wire.connection import Wire
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from harness.wire.sockets import Deadline, ServerAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget
    from harness.checks.collection import Fixtures
    from harness.checks.record import CheckRecord
    from harness.drivers.worker import Workers
    from harness.engine.protocol import Service, ServiceState
    from harness.host.site import Site
    from harness.lab.host import HostService
    from harness.lab.lab import Lab
    from harness.store import Journal, RunStore

_TEMPLATE = "harness_template"
#: the share of the memory for data that databases of finished checks may take
_LEFT = 0.5
#: ENOSPC as the C library words it in the server's log, whose locale is C.UTF-8
_NO_SPACE = "No space left on device"
#: in such a line: the full file system is that of a tablespace, which only a fault makes and fills
_TABLESPACES = "pg_tblspc/"
#: how long a server takes to accept a connection, and the engine to notice that a server ended, seconds
_ANSWERS_S, _SETTLES_S = 1.0, 3.0
#: longer than any deadline of the host's start
_HOST_STARTS_S = 90.0


class Workspace:
    """Provisions a template database once, on the direct connection, then makes a clone of it for each check."""

    def __init__(
        self,
        lab: Lab,
        target: AuditTarget,
        fixtures: Fixtures,
        *,
        store: RunStore | None = None,
        load: LoadSettings | None = None,
        listener: Listener = silent,
        template: str = _TEMPLATE,
        driver_workers: Workers | None = None,
    ) -> None:
        """Install the trail and the fixture tables in the template database.

        :param store: keeps the histories of checks; None where no check has one.
        :param load: settings of checks under load or faults.
        :param listener: gets the progress of checks.
        :param template: the name of the template database. Only the workspace with the default name leaves databases of
            finished checks to the end of the lab: there may be many others.
        :param driver_workers: the processes of a run that load drivers; without them, each check starts its own.
        :raises DatabaseError: with file, line and SQLSTATE.
        """
        self._lab = lab
        self._store = store
        self.load = load or LoadSettings()
        #: reports an event to whoever shows the run
        self.notify = listener
        self.driver_workers = driver_workers
        self._thread = local()
        self._admin_clients: list[Client] = []
        self._host: Future[tuple[Site, HostService]] | None = None
        #: databases that several checks begin with, by the name of what is prepared in them
        self._prepared: dict[str, Future[str]] = {}
        self._starting = Lock()
        #: a check found that a service had ended
        self._ended = False
        #: the size of the databases of finished checks that are not dropped
        self._left_bytes = 0
        self._may_be_left_bytes = int(lab.memory_mib * 2**20 * _LEFT) if template == _TEMPLATE else 0
        self._template = template
        try:
            provisioned = provision(lab, target, fixtures, self._admin(), template)
        except BaseException:
            self.close()
            raise
        #: with the roles and the tables of this lab, and what a trial of the trail found
        self.target = provisioned.target
        #: the fixture tables by name: `done` when capture is attached, else the error
        self.attached = provisioned.attached

    def new_database(self, name: str, template: str | None = None) -> None:
        """Create a database that belongs to the owner: a clone of the template, or an empty one."""
        durable = self._lab.topology.postgres.durable
        create_database(self._admin(), name, owner=self._lab.roles.owner.name, template=template, durable=durable)

    def prepared(self, what: str, prepare: Callable[[str], None]) -> str:
        """Return a template: a clone of the one with the trail, in which something more was prepared, once.

        :param what: names the preparation, such as a job engine.
        :param prepare: gets the name of the new database. No connection to it may be left.
        :raises HarnessError: as `prepare` does; every later call then raises the same.
        """

        def make() -> str:
            name = f"prepared_{re.sub('[^a-z0-9]+', '_', what)[:40]}_{secrets.token_hex(3)}"
            self.new_database(name, self._template)
            prepare(name)
            return name

        with self._starting:
            if what not in self._prepared:
                pool = ThreadPoolExecutor(1, thread_name_prefix=f"prepare-{self._lab.topology.name}")
                self._prepared[what] = pool.submit(make)
                pool.shutdown(wait=False)
        return self._prepared[what].result()

    def drop_database(self, name: str) -> None:
        """Drop a database. While memory allows, it stays until the lab ends: removing all of them then is faster."""
        if self._lab.is_closed:  # its servers and their databases are gone, and a request would wait for an answer
            return
        try:
            if self._left_bytes >= self._may_be_left_bytes:
                drop_database(self._admin(), name)
            elif self._left_bytes + (size := leave_database(self._admin(), name)) <= self._may_be_left_bytes:
                with self._starting:
                    self._left_bytes += size
            else:  # a large database, while there is still room for ordinary ones
                drop_database(self._admin(), name)
        except SqlError:
            pass
        except HarnessError:
            if not self._lab.is_closed:  # a closing lab removes its databases
                raise

    def drop_template(self) -> None:
        """Drop the template database: no further context can be made."""
        self.drop_database(self._template)

    @contextlib.contextmanager
    def context(self, check: str) -> Iterator[CheckContext]:
        """Return a context with a database of its own, which is dropped afterwards."""
        name = f"{re.sub('[^a-z0-9]+', '_', check)[:40]}_{secrets.token_hex(3)}"
        self.new_database(name, self._template)
        ctx = CheckContext(self._lab, self.target, name, self)
        try:
            yield ctx
        finally:
            ctx.close()
            # ends the pooler's idle server connections to it as well
            self.drop_database(name)

    @contextlib.contextmanager
    def host_context(self) -> Iterator[CheckContext]:
        """Return a context with the database of the reference host, which other checks use as well."""
        ctx = CheckContext(self._lab, self.target, HOST_DATABASE, self)
        try:
            yield ctx
        finally:
            ctx.close()

    def journal(self, ctx: CheckRecord, judge: str, facts: dict[str, str]) -> Journal:
        """Begin the history of a check.

        :raises NotExercisedError: where no evidence is kept.
        """
        if self._store is None:
            raise NotExercisedError("no history can be kept here")
        return self._store.open_journal(
            self._lab.topology.name,
            ctx.check,
            judge,
            control=ctx.control,
            attempt=ctx.attempt_number,
            facts=facts,
        )

    def why_nothing_runs(self) -> str:
        """Return which service ended, once a check found that one did; "" when all of them run again."""
        ended = ended_service(self._lab) if self._ended else None
        return ended.what if ended else ""

    def own_failure(self, *, read_logs: bool = True) -> Failure | None:
        """Return how the harness failed its clients: a service ended, or the file system of its data was full.

        :param read_logs: whether to search the server's log for a full file system.
        """
        ended = ended_service(self._lab)
        self._ended = ended is not None
        if ended or not read_logs:
            return ended
        # the log keeps it, so that it explains an Issue and never stops other checks: space may be free again
        logged = self._lab.postgres.logs()
        full = _NO_SPACE in logged and any(
            _NO_SPACE in line and _TABLESPACES not in line for line in logged.splitlines()
        )
        storage = self._lab.evidence.storage
        return Failure(what=f"the file system of the server's data was full ({storage})") if full else None

    def start_host(self) -> None:
        """Start the reference host in the background, once. Callers of `site` block until it is ready."""
        with self._starting:
            if self._host is None:
                pool = ThreadPoolExecutor(1, thread_name_prefix=f"host-{self._lab.topology.name}")
                self._host = pool.submit(stand_up_reference, self._lab, self.target)
                pool.shutdown(wait=False)

    def end_host(self) -> None:
        """Stop the reference host if it was started: an idle host would continue to poll for jobs."""
        if self._host and self._host.exception() is None:
            self._host.result()[1].close()

    def site(self) -> Site:
        """Return the reference host, once it is ready.

        :raises NotExercisedError: with the reason, when it could not be started.
        """
        return self._hosted()[0]

    def host_service(self) -> HostService:
        """Return the service of the reference host, once it is ready.

        :raises NotExercisedError: with the reason, when it could not be started.
        """
        return self._hosted()[1]

    def _hosted(self) -> tuple[Site, HostService]:
        self.start_host()
        try:
            return cast("Future[tuple[Site, HostService]]", self._host).result()
        except HarnessError as error:
            raise NotExercisedError(f"the reference host could not be started: {error.what}") from None

    def forget_connections(self) -> None:
        """Open new connections from now on, because the server was restarted."""
        for client in self._admin_clients:
            client.close()
        self._admin_clients.clear()

    def close(self) -> None:
        """Close the workspace's own connections, once the host is no longer starting: the lab removes it."""
        if self._host:
            wait([self._host], timeout=_HOST_STARTS_S)
        for client in self._admin_clients:
            client.close()

    def _admin(self) -> Client:
        """Return the connection of this thread that creates and drops databases."""
        client: Client | None = getattr(self._thread, "client", None)
        if client is None or client.closed:
            client = self._thread.client = self._lab.connect_admin()
            self._admin_clients.append(client)
        return client


def ended_service(lab: Lab) -> Failure | None:
    """Return which service of a lab ended; None when all of them run."""
    for service in lab.required:
        state = _settled(service)
        if not state.running:
            what = f"the service {service.name} is not running: {state.detail}"
            return Failure(what=what, on_purpose=state.on_purpose)
    return None


def _settled(service: Service) -> ServiceState:
    """Return the state of a service. Its connections break a moment before the engine knows that it ended."""
    state = service.state()
    if not state.running or _answers(service):
        return state

    def ended() -> ServiceState:
        if (now := service.state()).running:
            raise NotYet(now.detail)
        return now

    try:
        return poll(ended, what=f"the end of {service.name}", deadline_s=_SETTLES_S)
    except TimedOutError:
        return state


def _answers(service: Service) -> bool:
    """Return whether a service answers. A connection shows nothing: Docker's proxy accepts it after the end."""
    try:
        at = service.endpoint()
        with contextlib.closing(Wire.open(ServerAddress(host=at.host, port=at.port), Deadline(_ANSWERS_S))) as wire:
            wire.offers_tls()
    except ServerError:  # such as too many connections
        return True
    except (ServiceFailedError, ClosedError, TimedOutError, NotPostgresError):
        return False
    return True
