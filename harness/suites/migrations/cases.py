"""The cases of the suite: what the commands of a project do to its schema, each in databases of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.host.declarations import MigrationCase as Case
from harness.suites.migrations.concurrency import LEFT, concurrent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.suites.migrations.running import MigrationRun

_CREATES = "the first run creates objects"
CHANGED_TWICE = "what the second run changes"
CHANGED_LOCALLY = "what the local command makes different"
CHANGED_AGAIN = "what up, down and up change"
CHANGED_BY_START = "what the start changes"


def twice(run: MigrationRun) -> None:
    """Run the migrations twice."""
    database = run.new_database("up")
    run.migrate("the first run", run.declared.up, database)
    first = run.catalogue(database, "after the first run")
    run.expect_objects(_CREATES, first)
    run.migrate("the second run", run.declared.up, database)
    run.interfere("the second run", database)
    run.expect_same(CHANGED_TWICE, first, run.catalogue(database, "after the second run"))


def same_schema(run: MigrationRun) -> None:
    """Run the migrations, and the local command in another database."""
    up = run.new_database("up")
    run.migrate("`up`", run.declared.up, up)
    wanted = run.catalogue(up, "after up")
    run.expect_objects("`up` creates objects", wanted)
    local = run.new_database("local")
    run.migrate("`local`", run.declared.local, local)
    run.interfere("`local`", local)
    run.expect_same(CHANGED_LOCALLY, wanted, run.catalogue(local, "after local"))


def down_up(run: MigrationRun) -> None:
    """Go forward, back, and forward again."""
    database = run.new_database("up")
    empty = run.catalogue(database, "before")
    run.migrate("`up`", run.declared.up, database)
    first = run.catalogue(database, "after up")
    run.expect_objects("`up` creates objects", first)
    run.migrate("`down`", run.declared.down, database)
    run.interfere("`down`", database)
    back = run.catalogue(database, "after down")
    run.expect("`down` changes the schema", "yes" if back != first else "no", equals="yes")
    if run.declared.down_empties:
        run.expect_same("what `down` leaves", empty, back)
    run.migrate("`up` after `down`", run.declared.up, database)
    run.expect_same(CHANGED_AGAIN, first, run.catalogue(database, "after up again"))


def starts(run: MigrationRun) -> None:
    """Start the application after the migrations, and before them: it leaves the schema to them."""
    migrated = run.new_database("up")
    run.migrate("`up`", run.declared.up, migrated)
    wanted = run.catalogue(migrated, "after up")
    run.expect_objects("`up` creates objects", wanted)
    ended = run.start("the start after the migrations", migrated)
    if ended.exit_code is not None:
        run.require_rights("the start after the migrations", ended)
        if not run.ctx.expect("exit code of the start", ended.exit_code, equals=0):
            run.failed(ended)
    run.interfere("the start", migrated)
    run.expect_same(CHANGED_BY_START, wanted, run.catalogue(migrated, "after the start"))
    run.require_started()
    # without a schema it may fail; what it creates by itself must not be another schema
    empty = run.new_database("empty")
    before = run.catalogue(empty, "before the start")
    run.start("the start before the migrations", empty)
    found = run.catalogue(empty, "after the start before the migrations")
    if found != before:
        run.expect_same("what the schema of a start before the migrations has different", wanted, found)
    run.require_started()


CASES: Mapping[Case, Callable[[MigrationRun], None]] = {
    Case.TWICE: twice,
    Case.SAME_SCHEMA: same_schema,
    Case.DOWN_UP: down_up,
    Case.CONCURRENT: concurrent,
    Case.STARTS: starts,
}
#: the expectation that the control of a case breaks, and the step after which it interferes
CONTROLLED: Mapping[Case, tuple[str, str]] = {
    Case.TWICE: (CHANGED_TWICE, "the second run"),
    Case.SAME_SCHEMA: (CHANGED_LOCALLY, "`local`"),
    Case.DOWN_UP: (CHANGED_AGAIN, "`down`"),
    Case.CONCURRENT: (LEFT, "both"),
    Case.STARTS: (CHANGED_BY_START, "the start"),
}
