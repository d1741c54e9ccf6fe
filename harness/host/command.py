"""A command of somebody's test suite, in any language, behind a chain: its environment, its output, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from threading import Thread
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

from harness.errors import TimedOutError, UsageError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.database import Endpoint

#: of the output, kept for the evidence
_KEPT_LINES = 2000
#: for ending when asked to, before it is ended
_GRACE_S = 5.0
_LONGEST_LINE = 65_536
#: run by a shell that reads from the harness: one that was killed closes the pipe without a word. Then the command's
#: process group, $1, is asked to end, and made to
_LEASH = """
read -r _ && exit
kill -TERM "-$1" 2>/dev/null || exit
for _ in 1 2 3 4 5; do sleep 1; kill -0 "-$1" 2>/dev/null || exit; done
kill -KILL "-$1" 2>/dev/null
"""


class Ended(Struct, frozen=True, kw_only=True):
    """How a command ended."""

    #: None when it did not end by itself
    exit_code: int | None
    seconds: float
    #: the end of what it said, stdout and stderr as they came
    output: str
    #: why it was ended
    reason: str = ""


def variables(chain: Endpoint, direct: Endpoint) -> dict[str, str]:
    """Return the environment variables by which the ecosystems find a database, and those for going past the pooler.

    `PG*` is libpq's (https://www.postgresql.org/docs/current/libpq-envars.html); `DATABASE_URL` is what Ecto, Rails,
    Django's dj-database-url, Prisma, sqlx and most others read, with `DIRECT_URL` as Prisma's name for the server
    itself; `DB_*` is Laravel's and Compose files'.
    """
    found: dict[str, str] = {}
    for prefix, at in (("", chain), ("DIRECT_", direct)):
        found |= {
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
    return found | {"DIRECT_URL": url(direct)}


def url(at: Endpoint) -> str:
    """Return an address as a URL, with the password in it."""
    host = f"[{at.host}]" if ":" in at.host else at.host
    return f"postgresql://{quote(at.user, safe='')}:{quote(at.password, safe='')}@{host}:{at.port}/{at.dbname}"


def run(
    command: Sequence[str],
    *,
    folder: Path,
    given: Mapping[str, str],
    deadline_s: float,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
) -> Ended:
    """Run a command to its end, its deadline, or until somebody wants it stopped; its process group ends with it.

    It ends with this process, too, when that is killed.

    :param given: environment variables, beside those of this process; libpq's that would lead elsewhere are left out.
    :param say: hears every line, stdout and stderr.
    :param stopped: asked a few times a second.
    :raises UsageError: when there is no such command or folder.
    """
    # libpq's variables of a developer's shell would win over what is given
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    began = time.monotonic()
    try:
        process = subprocess.Popen(  # noqa: S603 -- the user's own command
            list(command),
            cwd=folder,
            env={**inherited, **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that all it started can be ended with it
        )
    except (FileNotFoundError, NotADirectoryError):
        missing = f"there is no folder {folder}" if not folder.is_dir() else f"there is no command {command[0]!r}"
        raise UsageError(missing, hint="is it on PATH, and is it installed here?") from None
    except OSError as error:
        raise UsageError(f"{command[0]!r} cannot be run: {error.strerror}") from None
    lines: list[str] = []
    reader = Thread(target=_read, args=(process.stdout, lines, say), daemon=True)
    reader.start()
    reason = ""
    with _leashed(process):
        while process.poll() is None and not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if stopped():
                reason = "it was stopped with the run"
            elif time.monotonic() - began > deadline_s:
                reason = f"it did not end within {deadline_s:g} s"
    reader.join(_GRACE_S)
    return Ended(
        exit_code=None if reason else process.returncode,
        seconds=round(time.monotonic() - began, 2),
        output="".join(lines[-_KEPT_LINES:]),
        reason=reason,
    )


def _read(source: IO[str] | None, lines: list[str], say: Callable[[str], None]) -> None:
    if source is None:
        return
    with contextlib.suppress(ValueError, OSError), source:
        while line := source.readline(_LONGEST_LINE):
            lines.append(line)
            if len(lines) > 2 * _KEPT_LINES:
                del lines[:-_KEPT_LINES]
            with contextlib.suppress(ValueError, OSError):  # whoever listened may have left
                say(line)


@contextlib.contextmanager
def _leashed(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a command with the block, and with this process if it is killed before that."""
    try:
        with subprocess.Popen(  # noqa: S603 -- our own arguments
            ["/bin/sh", "-c", _LEASH, "leash", str(process.pid)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # out of reach of whatever ends the harness and its group
        ) as leash:
            try:
                yield
            finally:
                _end(process)
                leash.communicate("it has ended\n")
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a command and all that it started: asked first, then made to."""

    def gone() -> None:
        """Look for the group, not for the process: what it started may outlive it."""
        process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 0)
            raise NotYet("something of it runs")

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return
        with contextlib.suppress(TimedOutError):
            poll(gone, what="the command to end", deadline_s=_GRACE_S)
