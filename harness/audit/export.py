"""Exports as CSV, JSON and NDJSON, written page by page. Each document states whether it was truncated.

JSON values are copied in the database's own text form, so no number loses a digit.
"""

from __future__ import annotations

import csv
import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from msgspec import Struct

from harness.audit import telemetry
from harness.audit.reading import Filter, select, statements
from harness.database import fetch, is_idle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from harness.audit.telemetry import Telemetry
    from harness.database import AnyConnection

Format = Literal["csv", "json", "ndjson"]
FORMATS: tuple[Format, ...] = ("csv", "json", "ndjson")

CSV_COLUMNS = (
    *("id", "transaction_id", "table_schema", "table_name", "op", "captured_at", "table_pk", "data_after"),
    *("changed_fields", "changed_from", "transaction_json"),
)
CSV_ACTION_COLUMNS = ("correlation_id", "action_id")
#: first cell of the last record of a truncated CSV
CSV_TRUNCATED = "#truncated"

_GUARD = "'"
#: a spreadsheet runs a cell that begins with one of these (https://owasp.org/www-community/attacks/CSV_Injection)
_GUARDED = frozenset("=+-@\t\r\n＝＋－＠" + _GUARD)


class Sink(Protocol):
    """A text file. Open it with newline="" and encoding="utf-8"."""

    def write(self, text: str, /) -> object: ...


class Exported(Struct, frozen=True, kw_only=True):
    """The counts of an export. A JSON document ends with the same fields."""

    returned_count: int
    truncated: bool
    max_rows: int | None
    #: for :attr:`Filter.since_snapshot` of the next export, which then misses and repeats nothing; None when truncated
    snapshot: str | None


def export(
    connection: AnyConnection,
    sink: Sink,
    kind: Format,
    which: Filter | None = None,
    *,
    max_rows: int | None = 10_000,
    page_size: int = 1000,
    action_metadata: bool = False,
    to: Telemetry = telemetry.default,
) -> Exported:
    """Write the changes that a filter matches, newest first, from one snapshot.

    Memory use is one page, whatever the size of the export.

    :param sink: receives the document's text.
    :param kind: the format.
    :param which: the filter; None for all changes.
    :param max_rows: the most changes to write; None for all.
    :param page_size: changes per query.
    :param action_metadata: in CSV, two more columns: correlation_id and action_id. JSON always has them.
    :param to: receives the event `threadline.export.completed`.
    :raises ValueError: for sizes below 1, an unknown format, or a connection with an open transaction.
    """
    if kind not in FORMATS:
        raise ValueError(f"format: found {kind!r}, needed {', '.join(FORMATS)}")
    if page_size < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"page_size and max_rows: found {page_size} and {max_rows}, needed at least 1")
    if not is_idle(connection):
        raise ValueError("an export needs a transaction of its own, for one snapshot; end the open transaction first")
    began = time.monotonic()
    writer = _WRITERS[kind](sink, action_metadata)
    written, truncated = 0, False
    with connection.transaction():
        fetch(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # the client's own settings would change the text form of values
        fetch(connection, "SET LOCAL client_encoding = 'UTF8'")
        fetch(connection, "SET LOCAL DateStyle = 'ISO'")
        [(snapshot, generated_at)] = fetch(connection, statements()["snapshot"])
        rows = _pages(connection, which or Filter(), page_size, None if max_rows is None else max_rows + 1)
        first = next(
            rows, None
        )  # write nothing before the first page was read: an error then leaves no partial document
        writer.begin(generated_at)
        for row in chain([] if first is None else [first], rows):
            if written == max_rows:
                truncated = True
                break
            writer.write(row)
            written += 1
    snapshot = None if truncated else snapshot
    done = Exported(returned_count=written, truncated=truncated, max_rows=max_rows, snapshot=snapshot)
    writer.end(done)
    to.emit(
        "threadline.export.completed",
        rows=written,
        truncated=int(truncated),
        duration_ms=round((time.monotonic() - began) * 1000, 1),
    )
    return done


def _pages(connection: AnyConnection, which: Filter, page_size: int, limit: int | None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of one page after another; each page begins after the previous page's last row."""
    names, values = which.conditions()
    left, statement = limit, select("changes", names)
    while left is None or left > 0:
        size = page_size if left is None else min(page_size, left)
        page = fetch(connection, statement, values | {"limit": size})
        yield from page
        if len(page) < size:
            return
        left = None if left is None else left - len(page)
        statement = select("changes", [*names, "before_in_order"])
        values |= {"id": page[-1][0], "at": page[-1][9]}


class _Writer(Protocol):
    """Writes one document into a sink."""

    def __init__(self, sink: Sink, action_metadata: bool) -> None: ...
    def begin(self, generated_at: datetime) -> None: ...
    def write(self, row: tuple[Any, ...]) -> None: ...
    def end(self, done: Exported) -> None: ...


def guard(cell: str) -> str:
    """Return a cell that no spreadsheet runs: a possible formula or an already guarded cell gets an apostrophe."""
    return _GUARD + cell if cell[:1] in _GUARDED else cell


def unguard(cell: str) -> str:
    """Return the cell as it was before :func:`guard`."""
    return cell.removeprefix(_GUARD)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _transaction(row: tuple[Any, ...]) -> dict[str, Any]:
    return {"id": row[1], "occurred_at": row[10], "actor_ref": _raw(row[11]), "source": row[12]}


class _Csv:
    """RFC 4180. SQL NULL is an empty cell, which distinguishes a delete from an empty row."""

    def __init__(self, sink: Sink, action_metadata: bool) -> None:
        self._writer = csv.writer(sink, lineterminator="\r\n")
        self._columns = CSV_COLUMNS + (CSV_ACTION_COLUMNS if action_metadata else ())
        self._action_metadata = action_metadata

    def begin(self, generated_at: datetime) -> None:
        del generated_at  # CSV has no field for it
        self._writer.writerow(self._columns)

    def write(self, row: tuple[Any, ...]) -> None:
        cells = [row[0], row[1], row[2], row[3], row[5], row[9].isoformat(), row[4], row[6] or ""]
        cells += ["" if row[7] is None else _encode(row[7]), row[8] or "", _encode(_transaction(row))]
        if self._action_metadata:
            cells += [row[14] or "", row[13] or ""]
        self._writer.writerow([guard(cell) for cell in cells])

    def end(self, done: Exported) -> None:
        if done.truncated:
            cells = [CSV_TRUNCATED, f"returned_count={done.returned_count}", f"max_rows={done.max_rows}"]
            self._writer.writerow(cells + [""] * (len(self._columns) - len(cells)))


def _object(row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "id": row[0],
        "transaction_id": row[1],
        "table_schema": row[2],
        "table_name": row[3],
        "op": row[5],
        "captured_at": row[9],
        "table_pk": _raw(row[4]),
        "data_after": _raw(row[6]),
        "changed_fields": row[7],
        "changed_from": _raw(row[8]),
        "transaction": _transaction(row),
    } | ({"action": {"id": row[13], "correlation_id": row[14]}} if row[13] else {})


class _Json:
    def __init__(self, sink: Sink, action_metadata: bool) -> None:  # noqa: ARG002 -- JSON always has it  # noqa: FBT001
        self._sink = sink
        self._separator = ""

    def begin(self, generated_at: datetime) -> None:
        self._sink.write(f'{{"format_version":1,"generated_at":{_encode(generated_at)},"changes":[')

    def write(self, row: tuple[Any, ...]) -> None:
        self._sink.write(f"{self._separator}\n{_encode(_object(row))}")
        self._separator = ","

    def end(self, done: Exported) -> None:
        self._sink.write("\n]," + _encode(done).removeprefix("{") + "\n")


class _Ndjson:
    def __init__(self, sink: Sink, action_metadata: bool) -> None:  # noqa: ARG002 -- JSON always has it  # noqa: FBT001
        self._sink = sink

    def begin(self, generated_at: datetime) -> None:
        """Write nothing: the document begins with its first change."""

    def write(self, row: tuple[Any, ...]) -> None:
        self._sink.write(_encode(_object(row)) + "\n")

    def end(self, done: Exported) -> None:
        if done.truncated:
            self._sink.write(_encode(done) + "\n")


_WRITERS: dict[Format, type[_Writer]] = {"csv": _Csv, "json": _Json, "ndjson": _Ndjson}
