"""Install the reference layer and attach tables to it; a dry run reports what either would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.reading import statements
from harness.database import fetch, roll_back, run_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.database import AnyConnection

_SQL = Path(__file__).parent / "sql"

#: the files of an installation, in order; each of them can be run again at any time
FILES = tuple(
    _SQL / f"{name}.sql"
    for name in ("tables", "capture", "links", "attach", "coverage", "actions", "retention", "rights")
)
_PLAN = """
    SELECT * FROM public.threadline_attach_plan(%s::text::regclass, %s, %s::text[], %s::text[], %s::text[], %s)
"""


class Redaction(Struct, frozen=True, kw_only=True):
    """The columns of a table that the trail hides.

    Excluded columns are not kept. Masked columns are kept as the placeholder, which replaces a JSON value completely.
    `except_columns` stay in the row image and are never named as changed: they are for noise, not for secrets.
    """

    exclude: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    except_columns: tuple[str, ...] = ()
    placeholder: str = "[REDACTED]"


def install(connection: AnyConnection, *, dry_run: bool = False) -> list[str]:
    """Install or update the layer, and return the changed objects; none when it is up to date.

    A dry run installs and rolls back, so that its result is exact. Meanwhile it holds the locks of an installation;
    that is short, because no table is rewritten.

    :raises DatabaseError: with file, line and SQLSTATE.
    """
    with connection.transaction():
        before = _objects(connection)
        run_files(connection, FILES)
        after = _objects(connection)
        if dry_run:
            roll_back()
    return _differences(before, after)


def attach(
    connection: AnyConnection,
    tables: Sequence[str],
    *,
    changed_from: bool = False,
    redaction: Redaction | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Attach capture to all of the tables or none, and return the statements; none for tables attached like that.

    :param tables: as SQL identifiers: `posts`, `shop.orders`, `"Shop"."Order Items"`.
    :param changed_from: also keep the prior values of changed columns.
    :param redaction: the rules; None keeps the existing ones, and `Redaction()` removes them.
    :param dry_run: return the statements without running them.
    :raises SqlError: 42P01 for a missing table, 42809 and 55000 for a table that cannot be captured, 22023 for
        redaction rules that would not protect their columns.
    """
    options: list[object] = [changed_from, None, None, None, None]
    if redaction:
        columns = (list(redaction.exclude), list(redaction.mask), list(redaction.except_columns))
        options = [changed_from, *columns, redaction.placeholder]
    planned: list[str] = []
    with connection.transaction():
        for table in tables:
            plan = [row[0] for row in fetch(connection, _PLAN, [table, *options])]
            planned += plan
            if not dry_run:
                for statement in plan:
                    fetch(connection, statement)
    return planned


def kept_before(connection: AnyConnection, table: str, redaction: Redaction) -> dict[str, int]:
    """Count the earlier changes that hold a value of a column that the rules hide, by column.

    Rules apply to later writes only. The counted values stay in the trail until the retention policy deletes them.

    :param table: as an SQL identifier.
    """
    parameters = {
        "columns": [*redaction.exclude, *redaction.mask],
        "table": table,
        "placeholder": redaction.placeholder,
    }
    return dict(fetch(connection, statements()["kept_before"], parameters))


def _objects(connection: AnyConnection) -> dict[str, str]:
    """Return a text for each object that an installation may create, by name; it differs when the object changes."""
    path = _SQL / "objects.sql"
    return dict(fetch(connection, path.read_text(encoding="utf-8")))


def _differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{'drop' if name not in after else 'create' if name not in before else 'replace'} {name}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
