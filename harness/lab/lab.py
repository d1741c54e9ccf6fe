"""A running topology: how it starts, how it answers, how it is torn down."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, RLock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.database import Client, Endpoint, SqlError, bounded, connect, observing
from harness.engine.recipes import load_product
from harness.errors import HarnessError, ServiceFailedError
from harness.events import silent
from harness.lab.credentials import Role, Roles, random_roles
from harness.lab.effective import as_it_runs
from harness.lab.links import LINK, LINK_SERVICE, ApplicationLink, ServerLink, link_spec, new_token
from harness.lab.readiness import when_ready
from harness.lab.services import pooler_spec, postgres_spec
from harness.lab.store import ObjectStore, start_store
from harness.lab.topologies import chain_of
from harness.model import ServiceEvidence, Topology, TopologyEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine, Group, Service, ServicePlace, ServiceSpec, Wanted
    from harness.redaction import Redactor

#: in a server's log: another program took the port after it was chosen
_PORT_TAKEN = "Address already in use"


#: longer than a healthy chain takes on a busy machine
_ANSWERS_S = 10.0


class Lab:
    """One running topology, with its endpoints through the chain and direct."""

    def __init__(
        self,
        topology: Topology,
        group: Group,
        chain: Mapping[str, Service],
        roles: Roles,
        *,
        engine: Engine,
        redactor: Redactor,
    ) -> None:
        self.topology = topology
        self.roles = roles
        self.postgres = chain["postgres"]
        #: from the database outwards
        self.poolers = tuple(service for name, service in chain.items() if name != "postgres")
        #: services next to the chain, such as the host application, by name
        self.beside: dict[str, Service] = {}
        #: the link between the pooler and PostgreSQL; None without one, and then the next attribute says why
        self.server_link: ServerLink | None = None
        self.no_server_link = ""
        #: the link of the application while one is open
        self.open_link: ApplicationLink | None = None
        self._group = group
        self._engine = engine
        self._redactor = redactor
        self._started: Counter[str] = Counter()
        self._kept: dict[str, str] = {}
        #: files that checks produced, by check and name
        self.artifacts: dict[tuple[str, str], str] = {}
        #: services next to the chain that are part of the evidence, by name
        self.evidence_beside: dict[str, ServiceEvidence] = {}
        self._closed = Event()
        #: of the names of its logs in the run: each lab for faults has its own
        self.log_suffix = ""
        self._changing = Lock()
        self._storing = Lock()
        #: the object store, or why it did not start
        self._store: ObjectStore | HarnessError | None = None
        #: held while one check waits for a released server connection; the other checks do not connect meanwhile
        self.hunting = RLock()
        #: whether the pooler ends a server connection with its client; None until a check has found it out
        self.ends_with_client: bool | None = None
        #: held by a check under load, which ends its load and judges it before an interrupted run closes the lab
        self.under_load = Lock()
        self.evidence = TopologyEvidence(declared=topology, stood=False)

    @property
    def outermost(self) -> Service:
        """The service that the application connects to."""
        return self.poolers[-1] if self.poolers else self.postgres

    @property
    def services(self) -> tuple[Service, ...]:
        """The services of the chain, from the database outwards."""
        return (self.postgres, *self.poolers)

    @property
    def required(self) -> tuple[Service, ...]:
        """The services without which the chain does not work, from the database outwards."""
        link = (self.server_link.service,) if self.server_link else ()
        return (self.postgres, *link, *self.poolers)

    @contextlib.contextmanager
    def application_link(self) -> Iterator[ApplicationLink]:
        """Open a link between the application and the outermost service; its connections end with the block."""
        link = ApplicationLink(self.chain)
        self.open_link = link
        try:
            yield link
        finally:
            self.open_link = None
            link.close()

    def chain(self, dbname: str = "postgres") -> Endpoint:
        """Return the endpoint of the application: the outer end of the chain, as the application role."""
        return self._endpoint(self.outermost, "app", dbname)

    def direct(self, dbname: str = "postgres") -> Endpoint:
        """Return the endpoint of PostgreSQL itself, as the application role."""
        return self._endpoint(self.postgres, "app", dbname)

    def owner(self, dbname: str = "postgres") -> Endpoint:
        """Return the endpoint of PostgreSQL itself, as the owner of the databases."""
        return self._endpoint(self.postgres, "owner", dbname)

    def admin(self, dbname: str = "postgres") -> Endpoint:
        """Return the endpoint of PostgreSQL itself, as superuser."""
        return self._endpoint(self.postgres, "admin", dbname)

    def dba(self, dbname: str = "postgres") -> Endpoint:
        """Return the outer end of the chain, as superuser."""
        return self._endpoint(self.outermost, "dba", dbname)

    def through(self, role: Role, dbname: str = "postgres") -> Endpoint:
        """Return the outer end of the chain, as one of the lab's roles."""
        return self._login(self.outermost, role, dbname)

    def at_server(self, role: Role, dbname: str = "postgres") -> Endpoint:
        """Return PostgreSQL itself, past the chain, as one of the lab's roles."""
        return self._login(self.postgres, role, dbname)

    def console(self) -> Endpoint | None:
        """Return the endpoint of PgBouncer's admin console; None for other products: they have no console for SQL."""
        has_one = self.topology.pooler and self.topology.pooler.product == "pgbouncer"
        return self._endpoint(self.outermost, "console", "pgbouncer") if has_one else None

    def _endpoint(self, service: Service, role: str, dbname: str) -> Endpoint:
        return self._login(service, getattr(self.roles, role), dbname)

    def _login(self, service: Service, role: Role, dbname: str) -> Endpoint:
        address = service.endpoint()
        return Endpoint(
            host=address.host,
            port=address.port,
            user=role.name,
            password=role.password,
            dbname=dbname,
            closing=self._closed,
        )

    def connect_admin(self, dbname: str = "postgres") -> Client:
        """Connect to PostgreSQL itself as superuser."""
        return observing(connect(self.admin(dbname), application_name="pooler-harness admin"))

    def logs(self) -> dict[str, str]:
        """Return the logs of all services by name, removed ones included."""
        return {service.name: service.logs() for service in (*self.required, *self.beside.values())} | self._kept

    def learn(self, *more: str) -> None:
        """Add secrets that were made for this lab to the run's redactor."""
        self._redactor.learn(*more)

    def redact(self, text: str) -> str:
        """Return a text without the secrets of the run."""
        return self._redactor(text)

    def make_ready(self, wanted: Wanted) -> None:
        """Wait until a product can start fast.

        :raises HarnessError: when the product is not available.
        """
        self._engine.prepare((wanted,), silent)

    def start_service(self, name: str, wanted: Wanted, specify: Callable[[ServicePlace], ServiceSpec]) -> Service:
        """Start one more service next to the chain. The lab removes it at the latest when it closes.

        :param name: the key of the service in `beside`; the second service of a name gets `name-2`.
        :param wanted: its product and version.
        :param specify: returns the specification of the service for the place that it gets.
        :raises HarnessError: when the product is not available, or the service does not start.
        """
        self.make_ready(wanted)
        with self._changing:  # a service that starts while the lab closes would never be removed
            if self.is_closed:
                raise ServiceFailedError("the lab is closing", where=f"topology {self.topology.name}")
            self._started[name] += 1
            number = self._started[name]
            service = self._group.start(specify(self._group.place(f"{name}-{number}" if number > 1 else name, wanted)))
            self.beside[service.name] = service
        return service

    def remove_service(self, service: Service) -> None:
        """Remove a service that was started next to the chain, and keep its log; a second call does nothing."""
        if service.name in self.beside:
            self.keep_log(service.name, service.logs())
            del self.beside[service.name]
            service.remove()

    def object_store(self) -> ObjectStore:
        """Return the object store of the lab, which starts at the first call.

        :raises HarnessError: with the reason, when it is not available or did not start; also at each later call.
        """
        with self._storing:
            if self._store is None:
                try:
                    self._store = start_store(self)
                except HarnessError as error:
                    self._store = error
            if isinstance(self._store, HarnessError):
                raise self._store
            return self._store

    def keep_log(self, name: str, text: str) -> None:
        """Add the output of another program to the logs, under a name of its own."""
        self._kept[name] = text

    def keep_artifact(self, check: str, name: str, text: str) -> None:
        """Keep a file that a check produced as evidence; the run stores it with the logs."""
        self.artifacts[check, name] = text

    @property
    def memory_mib(self) -> int:
        """The memory for the server's data, in MiB; 0 when the data is on disk."""
        return self._group.storage.memory_mib

    @property
    def is_closed(self) -> bool:
        """Whether the services are removed, or being removed."""
        return self._closed.is_set()

    @property
    def closing(self) -> Event:
        """Set once the services are being removed."""
        return self._closed

    def answers(self) -> bool:
        """Return whether a new client gets an answer through the whole chain within some seconds."""
        try:
            with connect(self.chain(), connect_timeout_s=int(_ANSWERS_S)) as client, bounded(client, _ANSWERS_S):
                client.value("SELECT 1")
        except (SqlError, ServiceFailedError):
            return False
        return True

    def close(self) -> None:
        """Remove the services; a second call does nothing."""
        self._closed.set()
        with self._changing:
            self._group.close()


def stand_up(
    engine: Engine,
    topology: Topology,
    owner: Owner,
    redactor: Redactor,
    cancelled: Event | None = None,
    *,
    linked: bool = False,
) -> Lab:
    """Start a topology, and return its lab once the whole chain answered a real query.

    :param cancelled: ends the wait early when set; no lab is returned then.
    :param linked: whether to put a link between the pooler and PostgreSQL, which can be cut. Where its program is not
        available, the lab starts without it and says why.
    :raises ImageUnavailableError: or EngineUnavailableError, when one of its products is not available.
    :raises ServiceFailedError: with the end of the log, when a service ended, refused the login or never answered. All
        services are removed then.
    """
    try:
        return _stand_up(engine, topology, owner, redactor, cancelled, linked=linked)
    except ServiceFailedError as error:
        if _PORT_TAKEN not in error.detail or engine.name == "docker":
            raise
    return _stand_up(engine, topology, owner, redactor, cancelled, linked=linked)


def stand_up_for_faults(
    engine: Engine,
    topology: Topology,
    owner: Owner,
    redactor: Redactor,
    cancelled: Event | None = None,
    *,
    linked: bool = False,
) -> Lab:
    """Start a second lab of a topology for checks that crash its servers, next to the first one.

    Its data is on disk, with fsync and synchronous commit. See :func:`stand_up` for the rest.
    """
    durable = replace(topology, postgres=replace(topology.postgres, durable=True))
    lab = stand_up(engine, durable, owner, redactor, cancelled, linked=linked)
    # a topology may have one of each, and their logs are stored next to each other
    lab.log_suffix = ".faults-linked" if linked else ".faults"
    return lab


def _stand_up(
    engine: Engine, topology: Topology, owner: Owner, redactor: Redactor, cancelled: Event | None, *, linked: bool
) -> Lab:
    began = time.monotonic()
    roles, token = random_roles(), new_token()
    redactor.learn(*roles.secrets(), token)
    group = engine.open_group(owner, topology.name, durable=topology.postgres.durable)
    try:
        missing = _missing_link(engine, topology, wanted=linked)
        started = _start(group, topology, roles, token if linked and not missing else "")
        chain = {name: service for name, service in started.items() if name != LINK_SERVICE}
        lab = Lab(topology, group, chain, roles, engine=engine, redactor=redactor)
        lab.no_server_link = missing
        if link := started.get(LINK_SERVICE):
            lab.server_link = ServerLink(link, token)
        evidence = when_ready(lab, cancelled)
        ready_ms = round((time.monotonic() - began) * 1000, 1)
        lab.evidence = replace(evidence, storage=group.storage.note, ready_ms=ready_ms)
        lab.topology = as_it_runs(topology, evidence)
        _require_running(cancelled, topology)
    except BaseException:
        with contextlib.suppress(HarnessError):  # never mask the first error
            group.close()
        raise
    return lab


def _require_running(cancelled: Event | None, topology: Topology) -> None:
    """Require that the run goes on: nobody would use another lab, nor close it with those that were up before.

    :raises ServiceFailedError: when it does not.
    """
    if cancelled and cancelled.is_set():
        raise ServiceFailedError("the run is ending", where=f"topology {topology.name}")


def _missing_link(engine: Engine, topology: Topology, *, wanted: bool) -> str:
    """Return why a lab has no link between its pooler and PostgreSQL; "" when it gets one."""
    if not wanted:
        return "these servers were started without it"
    if topology.pooler is None:
        return "no pooler is between the application and PostgreSQL"
    try:
        engine.prepare((LINK,), silent)
    except HarnessError as error:
        return f"its program is not available: {error.what}"
    return ""


def _start(group: Group, topology: Topology, roles: Roles, link_token: str) -> dict[str, Service]:
    """Start all services of a topology.

    :param link_token: the secret of the link between the pooler and PostgreSQL; "" for no link.
    """
    wanted = chain_of(topology)
    if link_token:
        wanted = {"postgres": wanted["postgres"], LINK_SERVICE: LINK} | wanted
    # services may share a network, and the port of a pooler may be fixed in its image
    fixed = {load_product(wanted["pooler"].product).port} if topology.pooler else set()
    places = {
        name: group.place(name, product, avoiding=() if name == "pooler" else fixed) for name, product in wanted.items()
    }
    specs = {"postgres": postgres_spec(places["postgres"], topology.postgres, roles)}
    upstream = places["postgres"].inside
    if link_token:
        specs[LINK_SERVICE] = link_spec(places[LINK_SERVICE], upstream, link_token)
        upstream = places[LINK_SERVICE].inside
    if topology.pooler:
        specs["pooler"] = pooler_spec(places["pooler"], topology.pooler, roles, upstream)
    # the database server is the first to start, because the others may share its network
    services = {"postgres": group.start(specs.pop("postgres"))}
    with ThreadPoolExecutor(max(1, len(specs))) as pool:
        starting = {name: pool.submit(group.start, spec) for name, spec in specs.items()}
        return services | {name: service.result() for name, service in starting.items()}
