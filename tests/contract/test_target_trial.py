"""Trails of many designs: what a target file can say about them, and what a trial finds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from harness.audit import statements, trial
from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.target_loading import load_target
from harness.checks import provisioning
from harness.checks.claims import unjudged_claims
from harness.checks.execution import run_check
from harness.checks.workspace import _TEMPLATE, Workspace
from harness.cli.planning import planned
from harness.database import drop_database
from harness.engine.owner import Owner
from harness.errors import DatabaseError
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites import target_trial
from harness.suites.actors import ADA, BOB
from harness.suites.catalogue import catalogue
from harness.suites.claim_trials import try_claims
from harness.suites.target_trial import try_writes
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

DIRECT = load_topologies()["direct"]
CHECKS = {check.id: check for check in catalogue().checks}

SQL = """
CREATE SCHEMA trail;
CREATE TABLE trail.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tx text DEFAULT pg_current_xact_id()::text, who text DEFAULT nullif(current_setting('app.who', true), ''),
    kind text DEFAULT nullif(current_setting('app.kind', true), ''), s text, t text, op text, before json, after json
);
CREATE FUNCTION trail.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO trail.log (s, t, op, before, after) VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN to_json(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_json(NEW) END);
    RETURN NULL;
END $$;
"""
ATTACH = """
CREATE OR REPLACE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
EXECUTE FUNCTION trail.capture()"""
CHANGES = """
SELECT id, tx AS transaction_id, s AS table_schema, t AS table_name,
       json_build_object('id', coalesce(after, before) -> 'id') AS table_pk, lower(op) AS op, after AS data_after,
       json_build_object('type', kind, 'id', who) AS actor, at AS captured_at
FROM trail.log ORDER BY id"""
SETTINGS = 'settings = { "app.who" = "{id}", "app.kind" = "{type}" }'


def toml(*, actor: str = SETTINGS, attach: str = ATTACH, changes: str = CHANGES, keys: str = "", more: str = "") -> str:
    """Return a target file."""
    return f'''
summary = "mine"
install = ["mine.sql"]
tables = ["trail.log"]
{keys}
{f"[actor]{chr(10)}{actor}" if actor else ""}
[statements]
attach = """{attach}"""
changes = """{changes}"""
{more}
'''


@pytest.fixture(scope="module")
def server(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, DIRECT, Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture
def provisioned(server: Lab, tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """Return a function that provisions the trail of a target file and its SQL."""
    made: list[Workspace] = []

    def provision(text: str, sql: str = SQL) -> Workspace:
        (tmp_path / "mine.toml").write_text(text)
        (tmp_path / "mine.sql").write_text(sql)
        made.append(Workspace(server, load_target(str(tmp_path / "mine.toml")), catalogue().fixtures))
        return made[-1]

    yield provision
    for workspace in made:
        workspace.close()
    with server.connect_admin() as admin:
        drop_database(admin, _TEMPLATE)


def missing(workspace: Workspace) -> dict[Recorded, str]:
    found = workspace.target.trial
    assert found
    return found.missing


def judged(workspace: Workspace, identity: str) -> tuple[Status, str]:
    result = run_check(CHECKS[identity], planned("direct", CHECKS[identity], ""), DIRECT, workspace)
    return result.status, result.reason


def wrong(workspace: Workspace) -> list[str]:
    """Return what `target try` names for a trail."""
    with workspace.context("target.try") as ctx:
        found = try_writes(ctx, lambda _tried: None)
    with workspace.context("target.claims") as ctx:
        return [*found, *try_claims(ctx).values()]


# --- installing -------------------------------------------------------------------------------------------

#: as dumps begin
_DUMPED = "SET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n"


def test_settings_of_a_dump_end_with_the_installation(provisioned: Callable[..., Workspace]) -> None:
    workspace = provisioned(
        toml(more='transactions = "SELECT count(*) FROM plain"'), f"{_DUMPED}{SQL}CREATE TABLE public.plain ();"
    )
    assert missing(workspace) == {}


def test_an_installation_that_never_ends_names_its_file_and_the_deadline(
    provisioned: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "_LONGEST_INSTALL_S", 0.5)
    with pytest.raises(DatabaseError, match=r"mine\.sql: this SQL did not end within 0\.5 s$"):
        provisioned(toml(), f"{_DUMPED}\nSELECT pg_sleep(60);\nSELECT 1;")


def test_an_installation_after_which_no_table_can_be_created_names_the_target(
    provisioned: Callable[..., Workspace],
) -> None:
    with pytest.raises(DatabaseError, match=r"mine\.toml: with the trail installed, .*: 3F000 schema .public. does not"):
        provisioned(toml(keys='install_as = "superuser"'), f"{SQL}DROP SCHEMA public CASCADE;")


def test_times_are_read_from_a_role_with_another_date_style(
    provisioned: Callable[..., Workspace], server: Lab
) -> None:
    with server.connect_admin() as admin:
        admin.run("ALTER ROLE ALL SET DateStyle = 'SQL, DMY'")
        try:
            workspace = provisioned(toml())
            assert missing(workspace) == {}
            assert judged(workspace, "capture.times") == (Status.OK, "")
        finally:
            admin.run("ALTER ROLE ALL RESET DateStyle")


_SWALLOWS = """
    LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;
    INSERT INTO trail.log"""


def test_a_capture_that_catches_its_cancellation_loses_its_connection(
    provisioned: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_LONGEST_S", 0.3)
    monkeypatch.setattr(target_trial, "LONGEST_S", 0.3)
    workspace = provisioned(toml(), SQL.replace("INSERT INTO trail.log", _SWALLOWS.strip(), 1))
    assert missing(workspace) == {Recorded.INSERTS: "the audited insert did not end within 0.3 s"}
    with pytest.raises(DatabaseError, match=r"mine\.toml: the insert did not end .*; nothing else is tried$"):
        wrong(workspace)


_PURGE = """
CREATE PROCEDURE trail.purge(cutoff timestamptz) LANGUAGE plpgsql AS
'BEGIN DELETE FROM trail.log WHERE at < cutoff; COMMIT; END';
"""


def test_a_purge_may_commit_and_an_age_is_an_interval(provisioned: Callable[..., Workspace]) -> None:
    statements = 'purge = "CALL trail.purge(%(cutoff)s)"\nage = "UPDATE trail.log SET at = at - %(age)s"'
    workspace = provisioned(toml(keys='claims = ["retention"]', more=statements), SQL + _PURGE)
    assert wrong(workspace) == []
    assert judged(workspace, "retention.boundary") == (Status.OK, "")


# --- conventions -------------------------------------------------------------------------------------------

_BEGIN = """
CREATE TABLE trail.started (tx text PRIMARY KEY DEFAULT pg_current_xact_id()::text, who {type}, kind text);
CREATE FUNCTION trail.begin(kind text, who {type}) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS 'INSERT INTO trail.started (who, kind) VALUES ($2, $1)';
GRANT USAGE ON SCHEMA trail TO PUBLIC; GRANT INSERT ON trail.started TO harness_app;
"""
_JOINED = CHANGES.replace(
    "json_build_object('type', kind, 'id', who) AS actor",
    "(SELECT json_build_object('type', kind, 'id', who) FROM trail.started b WHERE b.tx = l.tx) AS actor",
).replace("FROM trail.log", "FROM trail.log l")
_INSERTED = "declare = 'INSERT INTO trail.started (who, kind) VALUES ({id}, {type})'"
_CALLED = "declare = 'SELECT trail.begin({type}, {id})'"


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        (toml(), SQL),
        (toml(actor=f'{SETTINGS}\nscope = "session"'), SQL),
        (toml(actor=f'{SETTINGS}\nids = "integer"'), SQL.replace("who text DEFAULT nullif(", "who int DEFAULT (").replace("true), ''),\n    kind", "true))::int,\n    kind")),
        (toml(actor='setting = "application_name"\nvalue = "id"', changes=CHANGES.replace("'type', kind, 'id', who", "'type', 'user', 'id', who")), SQL.replace("app.who", "application_name")),
        (toml(actor=_INSERTED, changes=_JOINED), SQL + _BEGIN.format(type="text")),
        (toml(actor=f'{_CALLED}\nids = "uuid"', changes=_JOINED), SQL + _BEGIN.format(type="uuid")),
        (toml(actor=f'{_CALLED}\nids = "integer"', changes=_JOINED), SQL + _BEGIN.format(type="bigint")),
    ],
    ids=["settings", "session", "integer", "built-in", "inserted-row", "function-uuid", "function-integer"],
)  # fmt: skip
def test_an_actor_is_declared_and_read_back(provisioned: Callable[..., Workspace], text: str, sql: str) -> None:
    workspace = provisioned(text, sql)
    assert missing(workspace) == {}
    assert wrong(workspace) == []
    with workspace.context("any.check") as ctx:
        client = ctx.client()
        for actor, slug in ((ADA, "of ada"), (BOB, "of bob")):
            ctx.write(client, actor, slug)
            assert ctx.actor_of(slug) == actor.reference


_LIMIT = '[[limits]]\ncheck = "trail.actor"\nsays = "it records no actor"\nwhere = "#actors"\n'


@pytest.mark.parametrize(
    ("limit", "status", "said"),
    [(_LIMIT, Status.OK, ""), ("", Status.ISSUE, "no entry for trail.actor among the `limits` of the target file")],
    ids=["documented", "not documented"],
)
def test_what_a_trail_omits_by_design_is_shown_once(
    provisioned: Callable[..., Workspace], limit: str, status: Status, said: str
) -> None:
    changes = CHANGES.replace("json_build_object('type', kind, 'id', who) AS actor", "NULL AS actor")
    keys = 'omits = ["actor"]\ndocumentation = "audit.md"'
    workspace = provisioned(toml(actor="", changes=changes, keys=keys, more=limit))
    assert missing(workspace) == {}
    assert wrong(workspace) == []
    result = run_check(CHECKS["trail.actor"], planned("direct", CHECKS["trail.actor"], ""), DIRECT, workspace)
    assert result.status is status
    assert said in result.reason
    assert (result.limit.source if result.limit else "") == ("audit.md#actors" if limit else "")
    assert workspace.target.lacking(Recorded.ACTOR) == Recorded.ACTOR.omitted


def test_what_a_trail_omits_and_records_is_an_issue(provisioned: Callable[..., Workspace]) -> None:
    limit = _LIMIT.replace("trail.actor", "trail.{0}")
    limits = "".join(limit.format(omitted) for omitted in ("updates", "image", "order"))
    workspace = provisioned(toml(keys='omits = ["updates", "image", "order"]', more=limits))
    for omitted, words in (("updates", "updates"), ("image", "the row after the change")):
        assert judged(workspace, f"trail.{omitted}") == (
            Status.ISSUE,
            f"{words}, which `omits` has: expected not recorded, observed recorded",
        )
    assert judged(workspace, "trail.order") == (Status.OK, "")  # an order that a few changes have is no promise


def test_a_trail_may_refuse_a_truncate(provisioned: Callable[..., Workspace]) -> None:
    refuse = "CREATE FUNCTION trail.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';"
    attach = f"{ATTACH}; CREATE OR REPLACE TRIGGER keep BEFORE TRUNCATE ON {{table}} EXECUTE FUNCTION trail.refuse()"
    assert wrong(provisioned(toml(attach=attach), SQL + refuse)) == []


def test_claims_are_tried_with_what_the_trail_records(provisioned: Callable[..., Workspace]) -> None:
    changes = CHANGES.replace("FROM trail.log", "FROM trail.log WHERE op <> 'INSERT'")
    keys = 'omits = ["inserts"]\nclaims = ["actor-types", "partitions"]'
    workspace = provisioned(toml(changes=changes, keys=keys))
    unjudged = unjudged_claims(CHECKS.values(), workspace.target)
    assert unjudged == [TrailFeature.PARTITIONS]
    with workspace.context("target.claims") as ctx:
        assert try_claims(ctx, unjudged) == {}


# --- where the rows are --------------------------------------------------------------------------------------

#: one history table for each audited table, made when it is attached; each row has a range of validity
_HISTORY_SQL = """
CREATE SCHEMA trail;
CREATE FUNCTION trail.version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('UPDATE trail.%I SET valid = tstzrange(lower(valid), clock_timestamp()) '
                   'WHERE upper_inf(valid) AND row ->> ''id'' = $1', TG_ARGV[0]) USING to_jsonb(coalesce(OLD, NEW)) ->> 'id';
    EXECUTE format('INSERT INTO trail.%I (op, who, row) VALUES ($1, nullif(current_setting(''app.who'', true), ''''), $2)',
                   TG_ARGV[0]) USING TG_OP, to_jsonb(coalesce(NEW, OLD));
    RETURN NULL;
END $$;
"""
_HISTORY = '''
summary = "a history table for each table"
install = ["mine.sql"]
[actor]
setting = "app.who"
value = "id"
[statements]
attach = """
CREATE TABLE IF NOT EXISTS trail.{name+_history} (
    id bigint GENERATED ALWAYS AS IDENTITY, tx text DEFAULT pg_current_xact_id()::text, op text, who text, row jsonb,
    valid tstzrange NOT NULL DEFAULT tstzrange(clock_timestamp(), NULL));
COMMENT ON TABLE trail.{name+_history} IS {table_literal};
CREATE OR REPLACE TRIGGER version AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
EXECUTE FUNCTION trail.version('DOUBLED')"""
grant = "GRANT USAGE ON SCHEMA trail TO {role}; GRANT SELECT ON trail.{name+_history} TO {role}"
tables = "SELECT schemaname AS schema, tablename AS name FROM pg_tables WHERE schemaname = 'trail'"
each = """
SELECT c.relnamespace::regnamespace::text AS schema, c.relname AS name, h.relname AS history
FROM pg_class h JOIN pg_class c ON c.oid = obj_description(h.oid)::regclass
WHERE h.relnamespace = 'trail'::regnamespace AND h.relkind = 'r'"""
changes = """
SELECT id, tx AS transaction_id, {schema_literal} AS table_schema, {name_literal} AS table_name,
       jsonb_build_object('id', row -> 'id') AS table_pk, op, CASE WHEN op <> 'DELETE' THEN row END AS data_after,
       CASE WHEN who IS NOT NULL THEN jsonb_build_object('type', 'user', 'id', who) END AS actor,
       lower(valid) AS captured_at, lower(valid) AS position
FROM trail.{history}"""
'''.replace("'DOUBLED'", "{name+_history}")


def test_each_audited_table_may_have_a_history_table(provisioned: Callable[..., Workspace]) -> None:
    workspace = provisioned(_HISTORY, _HISTORY_SQL)
    assert missing(workspace) == {}
    assert wrong(workspace) == []
    assert '"trail"."posts_history"' in workspace.target.tables
    assert '"trail"."Order ""Items""_history"' in workspace.target.tables
    with workspace.context("any.check") as ctx:
        client = ctx.client()
        with ctx.audited(client, ADA):
            client.run("INSERT INTO public.authors VALUES ('a', 'x')")
            ctx.insert_post(client, "second")
            client.run("UPDATE public.authors SET name = 'y'")
        assert [(change.table_name, change.op) for change in ctx.changes()] == [
            ("authors", "insert"),
            ("posts", "insert"),
            ("authors", "update"),
        ]
        where = ctx.target.changes_where(ctx.admin, "change.table_name = 'posts'")
        assert [change.table_name for change in where] == ["posts"]
        assert ctx.admin.value(f"SELECT count(*) FROM ({ctx.target.changes_query(ctx.admin)}) c") == len(ctx.changes())
        assert client.value("SELECT count(*) FROM trail.posts_history") == 1  # the grant of each table


#: a declaration that the application's role may run, and no other one
_LOGIN = """
CREATE FUNCTION trail.login(id text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$ SELECT set_config('app.who', id, false), set_config('app.kind', 'user', false) $$;
REVOKE EXECUTE ON FUNCTION trail.login(text) FROM PUBLIC;
"""


@pytest.mark.parametrize("scope", ["session", "transaction"])
def test_a_role_that_only_writes_needs_no_right_to_declare(
    provisioned: Callable[..., Workspace], scope: str
) -> None:
    declare = f'declare = "SELECT trail.login({{id}})"\nscope = "{scope}"'
    grant = 'grant = "GRANT USAGE ON SCHEMA trail TO {role}; GRANT EXECUTE ON FUNCTION trail.login(text) TO {role}"'
    login = _LOGIN if scope == "session" else _LOGIN.replace("false)", "true)")
    workspace = provisioned(toml(actor=declare, more=grant), SQL + login)
    assert judged(workspace, "capture.least-rights") == (Status.OK, "")


#: a query for each table that has a change, so none while the trail is empty
_EACH_WITH_CHANGES = "each = 'SELECT DISTINCT s AS schema, t AS name FROM trail.log'"
_OF_ONE = CHANGES.replace("FROM trail.log ORDER BY id", "FROM trail.log WHERE s = {schema_literal} AND t = {name_literal}")


@pytest.mark.parametrize("has_times", [True, False])
def test_columns_of_a_trail_are_known_although_each_finds_no_table_while_it_is_empty(
    provisioned: Callable[..., Workspace], *, has_times: bool
) -> None:
    changes = _OF_ONE if has_times else _OF_ONE.replace(", at AS captured_at", "")
    target = provisioned(toml(changes=changes, more=_EACH_WITH_CHANGES)).target
    assert target.records(Recorded.TIME) is has_times


def test_a_missing_column_is_named_although_each_finds_no_table_while_the_trail_is_empty(
    provisioned: Callable[..., Workspace],
) -> None:
    changes = _OF_ONE.replace("json_build_object('type', kind, 'id', who) AS actor", "who AS actr")
    with pytest.raises(DatabaseError, match="missing column actor"):
        provisioned(toml(changes=changes, more=_EACH_WITH_CHANGES))


_EVENT_SQL = (
    SQL
    + """
CREATE FUNCTION trail.follow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER follow ON ddl_command_end EXECUTE FUNCTION trail.follow();
GRANT USAGE ON SCHEMA trail TO {owner};
"""
)


def test_a_superuser_can_install_a_trail_and_an_owner_attaches_it(provisioned: Callable[..., Workspace]) -> None:
    sql = _EVENT_SQL.replace("{owner}", "harness_owner")
    with pytest.raises(DatabaseError, match="42501"):
        provisioned(toml(), sql)


def test_an_event_trigger_needs_a_superuser(provisioned: Callable[..., Workspace], server: Lab) -> None:
    sql = _EVENT_SQL.replace("{owner}", server.roles.owner.name)
    workspace = provisioned(toml(keys='install_as = "superuser"'), sql)
    assert missing(workspace) == {}
    assert wrong(workspace) == []


def test_capture_that_cannot_be_attached_twice_is_no_mistake(provisioned: Callable[..., Workspace]) -> None:
    once = ATTACH.replace("CREATE OR REPLACE", "CREATE")
    also = f'''attach_with_changed_from = """{once}"""\ndetach = "DROP TRIGGER capture ON {{table}}"'''
    assert missing(provisioned(toml(attach=once, more=also))) == {}


def test_columns_of_the_trail_are_left_out_and_capture_is_attached_again(provisioned: Callable[..., Workspace]) -> None:
    attach = "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS history jsonb;" + ATTACH
    workspace = provisioned(toml(attach=attach, keys='own_columns = ["history"]\nreattach = true'))
    assert missing(workspace) == {}
    with workspace.context("any.check") as ctx:
        ctx.alter("public.posts", "DROP TRIGGER capture ON public.posts")
        ctx.write(ctx.client(), ADA, "after the DDL")
        [change] = ctx.changes("posts")
        assert set(change.data_after) == {"id", "slug", "title", "views"}


#: the history of a row in a column of it, which goes with the row
_IN_THE_ROW = """
CREATE SCHEMA trail;
CREATE SEQUENCE trail.numbers;
CREATE FUNCTION trail.keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.history := coalesce(CASE WHEN TG_OP = 'UPDATE' THEN OLD.history END, '[]') || jsonb_build_array(jsonb_build_object(
        'id', nextval('trail.numbers'), 'tx', pg_current_xact_id()::text, 'who', current_setting('app.who', true),
        'kind', current_setting('app.kind', true), 'op', lower(TG_OP), 'after', to_jsonb(NEW) - 'history'));
    RETURN NEW;
END $$;
"""
_FROM_THE_ROWS = """
SELECT h -> 'id' AS id, h ->> 'tx' AS transaction_id, 'public' AS table_schema, 'posts' AS table_name,
       jsonb_build_object('id', t.id) AS table_pk, h ->> 'op' AS op, h -> 'after' AS data_after,
       jsonb_build_object('type', h ->> 'kind', 'id', h ->> 'who') AS actor
FROM public.posts t, jsonb_array_elements(to_jsonb(t) -> 'history') h ORDER BY (h -> 'id')::int"""


def test_a_trail_that_keeps_a_history_in_the_row_is_tried_without_a_delete(provisioned: Callable[..., Workspace]) -> None:
    attach = (
        "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS history jsonb; CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE "
        "ON {table} FOR EACH ROW EXECUTE FUNCTION trail.keep()"
    )
    text = toml(attach=attach, changes=_FROM_THE_ROWS, keys='own_columns = ["history"]\nomits = ["deletes"]')
    workspace = provisioned(text.replace('"trail.log"', '"public.posts"'), _IN_THE_ROW)
    assert missing(workspace) == {}


# --- what is missing -----------------------------------------------------------------------------------------

_NO_WRITE = SQL.replace("BEGIN\n    INSERT", "BEGIN\n    RETURN NULL;\n    INSERT")
_RAISES = SQL.replace("BEGIN\n    INSERT", "BEGIN\n    RAISE EXCEPTION 'never' USING ERRCODE = '22023';\n    INSERT")
_HANGS = SQL.replace("BEGIN\n    INSERT", "BEGIN\n    PERFORM pg_sleep(60);\n    INSERT")
_ACTOR = "json_build_object('type', kind, 'id', who) AS actor"


def assert_is_an_issue(workspace: Workspace, lacks: Recorded, sentence: str) -> None:
    """Assert that the trial misses one property, and that its check says so."""
    assert list(missing(workspace)) == [lacks]
    assert sentence in missing(workspace)[lacks]
    status, reason = judged(workspace, lacks.check)
    assert (status, sentence in reason) == (Status.ISSUE, True)
    dependent = workspace.target.lacking(lacks)
    assert dependent
    assert dependent.endswith(f"see {lacks.check}")


@pytest.mark.parametrize(
    ("text", "sql", "lacks", "sentence"),
    [
        (toml(changes=CHANGES.replace("after AS", "NULL AS")), SQL, Recorded.IMAGE, "the inserted row has no image"),
        (toml(), _NO_WRITE, Recorded.INSERTS, "no change was recorded for an insert, an update and a delete of public.posts"),
        (toml(actor="declare = 'SELECT 1 / 0, {id}'"), SQL, Recorded.ACTOR, "actor.declare (mine.toml:7), failed: 22012"),
    ],
)  # fmt: skip
def test_a_missing_property_is_one_issue_with_its_sentence(
    provisioned: Callable[..., Workspace], text: str, sql: str, lacks: Recorded, sentence: str
) -> None:
    """A trial that goes on, and two that end: all checks judge the same trial."""
    workspace = provisioned(text, sql)
    assert_is_an_issue(workspace, lacks, sentence)
    others = [property_ for property_ in Recorded if property_.check and property_ is not lacks]
    assert [property_ for property_ in others if judged(workspace, property_.check)[0] is Status.ISSUE] == []


@pytest.mark.parametrize(
    ("text", "sql", "lacks", "sentence"),
    [
        (toml(changes=CHANGES.replace(_ACTOR, "NULL::json AS actor")), SQL, Recorded.ACTOR, "the inserted row has no actor"),
        (toml(changes=CHANGES.replace("tx AS", "NULL AS")), SQL, Recorded.TRANSACTION_ID, "the inserted row has no transaction id"),
        (toml(attach=ATTACH.replace("INSERT OR ", "")), SQL, Recorded.INSERTS, "no change was recorded for an insert"),
        (toml(attach=ATTACH.replace("OR UPDATE ", "")), SQL, Recorded.UPDATES, "no change was recorded for an update"),
        (toml(attach=ATTACH.replace(" OR DELETE", "")), SQL, Recorded.DELETES, "no change was recorded for a delete"),
        (toml(changes=CHANGES.replace("BY id", "BY id DESC")), SQL, Recorded.ORDER, "come back in the order delete, update"),
        (
            toml(changes=CHANGES.replace(_ACTOR, "json_build_object('type', 'role', 'id', 'app') AS actor")), SQL,
            Recorded.ACTOR, 'the inserted row has the actor {"type":"role","id":"app"} instead of',
        ),
        (
            toml(changes=CHANGES.replace(_ACTOR, "json_build_object('id', json_build_array(1)) AS actor")), SQL,
            Recorded.ACTOR, 'the inserted row has the actor {"id":[1]} instead of {"type":"user","id":"trial-ada"} or ',
        ),
        (toml(changes=CHANGES.replace("tx AS", "id::text AS")), SQL, Recorded.TRANSACTION_ID, "have 6 transaction ids"),
        (toml(changes=CHANGES.replace("tx AS", "'1' AS")), SQL, Recorded.TRANSACTION_ID, "have the same transaction id"),
        (
            toml(changes=CHANGES.replace("lower(op) AS", "replace(lower(op), 'delete', 'removed') AS")), SQL,
            Recorded.DELETES, 'no change was recorded for a delete, and changes have the op "removed"',
        ),
        (
            toml(changes=CHANGES.replace("s AS table_schema, t AS", "t AS table_schema, s AS")), SQL, Recorded.INSERTS,
            "a delete of public.posts, and 6 for the table posts.public",
        ),
        (toml(), _RAISES, Recorded.INSERTS, "the audited insert failed: 22023 never (PL/pgSQL function trail.capture()"),
    ],
)  # fmt: skip
def test_each_cause_of_a_missing_property_has_a_sentence(
    provisioned: Callable[..., Workspace], text: str, sql: str, lacks: Recorded, sentence: str
) -> None:
    assert_is_an_issue(provisioned(text, sql), lacks, sentence)


@pytest.mark.parametrize("omits", ["", 'omits = ["inserts", "updates"]'])
def test_a_trail_of_deletes_alone_lacks_no_image(provisioned: Callable[..., Workspace], omits: str) -> None:
    workspace = provisioned(toml(attach=ATTACH.replace("INSERT OR UPDATE OR ", ""), keys=omits))
    assert list(missing(workspace)) == ([] if omits else [Recorded.INSERTS, Recorded.UPDATES])
    assert judged(workspace, "trail.image") == (Status.NA, workspace.target.lacking(Recorded.INSERTS))
    assert judged(workspace, "trail.deletes") == (Status.OK, "")


def test_a_trail_that_never_ends_a_write_ends_in_a_sentence(
    provisioned: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_LONGEST_S", 0.5)
    workspace = provisioned(toml(), _HANGS)
    assert missing(workspace) == {Recorded.INSERTS: "the audited insert did not end within 0.5 s"}


_LOCKS = SQL.replace("BEGIN\n    INSERT", "BEGIN\n    LOCK TABLE trail.log IN EXCLUSIVE MODE;\n    INSERT")
_CLAIMS = 'claims = ["actor-types", "changed-fields"]'


@pytest.mark.parametrize(
    ("sql", "sentences"),
    [
        (_LOCKS, ["the two concurrent updates did not end within 0.3 s"]),
        (_HANGS, ["the insert did not end within 0.3 s", "its write did not end within 0.3 s"]),
    ],
    ids=["locks", "hangs"],
)
def test_the_writes_of_target_try_end(
    provisioned: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, sql: str, sentences: list[str]
) -> None:
    monkeypatch.setattr(trial, "_LONGEST_S", 0.3)
    monkeypatch.setattr(target_trial, "LONGEST_S", 0.3)
    found = wrong(provisioned(toml(keys=_CLAIMS), sql))
    assert set(sentences) <= set(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (CHANGES.replace("FROM trail.log", "FROM trail.log, pg_sleep(60)"), "statements.changes did not end within 0.5 s"),
        (CHANGES.replace("lower(op) AS", "id AS"), "statements.changes: op is 1, needed insert, update, delete or truncate"),
        (CHANGES.replace("at AS", "at::timestamp AS"), "the column captured_at is timestamp, needed timestamptz"),
        (CHANGES.replace("after AS data_after", "1 AS data_after"), "the column data_after is int4, needed json or jsonb"),
        (CHANGES.replace("tx AS", "1 / (id - id) AS"), "statements.changes does not run: 22012"),
        (
            CHANGES.replace("after AS data_after", "(repeat('[', 9000) || repeat(']', 9000))::json AS data_after"),
            "statements.changes: a value cannot be read: ",
        ),
    ],
)  # fmt: skip
def test_a_trail_that_cannot_be_read_ends_in_a_sentence_with_its_place(
    provisioned: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, changes: str, message: str
) -> None:
    monkeypatch.setattr(statements, "LONGEST_S", 0.5)
    with pytest.raises(DatabaseError) as caught:
        provisioned(toml(changes=changes))
    assert message in str(caught.value)
    assert "mine.toml:" in str(caught.value)


def test_a_trail_that_drops_the_database_of_the_checks_stops_no_other_check(
    provisioned: Callable[..., Workspace], server: Lab
) -> None:
    workspace = provisioned(toml())
    with server.connect_admin() as admin:
        drop_database(admin, _TEMPLATE)
    for identity in ("capture.insert", "actor.local-setting"):
        status, reason = judged(workspace, identity)
        assert status is Status.NOT_RUN
        assert reason.startswith("no database could be created for the check: 3D000")


# --- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        (toml(), 0, ("insert public.posts {", "rollback of an insert: no change", "everything that the file promises")),
        (
            toml(keys='claims = ["truncate"]'),
            1,
            ("missing: the truncate left no change", "missing: the claim truncate"),
        ),
        (toml(attach=ATTACH.replace("trail.capture", "trail.captur")), 1, ("missing: ", "mine.toml:9", "42883")),
        (
            toml(actor="declare = 'SELECT 1 / 0, {id}'"),
            1,
            ("note: nothing else is tried", "actor.declare (mine.toml:7), failed: 22012", "\n1 thing missing"),
        ),
        (toml(changes=CHANGES.replace("AS op", "AS oper")), 1, ("missing column op\n  try: name columns with AS; found: ",)),
        (toml(keys="claim = []"), 2, ("unknown key",)),
    ],
)
def test_the_command_shows_the_changes_and_what_is_missing(
    tmp_path: Path, server: Lab, monkeypatch: pytest.MonkeyPatch, text: str, code: int, shown: tuple[str, ...]
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "mine.sql").write_text(SQL)
    # the servers of the other tests: test_shapes.py starts the command's own ones
    monkeypatch.setattr("harness.cli.target.standing", lambda *_: contextlib.nullcontext(server))
    done = harness_here(tmp_path, "target", "try", "mine.toml")
    with server.connect_admin() as admin:
        drop_database(admin, _TEMPLATE)
    assert done.returncode == code, done.stderr
    for words in shown:
        assert words in done.stdout + done.stderr
