"""Installing the reference layer, putting it on tables, and saying beforehand what either would do."""

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

#: in this order; each may be run again at any time
FILES = tuple(
    _SQL / f"{name}.sql"
    for name in ("tables", "capture", "links", "attach", "coverage", "actions", "retention", "rights")
)
_PLAN = """
    SELECT * FROM public.threadline_attach_plan(%s::text::regclass, %s, %s::text[], %s::text[], %s::text[], %s)
"""


class Redaction(Struct, frozen=True, kw_only=True):
    """What of a table's rows the trail does not keep.

    Excluded columns are not kept at all, masked ones as the placeholder, a JSON value as a whole. `except_columns` are
    kept with the row and never named as changed: that is for noise, not for secrets.
    """

    exclude: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    except_columns: tuple[str, ...] = ()
    placeholder: str = "[REDACTED]"


def install(connection: AnyConnection, *, dry_run: bool = False) -> list[str]:
    """Install the layer, or bring it up to date, and return what that changed: nothing when it was there already.

    A dry run does the same and undoes it, so that what it says is what happens; it holds the locks of an installation
    for as long as that takes, which is short because nothing is rewritten.

    :raises DatabaseError: naming file, line and SQLSTATE.
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
    """Put capture on tables, all of them or none, and return the statements that this takes: none where it is right.

    :param redaction: None leaves what rules there are; `Redaction()` takes them off.
    :param tables: as SQL spells them: `posts`, `shop.orders`, `"Shop"."Order Items"`.
    :raises SqlError: 42P01 for a table that there is not, 42809 and 55000 for one that cannot be captured, 22023 for
        redaction rules that would not protect what they name.
    """
    given: list[object] = [changed_from, None, None, None, None]
    if redaction:
        hidden = (list(redaction.exclude), list(redaction.mask), list(redaction.except_columns))
        given = [changed_from, *hidden, redaction.placeholder]
    planned: list[str] = []
    with connection.transaction():
        for table in tables:
            plan = [row[0] for row in fetch(connection, _PLAN, [table, *given])]
            planned += plan
            if not dry_run:
                for statement in plan:
                    fetch(connection, statement)
    return planned


def kept_before(connection: AnyConnection, table: str, redaction: Redaction) -> dict[str, int]:
    """Count the changes that were captured before the rules and still hold a value of a column to be hidden.

    Rules do not reach back; what is counted here stays until the retention policy deletes it.

    :param table: as SQL spells it.
    """
    given = {
        "columns": [*redaction.exclude, *redaction.mask],
        "table": table,
        "placeholder": redaction.placeholder,
    }
    return dict(fetch(connection, statements()["kept_before"], given))


def _objects(connection: AnyConnection) -> dict[str, str]:
    """Return what an installation may make, by name, with a text that differs when it does."""
    path = _SQL / "objects.sql"
    return dict(fetch(connection, path.read_text(encoding="utf-8")))


def _differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{'drop' if name not in after else 'create' if name not in before else 'replace'} {name}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
