"""The clients of one check: through the chain, past the pooler, and in databases of their own."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from harness.checks.record import CheckRecord, NotExercisedError
from harness.database import Client, Side, connect, observing
from harness.lab.effective import effective_limits
from harness.model import PoolMode, Prepare, ServiceEvidence, Topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.audit.target import AuditTarget
    from harness.checks.load import LoadSettings
    from harness.database import Endpoint
    from harness.drivers.worker import Workers
    from harness.events import Event as Notification
    from harness.host.site import Site
    from harness.lab.host import HostService
    from harness.lab.lab import Lab
    from harness.store import Journal


class DatabaseSource(Protocol):
    """What a context needs of its :class:`Workspace`. Importing that class here would close an import circle."""

    @property
    def attached(self) -> dict[str, str]: ...
    @property
    def load(self) -> LoadSettings: ...
    @property
    def driver_workers(self) -> Workers | None: ...
    def site(self) -> Site: ...
    def host_service(self) -> HostService: ...
    def journal(self, ctx: CheckRecord, judge: str, facts: dict[str, str], /) -> Journal: ...
    def notify(self, event: Notification, /) -> None: ...
    def new_database(self, name: str, template: str | None = None, /) -> None: ...
    def prepared(self, what: str, prepare: Callable[[str], None], /) -> str: ...
    def drop_database(self, name: str, /) -> None: ...
    def forget_connections(self) -> None: ...


class CheckClients(CheckRecord):
    """Connects the clients of one check, and closes them with it."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workspace: DatabaseSource) -> None:
        super().__init__(target)
        self._lab = lab
        self._workspace = workspace
        self._admin: Client | None = None
        self._owner: Client | None = None
        self.database = database

    @property
    def topology(self) -> Topology:
        """The topology as it runs: the pooler's version may force another prepare policy than the declared one."""
        return self._lab.topology

    @property
    def lab(self) -> Lab:
        """The running servers, for checks that break them or connect in other roles."""
        return self._lab

    @property
    def mode(self) -> PoolMode | None:
        """The pool mode; None without a pooler."""
        return self.topology.pool_mode

    @property
    def sharing_mode(self) -> bool:
        """Whether clients share server connections here, each for one transaction or statement at a time."""
        return self.mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT}

    @property
    def pooler(self) -> ServiceEvidence | None:
        """The pooler as it runs, with its effective settings; None without a pooler."""
        return self._lab.evidence.service("pooler") if self.topology.pooler else None

    @property
    def prepare_threshold(self) -> int | None:
        """The number of executions after which psycopg prepares a statement on the server; None for never."""
        named = self.topology.client.prepare is Prepare.NAMED
        return self.topology.client.prepare_threshold if named else None

    def client(self, *, options: str = "", always_prepare: bool = False) -> Client:
        """Connect through the chain as the application role.

        :param options: command-line options for the server, as libpq sends them in the startup message.
        :param always_prepare: whether to prepare at the first execution, where the topology prepares at all.
        """
        threshold = self.prepare_threshold
        self._require_a_server_connection()
        return self._through(
            self._lab.chain(self.database),
            options=options,
            prepare_threshold=0 if always_prepare and threshold is not None else threshold,
        )

    def plain_client(self) -> Client:
        """Connect through the chain as the application role, with a driver that never prepares on its own."""
        self._require_a_server_connection()
        return self._through(self._lab.chain(self.database))

    def _require_a_server_connection(self) -> None:
        """Require that the pool has more than the server connection that an earlier client of the check keeps.

        In session mode the next client would wait for a client that waits for it, longer than the check may take.

        :raises NotExercisedError: when it has not.
        """
        limits, chain = effective_limits(self._lab.evidence), self._lab.chain(self.database)
        if self.mode is not PoolMode.SESSION or limits is None or limits.largest > 1:
            return
        for client in self._clients:
            if not client.closed and (client.info.port, client.info.user) == (chain.port, chain.user):
                raise NotExercisedError("the pool has a single server connection, and another client keeps it")

    def connect(self, endpoint: Endpoint, prepare_threshold: int | None = None) -> Client:
        """Connect to any address. The context closes this connection like all others."""
        return self._through(endpoint, prepare_threshold=prepare_threshold)

    def direct_client(self) -> Client:
        """Connect directly to the server as the application role."""
        return self.connect(self._lab.direct(self.database))

    def dba(self) -> Client:
        """Connect through the chain as a superuser."""
        return self._through(self._lab.dba(self.database), application_name="dba")

    def _through(
        self,
        endpoint: Endpoint,
        *,
        application_name: str = "application",
        options: str = "",
        prepare_threshold: int | None = None,
    ) -> Client:
        with self._lab.hunting:  # wait until no other check waits for a released server connection
            pass
        return self._followed(
            connect(
                endpoint,
                application_name=application_name,
                options=options,
                prepare_threshold=prepare_threshold,
                side=Side.APPLICATION,
            ),
            application_name,
        )

    def _followed(self, client: Client, name: str) -> Client:
        """Keep a client, and collect its statements if somebody may want to repeat them.

        :param name: of its session.
        """
        if self.script is not None:
            server = self._lab.postgres.endpoint()
            direct = (client.info.host, client.info.port) == (server.host, server.port)
            way = "directly" if direct else "through the pooler"
            self.script.follow(client, name, f"role {client.info.user}, {way}")
        return self._keep(client)

    def clients(self, count: int) -> list[Client]:
        """Connect through the chain as the application role, `count` times."""
        return [self.client() for _ in range(count)]

    def direct_pids(self) -> set[int]:
        """Return the server processes of the check's own open connections past the pooler."""
        server = self._lab.postgres.endpoint()
        return {
            client.info.backend_pid
            for client in self._clients
            if not client.closed and (client.info.host, client.info.port) == (server.host, server.port)
        }

    def server_connections(self, role: str) -> set[int]:
        """Return the server processes of the pooler's connections to this database, as a role."""
        own = sorted(self.direct_pids())
        found = self.admin.rows(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = %s AND backend_type = 'client backend'"
            " AND pid <> ALL(%s)",
            [role, own],
        )
        return {pid for (pid,) in found}

    # --- past the pooler -----------------------------------------------------------------------------

    @property
    def admin(self) -> Client:
        """The superuser on the direct connection: it observes, and breaks things on purpose. It is opened once."""
        if self._admin is None:
            self._admin = self._followed(
                observing(connect(self._lab.admin(self.database), application_name="pooler-harness check")), "admin"
            )
        return self._admin

    @property
    def owner(self) -> Client:
        """The owner of the tables on the direct connection. It is opened once."""
        if self._owner is None:
            self._owner = self.another_owner()
        return self._owner

    def another_owner(self) -> Client:
        """Connect once more as the owner, for two programs of the owner at the same time."""
        owner = observing(connect(self._lab.owner(self.database), application_name="pooler-harness owner"))
        return self._followed(owner, "owner")

    def trail_reader(self) -> Client:
        """Return a connection that may read the trail."""
        return self.admin

    def forget_connections(self) -> None:
        """Open new connections from now on, because the server was restarted."""
        self._admin = self._owner = None
        self._workspace.forget_connections()

    # --- other databases -----------------------------------------------------------------------------

    def empty_database(self, name: str) -> Client:
        """Create a second, empty database, and return a connection of its owner. It is dropped when the check ends."""
        database = self._own_database(f"{self.database[:50]}_{name}")
        return self._followed(
            connect(self._lab.owner(database), application_name="pooler-harness owner"), f"owner in {name}"
        )

    def database_like(self, what: str, prepare: Callable[[str], None]) -> str:
        """Create a second database with the trail in which something more was prepared, once for all checks.

        :param what: names the preparation, such as a job engine.
        :param prepare: gets the name of a database; it leaves no connection to it.
        :return: the name of the database, which is dropped when the check ends.
        """
        return self._own_database(f"j{secrets.token_hex(6)}", self._workspace.prepared(what, prepare))

    def _own_database(self, name: str, template: str | None = None) -> str:
        self._workspace.new_database(name, template)
        self._stack.callback(self._workspace.drop_database, name)
        return name
