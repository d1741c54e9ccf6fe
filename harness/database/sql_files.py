"""Files of SQL: named statements, and files that run in one transaction with the failing line in the error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.database.client import query
from harness.database.sql_errors import SqlError, describe
from harness.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.database.client import AnyConnection

_CANCELLED = "57014"
_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


def load_queries(path: Path) -> dict[str, str]:
    """Return the statements of an SQL file by name: each block begins with `-- name: the_name`.

    :raises ConfigError: for a duplicate name, or a file without names.
    """
    text = path.read_text(encoding="utf-8")
    marks = list(_NAME.finditer(text))
    found: dict[str, str] = {}
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        if mark["name"] in found:
            raise ConfigError(f"duplicate statement name {mark['name']}", where=str(path))
        found[mark["name"]] = text[mark.end() : after.start() if after else None].strip()
    if not found:
        raise ConfigError("no statement found, expected blocks that begin with '-- name: the_name'", where=str(path))
    return found


def run_files(connection: AnyConnection, paths: Sequence[Path]) -> None:
    """Run SQL files in one transaction: all of them or none.

    :raises DatabaseError: with file, line and SQLSTATE.
    """
    with connection.transaction():
        for path in paths:
            text = _read_sql(path)
            try:
                with connection.transaction():
                    connection.execute(query(text))
            except SqlError as error:
                at = error.diag.statement_position
                line = text.count("\n", 0, int(at) - 1) + 1 if at else _failing_line(connection, text, error)
                raise DatabaseError(
                    f"this SQL failed: {describe(error)}",
                    where=f"{path}:{line}" if line else str(path),
                    hint=error.diag.message_hint or "",
                    detail="\n".join(filter(None, (error.diag.message_detail, error.diag.context))),
                ) from None


def _read_sql(path: Path) -> str:
    """Return the text of an SQL file that can run as one message, in a transaction.

    :raises DatabaseError: with the line of a command that only psql understands, or that ends the transaction.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseError(f"this SQL cannot be read: {error}", where=str(path)) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DatabaseError("found a NUL byte: the server would ignore the text after it", where=f"{path}:{line}")
    for start, end in _statements(text):
        if found := _NOT_HERE.match(text, start, end):
            raise DatabaseError(
                f"{found[0].split()[0]} cannot run here: the files run in one transaction, and without psql",
                where=f"{path}:{text.count(chr(10), 0, start) + 1}",
                hint="leave out BEGIN and COMMIT, COPY from or to the client, and psql's commands with a backslash",
            )
    return text


#: tokens that may contain a semicolon (comments, texts, names, dollar-quoted bodies), and the semicolon itself
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|(?P<end>;)""",
    re.DOTALL,
)

_SPACE_AND_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)

_NOT_HERE = re.compile(
    r"(?:BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION)\b(?!\s+ATOMIC)|\\\S*|COPY\b[^;]*?\b(?:STDIN|STDOUT)\b",
    re.IGNORECASE,
)


def is_quoted(text: str, position: int) -> bool:
    """Return whether a position of an SQL text is within a comment, or within a text or a name in quotes."""
    tokens = (token for token in _TOKEN.finditer(text) if not token["end"])
    return any(token.start() <= position < token.end() for token in tokens)


def _statements(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each statement, without the blanks and comments before it."""
    ends = [token.end() for token in _TOKEN.finditer(text) if token["end"]]
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        lead = _SPACE_AND_COMMENTS.match(text, start, end)
        yield (lead.end() if lead else start), end


def _failing_line(connection: AnyConnection, text: str, error: SqlError) -> int | None:
    """Return the line of the statement that raised an error without a position.

    It runs the statements one at a time, and rolls them back.
    """
    if connection.closed or error.sqlstate == _CANCELLED:  # running it again would take as long
        return None
    with connection.transaction(force_rollback=True):
        for start, end in _statements(text):
            try:
                connection.execute(query(text[start:end]))
            except SqlError as again:
                return text.count("\n", 0, start) + 1 if again.sqlstate == error.sqlstate else None
    return None
