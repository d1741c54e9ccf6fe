"""Migrations without a server: the comparison of schemas, the relay's messages, declarations, and advice."""

from __future__ import annotations

import struct
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness import config, places
from harness.audit.target_loading import reference_target
from harness.checks.record import spell
from harness.checks.registry import Check, Control
from harness.cli.project_file import ProjectFile
from harness.database import Endpoint, load_queries
from harness.errors import ConfigError
from harness.host.command import CommandResult
from harness.host.declarations import MigrationCase, MigrationDeclaration
from harness.host.missing_right import lacked_right, lacked_superuser
from harness.host.subjects import CommandFolders, subjects_now
from harness.host.validation import RESERVED_MIGRATIONS, require_host_sound
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.report import columns
from harness.report.migration_rows import MigrationRow
from harness.suites import migrations
from harness.suites.command_roles import chosen_by_the_harness
from harness.suites.migrations import shipped, stepping
from harness.suites.migrations.advice import _LIMITS, errors_in
from harness.suites.migrations.cases import CASES, CONTROLLED
from harness.suites.migrations.comparison import (
    LEDGERS,
    NO_DIFFERENCE,
    Catalogue,
    SchemaObject,
    catalogue_of,
    differences,
    in_lines,
    in_words,
)
from harness.suites.migrations.concurrency import Overlap
from harness.suites.migrations.rows import migration_checks
from harness.suites.migrations.stepping import Relay, StartingLine, _Watched
from harness.suites.server_state import Restorable, restoring
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

SHOP = MigrationDeclaration(name="shop", title="the shop's migrations", up=("migrate", "up"))
TABLE = SchemaObject(
    kind="table", schema="public", table="public.posts", name="public.posts", properties={"owner": "a"}
)
COLUMN = SchemaObject(
    kind="column", schema="public", table="public.posts", name="public.posts.slug", properties={"type": "text"}
)
FUNCTION = SchemaObject(kind="function", schema="public", table="", name="public.f()", properties={"definition": "x"})
LONG = "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS $$\n" + "SELECT 1;\n" * 30
WHOLE = Catalogue(objects=(TABLE, COLUMN, FUNCTION))


# --- the comparison ------------------------------------------------------------------------------------------


@each_row(
    ("objects", "expected"),
    [
        ((TABLE, COLUMN, FUNCTION), []),
        ((FUNCTION, COLUMN, TABLE), []),
        # the parts of a table that is missing or new are not named one by one
        ((FUNCTION,), ["table public.posts is missing"]),
        ((TABLE, FUNCTION), ["column public.posts.slug is missing"]),
        ((TABLE, COLUMN), ["function public.f() is missing"]),
        ((TABLE, replace(COLUMN, properties={}), FUNCTION), ["column public.posts.slug: type was text, is none"]),
        (
            (TABLE, replace(COLUMN, properties={"type": "text", "default": "0"}), FUNCTION),
            ["column public.posts.slug: default was none, is 0"],
        ),
        (
            (TABLE, replace(COLUMN, kind="index"), FUNCTION),
            ["column public.posts.slug is missing", "index public.posts.slug is new"],
        ),
    ],
)
def test_each_difference_is_named_by_its_object(objects: tuple[SchemaObject, ...], expected: list[str]) -> None:
    assert differences(WHOLE, Catalogue(objects=objects)) == expected


def test_a_long_definition_shows_the_place_that_differs() -> None:
    before = Catalogue(objects=(replace(FUNCTION, properties={"definition": f"{LONG}SELECT 2"}),))
    after = Catalogue(objects=(replace(FUNCTION, properties={"definition": f"{LONG}SELECT 3"}),))
    [found] = differences(before, after)
    assert found.startswith(f"function public.f(): definition differs at character {len(LONG) + 8}: was … ")
    assert "SELECT 2 …, is … " in found
    assert found.endswith("SELECT 3 …")
    assert len(found) < 250


PHRASES = st.lists(
    st.sampled_from(
        [
            "index public.posts_slug_idx1 is new",
            "column public.posts.slug: type was text, is character varying(80)",
            "function public.f(): definition differs at character 9: was … a; b …, is … a; table; b …",
            "default privileges of ada for r: grants was x, is y",
            f"table public.{'t' * 500} is missing",
        ]
    ),
    max_size=30,
)


@given(PHRASES)
def test_differences_are_words_and_lines_and_never_longer_than_the_evidence(found: list[str]) -> None:
    text = in_words(found)
    assert spell(text) == text
    lines = in_lines(text)
    assert (lines == [NO_DIFFERENCE]) is (not found)
    if found:
        *_, last = lines
        left = int(last.split()[1]) if last.startswith("and ") else 0
        shown = lines[:-1] if left else lines
        assert len(shown) + left == len(found)
        assert all(phrase.startswith(line.removesuffix("…")) for line, phrase in zip(shown, found, strict=False))


def test_the_report_shows_each_difference_as_a_line() -> None:
    note = "what the second run changes: expected no difference, observed index public.i is new; table public.t is new"
    row = MigrationRow(
        check="c", id="migrations.m-twice", target="direct", status=Status.ISSUE, note=note, instead="i", way=""
    )
    [found] = [column for column in columns.MIGRATIONS if column.heading == "Found"]
    assert found.html(row) == f"<td>{note.replace('; ', '<br>')}<br>i</td>"
    assert found.markdown(row) == f"{note.replace('; ', '<br>')}<br>i"


# --- rights --------------------------------------------------------------------------------------------------


@each_row(
    ("printed", "lacks", "lacks_superuser"),
    [
        ("psql:1.sql:3: ERROR:  permission denied for schema public", True, False),
        ('ERROR:  permission denied to create extension "pg_stat_statements"', True, True),
        ("HINT:  Must be superuser to create this extension.", True, True),
        ("ERROR:  must be owner of table posts", True, False),
        ("E   psycopg.errors.InsufficientPrivilege: permission denied for table posts", True, False),
        (">       with pytest.raises(psycopg.errors.InsufficientPrivilege):", True, False),
        ("django.db.utils.ProgrammingError: must be superuser to alter superuser roles", True, True),
        ("** (Postgrex.Error) ERROR 42501 (insufficient_privilege) permission denied for database", True, False),
        ('ERROR:  must be able to SET ROLE "app"', True, False),
        ('ERROR:  permission denied to set role "app"', True, False),
        ("ERROR:  permission denied to create database", True, False),
        ("ERROR:  permission denied to create role", True, False),
        ('ERROR:  permission denied to create event trigger "a"', True, True),
        ('ERROR:  permission denied to set parameter "session_replication_role"', True, True),
        ("ERROR:  permission denied for function pg_read_file", True, True),
        ("ERROR:  permission denied for table pg_authid", True, True),
        ("ERROR:  permission denied for language c", True, True),
        ("DETAIL:  Only roles with the CREATEROLE attribute may create roles.", True, False),
        ('ERROR:  permission denied: "pg_class" is a system catalog', True, True),
        ("sh: 1: ./migrate.sh: Permission denied", False, False),
        ("PermissionError: [Errno 13] Permission denied: '/srv/app'", False, False),
        ("fatal: git@example.org: Permission denied (publickey).", False, False),
        ('ERROR:  relation "posts" already exists', False, False),
        ("ERROR 142501 of 425010", False, False),
        ("", False, False),
    ],
)
def test_a_missing_right_is_known_by_what_a_tool_prints(printed: str, *, lacks: bool, lacks_superuser: bool) -> None:
    assert lacked_right(f"before\n  {printed}\nafter") == (printed if lacks else "")
    assert lacked_superuser(f"before\n  {printed}\nafter") == (printed if lacks_superuser else "")


def test_the_reason_of_a_missing_right_says_what_to_write() -> None:
    line = lacked_right("ERROR: permission denied for schema public" + "x" * 900)
    reason = chosen_by_the_harness("up failed", line, "owner", "the role that migrates your database")
    assert 'declare the role that migrates your database: role = "createdb" (' in reason
    assert reason.endswith('or role = "superuser" (may do everything), or role = "owner", and this is an Issue')
    assert len(reason) < 700


@pytest.mark.parametrize(
    ("text", "named", "login"), [("", None, "owner"), ('role = "createdb"\n', "createdb", "createdb")]
)
def test_a_login_that_the_project_names_is_not_one_that_the_harness_chose(
    tmp_path: Path, text: str, named: str | None, login: str
) -> None:
    [declared] = written(tmp_path, f'up = ["a"]\n{text}').migrations
    assert (declared.role, declared.login) == (named, login)


# --- the state of the server ---------------------------------------------------------------------------------

LOGIN = Restorable(("ALTER ROLE a NOCREATEDB",), ())
SETTINGS = Restorable(("SELECT set_config('x', '1', false)",), ("ALTER ROLE a RESET ALL",))
OTHER = Restorable(("SELECT set_config('x', '2', false)",), ("ALTER ROLE a RESET ALL",))


@pytest.mark.parametrize(
    ("now", "statements"),
    [
        ({"a": LOGIN, "settings": SETTINGS}, []),
        ({"a": Restorable(("ALTER ROLE a CREATEDB",), ()), "settings": SETTINGS}, list(LOGIN.make)),
        ({"a": LOGIN}, list(SETTINGS.make)),
        ({"a": LOGIN, "settings": OTHER}, [*SETTINGS.remove, *SETTINGS.make]),
        ({"a": LOGIN, "settings": SETTINGS, "new": Restorable(("m",), ("r",))}, ["r"]),
        ({"settings": SETTINGS}, list(LOGIN.make)),
    ],
)
def test_what_commands_change_of_a_server_is_removed_and_made_again(
    now: dict[str, Restorable], statements: list[str]
) -> None:
    assert restoring({"a": LOGIN, "settings": SETTINGS}, now) == statements


NAMES = st.sampled_from(["a", "b", "c"])
PROPERTIES = st.dictionaries(NAMES, st.text(max_size=200), max_size=3)


def _object(kind: str, name: str, table: str, properties: dict[str, str]) -> SchemaObject:
    whole = f"public.{name}" if kind == "table" else f"public.{name}.part"
    table = whole if kind == "table" else table
    return SchemaObject(kind=kind, schema="public", table=table, name=whole, properties=properties)


OBJECTS = st.builds(
    _object, st.sampled_from(["table", "index"]), NAMES, st.sampled_from(["public.a", "public.b"]), PROPERTIES
)
CATALOGUES = st.lists(OBJECTS, max_size=6, unique_by=lambda one: (one.kind, one.name)).map(
    lambda objects: Catalogue(objects=tuple(objects))
)


@given(CATALOGUES)
def test_a_catalogue_equals_itself_in_any_order(found: Catalogue) -> None:
    assert differences(found, Catalogue(objects=found.objects[::-1])) == []


@given(CATALOGUES, CATALOGUES)
def test_a_difference_is_found_from_both_sides(one: Catalogue, other: Catalogue) -> None:
    properties = [{(found.kind, found.name): found.properties for found in side.objects} for side in (one, other)]
    assert (differences(one, other) == []) is (properties[0] == properties[1])
    assert len(differences(one, other)) == len(differences(other, one))


def test_only_the_named_schemas_and_no_ledgers_are_compared() -> None:
    rows = [
        ("table", "public", "public.posts", "public.posts", "owner", "a"),
        ("column", "public", "public.posts", "public.posts.id", "type", "bigint"),
        ("column", "public", "public.posts", "public.posts.id", "default", None),
        ("table", "public", "public.alembic_version", "public.alembic_version", "owner", "a"),
        ("table", "public", 'public."SequelizeMeta"', 'public."SequelizeMeta"', "owner", "a"),
        ("table", "public", "public.mine", "public.mine", "owner", "a"),
        ("table", "other", "other.posts", "other.posts", "owner", "a"),
        ("extension", "", "", "citext", "version", "1"),
    ]
    found = catalogue_of(rows, schemas=("public",), ledgers=("public.mine",))
    assert [one.name for one in found.objects] == ["public.posts", "public.posts.id", "citext"]
    assert found.objects[1].properties == {"type": "bigint"}
    assert found.ledgers == ('public."SequelizeMeta"', "public.alembic_version", "public.mine")
    assert found.has_objects
    assert not catalogue_of(rows[-1:]).has_objects
    assert "posts" not in LEDGERS


@each_row(
    ("schema", "table", "declared"),
    [
        ("public", "public.applied", "public.applied"),
        ("public", 'public."MyLedger"', "public.MyLedger"),
        ("public", 'public."order"', "public.order"),
        ("public", 'public."a""b.c"', 'public.a"b.c'),
        ("my-app", '"my-app".applied', "my-app.applied"),
        ("my-app", '"my-app"."Applied"', "my-app.Applied"),
        ('a"b', '"a""b".applied', 'a"b.applied'),
        ("public", "public.schema_migrations", ""),
        ("my-app", '"my-app".schema_migrations', ""),
        ("My", '"My"."SequelizeMeta"', ""),
    ],
)
def test_a_ledger_is_left_out_whatever_its_name_needs(schema: str, table: str, declared: str) -> None:
    rows = [("table", schema, table, table, "owner", "a"), ("column", schema, table, f"{table}.id", "type", "bigint")]
    assert catalogue_of(rows, ledgers=[declared]) == Catalogue(objects=(), ledgers=(table,))
    assert catalogue_of(rows, ledgers=["public.other"]).has_objects is bool(declared)


# --- the relay -----------------------------------------------------------------------------------------------

READY, IN_TRANSACTION = b"Z\0\0\0\5I", b"Z\0\0\0\5T"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


@given(st.lists(st.binary(max_size=40).map(lambda body: message(b"D", body)), max_size=5), st.data())
def test_messages_stay_whole_however_they_arrive(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(messages) + READY
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    seen: list[int] = []
    reader = _Watched(lambda: seen.append(1))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert b"".join(reader.answers(piece) for piece in pieces) == stream
    assert seen[-1:] == [1]


def test_only_a_session_that_is_in_no_transaction_is_looked_at() -> None:
    seen: list[int] = []
    reader = _Watched(lambda: seen.append(1))
    reader.answers(message(b"C", b"BEGIN\0") + IN_TRANSACTION)
    assert seen == []
    reader.answers(message(b"C", b"COMMIT\0") + READY)
    assert seen == [1]


def test_encryption_is_refused_before_the_login_only() -> None:
    reader = _Watched(lambda: None)
    asks = struct.pack("!ii", 8, 80877103)
    assert reader.requests(asks) == (b"", b"N")
    assert reader.requests(b"login") == (b"login", b"")
    assert reader.requests(asks) == (asks, b"")


NOWHERE = Endpoint(host="127.0.0.1", port=9, user="u", password="", dbname="d")


def test_a_run_whose_pause_is_over_is_not_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    seen_while_paused = []

    class Released(Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen_while_paused.append((relay.is_paused, timeout))
            return self.is_set()

    monkeypatch.setattr(stepping, "Event", Released)
    with Relay(NOWHERE, lambda: True) as relay:
        relay._after_answer()
        assert seen_while_paused == [(True, stepping._LONGEST_PAUSE_S)]
        assert (relay.is_paused, relay.was_paused, relay.locked_later) == (False, True, False)
        relay._after_answer()  # nothing is paused any more
        assert len(seen_while_paused) == 1


def test_a_lock_that_is_seen_when_nothing_is_paused_any_more_was_not_watched() -> None:
    locked: list[bool] = []
    with Relay(NOWHERE, lambda: bool(locked)) as relay:
        relay._after_answer()
        relay.go_on()
        relay._after_answer()
        assert not relay.locked_later
        locked.append(True)
        relay._after_answer()
        assert (relay.locked_later, relay.was_paused) == (True, False)


ENDED = CommandResult(exit_code=1, reason="", seconds=1.0, output="")


@each_row(
    ("codes", "printed", "timed_out"),
    [
        ((1, 3), "ERROR:  canceling statement due to statement timeout", True),
        ((1, 1), "FATAL:  terminating connection due to transaction timeout", True),
        ((1, 1), "FATAL:  query_timeout", True),
        ((1, 1), "Error: Query read timeout", True),
        ((1, 1), "FATAL:  query_wait_timeout", True),
        ((1, 1), "FATAL:  terminating connection due to idle-session timeout", True),
        ((1, 0), "ERROR:  canceling statement due to statement timeout", False),
        ((0, 1), "ERROR:  canceling statement due to statement timeout", False),
        # the gate does not count against lock_timeout: the run gave up at a lock of the other one
        ((1, 1), "ERROR:  canceling statement due to lock timeout", False),
        ((1, 1), 'ERROR:  relation "posts" already exists', False),
    ],
)
def test_a_timeout_of_a_statement_that_the_harness_stops_is_no_mistake_of_the_project(
    codes: tuple[int, int], printed: str, *, timed_out: bool
) -> None:
    one, two = (replace(ENDED, exit_code=code) for code in codes)
    for runs in ((replace(one, output=printed), two), (one, replace(two, output=printed))):
        assert bool(Overlap(one=runs[0], two=runs[1]).of_the_harness) is timed_out
        assert "CONCURRENTLY" in Overlap(one=runs[0], two=runs[1], waited_for_gate=True).of_the_harness


def test_runs_go_on_together_once_all_have_logged_in() -> None:
    line = StartingLine(2)
    with Relay(NOWHERE, line=line) as first, Relay(NOWHERE, line=line) as second:
        other = Thread(target=first._after_answer)
        other.start()
        alone = line.was_crossed
        second._after_answer()
        other.join()
        assert (alone, line.was_crossed) == (False, True)
        second._after_answer()  # only the first login waits


def test_a_run_goes_on_alone_when_the_other_one_has_ended() -> None:
    line = StartingLine(2)
    with Relay(NOWHERE, line=line) as relay:
        line.give_up()
        relay._after_answer()
    assert not line.was_crossed


# --- declarations --------------------------------------------------------------------------------------------


def checks_of(declared: MigrationDeclaration) -> dict[str, Check]:
    return {one.id: one for one in migration_checks([declared]) if isinstance(one, Check)}


def test_a_declaration_has_five_checks_each_with_its_control() -> None:
    controls = [one for one in migration_checks([SHOP]) if isinstance(one, Control)]
    assert list(checks_of(SHOP)) == list(SHOP.checks) == [control.check for control in controls]
    assert {control.at for control in controls} == {at for at, _ in CONTROLLED.values()}
    assert set(CASES) == set(CONTROLLED) == set(MigrationCase)


@pytest.mark.parametrize(("case", "key"), [("same-schema", "local"), ("down-up", "down"), ("starts", "starts")])
def test_a_case_without_its_command_is_not_applicable(case: str, key: str) -> None:
    direct = load_topologies(places.TOPOLOGIES)["direct"]
    without, declared = (
        checks_of(one)[f"migrations.shop-{case}"].lacking(direct, reference_target())
        for one in (SHOP, replace(SHOP, **{key: ("go",)}))
    )
    assert f"the project declares no command for {key}: " in (without or "")
    assert declared is None


def written(folder: Path, text: str) -> ProjectFile:
    path = folder / "harness.toml"
    path.write_text(f'[[migrations]]\nname = "shop"\ntitle = "t"\n{text}')
    file = config.load(path, ProjectFile)
    require_host_sound(file.environments, file.paths, file.commands, path, file.migrations)
    return file


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("up = []\n", "migrations"),
        ('up = ["a"]\ndown_empties = true\n', "down_empties without a way back"),
        ('up = ["a"]\n[[migrations]]\nname = "shop"\ntitle = "t"\nup = ["b"]\n', "two entries with the name 'shop'"),
        ('up = ["a"]\n[[migrations]]\nname = "reference"\ntitle = "t"\nup = ["b"]\n', "'reference' is reserved"),
        ('up = ["a", "--password", "hunter2hunter2"]\n', "migrations.shop.up: found a secret"),
        ('up = ["a"]\nstarts = ["b", "postgresql://ada:hunter2hunter2@db/shop"]\n', "found a secret"),
        ('up = ["a"]\nledger = ["no schema"]\n', "ledger"),
        ('up = ["a"]\nledger = [\'public."quoted"\']\n', "ledger"),
        ('up = ["a"]\ndeadline_s = 0\n', "deadline_s"),
        ('up = ["a"]\nlocla = ["b"]\n', "locla"),
    ],
)
def test_a_mistake_in_a_declaration_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    assert mistake in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_names_of_shipped_migrations_are_reserved() -> None:
    assert {shipped.MIGRATIONS.name} == RESERVED_MIGRATIONS


def test_a_ledger_may_have_any_name(tmp_path: Path) -> None:
    tables = ("public.MyLedger", "my-app.applied", "public.applied-2")
    assert written(tmp_path, f'up = ["a"]\nledger = {list(tables)}\n').migrations[0].ledger == tables


def _edit_a_migration(folder: Path) -> None:
    (folder / "1.sql").write_text("CREATE TABLE b ()")


def _nothing(_folder: Path) -> None:
    pass


@pytest.mark.parametrize(("change", "same"), [(_edit_a_migration, False), (_nothing, True)])
def test_evidence_counts_for_one_revision_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], *, same: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "1.sql").write_text("CREATE TABLE a ()")
    declared = replace(SHOP, folder="shop")
    recorded = CommandFolders([declared], tmp_path / "reports", {}).subjects(ended=True)
    assert set(recorded) == set(SHOP.checks)
    change(folder)
    now = subjects_now([declared], [recorded], [tmp_path / "reports"])
    assert (now == recorded) is same
    [changed] = {subjects_now([replace(declared, down=("d",))], [], [])["migrations.shop-twice"].facts["declaration"]}
    assert changed != recorded["migrations.shop-twice"].facts["declaration"]


# --- advice --------------------------------------------------------------------------------------------------


@each_row(
    ("printed", "feature"),
    [
        ('ERROR:  prepared statement "s0" does not exist', "sql-prepare-kept"),
        ('psycopg.errors.DuplicatePreparedStatement: prepared statement "_pg3_0" already exists', "sql-prepare-kept"),
        ("Error: Another migration is already running. Advisory lock mode is set to 'fail'.", "advisory-lock"),
        ("ActiveRecord::ConcurrentMigrationError:", "advisory-lock"),
        ("WARNING:  you don't own a lock of type ExclusiveLock", "advisory-lock"),
        ("FATAL:  unsupported startup parameter: options", "startup-options"),
        ('ERROR:  relation "posts" already exists', None),
        ("canceling statement due to lock timeout", None),
    ],
)
def test_what_a_tool_prints_shows_the_documented_limit(printed: str, feature: str | None) -> None:
    assert next((name for pattern, name, _ in _LIMITS if pattern.search(printed)), None) == feature


def test_the_gate_of_the_harness_is_in_no_answer_about_locks() -> None:
    queries = load_queries(Path(migrations.__file__).parent / "catalogue.sql")
    for name in ("left_locks", "session_locks", "waiting"):
        assert "@gate@" in queries[name]
    assert "pooler-harness admin" in queries["waits_for_idle"]


@pytest.mark.parametrize(
    ("printed", "error"),
    [
        ("CREATE TABLE\n", ""),
        ("NOTICE:  no ERROR: here\n", ""),
        ("psql:1.sql:3: ERROR:  syntax error\nLINE 1: x\n", "ERROR: syntax error"),
        ("ERROR:  one\r\nERROR:  two\nFATAL:  three", "ERROR: one (and 2 more)"),
    ],
)
def test_errors_after_which_a_command_goes_on_are_named(printed: str, error: str) -> None:
    assert errors_in(printed) == error
