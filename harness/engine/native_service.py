"""One native server: a process and its children."""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.owner import process_started
from harness.engine.processes import descendants, end_all, is_stopped
from harness.engine.protocol import Address, ServiceSpec, ServiceState
from harness.engine.service_user import as_user
from harness.errors import ServiceFailedError, TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    import pwd
    from collections.abc import Mapping, Sequence

_STOP_DEADLINE_S = 10.0
_IMMEDIATE_S = 2.0
_FROZEN_S = 10.0
#: the same as the time limit of a request to Docker
_PROGRAM_S = 60.0


class NativeService:
    """One server: a process and its children."""

    def __init__(self, spec: ServiceSpec, folder: Path, user: pwd.struct_passwd) -> None:
        self._spec = spec
        self._folder = folder
        self._user = user
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        #: whether `stop` or `kill` ended the process
        self._ended = False
        #: whether one of its processes may be stopped, and would not end when it is asked to
        self._may_be_stopped = False
        self._removed = ""
        #: limiting the size of a folder would take a mount, and with it root
        self.spare_folder = ""
        self.name = spec.place.name
        self.origin = spec.place.origin

    def launch(self) -> None:
        """Start the process."""
        environment = {
            "PATH": f"{Path(self.origin.reference).parent}:/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        with self._log.open("ab") as log:
            # a new session: Ctrl-C at the terminal reaches the harness only, which then ends its servers
            self._process = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", self._spec.script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                **as_user(self._user),  # type: ignore[call-overload]
            )
        self._ended = False
        pid = self._process.pid
        (self._folder / "pid.json").write_text(json.dumps([pid, process_started(pid)]))

    def endpoint(self) -> Address:
        return self._spec.place.inside

    @property
    def inside(self) -> Address:
        return self._spec.place.inside

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        program = Path(self.origin.reference).with_name(command[0])
        try:
            done = subprocess.run(  # noqa: S603 -- a program that is installed with the server
                [str(program), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment},
                timeout=_PROGRAM_S,
                start_new_session=True,  # Ctrl-C at the terminal reaches the harness only
                **as_user(self._user),  # type: ignore[call-overload]
            )
        except subprocess.TimeoutExpired:
            raise TimedOutError(f"{command[0]} did not end within {_PROGRAM_S:g} s", where=str(program)) from None
        except OSError as error:
            raise ServiceFailedError(f"{command[0]} could not be run: {error.strerror}", where=str(program)) from None
        return done.returncode, done.stdout

    def state(self) -> ServiceState:
        if self._removed or self._process is None:
            return ServiceState(running=False, detail="removed", on_purpose=True)
        code = self._process.poll()
        if code is None:
            return ServiceState(running=True, detail="frozen" if is_stopped(self._process.pid) else "running")
        return ServiceState(
            running=False,
            detail=f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}",
            on_purpose=self._ended,
        )

    def logs(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return self._removed or f"(the log cannot be read: {error})\n"

    def stop(self, signal_name: str = "") -> None:
        if self._process and self._process.poll() is None:
            self._ended = True
            self._process.send_signal(signals.Signals[signal_name or self._spec.stop_signal])
            try:
                self._process.wait(_STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._ended = True
            end_all(self._process.pid, signals.SIGKILL)
            self._process.wait(_STOP_DEADLINE_S)

    def pause(self) -> None:
        self._may_be_stopped = True

        def frozen() -> None:
            # the parent first, so that no process that it starts meanwhile is missed
            if running := [pid for pid in self._signal_all(signals.SIGSTOP) if not is_stopped(pid)]:
                raise NotYet(f"processes {running} run")

        poll(frozen, what="all processes of the server to be frozen", deadline_s=_FROZEN_S, interval_s=0.005)

    def resume(self) -> None:
        self._signal_all(signals.SIGCONT)
        self._may_be_stopped = False

    def signal_process(self, pid: int, signal: str) -> None:
        number = signals.Signals[signal]
        if self._process is None or pid not in {self._process.pid, *descendants(self._process.pid)}:
            raise ServiceFailedError(f"process {pid} is not one of the server's", where=self.name)
        self._may_be_stopped |= number is signals.SIGSTOP
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            raise ServiceFailedError(f"process {pid} is gone", where=self.name) from None

    def restart(self) -> None:
        self.stop()
        self.launch()

    def remove(self) -> None:
        if not self._removed:
            self._end_at_once()
            self._removed = self.logs() or "(nothing was logged)\n"
            # the data of one server is tens of thousands of files, which Python removes at nine times the cost
            subprocess.run(["rm", "-rf", "--", str(self._folder)], stderr=subprocess.DEVNULL, check=False)  # noqa: S603, S607

    def _end_at_once(self) -> None:
        """Ask the server to end its children first: in a container without an init, orphans would stay as zombies."""
        if self._process is None or self._process.poll() is not None:
            return
        if self._may_be_stopped:
            self.resume()
        self._process.send_signal(signals.SIGQUIT)  # immediate shutdown, for both PostgreSQL and PgBouncer
        try:
            self._process.wait(_IMMEDIATE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal_all(self, number: signals.Signals) -> list[int]:
        """Signal every process of the server, the parent first, and return their pids."""
        if self._process is None or self._process.poll() is not None:
            raise ServiceFailedError("the service is not running", where=self.name)
        os.kill(self._process.pid, number)
        processes = [self._process.pid, *descendants(self._process.pid)]
        for pid in processes[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return processes
