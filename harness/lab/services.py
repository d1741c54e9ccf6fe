"""Specifications of services: files and script of each product, and its effective settings read back."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import jinja2

from harness import places
from harness.database import Client, Endpoint, console
from harness.engine.images import load_product
from harness.engine.protocol import Address, ServicePlace, ServiceSpec
from harness.errors import ConfigError
from harness.model import PoolerDeclaration, PoolMode, PostgresDeclaration, Prepare, Topology

if TYPE_CHECKING:
    from harness.lab.credentials import Roles

_FOLDER = places.TOPOLOGIES / "config"
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 -- configuration files, not HTML
    keep_trailing_newline=True,
)

#: PgBouncer tracks prepared statements from 1.21 on (https://www.pgbouncer.org/changelog.html)
_PREPARED_STATEMENTS = (1, 21)
#: several PgBouncer processes can be peers from 1.19 on
_PEERING = (1, 19)
#: the setting auth_dbname exists from 1.19 on
_AUTH_DBNAME = (1, 19)

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
_POOLER_SETTINGS = (
    "pool_mode",
    "default_pool_size",
    "min_pool_size",
    "max_client_conn",
    "max_prepared_statements",
    "server_reset_query",
    "server_reset_query_always",
    "ignore_startup_parameters",
    "track_extra_parameters",
    "server_lifetime",
    "server_idle_timeout",
    "query_wait_timeout",
    "auth_type",
)


def postgres_spec(place: ServicePlace, declared: PostgresDeclaration, roles: Roles) -> ServiceSpec:
    """Render the templates of PostgreSQL: its configuration files, and the SQL that creates the roles."""
    return ServiceSpec(
        place=place,
        files={
            "postgresql.conf": _render(
                "postgres/postgresql.conf", place=place, durable=declared.durable, settings=declared.settings
            ),
            "pg_hba.conf": _render("postgres/pg_hba.conf"),
            "roles.sql": _render("postgres/roles.sql", roles=roles),
        },
        # A single-user server sets the passwords before the real one listens, so no open or known login ever
        # exists. Only once: a restart finds them set.
        script=(
            f"cd {quote(place.folder)} && "
            "{ [ -e roles.done ] || { postgres --single --config-file=postgresql.conf postgres < roles.sql > /dev/null "
            "&& : > roles.done; }; } && "
            "exec postgres --config-file=postgresql.conf"
        ),
        stop_signal=load_product("postgres").stop_signal,
    )


def pooler_spec(place: ServicePlace, declared: PoolerDeclaration, roles: Roles, upstream: Address) -> ServiceSpec:
    """Render the templates of a pooler: its files, one of which is the `start.sh` that becomes the server.

    :param upstream: the address of the next service towards the database.
    :raises ConfigError: for an invalid template, or a product without a `start.sh.j2`.
    """
    recipe = load_product(declared.product)
    facts = {
        "place": place,
        "pooler": declared,
        "roles": roles,
        "upstream": upstream,
        # PgBouncer does not start with an unknown setting
        "knows": {
            "prepared_statements": knows_prepared_statements(place.origin.version),
            "peering": knows_peering(place.origin.version),
            "auth_dbname": is_at_least(place.origin.version, _AUTH_DBNAME),
        },
    }
    files = rendered(declared.product, **facts)
    if "start.sh" not in files:
        raise ConfigError("missing template start.sh.j2: it becomes the server", where=str(_FOLDER / declared.product))
    return ServiceSpec(
        place=place, files=files, script=f"exec sh {quote(place.folder)}/start.sh", stop_signal=recipe.stop_signal
    )


def rendered(product: str, **facts: object) -> dict[str, str]:
    """Render all templates of a product, and return the texts by file name.

    :raises ConfigError: with file and line of an invalid template.
    """
    return {path.stem: _render(f"{product}/{path.stem}", **facts) for path in sorted((_FOLDER / product).glob("*.j2"))}


def knows_prepared_statements(version: str) -> bool:
    """Return whether this version of PgBouncer can track prepared statements."""
    return is_at_least(version, _PREPARED_STATEMENTS)


def knows_peering(version: str) -> bool:
    """Return whether several processes of this version of PgBouncer can forward cancel requests to each other."""
    return is_at_least(version, _PEERING)


def is_at_least(version: str, wanted: tuple[int, ...]) -> bool:
    """Return whether a version is at least another; an unknown version counts as new."""
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return not numbers or numbers >= wanted


def effective_prepare(topology: Topology, pooler_version: str) -> tuple[Prepare, str]:
    """Return the prepare policy that the client must use, and a sentence when it is not the declared one."""
    pooler, declared = topology.pooler, topology.client.prepare
    if declared is Prepare.UNNAMED or pooler is None or pooler.pool_mode is PoolMode.SESSION:
        return declared, ""
    if pooler.product != "pgbouncer":
        return declared, ""
    if pooler.max_prepared_statements and knows_prepared_statements(pooler_version):
        return declared, ""
    return Prepare.UNNAMED, (
        f"the client does not prepare: PgBouncer {pooler_version} with max_prepared_statements = "
        f"{pooler.max_prepared_statements} does not track prepared statements in {pooler.pool_mode} mode"
    )


def postgres_settings(admin: Client) -> dict[str, str]:
    """Return the effective settings of a server, by name."""
    found = admin.rows(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s) ORDER BY name",
        [list(_POSTGRES_SETTINGS)],
    )
    return dict(found)


def pgbouncer_settings(endpoint: Endpoint) -> tuple[str, dict[str, str]]:
    """Return the version that the pooler reports, and its effective settings by name.

    :param endpoint: the admin console.
    """
    version = console(endpoint, "SHOW VERSION")[0]["version"].removeprefix("PgBouncer ")
    shown = {row["key"]: row["value"] for row in console(endpoint, "SHOW CONFIG")}
    return version, {name: shown[name] for name in _POOLER_SETTINGS if name in shown}


def _render(name: str, **facts: object) -> str:
    """Render a configuration template.

    :raises ConfigError: with file and line of an invalid template.
    """
    path = _FOLDER / f"{name}.j2"
    try:
        return _TEMPLATES.get_template(f"{name}.j2").render(**facts)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"invalid template: {error.message}", where=f"{path}:{error.lineno}") from None
    except jinja2.TemplateError as error:
        raise ConfigError(f"this template cannot be rendered: {error.message}", where=str(path)) from None
