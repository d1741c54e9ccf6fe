"""Runs a command, such as a test suite in any language, behind a chain: its environment, its output, its result."""

from __future__ import annotations

import contextlib
import io
import time
from collections import deque
from threading import Lock, Thread
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

from harness.engine.guard import new_mark
from harness.host.guarded_process import GuardedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.database import Endpoint

#: the last lines of the output, kept as evidence
_KEPT_LINES = 2000
#: between SIGTERM and SIGKILL, seconds
GRACE_S = 5.0
_LONGEST_LINE = 65_536
#: what is kept of lines that are long
_KEPT_CHARACTERS = 4_000_000


class CommandResult(Struct, frozen=True, kw_only=True):
    """The result of a command."""

    #: None when the harness ended the command
    exit_code: int | None
    seconds: float
    #: the last lines of stdout and stderr, in the order they arrived
    output: str
    #: why the harness ended the command, and with which signals; "" when it ended on its own
    reason: str = ""
    #: processes in sessions of their own that outlived the command, and were ended
    left_behind: tuple[str, ...] = ()


def variables(chain: Endpoint, direct: Endpoint) -> dict[str, str]:
    """Return the environment variables that common tools read to find a database.

    libpq reads `PG*` (https://www.postgresql.org/docs/current/libpq-envars.html). Ecto, Rails, Django's
    dj-database-url, Prisma, sqlx and most others read `DATABASE_URL`, and Prisma reads `DIRECT_URL` for the server
    itself. Laravel and many Compose files use `DB_*`.

    :param chain: the address through the whole chain.
    :param direct: the address of the server itself; its variables have the prefix `DIRECT_`.
    """
    given: dict[str, str] = {}
    for prefix, at in (("", chain), ("DIRECT_", direct)):
        given |= {
            f"{prefix}PGHOST": at.host,
            f"{prefix}PGPORT": str(at.port),
            f"{prefix}PGUSER": at.user,
            f"{prefix}PGPASSWORD": at.password,
            f"{prefix}PGDATABASE": at.dbname,
            f"{prefix}DATABASE_URL": url(at),
            f"{prefix}DB_HOST": at.host,
            f"{prefix}DB_PORT": str(at.port),
            f"{prefix}DB_USER": at.user,
            f"{prefix}DB_USERNAME": at.user,
            f"{prefix}DB_PASSWORD": at.password,
            f"{prefix}DB_NAME": at.dbname,
            f"{prefix}DB_DATABASE": at.dbname,
        }
    return given | {"DIRECT_URL": url(direct)}


def url(at: Endpoint) -> str:
    """Return an address as a URL that includes the password."""
    host = f"[{at.host}]" if ":" in at.host else at.host
    return f"postgresql://{quote(at.user, safe='')}:{quote(at.password, safe='')}@{host}:{at.port}/{at.dbname}"


def run(
    command: Sequence[str],
    *,
    folder: Path,
    given: Mapping[str, str],
    without: Collection[str] = (),
    deadline_s: float,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
) -> CommandResult:
    """Run a command until it ends, its deadline passes, or the run stops. All processes that it started end with it.

    They also end when this process is killed: those of its process group and, with /proc, those in other sessions.

    :param command: the program and its arguments.
    :param folder: working directory of the command.
    :param given: environment variables, in addition to those of this process. Inherited variables of libpq are removed,
        because they could lead to another server.
    :param without: further inherited variables that are removed.
    :param deadline_s: seconds.
    :param say: called with every line of stdout and stderr.
    :param stopped: returns whether the run is ending; called several times a second.
    :raises UsageError: when the command or the folder does not exist, or the command cannot be started.
    """
    began = time.monotonic()
    process = GuardedProcess(command, folder, given, new_mark(), without)
    kept = _Tail()
    reason = ""
    with _ended(process):
        reader = Thread(target=_read, args=(process.stdout, kept, say), daemon=True)
        reader.start()
        while process.exit_code is None and not reason:
            process.wait(0.1)
            if stopped():
                reason = "stopped with the run"
            elif time.monotonic() - began > deadline_s:
                reason = f"did not end within {deadline_s:g} s"
    if reason:
        reason += f", so {' and '.join(process.signals)} ended it"
    reader.join(GRACE_S)
    return CommandResult(
        exit_code=None if reason else process.exit_code,
        seconds=round(time.monotonic() - began, 2),
        output=kept.text,
        reason=reason,
        left_behind=process.left_behind,
    )


@contextlib.contextmanager
def _ended(process: GuardedProcess) -> Iterator[None]:
    """End a command when the block ends; its guard ends it when an interrupt arrives meanwhile."""
    try:
        try:
            yield
        finally:
            process.end(GRACE_S)
    finally:
        process.close_guard()


class _Tail:
    """The last lines of an output. A line that lost its beginning begins with a whole word."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._characters = 0
        self._is_cut = False
        #: an output may go on after its command
        self._lock = Lock()

    def add(self, piece: str) -> None:
        """Add a line, or a part of a long one."""
        with self._lock:
            self._pieces.append(piece)
            self._characters += len(piece)
            while len(self._pieces) > _KEPT_LINES or self._characters > _KEPT_CHARACTERS:
                dropped = self._pieces.popleft()
                self._characters -= len(dropped)
                self._is_cut = not dropped.endswith("\n")

    @property
    def text(self) -> str:
        """What is kept."""
        with self._lock:
            text, is_cut = "".join(self._pieces), self._is_cut
        # the rest of a word, which may be the rest of a secret
        return "… " + (text.split(maxsplit=1)[1:] or ["\n"])[0] if is_cut and text else text


def _read(source: IO[bytes], kept: _Tail, say: Callable[[str], None]) -> None:
    with contextlib.suppress(ValueError, OSError), io.TextIOWrapper(source, errors="replace") as text:
        while line := text.readline(_LONGEST_LINE):
            kept.add(line)
            with contextlib.suppress(ValueError, OSError):  # the listener may be gone, such as a pager
                say(line)
