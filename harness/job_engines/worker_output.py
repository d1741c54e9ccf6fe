"""What a worker prints: a bounded tail, and the SQLSTATEs in it, however much it prints."""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from threading import Lock
from typing import IO, TYPE_CHECKING

from harness.job_engines.sqlstates import sqlstates_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

KEPT_LINES, LONGEST_LINE = 200, 2000
#: of a longer line, the rest is dropped before redaction. It is longer than a kept line, so that the cut does not
#: separate a secret from what shows it
_LONGEST_HELD = 4 * LONGEST_LINE
_CHUNK_BYTES = 65_536
#: lines that a listener gets from one start of a worker
_MOST_SAID = 1000
#: lines that do not name an error: brackets and the caret below a statement, the indented frames and fields of a trace,
#: what PostgreSQL says besides its message, and the version that Node prints after an uncaught exception
_BESIDES = re.compile(r"\W*|\s.*|(LINE \d+|DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LOCATION):.*|Node\.js v[\d.]+")
_CUT = "…"


class WorkerOutput:
    """The output of one start of a worker. Thread-safe: a thread reads it, others look at it."""

    def __init__(self, say: Callable[[str], None], redact: Callable[[str], str], earlier: Iterable[str] = ()) -> None:
        """Begin without output.

        :param say: called with the first lines.
        :param redact: removes secrets from what is said and what is kept.
        :param earlier: the lines of earlier starts, from :meth:`held`.
        """
        self._say = say
        self._redact = redact
        self._lock = Lock()
        self._lines: deque[str] = deque(earlier, maxlen=KEPT_LINES)
        self._sqlstates: dict[str, None] = {}
        self._printed = 0
        self._last = ""

    def read(self, source: IO[bytes]) -> None:
        """Read until the worker and all processes with its output have ended."""
        held, too_long = b"", False
        with contextlib.suppress(ValueError, OSError), source:
            while chunk := os.read(source.fileno(), _CHUNK_BYTES):
                complete, end, rest = chunk.rpartition(b"\n")
                if end:
                    self._add(complete if too_long else held + complete, continued=too_long)
                    held, too_long = b"", False
                if not too_long:
                    held += rest
                if len(held) > _LONGEST_HELD:
                    self._add(held)
                    held, too_long = b"", True
        if held:
            self._add(held)

    def held(self) -> list[str]:
        """Return the last lines as they were printed, with their secrets."""
        with self._lock:
            return list(self._lines)

    @property
    def tail(self) -> str:
        """The last lines, without secrets."""
        # a line that was cut is redacted on its own, too: it may end within a secret
        held = (self._redact(line) if line.endswith(_CUT) else line for line in self.held())
        lines = self._redact("\n".join(held)).split("\n")
        return "\n".join(_cut(line, LONGEST_LINE) for line in lines[-KEPT_LINES:])

    @property
    def last_line(self) -> str:
        """The last line of this start that may name an error, without secrets."""
        with self._lock:
            line = self._last
        return _cut(self._redact(line), LONGEST_LINE)

    @property
    def sqlstates(self) -> tuple[str, ...]:
        """The SQLSTATEs of this start, each once, in the order of their first appearance."""
        with self._lock:
            return tuple(self._sqlstates)

    def _add(self, text: bytes, *, continued: bool = False) -> None:
        """Add complete lines.

        :param continued: the first one is the end of a line that was too long; it is dropped.
        """
        # earlier lines of a burst would be dropped anyway: they cost no time
        parts = text.rsplit(b"\n", KEPT_LINES)
        first = 1 if continued or len(parts) > KEPT_LINES else 0
        lines = [_cut(part.decode(errors="replace").rstrip("\r"), _LONGEST_HELD) for part in parts[first:]]
        whole = text.partition(b"\n")[2] if continued else text
        states = sqlstates_in(whole.decode(errors="replace"))
        with self._lock:
            self._lines.extend(lines)
            self._sqlstates.update(dict.fromkeys(states))
            self._last = error_line(lines, self._last)
        for line in lines[: max(0, _MOST_SAID - self._printed)]:
            with contextlib.suppress(ValueError, OSError):  # the listener may be gone, such as a pager
                self._say(_cut(self._redact(line), LONGEST_LINE))
        self._printed += len(lines)


def error_line(lines: Sequence[str], earlier: str = "") -> str:
    """Return the last line that may name an error, else the earlier one, else the last line with anything in it."""
    named = next((line for line in reversed(lines) if not _BESIDES.fullmatch(line)), earlier)
    return named or next((line.strip() for line in reversed(lines) if line.strip()), "")


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else line[: longest - 1] + _CUT
