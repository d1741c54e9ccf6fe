"""The faults that the suite injects, as a table.

A check injects one and heals it:

    with injection(fault, ctx) as injected:
        effect = injected.inject()    # NotExercisedError if it could not be injected, or had no effect
        ...
        healing = injected.heal()     # the end of the block heals in any case
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.registry import TRANSACTION_BLOCKS, Capability
from harness.errors import ServiceFailedError
from harness.suites.resilience import console_faults, link_faults, service_faults
from harness.suites.resilience.injection import Injection
from harness.wire.link import BLACK_HOLE, CUT, HALF_OPEN, SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext

POOLER = Capability(
    "a pooler",
    "no pooler is between the application and PostgreSQL",
    lambda topology: topology.pooler is not None,
)
CONSOLE = Capability(
    "a console of the pooler",
    "the chain has no single PgBouncer process, which alone has a console with these commands",
    lambda topology: (
        topology.pooler is not None and topology.pooler.product == "pgbouncer" and topology.pooler.instances == 1
    ),
)


class Where(StrEnum):
    """The part of a topology that a fault harms."""

    APPLICATION_LINK = "the network between application and chain"
    POOLER = "the pooler"
    SERVER_LINK = "the network between pooler and PostgreSQL"
    SERVER = "PostgreSQL"
    DISK = "the disk of the trail"


class FaultKind(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    #: kebab-case; checks and histories hold it, so it stays the same
    id: str
    #: a noun phrase
    title: str
    #: what the harness does, in one sentence without a full stop
    what: str
    where: Where
    #: the fault is N/A in topologies without these
    needs: tuple[Capability, ...] = ()
    #: whether PostgreSQL has to recover from a crash
    crashes: bool = False
    #: whether it is in the main job
    main: bool = False
    #: whether it lasts until it is healed; the others have their effect at once
    lasts: bool = True
    #: whether clients get no error meanwhile, so that only their own deadline ends a unit of work
    silent: bool = False
    #: injects it, and returns what showed the effect
    act: Callable[[Injection], str]


@contextlib.contextmanager
def injection(fault: FaultKind, ctx: CheckContext) -> Iterator[Injection]:
    """Yield an injection of a fault. The end of the block heals it, also after an error, Ctrl-C or the time limit."""
    injected = Injection(ctx, fault.act)
    try:
        yield injected
    finally:
        try:
            injected.heal()
        except ServiceFailedError as error:  # an error of the block comes first
            ctx.left_behind(error.what)


FAULTS: tuple[FaultKind, ...] = (
    FaultKind(
        id="connections-terminated",
        title="server connections terminated",
        what="terminates every server connection of the application with pg_terminate_backend",
        where=Where.SERVER,
        main=True,
        lasts=False,
        act=service_faults.terminate_connections,
    ),
    FaultKind(
        id="process-killed",
        title="server process killed",
        what="kills one server process of the application with SIGKILL, so that PostgreSQL recovers from a crash",
        where=Where.SERVER,
        crashes=True,
        main=True,
        lasts=False,
        act=service_faults.kill_process,
    ),
    FaultKind(
        id="server-restarted",
        title="PostgreSQL restarted, fast",
        what="shuts PostgreSQL down in fast mode, and starts it again",
        where=Where.SERVER,
        act=service_faults.restart_server("SIGINT"),
    ),
    FaultKind(
        id="server-restarted-immediately",
        title="PostgreSQL restarted, immediate",
        what="shuts PostgreSQL down in immediate mode, and starts it again",
        where=Where.SERVER,
        crashes=True,
        main=True,
        act=service_faults.restart_server("SIGQUIT"),
    ),
    FaultKind(
        id="server-killed",
        title="PostgreSQL killed",
        what="kills all processes of PostgreSQL with SIGKILL, and starts it again",
        where=Where.SERVER,
        crashes=True,
        main=True,
        act=service_faults.restart_server(""),
    ),
    FaultKind(
        id="server-frozen",
        title="PostgreSQL frozen",
        what="freezes all processes of PostgreSQL, and thaws them",
        where=Where.SERVER,
        silent=True,
        act=service_faults.freeze(lambda injected: injected.lab.postgres),
    ),
    FaultKind(
        id="pooler-restarted",
        title="pooler restarted",
        what="shuts the pooler down, and starts it again",
        where=Where.POOLER,
        needs=(POOLER,),
        act=service_faults.restart_pooler(kill=False),
    ),
    FaultKind(
        id="pooler-killed",
        title="pooler killed",
        what="kills the pooler with SIGKILL, and starts it again",
        where=Where.POOLER,
        needs=(POOLER,),
        main=True,
        act=service_faults.restart_pooler(kill=True),
    ),
    FaultKind(
        id="pooler-frozen",
        title="pooler frozen",
        what="freezes all processes of the pooler, and thaws them",
        where=Where.POOLER,
        needs=(POOLER,),
        silent=True,
        act=service_faults.freeze(lambda injected: injected.lab.outermost),
    ),
    FaultKind(
        id="pooler-paused",
        title="PAUSE and RESUME",
        what="pauses the database on PgBouncer's console, and resumes it",
        where=Where.POOLER,
        needs=(CONSOLE,),
        main=True,
        silent=True,
        act=console_faults.pause,
    ),
    FaultKind(
        id="pooler-reloaded",
        title="RELOAD",
        what="reloads PgBouncer's configuration from its console",
        where=Where.POOLER,
        needs=(CONSOLE,),
        lasts=False,
        act=console_faults.reload_settings,
    ),
    FaultKind(
        id="pooler-reconnected",
        title="RECONNECT",
        what="makes PgBouncer replace its server connections from its console",
        where=Where.POOLER,
        needs=(CONSOLE,),
        lasts=False,
        act=console_faults.reconnect,
    ),
    FaultKind(
        id="database-killed",
        title="KILL and RESUME",
        what="drops all clients and server connections of the database on PgBouncer's console, and resumes it",
        where=Where.POOLER,
        needs=(CONSOLE,),
        main=True,
        act=console_faults.kill_and_resume,
    ),
    FaultKind(
        id="database-disabled",
        title="DISABLE and ENABLE",
        what="makes PgBouncer refuse new clients of the database from its console, and enables it again",
        where=Where.POOLER,
        needs=(CONSOLE,),
        act=console_faults.disable,
    ),
    FaultKind(
        id="server-link-cut",
        title="network to PostgreSQL cut",
        what="resets all connections between the pooler and PostgreSQL, and every new one",
        where=Where.SERVER_LINK,
        needs=(POOLER,),
        main=True,
        act=link_faults.harm_server_link(CUT),
    ),
    FaultKind(
        id="server-link-black-hole",
        title="network to PostgreSQL: black hole",
        what="forwards nothing between the pooler and PostgreSQL, and keeps their connections open",
        where=Where.SERVER_LINK,
        needs=(POOLER,),
        silent=True,
        act=link_faults.harm_server_link(BLACK_HOLE),
    ),
    FaultKind(
        id="server-link-half-open",
        title="network to PostgreSQL half-open",
        what="forwards what the pooler sends to PostgreSQL, and holds back every answer",
        where=Where.SERVER_LINK,
        needs=(POOLER,),
        main=True,
        silent=True,
        act=link_faults.harm_server_link(HALF_OPEN),
    ),
    FaultKind(
        id="server-link-slow",
        title="network to PostgreSQL slow",
        what="forwards with a delay and a bounded rate between the pooler and PostgreSQL",
        where=Where.SERVER_LINK,
        needs=(POOLER,),
        act=link_faults.harm_server_link(SLOW),
    ),
    FaultKind(
        id="application-link-cut",
        title="network of the application cut",
        what="resets all connections of the application, and every new one",
        where=Where.APPLICATION_LINK,
        main=True,
        act=link_faults.harm_application_link(CUT),
    ),
    FaultKind(
        id="application-link-black-hole",
        title="network of the application: black hole",
        what="forwards nothing between the application and the chain, and keeps the connections open",
        where=Where.APPLICATION_LINK,
        silent=True,
        act=link_faults.harm_application_link(BLACK_HOLE),
    ),
    FaultKind(
        id="application-link-half-open",
        title="network of the application half-open",
        what="forwards what the application sends, and holds back every answer",
        where=Where.APPLICATION_LINK,
        silent=True,
        act=link_faults.harm_application_link(HALF_OPEN),
    ),
    FaultKind(
        id="commit-lost",
        title="connection lost before COMMIT",
        what="resets connections of the application in place of forwarding their COMMIT",
        where=Where.APPLICATION_LINK,
        needs=(TRANSACTION_BLOCKS,),
        main=True,
        act=link_faults.lose_commits("request"),
    ),
    FaultKind(
        id="commit-answer-lost",
        title="connection lost after COMMIT",
        what="forwards a COMMIT, and resets the connection of the application in place of forwarding the answer",
        where=Where.APPLICATION_LINK,
        needs=(TRANSACTION_BLOCKS,),
        main=True,
        act=link_faults.lose_commits("answer"),
    ),
    FaultKind(
        id="disk-full",
        title="disk of the trail full",
        what="fills a small file system that holds the trail, and frees it again",
        where=Where.DISK,
        act=service_faults.fill_disk,
    ),
)
