"""Audit trails other than the reference layer, judged by the same checks in real topologies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.audit import target
from harness.audit.target_loading import load_target
from harness.checks.workspace import _TEMPLATE, Workspace
from harness.database import drop_database
from harness.engine.owner import Owner
from harness.errors import HarnessError
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.redaction import Redactor
from harness.store import StoredRun, new_run_id, read_run
from harness.suites.catalogue import catalogue
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

TARGETS = Path(target.__file__).parent / "targets"
MINE = """
summary = "mine"
install = ["mine.sql"]
tables = ["public.log"]
[actor]
setting = "app.actor"
value = "id"
[statements]
attach = "CREATE TRIGGER t AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.f()"
changes = "SELECT '' AS id, '' AS transaction_id, '' AS table_schema, '' AS table_name, NULL AS table_pk, '' AS op, NULL AS data_after, NULL AS actor FROM public.log"
"""
SQL = "CREATE TABLE public.log (n int);\nCREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';\n"


@pytest.fixture
def name(any_engine: Engine) -> str:
    return any_engine.name


@pytest.fixture(scope="module")
def server(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, load_topologies()["direct"], Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture
def lab(server: Lab) -> Iterator[Lab]:
    """Return a server without a provisioned database."""
    yield server
    with server.connect_admin() as admin:
        drop_database(admin, _TEMPLATE)


def verify(folder: Path, engine: str, *arguments: str) -> StoredRun:
    """Run `verify` and return its run; without a topology as the first argument, in three of them."""
    topologies = [] if arguments[0] in load_topologies() else ["direct", "session", "transaction"]
    done = harness_here(folder, "verify", *topologies, *arguments, "--engine", engine)
    assert done.returncode == 1, done.stderr
    return read_run(folder / "reports" / "runs" / "latest")


def issues(run: StoredRun, topology: str) -> set[str]:
    return {result.check for result in run.answers() if result.target == topology and result.status is Status.ISSUE}


WEAKNESSES = {
    *("capture.keys", "capture.key-change", "capture.identifiers", "capture.search-path"),
    *("capture.temp-tables", "capture.forgery", "capture.nested-writes", "capture.least-rights"),
    *("capture.replica-role", "capture.canary", "capture.partitions", "capture.reused-txid"),
    *("capture.coverage", "capture.shadowed-names", "capture.table-owner"),
    "capture.truncate",  # a lost history that nothing documents
}
STRENGTHS = {"capture.insert", "capture.rollback", "capture.savepoint", "capture.bulk", "capture.cascade"}


def test_a_plain_trigger_shows_its_weaknesses_with_and_without_a_pooler(tmp_path: Path, name: str) -> None:
    """All checks of this trail run in test_trail_errors.py.

    A client of a session pool has a server connection of its own, as one without a pooler has.
    """
    checks = [f"--check={check}" for check in sorted(WEAKNESSES | STRENGTHS)]
    run = verify(tmp_path, name, "direct", "transaction", "--audit-target", "plain-trigger", *checks)
    assert issues(run, "direct") == issues(run, "transaction") == WEAKNESSES
    report = (tmp_path / "reports" / "plain-trigger" / "issues.md").read_text()
    assert report.index("AP-1.forgery.direct") < report.index("AP-1.least-rights.direct")  # P0 before P1
    assert not (tmp_path / "reports" / "report.md").exists()


def test_a_session_setting_misattributes_writes_on_shared_connections(tmp_path: Path, name: str) -> None:
    shared = {"actor.shared-connection", "actor.after-error", "actor.many-clients"}
    checks = [f"--check={check}" for check in sorted(shared | {"actor.moved-connection"})]
    run = verify(tmp_path, name, "--audit-target", "session-setting", *checks)
    assert shared <= issues(run, "direct")
    assert shared & issues(run, "session") == {"actor.many-clients"}
    assert shared | {"actor.moved-connection"} <= issues(run, "transaction")
    wrong = {
        result.target: next(
            expectation.observed
            for expectation in result.expectations
            if expectation.name.startswith("writes attributed")
        )
        for result in run.answers()
        if result.check == "actor.many-clients"
    }
    counts = {topology: int(text.partition(" ")[0]) for topology, text in wrong.items()}
    assert 0 < counts["session"] < counts["transaction"]


def test_threadline_is_judged_by_the_users_own_sql(tmp_path: Path, name: str) -> None:
    """The SQL is not Threadline's, which the project does not ship, but has its names."""
    sql = (TARGETS / "plain-trigger.sql").read_text().replace("audit_row()", "threadline_capture_changes()")
    sql += "CREATE TABLE audit_actions (id uuid, name text, correlation_id text, job_id text); ALTER TABLE audit_transactions ADD action_id uuid;"
    (tmp_path / "own.sql").write_text(sql + "ALTER TABLE audit_changes ADD changed_from jsonb;")
    run = verify(
        tmp_path, name, "direct", "--audit-target", "threadline", "--audit-sql", "own.sql",
        "--check", "capture.insert", "--check", "capture.identifiers", "--check", "actor.local-setting",
    )  # fmt: skip
    found = {result.check: result for result in run.answers()}
    assert found["capture.insert"].status is found["actor.local-setting"].status is Status.OK
    # capture is attached to a table whose name needs quotes; what this trail keeps of its key is another matter
    assert found["capture.identifiers"].reason.startswith("key: ")
    assert found["capture.insert"].reproduce.endswith("--audit-target threadline --audit-sql own.sql")


@pytest.mark.parametrize(
    ("toml", "sql", "texts"),
    [
        (MINE, SQL + "\n-- a comment\nCREATE TABLE public.log (n int);\n", ("mine.sql:5", "42P07")),
        (MINE, "CREATE TABLE public.log (n integr);\n", ("mine.sql:1", "42704")),
        (MINE, SQL + "-- \0\nSELECT 1;\n", ("mine.sql:3", "NUL")),
        (MINE, "BEGIN;\n" + SQL + "COMMIT;\n", ("mine.sql:1", "BEGIN cannot run here")),
        (MINE, SQL + "\n\\set x 1\n", ("mine.sql:4", "without psql")),
        (MINE + 'coverage = "SELECT 1, 2"\n', SQL, ("mine.toml:11", "needed schema, table, problem")),
        (MINE + 'age = "SELECT %(age)s::int"\n', SQL, ("mine.toml:11", "statements.age", "42846")),
        (MINE + 'purge = "SELECT %(cutof)s"\n', SQL, ("mine.toml:11", "statements.purge", "cutof")),
        (MINE + 'transactions = "SELECT count(*) FROM public.lgo"\n', SQL, ("mine.toml:11", "42P01")),
        (MINE + 'detach = "SELECT public.g({table_literal})"\n', SQL, ("mine.toml:11", "statements.detach", "42883")),
        (MINE + 'export = "SELECT %(since)s IS NULL"\n', SQL, ("mine.toml:11", "statements.export", "42P18")),
        (MINE + 'export = "SELECT %(since)s::text"\n', SQL, ("mine.toml:11", "missing column id, ")),
        (MINE + "tables = \"SELECT 1 AS schema, 'x' AS name\"\n", SQL, ("mine.toml:11", "schema is 1, needed a text")),
        (MINE + "tables = \"SELECT 'public'\"\n", SQL, ("mine.toml:11", "missing column name, schema")),
        (
            MINE + "tables = \"SELECT 'lgo' AS name, 'public' AS schema\"\n", SQL,
            ("mine.toml:11", 'statements.tables: missing table "public"."lgo"'),
        ),
        (
            MINE.replace("FROM public.log", "FROM {histori}")
            + "each = \"SELECT 'public' AS schema, 'log' AS name, 'log' AS history\"\n", SQL,
            ("mine.toml:10", "statements.changes: unknown placeholder {histori}", "did you mean history"),
        ),
        (
            MINE.replace("install", "switches = ['SELECT public.off()']\ninstall"), SQL,
            ("mine.toml:3", "switches: 'SELECT public.off()' does not run: 42883"),
        ),
        (
            MINE + "record_action = 'SELECT public.act(%(name)s)'\n", SQL,
            ("mine.toml:11", "statements.record_action does not run: 42883"),
        ),
        (
            MINE + "record_action = 'SELECT %(nam)s'\n", SQL,
            ("mine.toml:11", "statements.record_action does not run: ProgrammingError", "nam"),
        ),
        (
            MINE, SQL + "DO $$ BEGIN RAISE EXCEPTION 'never' USING ERRCODE = '22023'; END $$;",
            ("mine.sql:3", "22023 never"),
        ),
        (MINE, SQL + "SELECT pg_terminate_backend(pg_backend_pid());", ("mine.sql: this SQL failed: 57P01",)),
        (MINE.replace("public.log", "public.lgo", 1), SQL, ("mine.toml:4", "missing table public.lgo")),
        (MINE.replace("AS actor", "AS actr"), SQL, ("mine.toml:10", "missing column actor")),
        (MINE.replace("FROM public.log", "FROM public.lgo"), SQL, ("mine.toml:10", "42P01")),
        (MINE.replace("public.f()", "public.g()"), SQL, ("mine.toml:9", "42883", "public.posts")),
        (MINE + 'grant = "GRANT ALL ON public.lgo TO {role}"\n', SQL, ("mine.toml:11", "42P01")),
    ],
)  # fmt: skip
def test_a_mistake_names_file_line_and_sqlstate(
    tmp_path: Path, lab: Lab, toml: str, sql: str, texts: tuple[str, ...]
) -> None:
    (tmp_path / "mine.toml").write_text(toml)
    (tmp_path / "mine.sql").write_text(sql)
    with pytest.raises(HarnessError) as caught:
        Workspace(lab, load_target(str(tmp_path / "mine.toml")), catalogue().fixtures)
    for text in texts:
        assert text in str(caught.value)


def test_a_mistake_is_one_message_and_nothing_is_verified(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "mine.sql").write_text("CREATE TABLE public.log (n integr);\n")
    done = harness_here(
        tmp_path, "verify", "direct", "--engine", name, "--audit-target", "mine.toml", "--suite", "capture"
    )
    assert done.returncode == 3
    assert "mine.sql:1" in done.stderr
    assert "42704" in done.stderr
    assert "Traceback" not in done.stderr
