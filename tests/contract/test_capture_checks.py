"""Verdicts of the suite `capture`: on sound trails that leave a property out by design, and on trails with a hidden fault."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from harness.audit.target_loading import load_target, reference_target
from harness.checks.execution import run_check
from harness.checks.registry import Control
from harness.checks.workspace import Workspace
from harness.cli.planning import planned
from harness.engine.owner import Owner
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.mutants.variants import target_file_of
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.capture import attempts, neighbours, writes
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.audit.target import AuditTarget
    from harness.engine.protocol import Engine
    from harness.model import Result

pytestmark = pytest.mark.engine

DIRECT = load_topologies()["direct"]
CHECKS = {check.id: check for check in catalogue().checks}
#: checks that look at several changes, or at the values of one
COMPARING = (
    *("update", "delete", "no-change", "changed-from", "upsert", "repeated-updates", "json-values", "occurred-at"),
    *("overlapping", "views", "hostile-identifiers", "temp-tables", "shadowed-names", "search-path", "canary"),
    *("coverage", "attach", "install", "no-recursion", "replica-role", "dropped-table", "table-owner", "switches"),
)


_FROM = "FROM rowlog.changes"
_ORDERED = f"{_FROM} ORDER"


@pytest.fixture(scope="module")
def server(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, DIRECT, Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def judged(server: Lab) -> Iterator[Callable[..., dict[str, Result]]]:
    """Return a function that judges a trail by checks of the suite, with statements that run before each.

    Each check has a database of its own, so that tests of one trail share its installation.
    """
    workspaces: dict[str, Workspace] = {}

    def judge(target: AuditTarget, *names: str, sabotage: str = "") -> dict[str, Result]:
        if target.identity not in workspaces:
            template = f"trail_{len(workspaces)}"
            workspaces[target.identity] = Workspace(server, target, catalogue().fixtures, template=template)
        workspace = workspaces[target.identity]
        results = {}
        for name in names:
            check = CHECKS[f"capture.{name}"]
            broken = Control(name="sabotage", check=check.id, at="", needs=(), apply=lambda ctx: ctx.sabotage(sabotage))
            control = broken if sabotage else None
            results[name] = run_check(check, planned("direct", check, ""), DIRECT, workspace, control=control)
        return results

    yield judge
    for workspace in workspaces.values():
        workspace.close()


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., AuditTarget]:
    """Return a function that returns a sound trail that leaves properties out by design."""

    def leave_out(omitted: str, replaced: str, by: str) -> AuditTarget:
        sound = target_file_of("row-json")
        shutil.copy(sound.with_suffix(".sql"), tmp_path)
        text = sound.read_text(encoding="utf-8").replace('"redaction", ', "").replace(replaced, by)
        omits = f"omits = {omitted.split()}\ndocumentation ="
        file = tmp_path / "mine.toml"
        file.write_text(text.replace("documentation =", omits, 1), encoding="utf-8")
        return load_target(str(file))

    return leave_out


@pytest.mark.parametrize(
    ("omitted", "replaced", "by"),
    [
        ("order", "ORDER BY id", "ORDER BY md5(id::text)"),
        ("image", "new_row AS data_after", "NULL::json AS data_after"),
        ("inserts", _ORDERED, f"{_FROM} WHERE operation <> 'INSERT' ORDER"),
    ],
)
def test_a_sound_trail_that_leaves_a_property_out_has_no_issue(
    judged: Callable[..., dict[str, Result]], without: Callable[..., AuditTarget], omitted: str, replaced: str, by: str
) -> None:
    results = judged(without(omitted, replaced, by), *COMPARING)
    assert {name: result.reason for name, result in results.items() if result.status is Status.ISSUE} == {}
    assert {name for name, result in results.items() if result.status is Status.OK} >= {
        *("canary", "coverage", "attach", "install", "no-recursion", "shadowed-names"),
        *(("update", "delete", "changed-from") if omitted != "image" else ("upsert", "delete")),
    }


@pytest.mark.parametrize(
    ("kept", "ok"),
    [
        ("INSERT", {"bulk", "cascade", "upsert", "views"}),
        ("UPDATE", {"bulk", "cascade", "upsert", "views"}),
        ("DELETE", {"bulk", "cascade"}),
    ],
)
def test_a_sound_trail_of_one_operation_has_no_issue(
    judged: Callable[..., dict[str, Result]],
    without: Callable[..., AuditTarget],
    monkeypatch: pytest.MonkeyPatch,
    kept: str,
    ok: set[str],
) -> None:
    monkeypatch.setattr(writes, "_MANY", 50)  # operations count here, and thousands of rows take seconds
    omitted = {"INSERT": "updates deletes", "UPDATE": "inserts deletes", "DELETE": "inserts updates image"}[kept]
    target = without(omitted, _ORDERED, f"{_FROM} WHERE operation IN ('{kept}', 'TRUNCATE') ORDER")
    results = judged(target, "bulk", "cascade", "upsert", "views")
    assert {name for name, result in results.items() if result.status is Status.OK} == ok
    assert {result.status for result in results.values()} <= {Status.OK, Status.NA}


def test_an_attempt_that_ends_its_session_hides_no_later_one(judged: Callable[..., dict[str, Result]]) -> None:
    result = judged(
        reference_target(),
        "forgery",
        sabotage="CREATE FUNCTION public.first_of_all() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS "
        "'SELECT pg_terminate_backend(pg_backend_pid())'; "
        "CREATE FUNCTION public.second_of_all() RETURNS void LANGUAGE sql SECURITY DEFINER AS "
        "'DELETE FROM public.audit_changes'",
    )["forgery"]
    assert result.status is Status.ISSUE
    assert "the trail after second_of_all()" in result.reason


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel attempts after a second: the tests wait for one that never ends."""
    for module in (attempts, neighbours):
        monkeypatch.setattr(module, "LONGEST_S", 1)
        monkeypatch.setattr(module, "LIMIT", "SET LOCAL statement_timeout = '1s'")


@pytest.mark.usefixtures("impatient")
def test_an_attempt_that_does_not_end_shows_nothing(judged: Callable[..., dict[str, Result]]) -> None:
    slow = "CREATE FUNCTION public.slow() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(30)'"
    result = judged(reference_target(), "forgery", sabotage=slow)["forgery"]
    assert result.status is Status.NOT_RUN
    assert result.reason == "an attempt did not end within 1 s: slow() with insert"


def test_a_setting_that_holds_a_declared_actor_switches_nothing_off(
    judged: Callable[..., dict[str, Result]], tmp_path: Path
) -> None:
    """An application may declare any actor, whether by the trail's function or by the setting that it changes."""
    sound = target_file_of("row-json")
    shutil.copy(sound.with_suffix(".sql"), tmp_path)
    with (tmp_path / "row-json.sql").open("a", encoding="utf-8") as sql:
        sql.write(
            "CREATE FUNCTION public.declare(text, text) RETURNS void LANGUAGE sql AS $$ SELECT pg_catalog.set_config("
            "'rowlog.actor', pg_catalog.jsonb_build_object('type', $1, 'id', $2)::pg_catalog.text, true) $$;"
        )
    text = sound.read_text(encoding="utf-8")
    declared = text.replace('setting = "rowlog.actor"\nvalue = "json"', 'declare = "SELECT public.declare({type}, {id})"')
    assert declared != text
    (tmp_path / "mine.toml").write_text(declared, encoding="utf-8")
    result = judged(load_target(str(tmp_path / "mine.toml")), "switches")["switches"]
    assert (result.status, result.reason) == (Status.OK, "")
    assert "rowlog.actor" in result.facts["settings that the trail reads"]


@pytest.mark.parametrize(
    ("condition", "switch"),
    [
        ("current_setting('app.mode', true) = 'bulk-import'", "app.mode = bulk-import"),
        ("(SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()) = 'import'", "application_name = import"),
        ("current_setting('application_name') ~ '^import'", "application_name = import"),
        ("current_setting('application_name') LIKE 'import%'", "application_name = import%"),
        ("public.mode() = 'bulk-import'", "app.mode = bulk-import"),
    ],
    ids=["setting", "activity", "regular-expression", "pattern", "function"],
)
def test_a_setting_that_switches_capture_off_is_found_with_its_value(
    judged: Callable[..., dict[str, Result]], condition: str, switch: str
) -> None:
    result = judged(
        reference_target(),
        "switches",
        sabotage="CREATE FUNCTION public.mode() RETURNS text LANGUAGE sql BEGIN ATOMIC "
        "SELECT current_setting('app.mode', true); END;"
        "CREATE FUNCTION public.skip() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {condition} THEN RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER skip BEFORE INSERT ON public.audit_changes FOR EACH ROW EXECUTE FUNCTION public.skip()",
    )["switches"]
    assert result.status is Status.ISSUE
    assert result.reason.startswith(f"the trail with {switch}: ")


@pytest.mark.parametrize("column", ["captured_at = now()", "changed_fields = '{title}'", "transaction_id = gen_random_uuid()"])
def test_a_function_that_changes_any_part_of_a_record_forges(
    judged: Callable[..., dict[str, Result]], column: str
) -> None:
    result = judged(
        reference_target(),
        "forgery",
        sabotage="ALTER TABLE public.audit_changes DROP CONSTRAINT IF EXISTS audit_changes_transaction_id_fkey;"
        "CREATE FUNCTION public.altered() RETURNS void LANGUAGE sql SECURITY DEFINER AS "
        f"$$ UPDATE public.audit_changes SET {column} $$",
    )["forgery"]
    assert result.status is Status.ISSUE
    assert result.reason.startswith("the trail after altered() with insert: ")


@pytest.mark.parametrize(
    ("argument", "statement"),
    [
        ("", "EXECUTE format('INSERT INTO %I.remarks VALUES (NULL)', TG_TABLE_SCHEMA)"),
        ("", "EXECUTE format('INSERT INTO %I.remarks VALUES (1) ON CONFLICT (n) DO NOTHING', TG_TABLE_SCHEMA)"),
        ("", "PERFORM FROM query_to_xml(format('SELECT n FROM %I.remarks', TG_TABLE_SCHEMA), true, true, '')"),
        ("public", "EXECUTE format('DELETE FROM %I.remarks', TG_ARGV[0])"),
        ("public.remarks", "EXECUTE format('UPDATE %s SET n = 1', TG_ARGV[0])"),
    ],
    ids=["insert", "upsert", "read", "schema-of-an-argument", "table-of-an-argument"],
)
def test_a_trigger_that_the_writer_points_at_its_own_table_gives_its_rights_away(
    judged: Callable[..., dict[str, Result]], argument: str, statement: str
) -> None:
    note = (
        "CREATE TABLE public.remarks (n int UNIQUE); ALTER TABLE public.remarks OWNER TO harness_owner;"
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp "
        f"AS $$ BEGIN {statement}; RETURN NULL; END $$;"
        "ALTER FUNCTION public.note() OWNER TO harness_owner;"
        f"CREATE TRIGGER note AFTER INSERT ON public.posts EXECUTE FUNCTION public.note('{argument}');"
    )
    result = judged(load_target(str(target_file_of("row-json"))), "forgery", sabotage=note)["forgery"]
    assert result.reason == (
        'tables of its own that ran with other rights: expected [], observed ["table remarks as harness_owner"]'
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [("t regclass", "(SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = t)"), ("in_schema text", "in_schema")],
    ids=["table", "schema"],
)
def test_a_function_that_the_caller_points_at_its_own_table_gives_its_rights_away(
    judged: Callable[..., dict[str, Result]], arguments: str, named: str
) -> None:
    note = (
        "CREATE FUNCTION public.note(ARGUMENTS) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
        "SET search_path = pg_catalog, pg_temp AS $$ BEGIN "
        "EXECUTE format('DELETE FROM %I.changes', NAMED); END $$;"
        "ALTER FUNCTION public.note OWNER TO harness_owner;"
    )
    sabotage = note.replace("ARGUMENTS", arguments).replace("NAMED", f"replace({named}, 'public', 'harness_nowhere')")
    result = judged(load_target(str(target_file_of("row-json"))), "forgery", sabotage=sabotage)["forgery"]
    assert result.reason == (
        'tables of its own that ran with other rights: expected [], observed ["table changes as harness_owner"]'
    )


@pytest.mark.usefixtures("impatient")
def test_a_trigger_that_never_ends_on_a_table_of_the_writer_shows_nothing(
    judged: Callable[..., dict[str, Result]],
) -> None:
    slow = (
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF TG_TABLE_SCHEMA <> 'public' THEN PERFORM pg_sleep(30); END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT ON public.posts EXECUTE FUNCTION public.note();"
    )
    result = judged(load_target(str(target_file_of("row-json"))), "forgery", sabotage=slow)["forgery"]
    assert result.status is Status.NOT_RUN
    assert result.reason.startswith("a statement did not end within 1 s: INSERT INTO pg_temp.posts ")


def test_a_row_that_a_constraint_refuses_shows_the_right_to_write(judged: Callable[..., dict[str, Result]]) -> None:
    result = judged(
        reference_target(),
        "forgery",
        sabotage="ALTER TABLE public.audit_changes ALTER op SET DEFAULT '', ADD CHECK (op <> '');"
        "GRANT UPDATE (op) ON public.audit_changes TO harness_app",
    )["forgery"]
    assert result.status is Status.ISSUE
    assert result.reason.startswith("update public.audit_changes: expected refused, observed allowed (23514 ")


def test_coverage_of_a_trail_that_refuses_to_be_weakened(judged: Callable[..., dict[str, Result]]) -> None:
    results = judged(
        reference_target(),
        *("coverage", "canary"),
        sabotage="CREATE FUNCTION public.guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT FROM pg_trigger WHERE tgname LIKE '!threadline%' AND tgenabled IN ('D', 'R')) "
        "THEN RAISE 'it stays enabled'; END IF; END $$;"
        "CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION public.guard()",
    )
    assert {name: (result.status, result.reason) for name, result in results.items()} == {
        "coverage": (Status.OK, ""),
        "canary": (Status.OK, ""),
    }
    assert results["coverage"].facts["refused by the trail"].startswith("P0001 it stays enabled")


def test_a_trail_that_keeps_its_tables_from_being_dropped_is_sound(judged: Callable[..., dict[str, Result]]) -> None:
    results = judged(
        reference_target(),
        *("attach", "dropped-table", "schema-change"),
        sabotage="CREATE FUNCTION public.guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_type = 'table') "
        "THEN RAISE 'it stays'; END IF; END $$;"
        "CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION public.guard()",
    )
    assert {name: result.reason for name, result in results.items() if result.status is not Status.OK} == {}


def test_a_truncate_that_the_trail_refuses_removes_nothing(judged: Callable[..., dict[str, Result]]) -> None:
    result = judged(
        load_target("plain-trigger"),
        "truncate",
        sabotage="CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "DO $$ DECLARE captured regclass; BEGIN FOR captured IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') "
        "AND relnamespace IN ('public'::regnamespace, '\"Shop\"'::regnamespace) LOOP EXECUTE format("
        "'CREATE TRIGGER guard BEFORE TRUNCATE ON %s EXECUTE FUNCTION public.guard()', captured); END LOOP; END $$",
    )["truncate"]
    assert (result.status, result.reason) == (Status.OK, "")
    assert result.facts["a TRUNCATE of public.measures is refused"].startswith("P0001 no")


def test_waits_are_judged_for_a_trail_that_needs_an_actor(judged: Callable[..., dict[str, Result]]) -> None:
    results = judged(
        reference_target(),
        *("waits", "isolation"),
        sabotage="CREATE FUNCTION public.needed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.actor_ref IS NULL THEN RAISE 'an actor is needed'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER needed BEFORE INSERT ON public.audit_transactions FOR EACH ROW EXECUTE FUNCTION public.needed()",
    )
    assert {name: result.reason for name, result in results.items() if result.status is not Status.OK} == {}


def test_a_guard_that_fires_always_is_no_capture_of_replicated_rows(judged: Callable[..., dict[str, Result]]) -> None:
    result = judged(
        load_target("plain-trigger"),
        "replica-role",
        sabotage="CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER guard BEFORE TRUNCATE ON public.posts EXECUTE FUNCTION public.guard();"
        "ALTER TABLE public.posts ENABLE ALWAYS TRIGGER guard",
    )["replica-role"]
    assert "changes with the triggers as attached" not in result.reason


#: a trail that runs with the writer's rights, and leaves names to the writer's search_path
_NAMES_SQL = """
CREATE TABLE public.log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tx text DEFAULT pg_current_xact_id()::text,
    who text DEFAULT nullif(current_setting('app.who', true), ''), s text, t text, op text, key jsonb, image jsonb);
GRANT SELECT, INSERT ON public.log TO PUBLIC;
CREATE FUNCTION public.capture() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    row pg_catalog.jsonb := pg_catalog.to_jsonb(CASE WHEN TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN OLD ELSE NEW END);
BEGIN
    PERFORM unnest(CAST('{1}' AS pg_catalog.int2[]));
    INSERT INTO public.log (s, t, op, key, image) VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
        pg_catalog.jsonb_build_object('id', row OPERATOR(pg_catalog.->) 'id'),
        CASE WHEN TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN jsonb_strip_nulls(row) END);
    RETURN NULL;
END $$;
"""
_NAMES = '''
summary = "mine"
install = ["mine.sql"]
tables = ["public.log"]
[actor]
setting = "app.who"
value = "id"
[statements]
attach = """
CREATE OR REPLACE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION public.capture()"""
changes = """
SELECT id, tx AS transaction_id, s AS table_schema, t AS table_name, key AS table_pk, lower(op) AS op, image AS data_after,
       jsonb_build_object('type', 'user', 'id', who) AS actor
FROM public.log ORDER BY id"""
'''


def test_objects_of_the_writer_do_not_hide_each_other(
    judged: Callable[..., dict[str, Result]], tmp_path: Path
) -> None:
    """With a second function that fits as well, PostgreSQL calls neither, and the write fails before the lie."""
    (tmp_path / "mine.sql").write_text(_NAMES_SQL)
    (tmp_path / "mine.toml").write_text(_NAMES)
    result = judged(load_target(str(tmp_path / "mine.toml")), "shadowed-names")["shadowed-names"]
    assert result.status is Status.ISSUE
    assert result.reason.startswith("changes with a function jsonb_strip_nulls that lies: expected as without them")
