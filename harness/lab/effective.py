"""Effective settings of a chain, read back from its servers, and what follows from them.

A declared value can be overridden by another line, by an entry about the database or the role, and by a version that
does not know it. Checks therefore depend on what the servers report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, Endpoint, console, database_on_console
from harness.lab.reset_query import STATES, Reset, read_reset_query
from harness.model import PoolMode, Prepare, ServiceEvidence, Topology, TopologyEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: PgBouncer tracks prepared statements from 1.21 on (https://www.pgbouncer.org/changelog.html)
_PREPARED_STATEMENTS = (1, 21)
#: several PgBouncer processes can be peers from 1.19 on
_PEERING = (1, 19)
#: the setting auth_dbname exists from 1.19 on; 1.18 refuses to start with it
_AUTH_DBNAME = (1, 19)
#: named extra parameters are tracked from 1.20 on, and from 1.26 on all that PostgreSQL reports and a client can set
_EXTRA_PARAMETERS, _ALL_REPORTED = (1, 20), (1, 26)
#: parameters that every version of PgBouncer tracks (https://www.pgbouncer.org/config.html#track_extra_parameters)
_ALWAYS_TRACKED = frozenset(
    {"client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}
)
#: (https://github.com/pgbouncer/pgbouncer/pull/1580)
_TRACKED_SINCE_1_26 = frozenset(
    {"default_transaction_read_only", "intervalstyle", "scram_iterations", "search_path", "session_authorization"}
)

#: settings that affect audited writes; every run records them
_POSTGRES_SETTINGS = (
    "server_version",
    "max_connections",
    "max_prepared_transactions",
    "default_transaction_isolation",
    "session_replication_role",
    "fsync",
    "synchronous_commit",
    "password_encryption",
    "TimeZone",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
)
#: reported to clients, but not listed in pg_settings
_UNLISTED = ("is_superuser", "session_authorization")
_POOLER_SETTINGS = (
    "pool_mode",
    "default_pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "reserve_pool_timeout",
    "max_db_connections",
    "max_user_connections",
    "max_client_conn",
    "max_db_client_connections",
    "max_user_client_connections",
    "max_prepared_statements",
    "server_reset_query",
    "server_reset_query_always",
    "server_round_robin",
    "ignore_startup_parameters",
    "track_extra_parameters",
    "application_name_add_host",
    "disable_pqexec",
    "server_lifetime",
    "server_idle_timeout",
    "server_fast_close",
    "query_wait_timeout",
    "query_timeout",
    "client_idle_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "auth_type",
)
#: limits of the database, as SHOW DATABASES names them, and of the role, as SHOW USERS does
_DATABASE_LIMITS = (
    "pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "reserve_pool",
    "max_connections",
    "max_client_connections",
)
_USER_LIMITS = ("pool_size", "reserve_pool_size", "max_user_connections", "max_user_client_connections")

#: an option of a database, as SHOW DATABASES names it
_SHOWN_AS = {"max_db_connections": "max_connections"}

_FLAGS = dict.fromkeys(("1", "on", "true", "yes"), True) | dict.fromkeys(("0", "off", "false", "no"), False)
#: the size of a pool without any limit
UNLIMITED = 100_000


class PoolLimits(Struct, frozen=True, kw_only=True):
    """How many server connections one pool can have."""

    #: at once
    size: int
    #: with the reserve, which a client gets after it has waited for `reserve_pool_timeout`
    largest: int
    #: seconds
    reserve_after_s: float = 0.0


def postgres_settings(admin: Client) -> dict[str, str]:
    """Return the effective settings of a server, by name."""
    found = admin.rows(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s) ORDER BY name",
        [list(_POSTGRES_SETTINGS)],
    )
    return dict(found)


def reported_parameters(client: Client) -> tuple[str, ...]:
    """Return the parameters whose values the server reports to clients, in lower case (ParameterStatus)."""
    names = [name for (name,) in client.rows("SELECT name FROM pg_catalog.pg_settings")]
    reported = {name for name in (*names, *_UNLISTED) if client.pgconn.parameter_status(name.encode()) is not None}
    return tuple(sorted(name.casefold() for name in reported))


def pgbouncer_settings(endpoint: Endpoint, chain: Endpoint) -> tuple[str, dict[str, str]]:
    """Return the version that the pooler reports, and the effective settings of one pool by name.

    Limits of the database are named `database.…`, those of the role `user.…`. The pool mode is that of the pool: a
    database or a role can have one of its own.

    :param endpoint: the admin console.
    :param chain: the database of the pool, and its role.
    """
    version = console(endpoint, "SHOW VERSION")[0]["version"].removeprefix("PgBouncer ")
    shown = {row["key"]: row["value"] for row in console(endpoint, "SHOW CONFIG")}
    settings = {name: shown[name] for name in _POOLER_SETTINGS if name in shown}
    if row := database_on_console(endpoint, chain):
        settings |= _limits("database", _DATABASE_LIMITS, row)
    for row in console(endpoint, "SHOW USERS"):
        if row["name"] == chain.user:
            settings |= _limits("user", _USER_LIMITS, row)
    for row in console(endpoint, "SHOW POOLS"):
        if (row["database"], row["user"]) == (chain.dbname, chain.user):
            settings["pool_mode"] = row["pool_mode"]
    return version, settings


def _limits(prefix: str, names: Iterable[str], row: Mapping[str, str]) -> dict[str, str]:
    """Return the limits of one row. Before 1.24 the reserve of a database has another name."""
    found = {name: row[name] for name in names if row.get(name, "").isdecimal()}
    if (old := found.pop("reserve_pool", None)) is not None:
        found["reserve_pool_size"] = old
    return {f"{prefix}.{name}": value for name, value in found.items()}


def pool_limits(settings: Mapping[str, str]) -> PoolLimits:
    """Return the limits of one pool: the lowest of those of the pool, the database and the role.

    :param settings: effective settings by name, as :func:`pgbouncer_settings` returns them. 0 means unlimited.
    """
    size = _first(settings, "user.pool_size", "database.pool_size", "default_pool_size")
    reserve = _first(settings, "user.reserve_pool_size", "database.reserve_pool_size", "reserve_pool_size")
    after_s = number(settings.get("reserve_pool_timeout", "5")) or 0.0
    caps = [
        cap
        for cap in (
            _first(settings, "database.max_connections", "max_db_connections"),
            _first(settings, "user.max_user_connections", "max_user_connections"),
        )
        if cap
    ]
    base = size or UNLIMITED
    return PoolLimits(
        size=min([base, *caps]),
        largest=min([base + (reserve if after_s else 0), *caps]),
        reserve_after_s=after_s if reserve else 0.0,
    )


def _first(settings: Mapping[str, str], *names: str) -> int:
    """Return the first of several settings that has a value; 0 if none has."""
    return next((int(found) for name in names if (found := number(settings.get(name, ""))) is not None), 0)


def number(text: str) -> float | None:
    """Return the number that a setting is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def flag(text: str) -> bool | None:
    """Return whether a setting is on; None if it is neither on nor off."""
    return _FLAGS.get(text.strip().casefold())


def names_of(text: str) -> frozenset[str]:
    """Return the names of a comma-separated list, in lower case: blanks, order and repetition mean nothing."""
    return frozenset(filter(None, (name.strip().casefold() for name in text.split(","))))


def spelled_names_of(text: str) -> frozenset[str]:
    """Return the names of a list that PgBouncer compares as they are spelled, with commas or blanks between them.

    Source: `strlist_contains` in its src/util.c.
    """
    return frozenset(text.replace(",", " ").split())


def released(product: str, mode: PoolMode | None, settings: Mapping[str, str]) -> Reset:
    """Return what a pooler resets when a client releases its server connection.

    PgBouncer runs its reset query in session mode only, unless `server_reset_query_always` is set. A server connection
    whose `server_lifetime` is 0 is closed instead (https://www.pgbouncer.org/config.html#server_lifetime).
    """
    match product:
        case "pgbouncer":
            if number(settings.get("server_lifetime", "")) == 0:
                return Reset(closes=True)
            always = flag(settings.get("server_reset_query_always", "0"))
            if mode is PoolMode.SESSION or always:
                return read_reset_query(settings.get("server_reset_query", "DISCARD ALL"))
            return Reset(understood=always is not None)
        case "pgpool":  # https://www.pgpool.net/docs/46/en/html/runtime-config-connection-pooling.html
            return read_reset_query(settings.get("reset_query_list", "ABORT; DISCARD ALL").strip("'"))
        case _:
            return Reset(states=STATES)


def tracked(product: str, version: str, settings: Mapping[str, str], reported: Iterable[str]) -> frozenset[str]:
    """Return the parameters that a pooler restores for each client, in lower case.

    PgBouncer can only track what the server reports, whatever its settings name.

    :param version: of the pooler.
    :param reported: what the server reports, in lower case.
    """
    if product != "pgbouncer":
        return frozenset()
    extra: frozenset[str] = frozenset()
    if is_at_least(version, _EXTRA_PARAMETERS):
        extra = names_of(settings.get("track_extra_parameters", "IntervalStyle"))
    if is_at_least(version, _ALL_REPORTED):
        extra |= _TRACKED_SINCE_1_26
    return _ALWAYS_TRACKED | (extra & frozenset(reported))


def tracks_statements(version: str, settings: Mapping[str, str]) -> bool:
    """Return whether PgBouncer tracks prepared statements in the modes that share server connections."""
    return knows_prepared_statements(version) and bool(number(settings.get("max_prepared_statements", "0")))


def knows_prepared_statements(version: str) -> bool:
    """Return whether this version of PgBouncer can track prepared statements."""
    return is_at_least(version, _PREPARED_STATEMENTS)


def knows_peering(version: str) -> bool:
    """Return whether several processes of this version of PgBouncer can forward cancel requests to each other."""
    return is_at_least(version, _PEERING)


def knows_auth_dbname(version: str) -> bool:
    """Return whether this version of PgBouncer can look up roles in a database of its own choice."""
    return is_at_least(version, _AUTH_DBNAME)


def is_at_least(version: str, wanted: tuple[int, ...]) -> bool:
    """Return whether a version is at least another; an unknown version counts as new."""
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return not numbers or numbers >= wanted


def effective_prepare(topology: Topology, version: str, settings: Mapping[str, str]) -> tuple[Prepare, str]:
    """Return the prepare policy that the client must use, and a sentence when it is not the declared one.

    :param version: of the pooler.
    :param settings: its effective settings by name.
    """
    pooler, declared = topology.pooler, topology.client.prepare
    if declared is Prepare.UNNAMED or pooler is None or pooler.pool_mode is PoolMode.SESSION:
        return declared, ""
    if pooler.product != "pgbouncer" or tracks_statements(version, settings):
        return declared, ""
    return Prepare.UNNAMED, (
        f"the client does not prepare: PgBouncer {version} with max_prepared_statements = "
        f"{settings.get('max_prepared_statements', pooler.max_prepared_statements)} does not track prepared statements "
        f"in {pooler.pool_mode} mode"
    )


def as_it_runs(topology: Topology, evidence: TopologyEvidence) -> Topology:
    """Return a topology with its effective pool size and prepare policy: both decide which checks apply, and how."""
    topology = replace(topology, client=replace(topology.client, prepare=evidence.prepare))
    limits = effective_limits(evidence)
    if topology.pooler is None or limits is None:
        return topology
    return replace(topology, pooler=replace(topology.pooler, default_pool_size=limits.size))


def effective_limits(evidence: TopologyEvidence) -> PoolLimits | None:
    """Return the limits of the application's pool, as its pooler reports them; None if it reports none."""
    settings = _pooler(evidence).settings if evidence.declared.pooler else {}
    return pool_limits(settings) if "default_pool_size" in settings else None


def declared_limits(topology: Topology) -> PoolLimits | None:
    """Return the limits of the application's pool as its topology declares them; None without a pooler.

    They decide which checks are planned. A check that runs depends on :func:`effective_limits`.
    """
    declared = topology.pooler
    if declared is None:
        return None
    of_database = {f"database.{_SHOWN_AS.get(name, name)}": value for name, value in declared.database.items()}
    of_role = {f"user.{name}": value for name, value in declared.user.items()}
    return pool_limits(
        {"default_pool_size": str(declared.default_pool_size), **declared.settings, **of_database, **of_role}
    )


def least_connections(evidence: TopologyEvidence) -> int:
    """Return the number of server connections that the application's pool opens by itself, once a client uses it."""
    limits = effective_limits(evidence)
    if limits is None:
        return 0
    return min(_first(_pooler(evidence).settings, "database.min_pool_size", "min_pool_size"), limits.size)


def most_clients(evidence: TopologyEvidence) -> int | None:
    """Return how many clients of one role and database the pooler admits; None if it reports no limit."""
    settings = _pooler(evidence).settings if evidence.declared.pooler else {}
    limits = (
        _first(settings, "max_client_conn"),
        _first(settings, "database.max_client_connections", "max_db_client_connections"),
        _first(settings, "user.max_user_client_connections", "max_user_client_connections"),
    )
    return min((limit for limit in limits if limit), default=None)


def are_used_once(evidence: TopologyEvidence) -> bool:
    """Return whether the pooler closes a server connection after its first use."""
    return evidence.declared.pooler is not None and number(_pooler(evidence).settings.get("server_lifetime", "")) == 0


def limits_all_databases(topology: Topology) -> bool:
    """Return whether a limit is declared that all databases of a role share.

    Each check has a database of its own, so checks that run at the same time would wait for each other.
    """
    declared = topology.pooler
    return declared is not None and any(
        number(values.get(name, "0")) != 0
        for values in (declared.settings, declared.user)
        for name in ("max_user_connections", "max_user_client_connections")
    )


def _pooler(evidence: TopologyEvidence) -> ServiceEvidence:
    return evidence.service("pooler")
