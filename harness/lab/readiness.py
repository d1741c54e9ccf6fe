"""The wait until a lab is ready: a real query was answered through the whole chain."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.database import Client, Endpoint, SqlError, connect, refusal
from harness.engine.protocol import Service, log_tail
from harness.engine.recipes import load_product
from harness.errors import ServiceFailedError, TimedOutError
from harness.lab.effective import (
    effective_prepare,
    knows_peering,
    pgbouncer_settings,
    postgres_settings,
    reported_parameters,
)
from harness.model import ServiceEvidence, TopologyEvidence
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from threading import Event

    from harness.lab.lab import Lab
    from harness.lab.links import ServerLink

_READY_DEADLINE_S = 30.0
#: seconds within which a server ends whose port is taken
_PORT_CONFLICT_S = 2.0
#: pause between two looks at a service that does not answer yet: asking Docker costs more than a refused connection
_LOOK_S = 0.1


def when_ready(lab: Lab, cancelled: Event | None) -> TopologyEvidence:
    """Wait for the services from the database outwards, then read back versions and effective settings."""
    topology = lab.topology
    with _ask(lab, lab.postgres, lab.admin(), cancelled) as admin:
        settings = postgres_settings(admin)
        reported = reported_parameters(admin)
    found = [replace(_evidence(lab.postgres, settings["server_version"], settings), reported=reported)]
    notes = [service.origin.note for service in lab.services if service.origin.note]
    prepare = topology.client.prepare
    chain = lab.chain()
    if lab.server_link:  # the pooler would remember for a while that its name is unknown
        _await_link(lab, lab.server_link, cancelled)
    _ask(lab, lab.outermost, chain, cancelled).close()
    if topology.pooler and (console := lab.console()):
        version, shown = pgbouncer_settings(console, chain)
        # before 1.23 the console does not show the limits of a role
        shown = {f"user.{name}": value for name, value in topology.pooler.user.items()} | shown
        found.append(_evidence(lab.outermost, version, shown))
        if shown["pool_mode"] != topology.pooler.pool_mode:
            raise ServiceFailedError(
                f"the pooler runs in {shown['pool_mode']} mode, expected {topology.pooler.pool_mode} as declared",
                where=f"topology {topology.name}",
                hint="declare pool_mode in [pooler] only: one in its settings, database or user takes precedence",
            )
        prepare, why = effective_prepare(topology, version, shown)
        notes += [why] if why else []
        if topology.pooler.peered and not knows_peering(version):
            notes.append(f"the PgBouncers are not peered: PgBouncer supports peers from 1.19 on, and this is {version}")
    elif topology.pooler:  # without a console, the declared settings
        found.append(_evidence(lab.outermost, lab.outermost.origin.version, topology.pooler.settings))
    return TopologyEvidence(
        declared=topology, stood=True, services=tuple(found), prepare=prepare, notes=tuple(dict.fromkeys(notes))
    )


def _evidence(service: Service, version: str, settings: dict[str, str]) -> ServiceEvidence:
    origin = service.origin
    return ServiceEvidence(
        name=service.name,
        product=origin.product,
        title=load_product(origin.product).title,
        version=version,
        origin=origin.reference,
        settings=settings,
    )


def _await_link(lab: Lab, link: ServerLink, cancelled: Event | None) -> None:
    def failed(what: str) -> ServiceFailedError:
        return ServiceFailedError(
            what, where=f"topology {lab.topology.name}, service link", detail=log_tail(link.service.logs())
        )

    def probe() -> None:
        try:
            link.counts()
        except ServiceFailedError as error:
            if not (state := link.service.state()).running:
                raise failed(f"the link ended while starting: {state.detail}") from None
            raise NotYet(error.what) from None

    try:
        poll(
            probe,
            what="an answer from the link between the pooler and PostgreSQL",
            deadline_s=_READY_DEADLINE_S,
            cancelled=cancelled,
        )
    except TimedOutError as error:
        raise failed(error.what) from None


def _ask(lab: Lab, service: Service, endpoint: Endpoint, cancelled: Event | None) -> Client:
    """Return a connection once a real query was answered on it."""
    where = f"topology {lab.topology.name}, service {service.name}"

    def require_running() -> None:
        state = service.state()
        if not state.running:
            raise ServiceFailedError(
                f"the service ended while starting: {state.detail}", where=where, detail=log_tail(service.logs())
            )

    def refused_by_another() -> None:
        require_running()
        raise NotYet("the service is running")

    looked_at = time.monotonic()

    def probe() -> Client:
        nonlocal looked_at
        try:
            client = connect(endpoint, connect_timeout_s=3)
            client.value("SELECT 1")
        except SqlError as error:
            if time.monotonic() - looked_at >= _LOOK_S:
                require_running()
                looked_at = time.monotonic()
            if why := refusal(error):
                # a server of another run may have taken the port; this service then ends a moment later
                with contextlib.suppress(TimedOutError):
                    poll(refused_by_another, what="the end of the service", deadline_s=_PORT_CONFLICT_S)
                raise ServiceFailedError(
                    f"the login was refused: {why}", where=where, detail=log_tail(service.logs())
                ) from None
            raise NotYet(" ".join(str(error).split())) from None
        return client

    try:
        return poll(
            probe,
            what=f"an answer from {service.name} at {endpoint!r}",
            deadline_s=_READY_DEADLINE_S,
            interval_s=0.008,
            cancelled=cancelled,
        )
    except TimedOutError as error:
        raise ServiceFailedError(
            error.what,
            where=f"{where} ({service.state().detail})",
            detail=log_tail(service.logs()),
            hint="harness doctor",
        ) from None
