"""Errors and odd data of an audit trail are judged as the trail's, and never as a check that broke."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import load_target
from harness.checks import hanging
from harness.checks.execution import run_check
from harness.checks.workspace import Workspace
from harness.cli.planning import planned
from harness.engine.owner import Owner
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.model import EndedBy, Severity, Status
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.actor import sharing
from harness.suites.capture import extremes, writes
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext
    from harness.checks.execution import ContextSource
    from harness.engine.protocol import Engine
    from harness.model import Result

pytestmark = pytest.mark.engine

DIRECT = load_topologies()["direct"]
CHECKS = {check.id: check for check in catalogue().checks}
PLAIN_TRIGGER = load_target("plain-trigger", ())
_LINE = PLAIN_TRIGGER.at("changes").rpartition(":")[2]


@pytest.fixture(scope="module")
def workspace(some_engine: Engine) -> Iterator[Workspace]:
    """Return a workspace with a trail that knows no library: its data is what its statements return."""
    lab = stand_up(some_engine, DIRECT, Owner.me(new_run_id()), Redactor())
    try:
        made = Workspace(lab, PLAIN_TRIGGER, catalogue().fixtures)
        yield made
        made.close()
    finally:
        lab.close()


class Altered:
    """A workspace whose contexts are altered before the check runs."""

    def __init__(self, workspace: Workspace, alter: Callable[[CheckContext], None]) -> None:
        self._workspace = workspace
        self._alter = alter
        self.own_failure = workspace.own_failure
        self.load = workspace.load

    @property
    def target(self) -> AuditTarget:
        return self._workspace.target

    @contextlib.contextmanager
    def context(self, check: str) -> Iterator[CheckContext]:
        with self._workspace.context(check) as ctx:
            self._alter(ctx)
            yield ctx

    def host_context(self) -> contextlib.AbstractContextManager[CheckContext]:
        return self._workspace.host_context()


def judged(workspace: Workspace, alter: Callable[[CheckContext], None], *identities: str) -> dict[str, Result]:
    source = cast("ContextSource", Altered(workspace, alter))

    def run(identity: str) -> Result:
        check = CHECKS[identity]
        return run_check(check, planned("direct", check, ""), DIRECT, source)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(identities, pool.map(run, identities), strict=True))


# --- errors ------------------------------------------------------------------------------------------------


def raises(sqlstate: str) -> Callable[[CheckContext], None]:
    """Return an alteration: the trail's own trigger raises this SQLSTATE for every write."""

    def alter(ctx: CheckContext) -> None:
        ctx.sabotage(
            "CREATE OR REPLACE FUNCTION public.audit_row() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'the trail refuses' USING ERRCODE = '{sqlstate}'; END $$"
        )

    return alter


@pytest.mark.parametrize(
    ("sqlstate", "checks"),
    [
        ("23P01", ("capture.insert", "capture.key-change", "actor.unset")),
        *((sqlstate, ("capture.insert",)) for sqlstate in ("42501", "23503", "22000", "P0001", "40001", "57014", "XX000", "08006", "53100")),
    ],
)  # fmt: skip
def test_an_error_that_the_trail_raises_is_an_issue_of_the_trail(
    workspace: Workspace, sqlstate: str, checks: tuple[str, ...]
) -> None:
    found = judged(workspace, raises(sqlstate), *checks)
    for result in found.values():
        assert result.status is Status.ISSUE
        assert result.reason.startswith(
            f"statements of the application: expected no error, observed the audited write failed: {sqlstate} the trail refuses (PL/pgSQL function "
        )
        assert "audit_row()" in result.reason
        assert result.ended_by is None
    assert CHECKS["capture.insert"].severity is Severity.P0


def test_an_error_of_the_operating_system_is_not_the_trail(workspace: Workspace) -> None:
    def fails_on_the_machine(ctx: CheckContext) -> None:
        ctx.sabotage(
            "CREATE OR REPLACE FUNCTION public.audit_row() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_read_file('/nowhere/to/be/found'); END $$;"
            "ALTER FUNCTION public.audit_row() SECURITY DEFINER; ALTER FUNCTION public.audit_row() OWNER TO CURRENT_USER"
        )

    result = judged(workspace, fails_on_the_machine, "capture.insert")["capture.insert"]
    assert (result.status, result.ended_by) == (Status.NOT_RUN, EndedBy.INFRASTRUCTURE)


def test_a_write_that_hangs_is_an_issue_of_the_trail(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(ctx: CheckContext) -> None:
        ctx.sabotage(
            "CREATE OR REPLACE FUNCTION public.audit_row() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(1000); RETURN NULL; END $$"
        )

    monkeypatch.setattr(hanging, "HANGS_S", 1.0)
    result = judged(workspace, hangs, "capture.insert")["capture.insert"]
    assert (result.status, result.ended_by) == (Status.ISSUE, EndedBy.TIME_LIMIT)
    assert re.fullmatch(
        r"writes to the audited tables: expected done, observed the audited write did not end within \d+ s; "
        "it waits for Timeout PgSleep",
        result.reason,
    )


# --- data --------------------------------------------------------------------------------------------------

_COLUMNS = (
    *("id", "transaction_id", "table_schema", "table_name", "table_pk"),
    *("op", "data_after", "changed_fields", "actor"),
)


def reads(statement: str, **columns: str) -> Callable[[CheckContext], None]:
    """Return an alteration: the target's statement `changes` returns something else than the trail has.

    :param statement: the rows; `{changes}` is the target's own statement.
    :param columns: expressions in place of columns.
    """

    def alter(ctx: CheckContext) -> None:
        own = ctx.target.statements.changes.strip().rstrip(";")
        selected = ", ".join(f"{columns.get(name, f'c.{name}')} AS {name}" for name in _COLUMNS)
        changes = f"SELECT {selected} FROM ({statement.format(changes=own)}) c"
        ctx.target = replace(ctx.target, statements=replace(ctx.target.statements, changes=changes))

    return alter


#: every value of the row becomes something else
_EACH = "(SELECT jsonb_object_agg(key, {}) FROM jsonb_each(c.data_after))"
ALL = "{changes}"
ODD = {
    "nulls in the first row alone": reads(
        "SELECT * FROM ({changes}) x LIMIT 1", data_after=_EACH.format("NULL::text"), table_pk="NULL::jsonb"
    ),
    "arrays for values, with a null": reads(
        ALL, data_after=_EACH.format("jsonb_build_array(value)"), changed_fields="ARRAY[NULL, 'x']", actor="42"
    ),
    "a statement that fails": reads(ALL, actor="1 / (SELECT count(*) FROM public.audit_changes WHERE false)"),
}
TRAIL_CHECKS = tuple(
    check.id
    for check in CHECKS.values()
    if check.id.partition(".")[0] in {"capture", "actor"}
    and not check.disrupts
    and check.lacking(DIRECT, PLAIN_TRIGGER) is None
)
#: the modules whose checks catch errors themselves, or read the trail next to other threads. An error of the trail's
#: statement ends all other checks at one place
CATCHING = {
    *("capture.basics", "capture.structure", "capture.transactions", "capture.concurrency", "capture.shadowing"),
    *("capture.forging", "capture.covering", "capture.installing", "capture.burdens", "actor.work", "actor.sharing"),
}


@pytest.mark.parametrize("odd", ODD)
def test_data_of_another_shape_breaks_expectations_and_no_check(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    # shapes count here, and 100 MB, thousands of rows and hundreds of transactions would take longer than everything else
    monkeypatch.setattr(extremes, "_HUGE_KIB", 1)
    monkeypatch.setattr(extremes, "_LARGE_KB", 1)
    monkeypatch.setattr(writes, "_MANY", 50)
    monkeypatch.setattr(sharing, "_CLIENTS", 4)
    monkeypatch.setattr(sharing, "_ROUNDS", 10)  # one round without an actor, and one with a delete
    fails = odd == "a statement that fails"
    modules = {check: CHECKS[check].run.__module__.removeprefix("harness.suites.") for check in TRAIL_CHECKS}
    found = judged(workspace, ODD[odd], *(check for check in TRAIL_CHECKS if not fails or modules[check] in CATCHING))
    assert not {name: result.reason for name, result in found.items() if "itself broke" in result.reason}
    assert fails or "capture.large-values" in found
    assert found["capture.update"].status is Status.ISSUE
    named = f"observed statements.changes (plain-trigger.toml:{_LINE}): 22012" in found["capture.update"].reason
    assert named == fails
    assert any(expectation.broken for expectation in found["capture.update"].expectations)
