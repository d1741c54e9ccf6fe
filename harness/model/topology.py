"""Topologies as their files declare them: a chain from the application to PostgreSQL."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct


class PoolMode(StrEnum):
    """How long a client keeps a server connection, in PgBouncer's terms."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class Prepare(StrEnum):
    """How the client runs repeated statements: as named prepared statements, or unnamed."""

    NAMED = "named"
    UNNAMED = "unnamed"


Positive = Annotated[int, Meta(ge=1, le=100_000)]
Version = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$")]


class PostgresDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PostgreSQL server at the end of the chain."""

    #: the version: a table `versions` of the recipe
    version: Version
    #: whether its data survives a crash: on disk, with fsync and synchronous commit, for checks that crash servers
    durable: bool = False
    #: lines of postgresql.conf
    settings: dict[str, str] = {}


class PoolerDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pooler in the middle of the chain."""

    #: a folder of `topologies/images/` and of `topologies/config/`
    product: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
    #: the version: a table `versions` of the recipe
    version: Version
    pool_mode: PoolMode
    #: most server connections of one pool. In a topology as it runs, all other limits are applied
    default_pool_size: Positive
    #: most client connections
    max_client_conn: Positive = 200
    #: most prepared statements that the pooler tracks for each client; 0: it tracks none
    max_prepared_statements: Annotated[int, Meta(ge=0)] = 200
    #: number of processes behind one address
    instances: Annotated[int, Meta(ge=1, le=4)] = 1
    #: whether these processes are peers, so that they forward cancel requests to each other
    peered: bool = False
    #: lines of the pooler's configuration file
    settings: dict[str, str] = {}
    #: options of PgBouncer's entry in [databases], which all databases share
    database: dict[str, str] = {}
    #: options of each role's entry in [users]
    user: dict[str, str] = {}


class ClientDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the application connects."""

    prepare: Prepare = Prepare.NAMED
    #: number of executions after which psycopg prepares a statement on the server
    prepare_threshold: Annotated[int, Meta(ge=0)] = 5


class Notifier(StrEnum):
    """How the job runner of the host application is notified of new jobs."""

    #: LISTEN through the chain; it needs session mode or a chain without a pooler
    LISTEN = "listen"
    #: it queries for new jobs at an interval
    POLL = "poll"
    #: LISTEN on a direct connection
    DIRECT = "direct"


class HostDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference host application at the outer end of the chain, in runs that start it."""

    #: by default `listen` without a pooler and in session mode, else `poll`
    notifier: Notifier | None = None
    #: most connections of the application's own pool
    pool_size: Annotated[int, Meta(ge=2, le=1000)] = 4


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named chain from the application to PostgreSQL: one file in `topologies/`."""

    #: the stem of the file, and not one of its keys
    name: str
    #: one line for lists, and for the report
    summary: Annotated[str, Meta(min_length=1)]
    postgres: PostgresDeclaration
    pooler: PoolerDeclaration | None = None
    client: ClientDeclaration = ClientDeclaration()
    host: HostDeclaration = HostDeclaration()
    #: the suites and checks that run unless others are named; all when empty
    verify: tuple[str, ...] = ()
    #: the suites and checks that run only when they are named
    omit: tuple[str, ...] = ()
    #: runs only when it is named
    on_demand: bool = False

    def verifies(self, check: str) -> bool:
        """Return whether the topology runs a check by default.

        It does if `verify` names the check or its suite, or is empty, and `omit` names neither.
        """
        names = {check, check.partition(".")[0]}
        return (not self.verify or not names.isdisjoint(self.verify)) and names.isdisjoint(self.omit)

    @property
    def pool_mode(self) -> PoolMode | None:
        """The pool mode; None without a pooler."""
        return self.pooler.pool_mode if self.pooler else None

    @property
    def notifier(self) -> Notifier:
        """The notifier that the host uses: LISTEN works only where a client keeps its server connection."""
        keeps = self.pool_mode in {None, PoolMode.SESSION}
        return self.host.notifier or (Notifier.LISTEN if keeps else Notifier.POLL)
