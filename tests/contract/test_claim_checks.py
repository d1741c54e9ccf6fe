"""Verdicts on what trails of other designs claim, redaction and retention above all: sound ones and faulty ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit import statements
from harness.audit.target_loading import load_target
from harness.checks.execution import run_check
from harness.checks.workspace import Workspace
from harness.cli.planning import planned
from harness.engine.owner import Owner
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.capture import writes
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.protocol import Engine
    from harness.model import Result

    Judge = Callable[..., list[Result]]

pytestmark = pytest.mark.engine

DIRECT = load_topologies()["direct"]
CHECKS = {check.id: check for check in catalogue().checks}

#: a log of changes with rules of redaction, and a purge
SQL = """
CREATE SCHEMA trail;
CREATE TABLE trail.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tx text DEFAULT pg_current_xact_id()::text,
    who text DEFAULT nullif(current_setting('app.who', true), ''), s text, t text, op text, key jsonb, after jsonb,
    at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION trail.shown(held jsonb, excluded text[], masked text[]) RETURNS jsonb LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT (held - excluded) || coalesce((SELECT jsonb_object_agg(m, '[REDACTED]') FROM unnest(masked) m), '{}') $$;
CREATE FUNCTION trail.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY'
SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
    held jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    key  jsonb;
BEGIN
    SELECT jsonb_object_agg(a.attname, held -> a.attname) INTO key
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = TG_RELID AND i.indisprimary;
    INSERT INTO trail.log (s, t, op, key, after) VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, lower(TG_OP), key,
        CASE WHEN TG_OP <> 'DELETE' THEN trail.shown(held, TG_ARGV[0]::text[], TG_ARGV[1]::text[]) END);
    RETURN NULL;
END $$;
CREATE FUNCTION trail.attach(relation regclass, excluded text[], masked text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW
        EXECUTE FUNCTION trail.capture(%L, %L)', relation, excluded, masked);
END $$;
CREATE FUNCTION trail.purge(cutoff timestamptz) RETURNS void LANGUAGE sql
    AS 'DELETE FROM trail.log WHERE at < cutoff';
"""
TARGET = '''
summary = "mine"
install = ["mine.sql"]
tables = ["trail.log"]
claims = ["redaction", "retention", "partitions", "export"]
{keys}
[actor]
setting = "app.who"
value = "id"
[statements]
attach = "SELECT trail.attach({{table_literal}}::regclass, '{{}}', '{{}}')"
attach_redacted = "SELECT trail.attach({{table_literal}}::regclass, {{exclude}}, {{mask}})"
changes = """
SELECT id, tx AS transaction_id, s AS table_schema, t AS table_name, {key} AS table_pk, {op} AS op,
       {image} AS data_after, CASE WHEN who IS NOT NULL THEN json_build_object('type', 'user', 'id', who) END AS actor,
       at AS captured_at
FROM trail.log ORDER BY id"""
purge = "{purge} trail.purge(%(cutoff)s)"
age = "UPDATE trail.log SET at = at - %(age)s::interval"
export = """
SELECT id, tx AS transaction_id, s AS table_schema, t AS table_name, {key} AS table_pk, {op} AS op,
       {image} AS data_after, CASE WHEN who IS NOT NULL THEN json_build_object('type', 'user', 'id', who) END AS actor,
       at AS captured_at, {cursor}
ORDER BY id"""
'''
#: an export of what no open transaction can precede, and one of what is visible by now
_BELOW_ALL_OPEN = """pg_snapshot_xmin(pg_current_snapshot())::text AS cursor FROM trail.log
WHERE tx::xid8 < pg_snapshot_xmin(pg_current_snapshot()) AND tx::xid8 >= coalesce(%(since)s::text, '0')::xid8"""
_VISIBLE = """max(id) OVER () AS cursor FROM trail.log WHERE id > coalesce(%(since)s::text, '0')::bigint"""
#: values as texts, except for arrays and objects
_TEXTS = """(SELECT jsonb_object_agg(e.key, CASE WHEN jsonb_typeof(e.value) IN ('array', 'object') THEN e.value
    ELSE to_jsonb(e.value #>> '{{}}') END) FROM jsonb_each({}) e)"""
#: numbers as texts, and every other value with its type
_NUMBERS = _TEXTS.replace("IN ('array', 'object')", "<> 'number'")
#: the actor of a change is found by the number of its transaction, and the last one to have the number is kept
_WHOSE = SQL.replace(
    "    INSERT INTO trail.log (s,",
    """    INSERT INTO trail.whose VALUES (pg_current_xact_id()::text, nullif(current_setting('app.who', true), ''))
    ON CONFLICT (tx) DO UPDATE SET who = excluded.who;
    INSERT INTO trail.log (s,""",
).replace("CREATE SCHEMA trail;", "CREATE SCHEMA trail; CREATE TABLE trail.whose (tx text PRIMARY KEY, who text);")


def toml(
    *,
    keys: str = "",
    key: str = "key",
    op: str = "op",
    image: str = "after",
    purge: str = "SELECT",
    cursor: str = _BELOW_ALL_OPEN,
) -> str:
    """Return a target file.

    :param keys: further keys.
    :param key: the expression of the column table_pk; `op` is that of the operation, and `image` that of data_after.
    :param purge: how the purge is called.
    :param cursor: the end of the export.
    """
    return TARGET.format(keys=keys, key=key, op=op, image=image, purge=purge, cursor=cursor)


#: the purge as a procedure that commits
PROCEDURE = SQL.replace(
    """CREATE FUNCTION trail.purge(cutoff timestamptz) RETURNS void LANGUAGE sql
    AS 'DELETE FROM trail.log WHERE at < cutoff';""",
    """CREATE PROCEDURE trail.purge(cutoff timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM trail.log l WHERE at < cutoff;
    COMMIT;
END $$;""",
)


@pytest.fixture(scope="module")
def server(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, DIRECT, Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def judged(server: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Return a function that judges a trail, given as a target file and its SQL, by checks.

    Each check has a database of its own, so that tests of one trail share its installation.
    """
    made: dict[tuple[str, str], Workspace] = {}

    def judge(text: str, sql: str, *identities: str) -> list[Result]:
        if (text, sql) not in made:
            folder = tmp_path_factory.mktemp("trail")
            (folder / "mine.toml").write_text(text)
            (folder / "mine.sql").write_text(sql)
            target = load_target(str(folder / "mine.toml"))
            made[text, sql] = Workspace(server, target, catalogue().fixtures, template=f"trail_{len(made)}")
        return [
            run_check(CHECKS[identity], planned("direct", CHECKS[identity], ""), DIRECT, made[text, sql])
            for identity in identities
        ]

    yield judge
    for workspace in made.values():
        workspace.close()


_REDACTION = tuple(f"redaction.{name}" for name in ("insert", "delete", "json-whole", "canaries", "null-hidden"))


@pytest.mark.parametrize(
    ("text", "sql", "identities"),
    [
        pytest.param(
            toml(),
            SQL.replace("DEFAULT clock_timestamp()", "DEFAULT date_trunc('minute', clock_timestamp())"),
            ("retention.boundary", "retention.mixed-age", "retention.old-gone"),
            id="times-are-whole-minutes",
        ),
        pytest.param(toml(), SQL, (*_REDACTION, "redaction.partitions"), id="partitions-under-their-own-names"),
        pytest.param(
            toml(op="upper(op)"), SQL, ("capture.key-values", "capture.bulk", "capture.hostile-values"),
            id="operations-in-upper-case",
        ),
        pytest.param(toml(key=_TEXTS.format("key")), SQL, ("capture.key-values", "redaction.delete"), id="keys-of-texts"),
        pytest.param(
            toml(image=_TEXTS.format("after")), SQL,
            ("capture.insert", "continuity.cutover-under-load", "capture.values", "capture.stored-values", "redaction.insert"),
            id="images-of-texts",
        ),
        pytest.param(
            toml(keys='omits = ["deletes"]'),
            SQL.replace("AFTER INSERT OR UPDATE OR DELETE", "AFTER INSERT OR UPDATE"),
            ("redaction.canaries", "retention.old-gone"),
            id="no-deletes",
        ),
        pytest.param(toml(), SQL, ("export.complete", "export.late-commit"), id="exports-what-no-open-transaction-precedes"),
        pytest.param(
            toml(keys='omits = ["order"]').replace("FROM trail.log ORDER BY id", "FROM trail.log ORDER BY md5(id::text)"),
            SQL, ("export.complete", "export.late-commit", "retention.old-gone"), id="changes-in-no-order",
        ),
        pytest.param(
            toml(),
            f"{SQL} CREATE MATERIALIZED VIEW trail.empty AS TABLE trail.log WITH NO DATA;"
            "CREATE MATERIALIZED VIEW trail.full AS TABLE trail.log",
            ("redaction.canaries", "retention.old-gone"), id="materialized-views",
        ),
        pytest.param(
            toml(),
            SQL.replace("BEGIN\n    EXECUTE", "BEGIN\n    UPDATE trail.log SET after = trail.shown(after, excluded, masked)"
            " WHERE t = relation::text AND after IS NOT NULL;\n    EXECUTE"),
            ("redaction.earlier-rows",), id="rules-reach-earlier-changes",
        ),
        pytest.param(
            toml(purge="CALL"), PROCEDURE, ("retention.old-gone", "retention.boundary", "retention.rights"),
            id="a-purge-that-commits",
        ),
    ],
)  # fmt: skip
def test_a_sound_trail_of_another_design_is_ok(
    judged: Judge, monkeypatch: pytest.MonkeyPatch, text: str, sql: str, identities: tuple[str, ...]
) -> None:
    monkeypatch.setattr(writes, "_MANY", 50)  # designs count here, and thousands of rows take seconds
    found = {result.check: (result.status, result.reason) for result in judged(text, sql, *identities)}
    assert found == dict.fromkeys(identities, (Status.OK, ""))


@pytest.mark.parametrize(
    ("text", "sql", "identity", "reason"),
    [
        pytest.param(
            toml(),
            SQL.replace("    RETURN NULL;", "    INSERT INTO trail.log (s, t, op, key, after) SELECT s, t, op, l.key, l.after"
            " FROM trail.log l ORDER BY id DESC LIMIT 1;\n    RETURN NULL;"),
            "redaction.insert", "changes: expected 1, observed 2", id="inserts-twice",
        ),
        pytest.param(
            toml(), SQL.replace("SELECT (held - excluded) ||", "SELECT held ||"), "redaction.insert",
            "excluded column: expected false, observed true", id="excluded-columns-kept",
        ),
        pytest.param(
            toml(), SQL.replace("BEGIN\n    EXECUTE", "BEGIN\n    PERFORM 1 / (CASE WHEN relation::text LIKE 'case%' THEN 0 ELSE 1 END);\n    EXECUTE"),
            "redaction.later-ddl", "valid rules are refused: 22012", id="rules-refused",
        ),
        pytest.param(  # the column `t` of the trail hides no row from the search
            toml(), SQL, "redaction.later-ddl",
            "a masked column is renamed: expected protected, observed the value is in 3 rows of trail.log", id="renamed-shown",
        ),
        pytest.param(
            toml(), SQL, "redaction.later-ddl", "when another column gets that name: expected documented, observed no entry",
            id="a-name-taken-over",
        ),
        pytest.param(
            toml(image=_NUMBERS.format("after")), SQL, "capture.insert", 'observed {"id":"1"', id="only-numbers-as-texts",
        ),
        pytest.param(
            toml(image=_NUMBERS.format("after")), SQL, "capture.values", "inserted values that differ", id="only-numbers-as-texts-of-any-type",
        ),
        pytest.param(
            toml(key=_TEXTS.format("key")), SQL, "capture.keys", 'a number: expected {"id":41}, observed {"id":"41"}',
            id="keys-of-texts-beside-images-with-types",
        ),
        pytest.param(
            toml(image=_TEXTS.format("after").replace("to_jsonb(e.value #>> '{}')", "to_jsonb(CASE e.value #>> '{}' WHEN '0' THEN '1' ELSE e.value #>> '{}' END)")),
            SQL, "capture.insert", 'observed {"id":1,"slug":"first","title":"a title","views":1}', id="another-number-in-texts",
        ),
        pytest.param(
            toml().replace("FROM trail.log", "FROM (SELECT l.id, l.tx, w.who, l.s, l.t, l.op, l.key, l.after, l.at FROM trail.log l"
            " LEFT JOIN trail.whose w ON w.tx = l.tx) log").replace('"trail.log"]', '"trail.log", "trail.whose"]'),
            _WHOSE, "capture.reused-txid", "earlier changes that differ since then: expected [], observed", id="an-earlier-change-of-another",
        ),
        pytest.param(
            toml(cursor=_VISIBLE), SQL, "export.late-commit",
            'the next export: expected ["next","slow"], observed ["next"]', id="exports-by-number",
        ),
        pytest.param(
            toml(purge="CALL"), f"{PROCEDURE} GRANT USAGE ON SCHEMA trail TO PUBLIC; GRANT SELECT, DELETE ON trail.log TO PUBLIC",
            "retention.rights", "changes left: expected", id="everybody-purges-and-commits",
        ),
        pytest.param(
            toml(),
            SQL.replace("    RETURN NULL;", "    EXECUTE format('SELECT trail.note(%L)', held);\n    RETURN NULL;")
            + "CREATE FUNCTION trail.note(held text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''captured''; END';",
            "observability.messages", 'messages with a value: expected [], observed ["captured; PL/pgSQL function',
            id="values-in-the-context-of-a-notice",
        ),
        pytest.param(
            toml(), SQL.replace("at < cutoff", "at <= cutoff"), "retention.boundary",
            "changes left in the zone", id="the-cutoff-purged",
        ),
        pytest.param(
            toml(),
            SQL.replace("WHERE at < cutoff", "WHERE at < cutoff AND op <> ''update''"),
            "retention.old-gone", "changes left of other operations", id="updates-kept",
        ),
        pytest.param(
            toml(),
            SQL.replace("BEGIN\n    EXECUTE", "BEGIN\n    IF relation::text = 'legacy' THEN INSERT INTO trail.log (who, s, t, op, key)"
            " SELECT 'seed', 'public', 'legacy', 'insert', jsonb_build_object('id', n) FROM generate_series(1, 3) n; END IF;\n    EXECUTE"),
            "continuity.old-rows", "changes before the first write: expected 0, observed 3", id="made-up-by-somebody",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_an_issue_of_the_trail(judged: Judge, text: str, sql: str, identity: str, reason: str) -> None:
    [result] = judged(text, sql, identity)
    assert result.status is Status.ISSUE
    broken = [
        f"{expectation.name}: expected {expectation.expected}, observed {expectation.observed}"
        for expectation in result.expectations
        if expectation.broken
    ]
    assert [shown for shown in broken if reason in shown], broken


@pytest.mark.parametrize(
    ("granted", "status", "reason"),
    [
        ("", Status.OK, ""),
        ("GRANT DELETE ON trail.log TO harness_app", Status.OK, ""),
        (
            "GRANT DELETE ON trail.log TO harness_app; GRANT USAGE ON SCHEMA trail TO harness_app",
            Status.ISSUE,
            "rights on the trail's tables: expected none, observed DELETE on trail.log",
        ),
    ],
)
def test_a_trail_is_closed_in_a_schema_that_the_application_may_not_use(
    judged: Judge, granted: str, status: Status, reason: str
) -> None:
    [result] = judged(toml(), f"{SQL}{granted}", "environment.trail-closed")
    assert (result.status, result.reason) == (status, reason)


#: actions with the job that did them, which their statement does not return
_ACTIONS = """
CREATE TABLE trail.actions (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tx text, name text, correlation text, job text);
CREATE FUNCTION trail.act(name text, correlation text, job text) RETURNS void LANGUAGE sql SECURITY DEFINER
AS 'INSERT INTO trail.actions (tx, name, correlation, job) VALUES (pg_current_xact_id()::text, $1, $2, $3)';
GRANT USAGE ON SCHEMA trail TO harness_app;
"""
_READ_ACTIONS = """
record_action = "SELECT trail.act(%(name)s, %(correlation_id)s, %(job_id)s)"
actions = "SELECT id, name, correlation AS correlation_id FROM trail.actions"
"""


def test_jobs_that_the_statement_of_actions_does_not_return_are_not_compared(judged: Judge) -> None:
    linked = "at AS captured_at, (SELECT a.id FROM trail.actions a WHERE a.tx = log.tx) AS action_id\nFROM trail.log"
    text = toml().replace('"redaction"', '"redaction", "actions"').replace("at AS captured_at\nFROM trail.log", linked)
    checks = ("actor.jobs", "actor.action-recorded", "actor.correlation-stored", "actor.action-rolled-back")
    results = judged(text + _READ_ACTIONS, SQL + _ACTIONS, *checks)
    assert {result.check: result.reason for result in results if result.status is not Status.OK} == {}


def test_a_purge_that_never_ends_is_cancelled(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "LONGEST_S", 1.0)
    sql = SQL.replace("AS 'DELETE FROM trail.log WHERE", "AS 'SELECT pg_sleep(1000) FROM trail.log; DELETE FROM trail.log WHERE")
    [result] = judged(toml(), sql, "retention.old-gone")
    assert result.status is Status.ISSUE
    assert "statements.purge did not end within 1 s, and was cancelled" in result.reason
    assert "mine.toml:" in result.reason


def test_a_built_in_setting_that_holds_the_actor_is_set_on_every_connection(judged: Judge) -> None:
    text, sql = (given.replace("app.who", "application_name") for given in (toml(), SQL))
    [result] = judged(text, sql, "environment.no-actor-left")
    assert (result.status, result.reason) == (Status.NA, "no setting of the application's own holds the actor")


@pytest.mark.parametrize(
    "settings",
    [
        {"log_statement": "all"},
        {"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0"},
    ],
    ids=["log_statement", "auto_explain"],
)
def test_statements_that_the_server_logs_by_its_settings_are_no_fault_of_the_trail(
    some_engine: Engine, settings: dict[str, str]
) -> None:
    topology = replace(DIRECT, postgres=replace(DIRECT.postgres, settings=settings))
    lab = stand_up(some_engine, topology, Owner.me(new_run_id()), Redactor())
    try:
        workspace = Workspace(lab, load_target("reference"), catalogue().fixtures)
        check = CHECKS["observability.messages"]
        result = run_check(check, planned("direct", check, ""), topology, workspace)
        workspace.close()
    finally:
        lab.close()
    assert result.status is Status.NA
    assert result.reason == "the server's settings log the application's own statements, with their values"
