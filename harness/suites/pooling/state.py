"""Pooling: what a client keeps for its session, whether it keeps it, and whether others get to see it.

Each kind of state is probed twice. *Kept*: its client sets it, then others work, and it looks again, on another
server connection where the pool mode changes them. *Apart*: another client looks, on the same server connection:
while the first is idle, or, in session mode, after it has disconnected. What is left after a disconnect, in every mode,
is `leftovers`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import MOVING, follower, neighbour, pressed, successor
from harness.libpq import extended, simple
from harness.suites.pooling.probes import LEAKS, LOST, OBJECTS, SETTINGS, WRONG, fails, feature, works_here, worst

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client
    from harness.libpq import Reply
    from harness.model import Outcome


class Variant(Struct, frozen=True):
    """One way to bring a state about, and to look at it."""

    establish: str
    observe: str
    #: what its client sees, and what sees who did not bring it about: a value, or an SQLSTATE
    mine: str
    fresh: str
    undo: str
    by_extended_protocol: bool = False

    def bring_about(self, client: Client) -> None:
        answer = (extended if self.by_extended_protocol else simple)(client, self.establish)
        if answer.is_error:
            raise NotExercisedError(f"{self.establish!r} was refused: {answer.sqlstate} {answer.message}")


class SessionState(Struct, frozen=True, kw_only=True):
    """A kind of state that PostgreSQL keeps for a session."""

    name: str
    title: str
    group: str
    variants: dict[str, Variant]
    #: comes as a superuser
    dba: bool = False


def setting(
    name: str, value: str, fresh: str, establish: str = "SET {name} = '{value}'", *, extended_protocol: bool = False
) -> Variant:
    return Variant(
        establish.format(name=name, value=value),
        f"SELECT current_setting('{name}')",
        value,
        fresh,
        f"SET {name} = '{fresh}'",
        extended_protocol,
    )


#: A pooler that follows settings by reading statements has to find them wherever they hide.
_HIDDEN = {
    "SET": setting("statement_timeout", "4242ms", "0"),
    "set_config": setting("lock_timeout", "4242ms", "0", "SELECT pg_catalog.set_config('{name}', '{value}', false)"),
    "in a function": setting(
        "idle_session_timeout", "4242s", "0", "SELECT pooling.set_for_the_session('{name}', '{value}')"
    ),
    "after a comment, among others": setting(
        "work_mem", "4242kB", "4MB", "SELECT 1; /* quietly */ SET {name} TO '{value}'; SELECT 2"
    ),
    "by the extended protocol": setting("random_page_cost", "4.25", "4", extended_protocol=True),
}

STATES = (
    SessionState(name="setting", title="SET", group=SETTINGS, variants=_HIDDEN),
    SessionState(
        name="tracked-settings",
        title="SET of client_encoding, DateStyle, TimeZone, application_name, standard_conforming_strings",
        group=SETTINGS,
        variants={
            "TimeZone": setting("TimeZone", "Asia/Kathmandu", "UTC"),
            "DateStyle": setting("DateStyle", "German, DMY", "ISO, MDY"),
            "client_encoding": setting("client_encoding", "LATIN1", "UTF8"),
            "application_name": setting("application_name", "renamed", "application"),
            "standard_conforming_strings": setting("standard_conforming_strings", "off", "on"),
        },
    ),
    SessionState(
        name="interval-style",
        title="SET IntervalStyle",
        group=SETTINGS,
        variants={"SET": setting("IntervalStyle", "iso_8601", "postgres")},
    ),
    SessionState(
        name="tenant",
        title="tenant of row-level security, as a session setting",
        group=SETTINGS,
        variants={
            "set_config": Variant(
                "SELECT set_config('app.tenant', 't1', false)",
                "SELECT coalesce(string_agg(body, ', '), 'no rows') FROM pooling.tenant_documents",
                "of t1",
                "no rows",
                "SELECT set_config('app.tenant', '', false)",
            )
        },
    ),
    SessionState(
        name="role",
        title="SET ROLE",
        group=SETTINGS,
        variants={
            "SET ROLE": Variant(
                "SET ROLE harness_tenant", "SELECT current_user", "harness_tenant", "harness_app", "RESET ROLE"
            )
        },
    ),
    SessionState(
        name="session-authorization",
        title="SET SESSION AUTHORIZATION",
        group=SETTINGS,
        variants={
            "SET SESSION AUTHORIZATION": Variant(
                "SET SESSION AUTHORIZATION harness_tenant",
                "SELECT session_user",
                "harness_tenant",
                "harness_dba",
                "RESET SESSION AUTHORIZATION",
            )
        },
        dba=True,
    ),
    SessionState(
        name="search-path",
        title="search_path",
        group=SETTINGS,
        variants={
            "another tenant's table": Variant(
                "SET search_path = tenant_a, pooling, public",
                "SELECT owner FROM whose",
                "tenant a",
                "42P01",
                "RESET search_path",
            )
        },
    ),
    SessionState(
        name="read-only",
        title="SET SESSION CHARACTERISTICS READ ONLY",
        group=SETTINGS,
        variants={
            "READ ONLY": Variant(
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "INSERT INTO pooling.notes (body) VALUES ('written') RETURNING body",
                "25006",
                "written",
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            )
        },
    ),
    SessionState(
        name="sql-prepare",
        title="PREPARE and EXECUTE",
        group=OBJECTS,
        variants={
            "PREPARE": Variant("PREPARE mine AS SELECT 'mine'", "EXECUTE mine", "mine", "26000", "DEALLOCATE mine")
        },
    ),
    SessionState(
        name="temp-table",
        title="temporary table",
        group=OBJECTS,
        variants={
            "PRESERVE ROWS": Variant(
                "CREATE TEMPORARY TABLE secrets ON COMMIT PRESERVE ROWS AS SELECT 'secret'::text AS word",
                "SELECT word FROM secrets",
                "secret",
                "42P01",
                "DROP TABLE secrets",
            ),
            "DELETE ROWS": Variant(
                "CREATE TEMPORARY TABLE marks (n integer) ON COMMIT DELETE ROWS",
                "SELECT count(*) FROM marks",
                "0",
                "42P01",
                "DROP TABLE marks",
            ),
        },
    ),
    SessionState(
        name="hold-cursor",
        title="WITH HOLD cursor",
        group=OBJECTS,
        variants={
            "WITH HOLD": Variant(
                "DECLARE pages SCROLL CURSOR WITH HOLD FOR SELECT 'page'",
                "FETCH FIRST FROM pages",
                "page",
                "34000",
                "CLOSE pages",
            )
        },
    ),
    SessionState(
        name="currval",
        title="currval and lastval",
        group=OBJECTS,
        variants={
            "currval": Variant(
                "SELECT setval('pooling.numbers', 6), nextval('pooling.numbers')",
                "SELECT currval('pooling.numbers')::text",
                "7",
                "55000",
                "DISCARD SEQUENCES",
            ),
            "lastval": Variant(
                "SELECT setval('pooling.others', 69), nextval('pooling.others')",
                "SELECT lastval()::text",
                "70",
                "55000",
                "DISCARD SEQUENCES",
            ),
        },
    ),
    SessionState(
        name="load",
        title="LOAD",
        group=OBJECTS,
        variants={
            "LOAD": Variant(
                "LOAD 'auto_explain'",
                "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_nested_statements'",
                "1",
                "0",
                "",
            )
        },
        dba=True,
    ),
)


def _client(ctx: CheckContext, state: SessionState) -> Client:
    return ctx.dba() if state.dba else ctx.plain_client()


def _seen(answer: Reply, variant: Variant, *, mine: Outcome, fresh: Outcome) -> Outcome:
    """Return what was seen: as its client sees it, as anybody else does, an error, or something third."""
    told = str(answer)
    if told == variant.mine:
        return mine
    if told == variant.fresh and fresh == WORKS:
        return fresh
    if answer.is_error:
        return fails(answer)
    return fresh if told == variant.fresh else WRONG


def _kept(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-kept"

    @feature(
        name,
        f"{state.title}: kept by its client",
        group=state.group,
        claim=f"{state.title}: what a client brought about is there at its next statement",
    )
    def probe(ctx: CheckContext) -> Outcome:
        seen = {}
        for way, variant in state.variants.items():
            client = _client(ctx, state)
            variant.bring_about(client)
            with pressed(ctx, client, lambda: _client(ctx, state)):
                if ctx.sabotaged:
                    client = _turned_around(ctx, state, client, variant, there=not works_here(ctx, name))
                answer = simple(client, variant.observe)
            seen[way] = _seen(answer, variant, mine=WORKS, fresh=LOST)
            ctx.fact(way, f"its client saw {answer}, so it {seen[way]}")
            client.close()
        return worst(seen)

    return probe


def _apart(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-apart"

    @feature(
        name,
        f"{state.title}: unseen by others",
        group=state.group,
        claim=f"{state.title}: what one client brought about, another does not get",
    )
    def probe(ctx: CheckContext) -> Outcome:
        seen = {}
        for way, variant in state.variants.items():
            client = _client(ctx, state)
            variant.bring_about(client)
            other = follower(ctx, client, lambda: _client(ctx, state))
            if ctx.sabotaged:
                other = _turned_around(ctx, state, other, variant, there=works_here(ctx, name))
            answer = simple(other, variant.observe)
            seen[way] = _seen(answer, variant, mine=LEAKS, fresh=WORKS)
            ctx.fact(way, f"another client saw {answer}, so it {seen[way]}")
            if ctx.mode in MOVING:  # the next variant begins on a clean server connection
                simple(other, variant.undo)
            client.close()
            other.close()
        return worst(seen)

    return probe


def _turned_around(ctx: CheckContext, state: SessionState, client: Client, variant: Variant, *, there: bool) -> Client:
    """Bring a state about where it is not, or end it where it is: a pooler that does what it does not document."""
    if there or variant.undo:
        _turn_around(client, variant, there=there)
        return client
    # it cannot be undone, so its server connection ends
    ctx.admin.value("SELECT pg_terminate_backend(%s, 1000)", [client.server_pid()])
    client.close()
    return _client(ctx, state)


def _turn_around(client: Client, variant: Variant, *, there: bool) -> None:
    if not there:
        simple(client, variant.undo)
        return
    with contextlib.suppress(NotExercisedError):
        variant.bring_about(client)


KEPT_AND_APART = tuple(each for state in STATES for pair in (_kept(state), _apart(state)) for each in pair)


def _collides(state: SessionState) -> tuple[Check, Control]:
    """Two clients give what they bring about the same name, as the same code in two workers does."""
    name = f"{state.name}-collides"

    @feature(
        name,
        f"{state.title}: a name that another client uses too",
        group=state.group,
        claim=f"{state.title}: two clients can each have one of the same name",
    )
    def probe(ctx: CheckContext) -> Outcome:
        seen = {}
        for way, variant in state.variants.items():
            client = _client(ctx, state)
            variant.bring_about(client)
            other = neighbour(ctx, client, _client(ctx, state))
            if ctx.sabotaged:
                _turn_around(other, variant, there=works_here(ctx, name))
            answer = simple(other, variant.establish)
            seen[way] = fails(answer) if answer.is_error else WORKS
            if ctx.mode in MOVING:
                simple(other, variant.undo)
            client.close()
            other.close()
        return worst(seen)

    return probe


COLLIDING = tuple(each for state in STATES if state.name in {"sql-prepare", "temp-table"} for each in _collides(state))


@feature(
    "leftovers",
    "what a client leaves when it disconnects",
    group=SETTINGS,
    claim="settings, temporary tables and locks of a client are gone when it has disconnected",
)
def leftovers(ctx: CheckContext) -> Outcome:
    ways = {
        "a setting": _HIDDEN["SET"],
        "a temporary table": next(each for each in STATES if each.name == "temp-table").variants["PRESERVE ROWS"],
        "an advisory lock": Variant(
            "SELECT pg_advisory_lock(42)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            "1",
            "0",
            "SELECT pg_advisory_unlock_all()",
        ),
    }

    first = ctx.plain_client()
    for variant in ways.values():
        variant.bring_about(first)
    answers = _look(ctx, successor(ctx, first), ways)
    seen = {}
    for way, answer in answers.items():
        seen[way] = _seen(answer, ways[way], mine=LEAKS, fresh=WORKS)
        ctx.fact(way, f"the next client saw {answer}, so it {seen[way]}")
    return worst(seen)


def _look(ctx: CheckContext, other: Client, ways: dict[str, Variant]) -> dict[str, Reply]:
    if ctx.sabotaged:
        for variant in ways.values():
            _turn_around(other, variant, there=works_here(ctx, "leftovers"))
    return {way: simple(other, variant.observe) for way, variant in ways.items()}
