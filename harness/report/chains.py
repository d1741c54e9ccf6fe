"""The drawing of a chain: a box for the application, the pooler and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Confidence, Prepare
from harness.report.topology_rows import titled

if TYPE_CHECKING:
    from harness.model import EnvironmentEvidence, TopologyEvidence


class Station(Struct, frozen=True, kw_only=True):
    """One box of the drawing of a chain."""

    #: `application`, `pooler` or `server`
    role: str
    title: str
    #: pool mode, size, prepare policy, in the order in which they are shown
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the box in words: `PgBouncer 1.24.1 (transaction mode, pool of 4)`."""
        return f"{self.title} ({', '.join(self.details)})" if self.details else self.title


def pooler_title(topology: TopologyEvidence | None) -> str:
    """Return product and version of the pooler as it ran; "" without one."""
    services = topology.services if topology else ()
    return next((titled(service) for service in services if service.name == "pooler"), "")


def stations(topology: TopologyEvidence) -> tuple[Station, ...]:
    """Return the chain of a topology, from the application to PostgreSQL."""
    named = topology.prepare is Prepare.NAMED
    application = Station(role="application", title="psycopg", details=("prepares" if named else "never prepares",))
    servers = {service.name: titled(service) for service in topology.services}
    declared = topology.declared
    server = Station(role="server", title=servers.get("postgres", f"PostgreSQL {declared.postgres.version}"))
    if not declared.pooler:
        return application, server
    details = [f"{declared.pooler.pool_mode} mode", f"pool of {declared.pooler.default_pool_size}"]
    if declared.pooler.instances > 1:
        peers = "peered" if declared.pooler.peered else "not peered"
        details.append(f"{declared.pooler.instances} processes, {peers}")
    title = servers.get("pooler", f"{declared.pooler.product} {declared.pooler.version}")
    return application, Station(role="pooler", title=title, details=tuple(details)), server


def found_stations(environment: EnvironmentEvidence) -> tuple[Station, ...]:
    """Return the chain of an operator's environment, as a client found it."""
    application = Station(role="application", title=environment.application or "application")
    found = [finding for finding in environment.findings if finding.value]
    values = {finding.fact: finding.value for finding in found}
    unsure = {finding.fact: " (likely)" for finding in found if finding.confidence is Confidence.LIKELY}
    server = Station(role="server", title=f"PostgreSQL {values.get('server_version', '')}".strip())
    if values.get("pooler") != "yes":
        return application, server
    details = (
        f"{values['pool_mode']} mode{unsure.get('pool_mode', '')}" if "pool_mode" in values else "pool mode unknown",
        *((f"pool of {values['pool_size']}{unsure.get('pool_size', '')}",) if "pool_size" in values else ()),
    )
    title = " ".join(filter(None, (values.get("product", "a pooler"), values.get("version", ""))))
    return application, Station(role="pooler", title=title, details=details), server
