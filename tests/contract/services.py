"""A PostgreSQL service for the engine tests, with the configuration of a lab, but without a lab; and psql for programs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness.database import Client, Endpoint, SqlError, connect
from harness.engine.docker_engine import DockerEngine
from harness.engine.docker_labels import LABEL_RUN
from harness.engine.native_engine import NativeEngine
from harness.engine.native_folders import runs_in_memory, runs_on_disk
from harness.engine.protocol import Wanted
from harness.lab.credentials import Roles, random_roles
from harness.lab.services import postgres_spec
from harness.model import PostgresDeclaration
from harness.waiting import NotYet, poll
from tests.conftest import require_engine

if TYPE_CHECKING:
    from harness.engine.protocol import Engine, Group, Service, ServiceSpec

POSTGRES = Wanted(product="postgres", version="17")


def specify(group: Group, settings: dict[str, str] | None = None) -> tuple[ServiceSpec, Roles]:
    """Return the specification of a PostgreSQL service in a group, and its roles."""
    roles = random_roles()
    place = group.place("postgres", POSTGRES)
    return postgres_spec(place, PostgresDeclaration(version="17", settings=settings or {}), roles), roles


def admin_endpoint(service: Service, roles: Roles) -> Endpoint:
    address = service.endpoint()
    return Endpoint(
        host=address.host, port=address.port, user=roles.admin.name, password=roles.admin.password, dbname="postgres"
    )


def connect_admin(service: Service, roles: Roles) -> Client:
    """Wait until the server answers, and return a connection as its administrator."""

    def probe() -> Client:
        try:
            return connect(admin_endpoint(service, roles), connect_timeout_s=2)
        except SqlError as error:
            raise NotYet(str(error)) from None

    return poll(probe, what="PostgreSQL", deadline_s=20)


def psql(script: str, address: str = "DATABASE_URL") -> list[str]:
    """Return a command that runs a script of psql, which starts in a tenth of the time of Python and psycopg.

    :param address: the variable with the address of the server.
    """
    return ["sh", "-c", f"exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \"${address}\" <<'END'\n{script}\nEND\n"]


def path_with_psql(engine: Engine) -> str:
    """Return a PATH whose psql is that of the native engine's server: Debian's own psql is a program in Perl."""
    if isinstance(engine, NativeEngine):
        folder = Path(engine.origin(POSTGRES).reference).parent
    else:
        folder = Path(shutil.which("psql") or require_engine("native").name).parent
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def leftovers(engine_name: str, run_id: str) -> list[str]:
    """Return the containers, networks and folders of a run that still exist."""
    if engine_name == "docker":
        engine = require_engine("docker")
        assert isinstance(engine, DockerEngine)
        label = {"label": f"{LABEL_RUN}={run_id}"}
        return [
            resource["Id"]
            for resource in engine._api.containers(all=True, filters=label) + engine._api.networks(filters=label)
        ]
    return [str(path) for path in [*runs_on_disk().glob(run_id), *runs_in_memory().glob(run_id)]]
