"""Workers of job engines as processes of this machine: started, killed, frozen, and restarted when they exit.

Each worker runs in a session of its own. Its whole family belongs to it: child processes, and processes in other
sessions that inherited its environment. All of them end with the worker, and with the harness when that is killed.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Lock, RLock, Thread
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import replace

from harness.engine.guard import new_mark
from harness.errors import HarnessError, TimedOutError
from harness.host.guarded_process import GuardedProcess
from harness.job_engines.worker_output import WorkerOutput
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: a worker that exits by itself is started again after this pause, in seconds, and so often
RESTART_PAUSE_S, MOST_RESTARTS = 0.5, 12
#: between SIGTERM and SIGKILL at the end, seconds
GRACE_S = 5.0
#: how often a supervisor looks at a worker, seconds
_LOOKS_S = 0.05
#: child processes that end because their parent has ended do it within this time, seconds
_FOLLOW_S = 0.5
#: what a worker has printed is read within this time after its end, seconds
_DRAINED_S = 2.0
#: a supervisor's thread starts or settles at most one worker before it ends, seconds
_JOINED_S = 30.0


class WorkerExit(Struct, frozen=True, kw_only=True):
    """An exit of a worker that the harness did not cause."""

    worker: str
    #: negative for a signal; None for a worker that could not be started again
    exit_code: int | None
    #: since the supervisor began
    seconds: float
    #: for how long it ran, seconds
    ran_s: float
    #: the last line of its output that may name an error, or why it could not be started
    last_line: str = ""
    #: of errors in its output since its start, each once, in the order of their first appearance
    sqlstates: tuple[str, ...] = ()
    #: processes that it left behind, which the harness ended
    left_behind: tuple[str, ...] = ()


class Worker:
    """A worker of a job engine. Thread-safe: a case of the suite and a supervisor act on it at the same time."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        given: Mapping[str, str],
        say: Callable[[str], None],
        *,
        redact: Callable[[str], str],
        hurry: Event | None = None,
    ) -> None:
        """Describe a worker; :meth:`start` starts it.

        :param name: such as `A`.
        :param command: the program and its arguments; it works in the foreground.
        :param folder: its working directory.
        :param given: environment variables, in addition to those of this process.
        :param say: called with the first lines of each start, from a thread.
        :param redact: removes secrets from all that is kept and said of its output.
        :param hurry: set when nobody judges any more how it ends: it then gets no time between SIGTERM and SIGKILL.
        """
        self.name = name
        self._hurry = hurry
        self._command, self._folder, self._given = command, folder, given
        self._say, self._redact = say, redact
        self._mark = new_mark()
        self._lock = RLock()
        self._process: GuardedProcess | None = None
        self._output = WorkerOutput(say, redact)
        self._earlier_sqlstates: tuple[str, ...] = ()
        self._reader: Thread | None = None
        self._started = 0.0
        #: whether it should run: it was started, and neither stopped nor killed since then
        self._wanted = False
        self._settled = True
        self._exits: list[WorkerExit] = []
        #: names of processes that outlived it, and were ended
        self.left_behind: tuple[str, ...] = ()
        #: how long it went on after SIGTERM until SIGKILL ended it, seconds; 0 for a worker that ends on SIGTERM
        self.ignored_sigterm_s = 0.0

    @property
    def is_running(self) -> bool:
        """Whether its program runs, also while it is frozen."""
        return self._process is not None and self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last start, negative for a signal; None while it runs, and before its first start."""
        return self._process.exit_code if self._process else None

    @property
    def output(self) -> str:
        """The last lines of its output, of all its starts, without secrets."""
        return self._output.tail

    @property
    def sqlstates(self) -> tuple[str, ...]:
        """The SQLSTATEs in the output of all its starts, each once."""
        return tuple(dict.fromkeys((*self._earlier_sqlstates, *self._output.sqlstates)))

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of its running processes."""
        with self._lock:
            return tuple(sorted(self._process.members())) if self._process and not self._settled else ()

    def start(self) -> None:
        """Start the worker, unless it runs.

        :raises HarnessError: when its program or its folder does not exist, or it cannot be started.
        """
        with self._lock:
            if self.is_running:
                return
            self._settle()
            self._earlier_sqlstates = self.sqlstates
            output = WorkerOutput(self._say, self._redact, self._output.held())
            self._process = GuardedProcess(self._command, self._folder, self._given, self._mark)
            self._started, self._wanted, self._settled, self._output = time.monotonic(), True, False, output
            reading = (self._process.stdout,)
            self._reader = Thread(target=output.read, args=reading, name=f"output of {self.name}", daemon=True)
            self._reader.start()

    def restart(self) -> bool:
        """Start a worker that exited by itself, and return whether it is still wanted.

        :raises HarnessError: when it cannot be started.
        """
        with self._lock:
            if self._wanted:
                self.start()
            return self._wanted

    def kill(self) -> None:
        """End all its processes now, with SIGKILL. A supervisor does not restart it; :meth:`start` does.

        :raises TimedOutError: when a process does not end.
        """
        with self._lock:
            self._wanted = False
            if self._process and self.is_running:
                self._process.kill()
                # another code: it had exited by itself just before
                self._settle(on_purpose=self.exit_code == -signal.SIGKILL)
            else:
                self._settle()

    def stop(self, grace_s: float = GRACE_S) -> tuple[str, ...]:
        """End all its processes, and return the names of the signals that its program needed.

        :param grace_s: between SIGTERM and SIGKILL, seconds.
        """
        with self._lock:
            self._wanted = False
            if self._process is None or not self.is_running:
                self._settle()
                return ()
            process = self._process
            process.end(grace_s, self._hurry)
            self.left_behind += process.left_behind
            if signal.SIGKILL.name in process.signals:
                self.ignored_sigterm_s = max(self.ignored_sigterm_s, grace_s)
            self._settle(on_purpose=True)
            return tuple(process.signals)

    def freeze(self) -> bool:
        """Freeze all its processes with SIGSTOP, and return whether the worker is frozen: False if it does not run.

        :raises TimedOutError: when a process is not stopped in time.
        """
        with self._lock:
            if self._process is None or not self.is_running:
                return False
            self._process.freeze()
            return self.is_running

    def thaw(self) -> bool:
        """Continue all its processes, and return whether the worker runs: False if it ended while it was frozen.

        :raises TimedOutError: when a process stays stopped.
        """
        with self._lock:
            if self._process is None or not self.is_running:
                return False
            self._process.thaw()
            return self.is_running

    def take_exits(self) -> list[WorkerExit]:
        """Return the exits that the harness did not cause, each once. Their seconds are on the monotonic clock."""
        if self._wanted and self.is_running:  # without the lock: another thread may hold it for seconds
            return []
        with self._lock:
            if not self.is_running:
                self._settle()
            exits, self._exits = self._exits, []
            return exits

    def _settle(self, *, on_purpose: bool = False) -> None:
        """End what an ended worker left behind, read the rest of its output, and record the exit unless on purpose."""
        process = self._process
        if process is None or self._settled:
            return
        self._settled = True
        at = time.monotonic()
        left: tuple[str, ...] = ()
        if not on_purpose:
            left = _end_rest(process)
            self.left_behind += left
        if self._reader:
            self._reader.join(_DRAINED_S)
        if not on_purpose:
            exited = WorkerExit(
                worker=self.name,
                exit_code=process.exit_code,
                seconds=at,
                ran_s=round(at - self._started, 2),
                last_line=self._output.last_line,
                sqlstates=self._output.sqlstates,
                left_behind=left,
            )
            self._exits.append(exited)


def _end_rest(process: GuardedProcess) -> tuple[str, ...]:
    """End what an ended program left behind, after a short time to follow it, and return the names."""

    def gone() -> None:
        if members := process.members():
            raise NotYet(f"processes {sorted(members)} run")

    with suppress(TimedOutError):
        poll(gone, what="the processes of a worker to follow it", deadline_s=_FOLLOW_S)
    try:
        return process.kill()
    except TimedOutError as error:
        return (str(error),)


class Supervisor:
    """Restarts workers that exit by themselves, as systemd or Kubernetes do, and records each exit.

    It looks at them from its beginning until :meth:`close`. Workers that a case stops or kills stay down until the
    case starts them.
    """

    def __init__(self, *workers: Worker, began: float | None = None) -> None:
        """Begin to look at workers, which may be started later.

        :param workers: with different names.
        :param began: seconds of exits count from here, on the monotonic clock; from now by default.
        """
        self._workers = workers
        self._began = time.monotonic() if began is None else began
        self._closing = Event()
        self._lock = Lock()
        self._exits: list[WorkerExit] = []
        self._threads = [
            Thread(target=self._watch, args=(worker,), name=f"supervisor of {worker.name}", daemon=True)
            for worker in workers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def exits(self) -> list[WorkerExit]:
        """The exits so far, in the order of time."""
        with self._lock:
            return sorted(self._exits, key=lambda exited: exited.seconds)

    @property
    def given_up(self) -> tuple[str, ...]:
        """The names of workers that exited again after the last restart: they stay down."""
        counts = Counter(exited.worker for exited in self.exits)
        return tuple(worker.name for worker in self._workers if counts[worker.name] > MOST_RESTARTS)

    def close(self, grace_s: float = GRACE_S) -> tuple[str, ...]:
        """End all workers, in any state, and return the names of processes that they left behind in their time.

        :param grace_s: between SIGTERM and SIGKILL, seconds.
        """
        self._closing.set()
        for thread in self._threads:
            thread.join(_JOINED_S)
        with ThreadPoolExecutor(max(1, len(self._workers))) as pool:
            list(pool.map(lambda worker: worker.stop(grace_s), self._workers))
        for worker in self._workers:
            self._record(worker.take_exits())
        return tuple(f"{worker.name}: {process}" for worker in self._workers for process in worker.left_behind)

    def _watch(self, worker: Worker) -> None:
        restarts = 0
        while not self._closing.wait(_LOOKS_S):
            exits = worker.take_exits()
            self._record(exits)
            down = bool(exits)
            while down and restarts < MOST_RESTARTS and not self._closing.wait(RESTART_PAUSE_S):
                restarts += 1
                down = not self._restart(worker)

    def _restart(self, worker: Worker) -> bool:
        """Start a worker again, and return whether this is settled; it is not when it cannot be started."""
        try:
            worker.restart()
        except HarnessError as error:
            now = time.monotonic()
            self._record([WorkerExit(worker=worker.name, exit_code=None, seconds=now, ran_s=0.0, last_line=error.what)])
            return False
        return True

    def _record(self, exits: Sequence[WorkerExit]) -> None:
        with self._lock:
            self._exits += [replace(exited, seconds=round(exited.seconds - self._began, 2)) for exited in exits]
