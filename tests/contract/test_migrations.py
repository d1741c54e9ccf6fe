"""The suite `migrations` on real servers: sound projects are OK, and each mistake is named by the row that is about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness.cli.exit_codes import ExitCode
from harness.model import Status
from harness.store import read_run
from tests.contract.command_line import harness_here
from tests.contract.services import path_with_psql, psql

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = [pytest.mark.engine, pytest.mark.long]

TABLE = "CREATE TABLE IF NOT EXISTS posts (id bigint PRIMARY KEY, slug text);\n"
#: each run that finds no table of applied migrations adds an index, whatever another run does at the same time
NO_LOCK = r"""
CREATE TABLE IF NOT EXISTS applied (version integer);
SELECT NOT EXISTS (SELECT FROM applied) AS is_new \gset
\if :is_new
    CREATE TABLE IF NOT EXISTS posts (id bigint, slug text);
    CREATE INDEX ON posts (slug);
    INSERT INTO applied VALUES (1);
\endif
"""
#: the lock that many tools use: of the session, outside of a transaction
SESSION_LOCK = rf"""
SELECT NOT pg_try_advisory_lock(7) AS is_taken \gset
\if :is_taken
    DO $$BEGIN RAISE 'another migration is already running'; END$$;
\endif
{NO_LOCK}
SELECT pg_advisory_unlock(7);
"""
#: the tool creates its table first, and takes its lock only then
LATE_LOCK = "CREATE TABLE IF NOT EXISTS applied (version integer);" + SESSION_LOCK
#: the first run takes its lock on a server connection that the second run does not get, and never gives it back
KEPT_LOCK = r"""
SELECT to_regclass('posts') IS NULL AS is_new \gset
\if :is_new
    BEGIN;
    CREATE TABLE posts (id bigint);
    \! psql "$DATABASE_URL" -c 'SELECT pg_advisory_lock(7)'
    COMMIT;
\else
    SELECT pg_advisory_lock(7);
\endif
"""
#: nothing outside of a transaction, so it works behind every pool
TRANSACTION_LOCK = f"BEGIN;\nSELECT pg_advisory_xact_lock(7);\n{NO_LOCK}COMMIT;\n"
#: roles belong to the server, and not to a database
ROLE = r"""
BEGIN;
SELECT pg_advisory_xact_lock(7);
SELECT to_regclass('posts') IS NULL AS is_new \gset
\if :is_new
    CREATE ROLE reader;
    CREATE TABLE posts (id bigint);
    GRANT SELECT ON posts TO reader;
\endif
COMMIT;
"""
#: the first run waits for the second one at its first DDL statement, until its own timeout
SLOW_START = "\\! sleep 2\nSET statement_timeout = '1s';\n" + TABLE
#: settings and passwords of a login belong to the server: later projects use the same login
OWN_LOGIN = """
CREATE TABLE IF NOT EXISTS public.posts (id bigint);
ALTER ROLE CURRENT_USER SET search_path = elsewhere;
"""
# in two words, because harness.toml holds no secrets
OWN_PASSWORD = TABLE + r"SELECT format('ALTER ROLE CURRENT_USER PASS%s %L', 'WORD', 'x') \gexec"
SECRET_DEFAULT = (
    TABLE
    + r"""
\set default `printf 'a value before %s' "$PGPASSWORD"`
ALTER TABLE posts ALTER slug SET DEFAULT :'default';
"""
)
EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;\n"
GOES_ON = "\\set ON_ERROR_STOP off\n" + EXTENSION
#: what a superuser may change of a server for everybody
CHANGES_SERVER = (
    TABLE
    + r"""
ALTER SYSTEM SET work_mem = '9MB';
SELECT pg_reload_conf();
ALTER ROLE ALL SET lock_timeout = '9s';
ALTER ROLE harness_command_owner CREATEDB CONNECTION LIMIT 0;
GRANT pg_monitor TO harness_command_owner;
ALTER DATABASE postgres SET lock_timeout = 9;
ALTER ROLE harness_app NOLOGIN;
\connect template1
CREATE TABLE IF NOT EXISTS in_template (id int);
"""
)
FINDS_SERVER = (
    TABLE
    + """
DO $$
DECLARE
    found text := (current_setting('work_mem'), current_setting('lock_timeout'), to_regclass('in_template'),
        (SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user), pg_has_role('pg_monitor', 'MEMBER'),
        (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'harness_app'));
BEGIN
    IF found <> '(4MB,0,,f,f,t)' THEN RAISE '%', found; END IF;
END$$;
"""
)
#: a database that cannot be dropped, and one of a role that has to be dropped
LEAVES_DATABASES = (
    TABLE
    + r"""
SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = 'kept') AS is_new \gset
\if :is_new
    CREATE DATABASE kept IS_TEMPLATE true ALLOW_CONNECTIONS false;
    CREATE ROLE keeper;
    GRANT keeper TO CURRENT_USER;
    ALTER DATABASE :"DBNAME" OWNER TO keeper;
\endif
"""
)
#: a prepared transaction belongs to the server, and the database of its locks cannot be dropped
PREPARED = """
CREATE TABLE a ();
BEGIN;
CREATE TABLE posts (id bigint);
PREPARE TRANSACTION 'kept';
"""
CLOSES = (
    TABLE
    + r"""
\set name :DBNAME
\connect postgres
ALTER DATABASE :"name" ALLOW_CONNECTIONS false;
"""
)
DROPS = r"""
\set name :DBNAME
\connect postgres
DROP DATABASE :"name" WITH (FORCE);
"""
READ_ONLY = (
    TABLE
    + """
ALTER DATABASE :"DBNAME" SET default_transaction_read_only = on;
ALTER DATABASE :"DBNAME" SET statement_timeout = 1;
"""
)
COLUMN = "ALTER TABLE posts ADD COLUMN body text;\nCREATE INDEX ON posts (id);\n"
#: a tool whose errors look otherwise than psql's
EXTENSION_BY_PYTHON = """
import os, psycopg
connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
"""
#: CREATE INDEX CONCURRENTLY waits for older transactions, so two of them may wait for each other: it tries again, after a
#: random part of a second, because two runs that try again at the same time would wait for each other for ever
INDEX = """
sql() { psql --no-psqlrc --quiet --no-align --tuples-only "$DATABASE_URL" --command "$1"; }
sql 'CREATE TABLE IF NOT EXISTS posts (id bigint PRIMARY KEY, slug text)' || exit
until
    sql 'CREATE INDEX CONCURRENTLY IF NOT EXISTS slugs ON posts (slug)' &&
    [ "$(sql "SELECT indisvalid FROM pg_index WHERE indexrelid = 'slugs'::regclass")" = t ]
do
    sql 'DROP INDEX CONCURRENTLY IF EXISTS slugs'
    sleep "0.$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')"
done
"""


#: by name: the commands, the case, and what its row says
PROJECTS: dict[str, tuple[dict[str, Any], str, Status, str]] = {
    "own-login": ({"up": psql(OWN_LOGIN + '\\! echo "$DATABASE_URL"')}, "twice", Status.OK, ""),
    "own-password": ({"up": psql(TABLE), "local": psql(OWN_PASSWORD)}, "same-schema", Status.OK, ""),
    "secret-default": (
        {"up": psql(SECRET_DEFAULT), "local": psql(TABLE)},
        "same-schema",
        Status.ISSUE,
        "was 'a value before [redacted]'::text, is none",
    ),
    "changes-server": ({"up": psql(CHANGES_SERVER), "role": "superuser"}, "twice", Status.OK, ""),
    "finds-server": ({"up": psql(FINDS_SERVER)}, "twice", Status.OK, ""),
    "leaves-databases": ({"up": psql(LEAVES_DATABASES), "role": "createdb"}, "twice", Status.OK, ""),
    "finds-no-databases": (
        {"up": psql(LEAVES_DATABASES), "local": psql(LEAVES_DATABASES), "role": "createdb"},
        "same-schema",
        Status.OK,
        "",
    ),
    "prepared-at-the-same-time": (
        {"up": psql(PREPARED)},
        "concurrent",
        Status.NOT_RUN,
        "the prepared transaction kept of the commands still has locks",
    ),
    "finds-nothing-prepared": (
        {
            "up": psql(PREPARED),
            "local": psql(PREPARED),
        },
        "same-schema",
        Status.OK,
        "",
    ),
    "closes": (
        {"up": psql(CLOSES)},
        "twice",
        Status.ISSUE,
        "the database of the migrations: expected there, observed there, and allows no connections",
    ),
    "read-only": ({"up": psql(READ_ONLY)}, "twice", Status.ISSUE, "exit code of the second run: expected 0"),
    "lacks-a-right": (
        {"up": [sys.executable, "-c", EXTENSION_BY_PYTHON]},
        "twice",
        Status.NOT_RUN,
        'so the harness chose "owner", which owns the database; declare the role that migrates your database: role = ',
    ),
    "lacks-a-right-and-goes-on": (
        {"up": psql(TABLE), "local": psql(GOES_ON)},
        "same-schema",
        Status.NOT_RUN,
        "but `local` went on after an error, and its login lacks a right",
    ),
    "lacks-a-right-at-start": (
        {"up": psql(TABLE), "starts": psql(EXTENSION)},
        "starts",
        Status.NOT_RUN,
        "the start after the migrations failed, and its login lacks a right",
    ),
    "lacks-a-right-on-the-way-back": (
        {"up": psql(TABLE), "down": psql(GOES_ON)},
        "down-up",
        Status.NOT_RUN,
        "`down` changes the schema: expected yes, observed no, but `down` went on after an error",
    ),
    "lacks-a-right-as-declared": (
        {"up": psql(TABLE + EXTENSION), "role": "owner"},
        "twice",
        Status.ISSUE,
        "exit code of the first run: expected 0",
    ),
    "index": ({"up": ["sh", "-c", INDEX]}, "concurrent", Status.OK, ""),
    "sound-down": (
        {"up": psql(TABLE), "down": psql("DROP TABLE posts;"), "down_empties": True},
        "down-up",
        Status.OK,
        "",
    ),
    "sound-start": ({"up": psql(TABLE), "starts": psql("SELECT 1;")}, "starts", Status.OK, ""),
    "second-run": (
        {"up": psql(r"SELECT format('CREATE TABLE t%s (id int)', count(*)) FROM pg_tables \gexec")},
        "twice",
        Status.ISSUE,
        "what the second run changes: expected no difference, observed table public.t",
    ),
    "down": (
        {"up": psql(TABLE + COLUMN), "down": psql("ALTER TABLE posts DROP COLUMN body;")},
        "down-up",
        Status.ISSUE,
        "what up, down and up change: expected no difference, observed index public.posts_id_idx1 is new",
    ),
    "down-left": (
        {
            "up": psql(TABLE + "CREATE SEQUENCE IF NOT EXISTS numbers;"),
            "down": psql("DROP TABLE posts;"),
            "down_empties": True,
        },
        "down-up",
        Status.ISSUE,
        "what `down` leaves: expected no difference, observed sequence public.numbers is new",
    ),
    "local": (
        {"up": psql(TABLE), "local": psql("CREATE TABLE posts (id bigint PRIMARY KEY, slug varchar(80));")},
        "same-schema",
        Status.ISSUE,
        "column public.posts.slug: type was text, is character varying(80)",
    ),
    "start": (
        {"up": psql(TABLE), "starts": psql("CREATE TABLE IF NOT EXISTS sessions (id int);")},
        "starts",
        Status.ISSUE,
        "what the start changes: expected no difference, observed table public.sessions is new",
    ),
    "start-elsewhere": (
        {"up": psql(TABLE), "starts": ["true"]},
        "starts",
        Status.NOT_RUN,
        "the start after the migrations ended with 0, and neither connected to the given address nor listened on PORT",
    ),
    # neither on the given address nor on the port, but in the schema
    "start-directly": (
        {
            "up": psql(TABLE),
            "starts": psql(COLUMN, "DIRECT_URL"),
        },
        "starts",
        Status.ISSUE,
        "column public.posts.body is new",
    ),
    # after the migrations it changes nothing: whichever of the two runs first decides the schema
    "start-first": (
        {
            "up": psql("CREATE TABLE IF NOT EXISTS posts (id bigint PRIMARY KEY, slug text, body text);"),
            "starts": psql(TABLE),
        },
        "starts",
        Status.ISSUE,
        "column public.posts.body is missing",
    ),
    "no-lock": ({"up": psql(NO_LOCK)}, "concurrent", Status.ISSUE, "index public.posts_slug_idx1 is new"),
    "session-lock": ({"up": psql(SESSION_LOCK)}, "concurrent", Status.OK, ""),
    "role": ({"up": psql(ROLE), "role": "createdb"}, "concurrent", Status.OK, ""),
    "role-start": (
        {
            "up": psql(ROLE),
            "starts": psql(ROLE.replace("(id bigint)", "(id bigint, body text)")),
            "role": "createdb",
        },
        "starts",
        Status.ISSUE,
        "column public.posts.body is new",
    ),
    "statement-timeout": ({"up": psql(SLOW_START)}, "concurrent", Status.OK, ""),
    "creates-nothing": (
        {"up": psql("")},
        "twice",
        Status.ISSUE,
        "the first run creates objects: expected yes, observed no",
    ),
    "missing": ({"up": ["no-such-tool"]}, "twice", Status.NOT_RUN, "command 'no-such-tool' not found"),
    "hangs": ({"up": psql("\\! sleep 60"), "deadline_s": 2}, "twice", Status.NOT_RUN, "did not end within 2 s"),
    "asks": ({"up": ["sh", "-c", "read answer"]}, "twice", Status.ISSUE, "exit code of the first run: expected 0"),
    "drops": (
        {"up": psql(DROPS)},
        "twice",
        Status.ISSUE,
        "the database of the migrations: expected there, observed gone",
    ),
    "no-local": ({"up": psql(TABLE)}, "same-schema", Status.NA, "declares no command for local"),
}


def declare(folder: Path, projects: dict[str, dict[str, Any]]) -> None:
    """Write harness.toml."""
    texts = []
    for name, keys in projects.items():
        lines = {"name": name, "title": f"the migrations {name}", **keys}
        texts.append("[[migrations]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    (folder / "harness.toml").write_text("\n".join(texts))


def rows(folder: Path, engine: Engine, topology: str, *checks: str) -> dict[str, Any]:
    """Run checks of which at least one is an Issue, and return their results by id."""
    named = [word for check in checks for word in ("--check", check)]
    done = harness_here(folder, "verify", topology, "--engine", engine.name, *named, PATH=path_with_psql(engine))
    assert done.returncode == ExitCode.ISSUE, done.stderr
    return {result.check: result for result in read_run(folder / "reports" / "runs" / "latest").results}


def test_each_mistake_is_named_by_its_row(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody gives the locks of a prepared transaction back
    monkeypatch.setattr("harness.suites.migrations.concurrency._REMOVED_S", 1)
    declare(tmp_path, {name: keys for name, (keys, *_) in PROJECTS.items()})
    checks = {name: f"migrations.{name}-{case}" for name, (_, case, *_) in PROJECTS.items()}
    found = rows(tmp_path, any_engine, "direct", *checks.values())
    for name, (_, _, status, reason) in PROJECTS.items():
        result = found[checks[name]]
        said = result.reason + " ".join(one.observed for one in result.expectations if one.broken)
        assert (result.status, reason in said) == (status, True), (name, result)
    assert "CREATE INDEX CONCURRENTLY waits" in found["migrations.index-concurrent"].facts["two runs at a time"]
    assert found["migrations.no-lock-concurrent"].facts["two runs at a time"].startswith("in step")
    log = (tmp_path / "reports/runs/latest/logs/direct/migrations-own-login-twice.log").read_text()
    assert log.count("postgresql://[redacted]@127.0.0.1:") == 2


def test_a_session_lock_behind_a_transaction_pool_excludes_nobody_and_the_report_says_what_to_do(
    any_engine: Engine, tmp_path: Path
) -> None:
    declare(
        tmp_path,
        {
            "session-lock": {"up": psql(SESSION_LOCK)},
            "transaction-lock": {"up": psql(TRANSACTION_LOCK)},
            "kept-lock": {"up": psql(KEPT_LOCK)},
            "late-lock": {"up": psql(LATE_LOCK)},
            "past": {"up": psql(SESSION_LOCK), "direct": True},
            "bypasses": {"up": psql(TABLE, "DIRECT_URL")},
        },
    )
    found = rows(
        tmp_path,
        any_engine,
        "transaction",
        *(f"migrations.{name}-concurrent" for name in ("session-lock", "transaction-lock", "late-lock", "past")),
        "migrations.session-lock-starts",
        "migrations.kept-lock-twice",
        "migrations.bypasses-twice",
    )
    trapped = found["migrations.session-lock-concurrent"]
    assert trapped.status is Status.ISSUE
    assert trapped.reason.startswith("runs that are past the lock at the same time: expected 1, observed 2")
    assert "declare direct = true" in trapped.facts["what to do instead"]
    assert "https://www.pgbouncer.org/" in trapped.facts["what to do instead"]
    kept = found["migrations.kept-lock-twice"]
    assert kept.reason.startswith("locks that outlive the first run: expected none, observed advisory 7 of ")
    [hangs] = [one.observed for one in kept.expectations if one.name.startswith("lock that the second run waits for")]
    assert hangs.endswith(", which is idle")
    assert "declare direct = true" in kept.facts["what to do instead"]
    assert found["migrations.transaction-lock-concurrent"].status is Status.OK
    assert "lock of the runs" not in found["migrations.transaction-lock-concurrent"].facts
    late = found["migrations.late-lock-concurrent"].facts["lock of the runs"]
    assert late.endswith("first seen after the first DDL statement, so it was not watched")
    assert found["migrations.past-concurrent"].status is Status.OK
    assert found["migrations.past-concurrent"].facts["migrations ran"] == "past the pooler, as declared"
    bypasses = found["migrations.bypasses-twice"]
    assert (bypasses.status, "declare direct = true" in bypasses.reason) == (Status.NOT_RUN, True)
    table = (tmp_path / "reports" / "migrations.md").read_text()
    assert "| Issue | runs that are past the lock at the same time: expected 1, observed 2" in table
    assert "declare direct = true" in table
    assert "migrations-session-lock-concurrent.log)" in table
    assert "declares no command for starts: a start of its application" in table
