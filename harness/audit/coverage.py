"""Coverage: the captured tables, required tables that are not captured, and differences between environments."""

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
    """Not all changes of a table are captured, so its history would have a gap."""


class TableCoverage(Struct, frozen=True, kw_only=True):
    """One table that could be captured. `problem` is the reason why it is not captured completely, else None."""

    table_schema: str
    table_name: str
    problem: str | None

    @property
    def name(self) -> str:
        return f"{self.table_schema}.{self.table_name}"


class Violation(Struct, frozen=True, kw_only=True):
    """A table that must be captured and is not."""

    name: str
    kind: Literal["missing", "uncovered"]
    problem: str


def coverage(
    connection: AnyConnection, *, schema: str | None = None, to: Telemetry = telemetry.default
) -> list[TableCoverage]:
    """Return the coverage of every table that could be captured, except the trail's own tables.

    :param connection: of the trail's owner.
    :param schema: only tables of this schema; None for all.
    :param to: receives the event `threadline.health.checked`.
    """
    rows = fetch(connection, "SELECT table_schema, table_name, problem FROM public.threadline_coverage(%s)", [schema])
    tables = [TableCoverage(table_schema=row[0], table_name=row[1], problem=row[2]) for row in rows]
    covered = sum(table.problem is None for table in tables)
    to.emit("threadline.health.checked", covered=covered, uncovered=len(tables) - covered)
    return tables


def violations(tables: Sequence[TableCoverage], expected: Sequence[str]) -> list[Violation]:
    """Return the expected tables that are missing or not captured, missing ones first. Other tables are ignored.

    :param tables: the result of :func:`coverage`.
    :param expected: `schema.name`, or `name` for a table of the schema public.
    :raises ValueError: when no table is expected, or a name is blank: such a policy would verify nothing.
    """
    if not expected or not all(name.strip() for name in expected):
        raise ValueError("expected tables: needed at least one name, and none of them blank")
    by_name = {table.name: table for table in tables}
    broken = []
    for name in dict.fromkeys(name if "." in name else f"public.{name}" for name in expected):
        if name not in by_name:
            broken.append(Violation(name=name, kind="missing", problem="no such table"))
        elif problem := by_name[name].problem:
            broken.append(Violation(name=name, kind="uncovered", problem=problem))
    return sorted(broken, key=lambda violation: (violation.kind != "missing", violation.name))


def assert_capture_ready(connection: AnyConnection, table: str) -> None:
    """Verify that all changes of a table are captured from now on: the last step of a cutover.

    :param table: `schema.name`, or `name` for a table of the schema public.
    :raises CaptureNotReadyError: with the table and its problem.
    """
    for violation in violations(coverage(connection), [table]):
        raise CaptureNotReadyError(f"{violation.name}: {violation.problem}")


def explain_cutover(table: str) -> str:
    """Return an explanation of an existing table's history once capture begins. No database is used."""
    return (
        f"{table}: its history begins when the table is attached. Older rows have no history until their next write; "
        "their first change is then an update or a delete, never an insert. The trail invents no earlier changes: "
        "the state of a row before its first change is before_horizon, not absent. For a baseline, keep a copy of "
        "the table outside the trail, taken after capture began."
    )


def definitions(connection: AnyConnection) -> dict[str, str]:
    """Return the definitions that decide how tables are captured: triggers, their functions, and keys, by name."""
    with connection.transaction():
        fetch(connection, "SET LOCAL search_path = ''")  # an empty search_path makes PostgreSQL qualify all names
        return dict(fetch(connection, statements()["definitions"]))


def differences(
    first: dict[str, str], second: dict[str, str], names: tuple[str, str] = ("the first", "the second")
) -> list[str]:
    """Return the differences between two environments' definitions; an empty list means that they capture alike.

    :param names: the names of the two environments in the result.
    """
    return [
        f"{name}: only in {names[0] if name in first else names[1]}"
        if name not in first or name not in second
        else f"{name}: {names[0]} has {first[name]}, {names[1]} has {second[name]}"
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    ]
