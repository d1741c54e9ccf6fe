"""The reference host behind a standing topology: its database, its audit trail, and the application itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness import config, places
from harness.database import SqlError, connect, create_database, describe, drop_database
from harness.errors import DatabaseError, HarnessError
from harness.host.declared import Caller, PathDeclaration
from harness.host.site import Site
from harness.lab.host import HOST, start_host
from harness.model import EvidenceClass
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from pathlib import Path

    from harness.audit.target import AuditTarget
    from harness.lab.lab import Lab

HOST_DATABASE = "harness_host"
#: that its paths write to
_TABLE = "public.posts"
_RESTARTED_DEADLINE_S = 10.0
_ACTORS = ({"type": "user", "id": "ada"}, {"type": "user", "id": "bob"})


class _PathsFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    paths: tuple[PathDeclaration, ...]


def reference_paths() -> tuple[PathDeclaration, ...]:
    """Return the paths that the reference host has, declared as a team declares its own."""
    return config.load(_paths_file(), _PathsFile).paths


def _paths_file() -> Path:
    return places.PACKAGE / "hostapp" / "paths.toml"


def stand_up_reference(lab: Lab, target: AuditTarget) -> Site:
    """Provision a database on the direct connection, start the application, and return where it answers.

    Meanwhile a check may restart PostgreSQL on purpose, which ends the connections that are used here. Then all of it
    is done once more.

    :raises HarnessError: when it cannot be had here, does not start, or its trail cannot be installed.
    """
    lab.make_ready(HOST)  # may take a minute, in which no connection is held open
    started = _server_started(lab)
    try:
        return _stand_up(lab, target)
    except HarnessError:
        if lab.is_closed or _server_started(lab) == started:
            raise
    return _stand_up(lab, target)


def _server_started(lab: Lab) -> object:
    """Return when PostgreSQL started, waiting for a restart to end."""

    def probe() -> object:
        try:
            with lab.connect_admin() as admin:
                return admin.value("SELECT pg_postmaster_start_time()")
        except SqlError as error:
            raise NotYet(describe(error)) from None

    return poll(probe, what="PostgreSQL to answer", deadline_s=_RESTARTED_DEADLINE_S)


def _stand_up(lab: Lab, target: AuditTarget) -> Site:
    owner = lab.roles.owner.name
    try:
        with lab.connect_admin() as admin:
            drop_database(admin, HOST_DATABASE)
            create_database(admin, HOST_DATABASE, owner=owner)
        with connect(lab.owner(HOST_DATABASE), application_name="pooler-harness owner") as client:
            target.install_in(client)
            service = start_host(lab, HOST_DATABASE, _ACTORS)
            try:
                target.attach(client, _TABLE)
                client.run(f"SELECT public.threadline_grant('{lab.roles.app.name}'::regrole, reading => true)")
            except BaseException:
                service.close()
                raise
    except SqlError as error:
        raise DatabaseError(f"the reference host's database could not be made: {describe(error)}") from None
    return Site(
        name=lab.topology.name,
        evidence_class=EvidenceClass.CI,
        base_url=service.base_url,
        callers=tuple(
            Caller(actor=actor, headers={"authorization": f"Bearer {service.tokens[actor['id']]}"}) for actor in _ACTORS
        ),
        target=target,
        about=f"reference host on Python {service.service.origin.version}, {lab.topology.notifier} for jobs",
        trail=lambda: connect(lab.admin(HOST_DATABASE), application_name="pooler-harness trail"),
        application=lambda: connect(lab.chain(HOST_DATABASE), application_name="pooler-harness jobs"),
        admin=lambda: connect(lab.admin(HOST_DATABASE), application_name="pooler-harness bench"),
        trust_env=False,
    )
