"""Runs a command, such as a test suite in any language, behind a chain: its environment, its output, its result."""

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
from harness.host.marked_processes import below, end_marked, new_mark
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.database import Endpoint

#: the last lines of the output, kept as evidence
_KEPT_LINES = 2000
#: between SIGTERM and SIGKILL, seconds
GRACE_S = 5.0
_LONGEST_LINE = 65_536
#: run by a shell that reads from the harness. When the harness is killed, the pipe closes before a line arrives, and
#: the shell ends the command's process group, $1, and the processes with the mark $2: first with SIGTERM, then with
#: SIGKILL
_GUARD = """
read -r _ && exit
mark=$2
marked() { grep -ls "$mark=" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'; }
kill -TERM "-$1" $(marked) 2>/dev/null
for _ in 1 2 3 4 5; do sleep 1; kill -0 "-$1" 2>/dev/null || [ -n "$(marked)" ] || exit; done
kill -KILL "-$1" $(marked) 2>/dev/null
"""


#: the variables that libpq documents, of any version: PGREALM and PGREQUIRESSL are of earlier ones. Other programs have
#: variables that begin with PG, too
LIBPQ_VARIABLES = frozenset(
    (
        *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH"),
        *("PGCHANNELBINDING", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS", "PGAPPNAME", "PGSSLMODE", "PGREQUIRESSL"),
        *("PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT"),
        *("PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI", "PGREQUIREPEER", "PGSSLMINPROTOCOLVERSION"),
        *("PGSSLMAXPROTOCOLVERSION", "PGGSSENCMODE", "PGKRBSRVNAME", "PGREALM", "PGGSSLIB", "PGGSSDELEGATION"),
        *("PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"),
        *("PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION", "PGDATESTYLE", "PGTZ", "PGGEQO", "PGSYSCONFDIR"),
        *("PGLOCALEDIR",),
    )
)


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
    :param deadline_s: seconds.
    :param say: called with every line of stdout and stderr.
    :param stopped: returns whether the run is ending; called several times a second.
    :raises UsageError: when the command or the folder does not exist, or the command cannot be started.
    """
    # libpq's variables of a developer's shell would take precedence over the given ones
    inherited = {name: value for name, value in os.environ.items() if name not in LIBPQ_VARIABLES}
    mark = new_mark()
    began = time.monotonic()
    try:
        process = subprocess.Popen(  # noqa: S603 -- the user's own command
            list(command),
            cwd=folder,
            env={**inherited, **given, mark: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a process group of its own, which can be ended as a whole
        )
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_dir():
            raise UsageError(f"folder {folder} does not exist", hint="create it, or correct `folder`") from None
        hint = "install it on this machine, or add its folder to PATH"
        raise UsageError(f"command {command[0]!r} not found", hint=hint) from None
    except OSError as error:
        raise UsageError(f"command {command[0]!r} cannot be started: {error.strerror}") from None
    lines: list[str] = []
    reader = Thread(target=_read, args=(process.stdout, lines, say), daemon=True)
    reader.start()
    reason = ""
    with _guarded(process, mark) as ending:
        while process.poll() is None and not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if stopped():
                reason = "stopped with the run"
            elif time.monotonic() - began > deadline_s:
                reason = f"did not end within {deadline_s:g} s"
    if reason:
        reason += f", so {' and '.join(ending.signals)} ended it"
    reader.join(GRACE_S)
    return CommandResult(
        exit_code=None if reason else process.returncode,
        seconds=round(time.monotonic() - began, 2),
        output="".join(lines[-_KEPT_LINES:]),
        reason=reason,
        left_behind=ending.left_behind,
    )


def _read(source: IO[str] | None, lines: list[str], say: Callable[[str], None]) -> None:
    if source is None:
        return
    with contextlib.suppress(ValueError, OSError), source:
        while line := source.readline(_LONGEST_LINE):
            lines.append(line)
            if len(lines) > 2 * _KEPT_LINES:
                del lines[:-_KEPT_LINES]
            with contextlib.suppress(ValueError, OSError):  # the listener may be gone, such as a pager
                say(line)


class _Ending:
    """How a command and the processes that it started ended."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self._process = process
        self._mark = mark
        #: names of the signals that its process group got
        self.signals: list[str] = []
        self.left_behind: tuple[str, ...] = ()

    def end(self) -> None:
        """End the command and all processes that it started, first with SIGTERM, then with SIGKILL."""
        known = below(self._process.pid)
        self._end_group()
        self.left_behind += end_marked(self._mark, known, GRACE_S)

    def _end_group(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                return
            self.signals.append(number.name)
            with contextlib.suppress(TimedOutError):
                poll(self._gone, what="the command to end", deadline_s=GRACE_S)

    def _gone(self) -> None:
        """Check the process group, because child processes may outlive the command."""
        self._process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 0)
            raise NotYet("a process of the group still runs")


@contextlib.contextmanager
def _guarded(process: subprocess.Popen[str], mark: str) -> Iterator[_Ending]:
    """End a command when the block ends, or when this process is killed before that."""
    ending = _Ending(process, mark)
    try:
        with subprocess.Popen(  # noqa: S603 -- our own arguments
            ["/bin/sh", "-c", _GUARD, "guard", str(process.pid), mark],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a signal to the harness and its process group does not end the guard
        ) as guard:
            try:
                yield ending
            finally:
                ending.end()
                guard.communicate("the command has ended\n")
    except BaseException:
        ending.end()  # also when the guard did not start
        raise
