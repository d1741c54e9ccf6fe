"""The statements that the sessions of one check ran, as a script that a person can repeat in psql."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.database.client import Client

#: begins the name of the session of a superuser, who observes, and breaks things on purpose
ADMIN = "admin"
#: the first statements and the last ones that a script keeps
_FIRST, _LAST = 140, 60
#: characters of a whole script, and of one statement in it
_MOST, _LONGEST = 20_000, 12_000
#: characters from which a statement that ran before is only named
_LONG = 240
#: looks of the harness at the servers' processes, and of its administrator at nothing but the catalogue: they change
#: nothing. A trail may read the catalogue, too, next to its own tables
_OWN_PROCESS = re.compile(r"\s*SELECT\s+pg_backend_pid\(\)\s*;?\s*$", re.IGNORECASE)
_PROCESSES = re.compile(r"\bpg_stat_activity\b", re.IGNORECASE)
_LOOKS_UP = re.compile(
    r"\s*SELECT\b.*\b(pg_(attribute|class|constraint|index|inherits|namespace|proc|roles|trigger|type)"
    r"|has_\w+_privilege)\b",
    re.IGNORECASE | re.DOTALL,
)
_RELATION = re.compile(r"\b(?:FROM|JOIN)\s+(?:pg_catalog\.)?([a-z_\"][a-z0-9_\"]*)", re.IGNORECASE)
_PASSWORD = re.compile(r"(\bPASSWORD\s+)E?'(?:[^']|'')*'", re.IGNORECASE)


class Script:
    """Collects statements in the order in which they began; statements of several threads as well."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._first: list[tuple[str, str]] = []
        self._last: deque[tuple[str, str]] = deque(maxlen=_LAST)
        self._left_out = 0
        self._seen: set[str] = set()
        self._names: list[str] = []

    def follow(self, client: Client, name: str, about: str) -> None:
        """Collect the statements of a client from now on.

        :param name: of its session; a second session of that name gets a number.
        :param about: its role and its way to the server.
        """
        with self._lock:
            number = self._names.count(name) + 1
            self._names.append(name)
        session = f"{name}{f' {number}' if number > 1 else ''}, {about}"
        client.recorded = lambda statement: self.add(session, statement)
        client.cursor_factory = RecordingCursor

    def add(self, session: str, statement: str) -> None:
        """Add a statement, or a remark."""
        if _observes(statement) or (session.startswith(ADMIN) and _looks_up(statement)):
            return
        statement = statement.strip()
        if "password" in statement.lower():
            statement = _PASSWORD.sub(r"\1'…'", statement)
        with self._lock:
            if len(statement) > _LONG and statement in self._seen:
                statement = f"-- once more: {' '.join(statement.split())[:80]}…"
            self._seen.add(statement)
            if len(statement) > _LONGEST:
                statement = f"-- cut, {len(statement)} characters: {' '.join(statement.split())[:200]}…"
            if len(self._first) < _FIRST:
                self._first.append((session, statement))
                return
            self._left_out += len(self._last) == _LAST
            self._last.append((session, statement))

    @property
    def text(self) -> str:
        """The script; "" without a statement. The sessions are comments: psql has one session, so each needs one."""
        with self._lock:
            first, last, left_out = [*self._first], [*self._last], self._left_out
        # of a long script, the beginning and the end show the situation and its result
        while sum(len(text) for _, text in (*first, *last)) > _MOST and len(first) + len(last) > 1:
            (last.pop(0) if last and len(last) >= len(first) else first.pop())
            left_out += 1
        left = [("", f"-- … {left_out} statements are left out")] if left_out else []
        return "\n".join(_lines((*first, *left, *last)))


def _observes(statement: str) -> bool:
    """Return whether a statement looks at the servers' processes."""
    # a search for a text is a hundred times as fast as one for a pattern, and statements may be long
    named = "pg_stat_activity" in statement.lower()
    return bool(_OWN_PROCESS.match(statement) or (named and _PROCESSES.search(statement)))


def _looks_up(statement: str) -> bool:
    """Return whether a statement reads nothing but the catalogue."""
    return bool(_LOOKS_UP.match(statement)) and all(
        name.lower().startswith("pg_") for name in _RELATION.findall(statement)
    )


def _lines(statements: Iterable[tuple[str, str]]) -> Iterator[str]:
    current = ""
    for session, statement in statements:
        if session and session != current:
            yield f"-- session {session}"
            current = session
        yield statement if statement.startswith("--") or statement.endswith(";") else f"{statement};"


class RecordingCursor(psycopg.Cursor[Any]):
    """A cursor of a client whose statements are collected, with their parameters as literals."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement, as psycopg does."""
        self._record(query, params)
        try:
            return super().execute(query, params, **options)
        except psycopg.Error as error:
            self._remark(error)
            raise

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        """Execute a statement several times, as psycopg does."""
        every = list(params_seq)
        for params in every:
            self._record(query, params)
        super().executemany(query, every, **options)

    @contextlib.contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        """Copy rows, as psycopg does."""
        self._record(statement, params)
        self._say("-- its rows are left out")
        with super().copy(statement, params, **options) as copy:
            yield copy

    def _record(self, query: Any, params: Any) -> None:
        client: Any = self.connection
        if client.recorded is not None:
            try:
                text = psycopg.ClientCursor(client).mogrify(query, params)
            except (psycopg.Error, TypeError, ValueError):
                text = f"-- a statement that cannot be spelt with literals: {query!r:.200}"
            client.recorded(text)

    def _remark(self, error: psycopg.Error) -> None:
        self._say(f"-- {error.sqlstate or 'no SQLSTATE'}: {(str(error).splitlines() or [''])[0]:.200}")

    def _say(self, remark: str) -> None:
        client: Any = self.connection
        if client.recorded is not None:
            client.recorded(remark)
