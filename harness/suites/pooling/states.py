"""The kinds of state that PostgreSQL keeps for a session, and the ways to set, read and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.libpq import extended, simple
from harness.suites.pooling.probes import OBJECTS, SETTINGS, require_open

if TYPE_CHECKING:
    from harness.database import Client


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
    #: the statement with which another client takes the same name, and what it then reads; empty if names cannot collide
    rival: str = ""
    theirs: str = ""
    #: whether `fresh` depends on the configuration of servers and pooler, so that it has to be read
    configurable: bool = False

    def begun(self, client: Client) -> Variant:
        """Set the state, and return the variant with the answer to a client that did not, as it is configured here.

        :raises NotExercisedError: as :meth:`set_up`, or when both answers are equal.
        """
        begun = self
        if self.configurable:
            begun = replace(self, fresh=str(simple(client, self.observe)))
            if begun.fresh == self.mine:
                raise NotExercisedError(f"{self.mine!r} is configured already, so {self.establish!r} changes nothing")
        self.set_up(client)
        return begun

    def set_up(self, client: Client) -> None:
        """Set the state.

        :raises NotExercisedError: when the server or the pooler refuses the statement.
        :raises ConnectionEndedError: when the connection ends.
        """
        answer = (extended if self.by_extended_protocol else simple)(client, self.establish)
        require_open(answer)
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
    return Variant(
        establish.format(name=name, value=value),
        f"SELECT current_setting('{name}')",
        value,
        fresh,
        f"RESET {name}",
        extended_protocol,
        configurable=True,
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
SETTING_VARIANTS = {
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
    SessionState(name="setting", title="SET", group=SETTINGS, variants=SETTING_VARIANTS),
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
            "PREPARE": Variant(
                "PREPARE mine AS SELECT 'mine'",
                "EXECUTE mine",
                "mine",
                "26000",
                "DEALLOCATE mine",
                rival="PREPARE mine AS SELECT 'theirs'",
                theirs="theirs",
            )
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
                rival="CREATE TEMPORARY TABLE secrets ON COMMIT PRESERVE ROWS AS SELECT 'theirs'::text AS word",
                theirs="theirs",
            ),
            "DELETE ROWS": Variant(
                "CREATE TEMPORARY TABLE marks (n integer) ON COMMIT DELETE ROWS",
                "SELECT count(*) FROM marks",
                "0",
                "42P01",
                "DROP TABLE marks",
                rival="CREATE TEMPORARY TABLE marks (n integer) ON COMMIT DELETE ROWS",
                theirs="0",
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
