"""A program in a session of its own, whose processes all end with it, and with this process when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING

from harness.engine.guard import release, start_guard
from harness.engine.processes import is_stopped
from harness.errors import ServiceFailedError, TimedOutError, UsageError
from harness.host.marked_processes import below, end_marked, in_session, marked, name_of, running, send
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from threading import Event

#: SIGKILL, SIGSTOP and SIGCONT work within milliseconds, unless a process waits for a disk, seconds
_AT_ONCE_S = 10.0
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


class GuardedProcess:
    """A running program. A guard ends it, and all processes that it started, when this process is killed.

    It runs until :meth:`end` or :meth:`kill` returns, which also release the guard.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        given: Mapping[str, str],
        mark: str,
        without: Collection[str] = (),
    ) -> None:
        """Start a program.

        :param command: the program and its arguments.
        :param folder: its working directory.
        :param given: environment variables, in addition to those of this process. Inherited variables of libpq are
            removed, because they could lead to another server.
        :param mark: the variable by which its processes are found, from :func:`new_mark`.
        :param without: further inherited variables that are removed.
        :raises UsageError: when the program or the folder does not exist, or the program cannot be started.
        """
        # libpq's variables of a developer's shell would take precedence over the given ones
        removed = LIBPQ_VARIABLES.union(without)
        inherited = {name: value for name, value in os.environ.items() if name not in removed}
        self._mark = mark
        #: names of the signals that ended its process group
        self.signals: list[str] = []
        #: names of processes that outlived it, and were ended
        self.left_behind: tuple[str, ...] = ()
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- the user's own command
                list(command),
                cwd=folder,
                env={**inherited, **given, mark: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, which can be ended as a whole
            )
        except (FileNotFoundError, NotADirectoryError):
            if not folder.is_dir():
                raise UsageError(f"folder {folder} does not exist", hint="create it, or correct `folder`") from None
            hint = "install it on this machine, or add its folder to PATH"
            raise UsageError(f"command {command[0]!r} not found", hint=hint) from None
        except OSError as error:
            raise UsageError(f"command {command[0]!r} cannot be started: {error.strerror}") from None
        except ValueError as error:  # a NUL character in an argument or a variable
            raise UsageError(f"command {command[0]!r} cannot be started: {error}") from None
        self._guard: subprocess.Popen[str] | None = None
        try:
            self._guard = start_guard(self._process.pid, mark)
        except BaseException as error:
            self.kill()
            self.stdout.close()
            if isinstance(error, OSError):
                raise ServiceFailedError(f"the guard of {command[0]!r} cannot be started: {error.strerror}") from None
            raise

    @property
    def stdout(self) -> IO[bytes]:
        """Its stdout and stderr."""
        if self._process.stdout is None:
            raise ValueError("the process was started without a pipe")
        return self._process.stdout

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Wait until it ends, and at most so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def members(self) -> dict[int, int]:
        """Return the running processes of the program, each with its start time."""
        return in_session(self._process.pid) | self._below() | marked(self._mark)

    def freeze(self) -> None:
        """Freeze all its processes with SIGSTOP, and return once they are stopped.

        :raises TimedOutError: when a process is not stopped in time.
        """
        seen: set[int] = set()

        def frozen() -> None:
            self._send_group(signal.SIGSTOP)
            members = self.members()
            send(members, signal.SIGSTOP)
            new = members.keys() - seen  # may have started others before the signal arrived
            seen.update(new)
            if not_stopped := [pid for pid in members if not is_stopped(pid)]:
                # a process that waits in vfork(2) stops only once its child, which is stopped, runs another program
                for pid in not_stopped:
                    send(below(pid), signal.SIGCONT)
                raise NotYet(f"processes {not_stopped} run")
            if new:
                raise NotYet("there were new processes")

        poll(frozen, what="all processes of the program to be frozen", deadline_s=_AT_ONCE_S, interval_s=0.002)

    def thaw(self) -> None:
        """Continue all its processes.

        :raises TimedOutError: when a process stays stopped.
        """

        def thawed() -> None:
            members = self.members()
            send(members, signal.SIGCONT)
            if stopped := [pid for pid in running(members) if is_stopped(pid)]:
                raise NotYet(f"processes {stopped} are stopped")

        self._send_group(signal.SIGCONT)
        poll(thawed, what="all processes of the program to continue", deadline_s=_AT_ONCE_S, interval_s=0.002)

    def end(self, grace_s: float, hurry: Event | None = None) -> None:
        """End all its processes, frozen ones too: first with SIGTERM, after `grace_s` seconds with SIGKILL.

        :param hurry: ends the time between the two signals when set.
        """
        known = self.members()
        self._end_group(grace_s, hurry)
        self.left_behind += end_marked(self._mark, known, grace_s, hurry)
        self._release()

    def kill(self) -> tuple[str, ...]:
        """End all its processes at once with SIGKILL, and return the names of those that the program had started.

        :raises TimedOutError: when a process does not end in time.
        """
        known = self.members()
        names = {pid: name_of(pid) for pid in known}

        def gone() -> None:
            left = running({**known, **self.members()})
            names.update({pid: name_of(pid) for pid in left if pid not in names})
            send(left, signal.SIGKILL)
            self._process.poll()
            if left:
                raise NotYet(f"processes {sorted(left)} run")

        self._send_group(signal.SIGKILL)
        poll(gone, what="all processes of the program to end", deadline_s=_AT_ONCE_S, interval_s=0.002)
        self.wait(_AT_ONCE_S)
        self._release()
        return tuple(name for pid, name in sorted(names.items()) if pid != self._process.pid)

    def close_guard(self) -> None:
        """Let the guard end what still runs."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(_AT_ONCE_S)
            self._guard = None

    def _below(self) -> dict[int, int]:
        """Return its descendants. Its number may belong to another process once its exit code is known."""
        return {} if self._process.returncode is not None else below(self._process.pid)

    def _send_group(self, number: signal.Signals) -> bool:
        """Send a signal to its process group, and return whether the group exists."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _end_group(self, grace_s: float, hurry: Event | None) -> None:
        for number, cancelled in ((signal.SIGTERM, hurry), (signal.SIGKILL, None)):
            if not self._send_group(number):
                return
            self.signals.append(number.name)
            self._send_group(signal.SIGCONT)  # a frozen process handles SIGTERM once it continues
            with contextlib.suppress(TimedOutError):
                poll(self._group_gone, what="the command to end", deadline_s=grace_s, cancelled=cancelled)

    def _group_gone(self) -> None:
        """Check the process group, because child processes may outlive the command."""
        self._process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 0)
            raise NotYet("a process of the group still runs")

    def _release(self) -> None:
        if self._guard is not None:
            release(self._guard)
            self._guard = None
