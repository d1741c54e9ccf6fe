"""Specifications of services: files and script of each product."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from harness import places
from harness.engine.protocol import Address, ServicePlace, ServiceSpec
from harness.engine.recipes import load_product
from harness.errors import ConfigError
from harness.lab.effective import knows_auth_dbname, knows_peering, knows_prepared_statements

if TYPE_CHECKING:
    from harness.lab.credentials import Roles
    from harness.model import PoolerDeclaration, PostgresDeclaration

_FOLDER = places.TOPOLOGIES / "config"


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
            "auth_dbname": knows_auth_dbname(place.origin.version),
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


def _render(name: str, **facts: object) -> str:
    """Render a configuration template.

    :raises ConfigError: with file and line of an invalid template.
    """
    from harness.lab.templates import render  # noqa: PLC0415 -- it loads Jinja, which only a starting lab needs

    return render(name, facts)
