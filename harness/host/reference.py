"""The reference host behind a running topology: its database, its audit trail, and the application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness import config, places
from harness.database import SqlError, connect, create_database, describe, observing
from harness.errors import DatabaseError
from harness.host.declarations import Caller, PathDeclaration
from harness.host.site import Site
from harness.lab.host import start_host
from harness.model import EvidenceClass

if TYPE_CHECKING:
    from pathlib import Path

    from harness.audit.target import AuditTarget
    from harness.database import Client
    from harness.lab.host import HostService
    from harness.lab.lab import Lab

HOST_DATABASE = "harness_host"
#: the table that its paths write to
_TABLE = "public.posts"
_ACTORS = ({"type": "user", "id": "ada"}, {"type": "user", "id": "bob"})

#: the application writes only in transactions and in jobs
_BUSY = """
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'harness_app' AND state <> 'idle')
    OR EXISTS (SELECT FROM public.oban_jobs WHERE state IN ('available', 'scheduled', 'executing', 'retryable'))
"""


class _PathsFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    paths: tuple[PathDeclaration, ...]


def reference_paths() -> tuple[PathDeclaration, ...]:
    """Return the paths of the reference host, in the same format as a team's own declarations."""
    return config.load(_paths_file(), _PathsFile).paths


def _paths_file() -> Path:
    return places.PACKAGE / "hostapp" / "paths.toml"


def _is_idle(client: Client) -> bool:
    return not client.value(_BUSY)


def stand_up_reference(lab: Lab, target: AuditTarget) -> tuple[Site, HostService]:
    """Create a database on the direct connection, install the trail, and start the application.

    :returns: the site for path checks, and the service, which the caller closes.
    :raises HarnessError: when the host is not available on this machine, does not start, or its trail cannot be
        installed.
    """
    owner = lab.roles.owner.name
    try:
        with lab.connect_admin() as admin:
            create_database(admin, HOST_DATABASE, owner=owner, durable=lab.topology.postgres.durable)
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
        raise DatabaseError(f"the reference host's database could not be created: {describe(error)}") from None
    site = Site(
        name=lab.topology.name,
        evidence_class=EvidenceClass.CI,
        base_url=service.base_url,
        callers=tuple(
            Caller(actor=actor, headers={"authorization": f"Bearer {service.tokens[actor['id']]}"}) for actor in _ACTORS
        ),
        target=target,
        about=f"reference host on Python {service.service.origin.version}, {lab.topology.notifier} for jobs",
        trail=lambda: observing(connect(lab.admin(HOST_DATABASE), application_name="pooler-harness trail")),
        application=lambda: connect(lab.chain(HOST_DATABASE), application_name="pooler-harness jobs"),
        admin=lambda: connect(lab.admin(HOST_DATABASE), application_name="pooler-harness bench"),
        is_idle=_is_idle,
        stopped=lambda: lab.is_closed,
        trust_env=False,
    )
    return site, service
