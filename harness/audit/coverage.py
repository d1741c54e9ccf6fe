"""Which tables are captured, whether those that must be are, and whether two environments capture alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from harness.audit import telemetry
from harness.audit.reading import statements
from harness.database import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.audit.telemetry import Telemetry
    from harness.database import AnyConnection


class CaptureNotReadyError(RuntimeError):
    """A table's changes are not all captured, so its history would have a gap."""


class TableCoverage(Struct, frozen=True, kw_only=True):
    """One table that could be captured; `problem` says why it is not, or not wholly."""

    table_schema: str
    table_name: str
    problem: str | None

    @property
    def name(self) -> str:
        return f"{self.table_schema}.{self.table_name}"


class Violation(Struct, frozen=True, kw_only=True):
    """A table that must be captured, and is not."""

    name: str
    kind: Literal["missing", "uncovered"]
    problem: str


def coverage(
    connection: AnyConnection, *, schema: str | None = None, to: Telemetry = telemetry.default
) -> list[TableCoverage]:
    """Return every table that could be captured, but the trail's own. Connect as the trail's owner."""
    rows = fetch(connection, "SELECT table_schema, table_name, problem FROM public.threadline_coverage(%s)", [schema])
    found = [TableCoverage(table_schema=row[0], table_name=row[1], problem=row[2]) for row in rows]
    covered = sum(each.problem is None for each in found)
    to.emit("threadline.health.checked", covered=covered, uncovered=len(found) - covered)
    return found


def violations(found: Sequence[TableCoverage], expected: Sequence[str]) -> list[Violation]:
    """Return which of the expected tables are missing or not captured, the missing ones first. Others are ignored.

    :param expected: `name`, which is in the schema public, or `schema.name`.
    :raises ValueError: when nothing is expected: a policy that asks for nothing has verified nothing.
    """
    if not expected or not all(each.strip() for each in expected):
        raise ValueError("expected tables: needed at least one name, and none of them blank")
    by_name = {each.name: each for each in found}
    wrong = []
    for name in dict.fromkeys(each if "." in each else f"public.{each}" for each in expected):
        if name not in by_name:
            wrong.append(Violation(name=name, kind="missing", problem="there is no such table"))
        elif problem := by_name[name].problem:
            wrong.append(Violation(name=name, kind="uncovered", problem=problem))
    return sorted(wrong, key=lambda each: (each.kind != "missing", each.name))


def assert_capture_ready(connection: AnyConnection, table: str) -> None:
    """Return when a table's changes are all captured from now on, the last step of a cutover.

    :param table: `name`, which is in the schema public, or `schema.name`.
    :raises CaptureNotReadyError: saying what is wrong.
    """
    for each in violations(coverage(connection), [table]):
        raise CaptureNotReadyError(f"{each.name}: {each.problem}")


def explain_cutover(table: str) -> str:
    """Return what an existing table's history means once capture begins; touches no database."""
    return (
        f"{table}: its history begins when capture is put on it. Rows older than that have none until they are next "
        "written; their first change is then an update or a delete, never an insert. Nothing is made up for them: "
        "what a row was before its first change is before_horizon, not absent. Whoever needs a baseline keeps a copy "
        "of the table, taken after capture began, outside the trail."
    )


def definitions(connection: AnyConnection) -> dict[str, str]:
    """Return what decides how tables are captured: triggers, their functions, and keys, by name."""
    with connection.transaction():
        fetch(connection, "SET LOCAL search_path = ''")  # names are spelled by it, so that all are qualified
        return dict(fetch(connection, statements()["definitions"]))


def differences(one: dict[str, str], other: dict[str, str], names: tuple[str, str] = ("one", "the other")) -> list[str]:
    """Compare two environments' definitions; an empty list says that they capture alike."""
    return [
        f"{name}: only in {names[0] if name in one else names[1]}"
        if name not in one or name not in other
        else f"{name}: {names[0]} has {one[name]}, {names[1]} has {other[name]}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]
