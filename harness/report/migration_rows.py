"""The rows about migrations: what a project's commands did to its schema, behind each topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Section, Status
from harness.report.outcomes import is_shown
from harness.suites.migrations.advice import ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.report.evidence import Row


class MigrationRow(Struct, frozen=True, kw_only=True):
    """One case of one declaration, in one topology."""

    #: its claim, which begins with the title of the migrations
    check: str
    id: str
    target: str
    status: Status
    #: why it is not OK
    note: str
    #: where a tool needs what the pool does not have
    instead: str
    #: whether the commands went through the pooler
    way: str
    #: a link to the output of the commands; "" if no run has it
    output: str = ""


def migration_rows(rows: Iterable[Row], output: Callable[[Row], str]) -> tuple[MigrationRow, ...]:
    """Return the rows about migrations: those of one check together.

    :param output: returns the address of the output of a row.
    """
    found: dict[str, list[MigrationRow]] = {}
    for row in rows:
        if row.planned.section is Section.MIGRATIONS and is_shown(*row.answer):
            found.setdefault(row.planned.check, []).append(
                MigrationRow(
                    check=row.planned.claim,
                    id=row.planned.check,
                    target=row.planned.target,
                    status=row.status,
                    note=row.result.reason,
                    instead=row.result.facts.get(ADVICE, ""),
                    way=row.result.facts.get("migrations ran", ""),
                    output=output(row),
                )
            )
    return tuple(row for of_check in found.values() for row in of_check)
