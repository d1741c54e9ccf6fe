"""The tables of a load, the comparison of its writes with table and trail, and what it may leave behind."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.audit.actor import Actor
from harness.audit.actor_convention import IdType
from harness.audit.target_file import Recorded
from harness.checks.judges import soak
from harness.checks.judges.soak import Found, SoakState
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import Capability
from harness.database import Client, load_queries
from harness.errors import TimedOutError
from harness.lab.effective import declared_limits, effective_limits, number
from harness.lab.effective import most_clients as admitted
from harness.model import PoolMode
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext

TABLE = "public.soak_writes"
#: what a trail has to record for any comparison with it
COMPARED = (Recorded.INSERTS, Recorded.IMAGE)
#: after all clients have ended: a pooler resets its server connections, and the server ends its processes
_SETTLES_S = 12.0
_SHOWN = 5
#: clients where a pooler has no limit that they must respect
MOST_CLIENTS = 16


@cache
def queries() -> dict[str, str]:
    """Return the statements of the suite by name."""
    return load_queries(Path(__file__).with_name("load.sql"))


def actor_of(client: int | str) -> Actor:
    """Return the actor of a client of a load."""
    return Actor("user", f"soak-{client}")


def prepare(ctx: CheckContext) -> None:
    """Create the tables of the load and attach the trail, unless they exist: a control may come first."""
    if ctx.target.actor.ids is not IdType.TEXT:
        raise NotApplicableError("the actors of the load have ids that are texts, and those of the trail are not")
    if ctx.owner.value("SELECT to_regclass(%s)", [TABLE]):
        return
    ctx.owner.run(queries()["tables"])
    ctx.target.attach(ctx.owner, TABLE)
    ctx.admin.run(queries()["observation"])


def most_clients(ctx: CheckContext) -> int:
    """Return how many clients a load may have: the pooler admits them, and in session mode each has a server connection."""
    evidence = ctx.lab.evidence
    limits = effective_limits(evidence) or declared_limits(ctx.topology)
    served = limits.largest if limits and ctx.mode is PoolMode.SESSION else MOST_CLIENTS
    return min(MOST_CLIENTS, served, admitted(evidence) or MOST_CLIENTS)


#: settings of poolers and of PostgreSQL that end a client because it is idle; 0 is off
_END_IDLE_CLIENTS = ("client_idle_timeout", "client_idle_limit", "idle_session_timeout")


IDLE_CLIENTS = Capability(
    "clients that may be idle",
    "a setting of the chain ends idle clients, so the load has none",
    lambda topology: (
        not any(
            name in _END_IDLE_CLIENTS and not _is_off(value)
            for declared in (topology.postgres, topology.pooler)
            if declared
            for name, value in declared.settings.items()
        )
    ),
)


def ends_idle_clients(ctx: CheckContext) -> str:
    """Return the setting of the chain that ends idle clients, with its value; "" if there is none."""
    for service in ctx.lab.evidence.services:
        for name in _END_IDLE_CLIENTS:
            if (value := service.settings.get(name, "").strip()) and not _is_off(value):
                return f"{name} = {value}"
    return ""


def _is_off(value: str) -> bool:
    return number(value) == 0 or value in {"off", "0s", "0ms"}


class Sizes(Struct, frozen=True, kw_only=True):
    """What a load uses of the server."""

    trail_bytes: int
    database_bytes: int
    #: None where it cannot be read
    memory_kib: int | None
    connections: int


def sizes(ctx: CheckContext) -> Sizes:
    """Return what the server holds now."""
    trail = sum(ctx.admin.value("SELECT pg_total_relation_size(%s::regclass)", [table]) for table in ctx.target.tables)
    memory = ctx.admin.value(queries()["memory"])
    return Sizes(
        trail_bytes=trail,
        database_bytes=ctx.admin.value(queries()["size"]),
        memory_kib=None if memory is None else int(memory),
        connections=connections(ctx),
    )


def connections(ctx: CheckContext) -> int:
    """Return how many sessions the application has at the server."""
    return int(ctx.admin.value(queries()["connections"], [ctx.lab.roles.app.name]))


def end_blocked(ctx: CheckContext) -> tuple[str, ...]:
    """End the sessions of the application that wait for a lock, and return who waits for whom.

    The caller has waited long after the end of the load. However slow the machine is, a lock is held then that no client
    of the load gives back by itself.
    """
    blocked = ctx.admin.rows(queries()["blocked"], [ctx.lab.roles.app.name])
    for pid, _ in blocked:
        ctx.admin.run("SELECT pg_terminate_backend(%s)", [pid])
    return tuple(shown for _, shown in blocked)


def compare(ctx: CheckContext, blocked: tuple[str, ...], idle: Found | None = None) -> SoakState:
    """Compare all writes of the load with table and trail, once every client has ended.

    :param blocked: from :func:`end_blocked`.
    :param idle: idle clients that no longer work; None for a load without any.
    """
    sessions = _left_sessions(ctx)
    prepared = [gid for (gid,) in ctx.admin.rows(queries()["left_prepared"])]
    found, outcomes = compare_rows(ctx.admin, ctx.target)
    found[soak.BLOCKED] = Found(count=len(blocked), first=blocked[:_SHOWN])
    found[soak.SESSIONS] = Found(count=len(sessions), first=tuple(sessions[:_SHOWN]))
    found[soak.PREPARED] = Found(count=len(prepared), first=tuple(prepared[:_SHOWN]))
    if idle is not None:
        found[soak.IDLE] = idle
    unknown = outcomes.get("unknown", 0)
    ctx.fact("unknown", f"{unknown}, {ctx.admin.value(queries()['unknown_there'])} of them there")
    ctx.fact("failed", outcomes.get("fail", 0))
    return SoakState(
        acknowledged=outcomes.get("ok", 0),
        failed=outcomes.get("fail", 0),
        unknown=unknown,
        found=found,
    )


def compare_rows(admin: Client, target: AuditTarget) -> tuple[dict[str, Found], dict[str, int]]:
    """Return what is wrong with rows and changes, and the number of writes by outcome."""
    found: dict[str, Found] = {name: Found() for name in soak.FINDINGS if name != soak.IDLE}
    admin.run(queries()["room"])
    # without statistics, the server would look up each of a million rows in an index
    admin.run(f"ANALYZE {', '.join(target.tables)}")
    with target.within_a_query():
        admin.run(_filled("changes", changes=target.changes_query(admin)))
    admin.run(queries()["matched"])
    admin.run(queries()["tally"])
    for name in ("found_in_writes", "found_in_changes"):
        for finding, count, first in admin.rows(_filled(name, **_NAMES)):
            before = found[finding]
            found[finding] = Found(count=before.count + count, first=(*before.first, *first)[:_SHOWN])
    [(count, first)] = admin.rows(queries()["found_in_transactions"])
    found[soak.SHARED] = Found(count=count, first=tuple(first or ()))
    for property_, finding in _SHOWN_BY.items():
        if not target.records(property_):
            del found[finding]
    return found, dict(admin.rows(queries()["outcomes"]))


#: what a trail may lack: nothing is compared then
_SHOWN_BY = {
    Recorded.ACTOR: soak.ACTORS,
    Recorded.ORDER: soak.ORDER,
    Recorded.TRANSACTION_ID: soak.SHARED,
}
_NAMES = {
    "missing_rows": soak.MISSING_ROWS,
    "missing_changes": soak.MISSING_CHANGES,
    "repeated_rows": soak.REPEATED_ROWS,
    "repeated_changes": soak.REPEATED_CHANGES,
    "failed_rows": soak.FAILED_ROWS,
    "strays": soak.STRAYS,
    "disagreeing": soak.DISAGREEING,
    "images": soak.IMAGES,
    "actors": soak.ACTORS,
    "order": soak.ORDER,
}


def _filled(name: str, **values: str) -> str:
    statement = queries()[name]
    for key, value in values.items():
        statement = statement.replace(f"{{{key}}}", value)
    return statement


def _left_sessions(ctx: CheckContext) -> list[str]:
    """Return the sessions that clients of the load left with a lock or a transaction, once the server has settled.

    :raises NotExercisedError: when a session still runs a statement: the machine is slow, and nothing is known.
    """

    def look() -> list[Any]:
        parameters = [ctx.lab.roles.app.name, ctx.topology.pooler is not None]
        return ctx.admin.rows(queries()["left_sessions"], parameters)

    def settled() -> None:
        if left := look():
            raise NotYet("; ".join(shown for _, shown in left[:_SHOWN]))

    try:
        poll(settled, what="the end of the clients' sessions", deadline_s=_SETTLES_S, interval_s=0.05)
    except TimedOutError as error:
        left = look()
        if any(state == "active" for state, _ in left):
            raise NotExercisedError(error.what) from None
        return [shown for _, shown in left]
    return []


def record_growth(ctx: CheckContext, before: Sizes, writes: int) -> None:
    """Record what the load added to the server, and what stays of it, as facts."""
    after = sizes(ctx)
    ctx.fact("trail bytes per write", round((after.trail_bytes - before.trail_bytes) / max(writes, 1)))
    ctx.fact("database MiB before and after", f"{_mib(before.database_bytes)} and {_mib(after.database_bytes)}")
    if before.memory_kib is not None and after.memory_kib is not None:
        ctx.fact(
            "server memory MiB before and after",
            f"{before.memory_kib / 1024:.1f} and {after.memory_kib / 1024:.1f}",
        )
    ctx.fact("server connections before and after", f"{before.connections} and {after.connections}")


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"
