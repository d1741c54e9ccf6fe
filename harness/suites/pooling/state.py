"""Pooling: session state: whether it persists for its client, and whether it leaks to other clients.

Two probes cover each kind of state. `…-kept`: a client sets the state, other clients work, and the client reads the
state again, on another server connection if the pool mode moves clients. `…-apart`: another client reads the state on
the same server connection, while the first client is idle or, in session mode, after the first client disconnected.
`leftovers` covers the state that remains after a disconnect, in every pool mode.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import MOVING, follower, neighbour, pressed, successor
from harness.libpq import extended, simple
from harness.suites.pooling.probes import LEAKS, LOST, OBJECTS, SETTINGS, WRONG, fails, probe, works_here, worst

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client
    from harness.libpq import Reply
    from harness.model import Outcome


class Variant(Struct, frozen=True):
    """One way to set a state and to read it."""

    #: the statement that sets the state, and the one that reads it
    establish: str
    observe: str
    #: the answer to a client that set the state, and to one that did not: a value or an SQLSTATE
    mine: str
    fresh: str
    #: the statement that removes the state; empty if none can
    undo: str
    by_extended_protocol: bool = False

    def set_up(self, client: Client) -> None:
        """Set the state.

        :raises NotExercisedError: when the server or the pooler refuses the statement.
        """
        answer = (extended if self.by_extended_protocol else simple)(client, self.establish)
        if answer.is_error:
            raise NotExercisedError(f"{self.establish!r} was refused: {answer.sqlstate} {answer.message}")


class SessionState(Struct, frozen=True, kw_only=True):
    """A kind of state that PostgreSQL keeps for a session."""

    name: str
    title: str
    group: str
    variants: dict[str, Variant]
    #: its clients connect as a superuser
    dba: bool = False


def setting(
    name: str, value: str, fresh: str, establish: str = "SET {name} = '{value}'", *, extended_protocol: bool = False
) -> Variant:
    """Return the variant of a setting. A client that reads the server's own default reads it as `fresh`."""
    return Variant(
        establish.format(name=name, value=value),
        f"SELECT CASE setting WHEN reset_val THEN '{fresh}' ELSE current_setting('{name}') END"
        f" FROM pg_catalog.pg_settings WHERE name = '{name}'",
        value,
        fresh,
        f"RESET {name}",
        extended_protocol,
    )


#: PgBouncer can add the client's address at the start of a connection (application_name_add_host)
_APPLICATION_NAME = Variant(
    "SET application_name = 'renamed'",
    "SELECT split_part(current_setting('application_name'), ' - ', 1)",
    "renamed",
    "application",
    "SET application_name = 'application'",
)

#: ways to change a setting that a pooler can miss if it tracks settings by parsing statements
_SETTING_VARIANTS = {
    "SET": setting("statement_timeout", "4242ms", "0"),
    "set_config": setting("lock_timeout", "4242ms", "0", "SELECT pg_catalog.set_config('{name}', '{value}', false)"),
    "in a function": setting(
        "idle_session_timeout", "4242s", "0", "SELECT pooling.set_for_the_session('{name}', '{value}')"
    ),
    "after a comment, among other statements": setting(
        "work_mem", "4242kB", "4MB", "SELECT 1; /* quietly */ SET {name} TO '{value}'; SELECT 2"
    ),
    "by the extended protocol": setting("random_page_cost", "4.25", "4", extended_protocol=True),
}

STATES = (
    SessionState(name="setting", title="SET", group=SETTINGS, variants=_SETTING_VARIANTS),
    SessionState(
        name="tracked-settings",
        title="SET of client_encoding, DateStyle, TimeZone, application_name, standard_conforming_strings",
        group=SETTINGS,
        variants={
            "TimeZone": setting("TimeZone", "Asia/Kathmandu", "UTC"),
            "DateStyle": setting("DateStyle", "German, DMY", "ISO, MDY"),
            "client_encoding": setting("client_encoding", "LATIN1", "UTF8"),
            "application_name": _APPLICATION_NAME,
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
        title="row-level security tenant as a session setting",
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


def _outcome(answer: Reply, variant: Variant, *, mine: Outcome, fresh: Outcome) -> Outcome:
    """Return the outcome of reading a state.

    :param mine: the outcome if the state is present, as for the client that set it.
    :param fresh: the outcome if the state is absent, as for any other client. Unless it is *works*, an SQLSTATE that
        shows the absence gives the outcome *fails*.
    """
    observed = str(answer)
    if observed == variant.mine:
        return mine
    if observed == variant.fresh and fresh == WORKS:
        return fresh
    if answer.is_error:
        return fails(answer)
    return fresh if observed == variant.fresh else WRONG


def _kept(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-kept"

    @probe(
        name,
        f"{state.title}: persists for its client",
        group=state.group,
        claim=f"{state.title}: the state that a client sets is present at the client's next statement",
    )
    def persists(ctx: CheckContext) -> Outcome:
        outcomes = {}
        for label, variant in state.variants.items():
            client = _client(ctx, state)
            variant.set_up(client)
            with pressed(ctx, client, lambda: _client(ctx, state)):
                if ctx.sabotaged:
                    client = _sabotaged_client(ctx, state, client, variant, present=not works_here(ctx, name))
                answer = simple(client, variant.observe)
            outcomes[label] = _outcome(answer, variant, mine=WORKS, fresh=LOST)
            ctx.fact(label, f"the client that set it observed {answer}: {outcomes[label]}")
            client.close()
        return worst(outcomes)

    return persists


def _apart(state: SessionState) -> tuple[Check, Control]:
    name = f"{state.name}-apart"

    @probe(
        name,
        f"{state.title}: isolated from other clients",
        group=state.group,
        claim=f"{state.title}: the state that one client sets never reaches another client",
    )
    def isolated(ctx: CheckContext) -> Outcome:
        outcomes = {}
        for label, variant in state.variants.items():
            client = _client(ctx, state)
            variant.set_up(client)
            other = follower(ctx, client, lambda: _client(ctx, state))
            if ctx.sabotaged:
                other = _sabotaged_client(ctx, state, other, variant, present=works_here(ctx, name))
            answer = simple(other, variant.observe)
            outcomes[label] = _outcome(answer, variant, mine=LEAKS, fresh=WORKS)
            ctx.fact(label, f"another client observed {answer}: {outcomes[label]}")
            if ctx.mode in MOVING:  # the next variant begins on a clean server connection
                simple(other, variant.undo)
            client.close()
            other.close()
        return worst(outcomes)

    return isolated


def _sabotaged_client(
    ctx: CheckContext, state: SessionState, client: Client, variant: Variant, *, present: bool
) -> Client:
    """Set or remove a state, as a pooler that contradicts its documentation would, and return the client to use.

    :param present: whether the state is to be present afterwards.
    """
    if present or variant.undo:
        _sabotage(client, variant, present=present)
        return client
    # nothing undoes this state, so end its server connection
    ctx.admin.value("SELECT pg_terminate_backend(%s, 1000)", [client.server_pid()])
    client.close()
    return _client(ctx, state)


def _sabotage(client: Client, variant: Variant, *, present: bool) -> None:
    if not present:
        simple(client, variant.undo)
        return
    with contextlib.suppress(NotExercisedError):
        variant.set_up(client)


KEPT_AND_APART = tuple(declared for state in STATES for pair in (_kept(state), _apart(state)) for declared in pair)


def _collides(state: SessionState) -> tuple[Check, Control]:
    """Probe two clients that use the same name, as the same code in two workers does."""
    name = f"{state.name}-collides"

    @probe(
        name,
        f"{state.title}: same name in two clients",
        group=state.group,
        claim=f"{state.title}: two clients can use the same name at the same time",
    )
    def same_name(ctx: CheckContext) -> Outcome:
        outcomes = {}
        for label, variant in state.variants.items():
            client = _client(ctx, state)
            variant.set_up(client)
            other = neighbour(ctx, client, _client(ctx, state))
            if ctx.sabotaged:
                _sabotage(other, variant, present=works_here(ctx, name))
            answer = simple(other, variant.establish)
            outcomes[label] = fails(answer) if answer.is_error else WORKS
            if ctx.mode in MOVING:
                simple(other, variant.undo)
            client.close()
            other.close()
        return worst(outcomes)

    return same_name


COLLIDING = tuple(
    declared for state in STATES if state.name in {"sql-prepare", "temp-table"} for declared in _collides(state)
)


@probe(
    "leftovers",
    "state left behind by a client that disconnected",
    group=SETTINGS,
    claim="when a client disconnects, its settings, temporary tables and locks are removed",
)
def leftovers(ctx: CheckContext) -> Outcome:
    variants = {
        "a setting": _SETTING_VARIANTS["SET"],
        "a temporary table": next(state for state in STATES if state.name == "temp-table").variants["PRESERVE ROWS"],
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
    for variant in variants.values():
        variant.set_up(first)
    answers = _observe(ctx, successor(ctx, first), variants)
    outcomes = {}
    for label, answer in answers.items():
        outcomes[label] = _outcome(answer, variants[label], mine=LEAKS, fresh=WORKS)
        ctx.fact(label, f"the next client observed {answer}: {outcomes[label]}")
    return worst(outcomes)


def _observe(ctx: CheckContext, other: Client, variants: dict[str, Variant]) -> dict[str, Reply]:
    if ctx.sabotaged:
        for variant in variants.values():
            _sabotage(other, variant, present=works_here(ctx, "leftovers"))
    return {label: simple(other, variant.observe) for label, variant in variants.items()}
