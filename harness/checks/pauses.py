"""How long the machine keeps the harness itself waiting: where it does, times show nothing about a subject."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from threading import Event, Thread

#: between two looks at the clock of this machine, seconds
_BEAT_S = 0.05
#: the machine kept the harness itself waiting for so long: times show nothing then, seconds
TOO_SLOW_S = 2.0
#: with so many tasks for each core that want to run, programs take many times as long: times show nothing then
MOST_RUNNABLE = 12.0
#: over so many looks, five seconds
_LOOKS = 100
_LOAD = Path("/proc/loadavg")


class PauseMeter:
    """Measures for how long the machine keeps a thread of the harness waiting that wants to run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        #: the most tasks for each core that wanted to run, on average over five seconds; 0 where Linux does not say. A
        #: thread that mostly sleeps, like this one, is preferred to programs that compute: its own pauses stay short
        self.crowd = 0.0
        self._runnable: deque[int] = deque(maxlen=_LOOKS)
        self._stop = Event()
        self._thread = Thread(target=self._beat, daemon=True, name="pause meter")
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._stop.wait(_BEAT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began - _BEAT_S)
            self._runnable.append(_runnable())
            if len(self._runnable) == _LOOKS:
                self.crowd = max(self.crowd, sum(self._runnable) / _LOOKS / (os.cpu_count() or 1))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _runnable() -> int:
    """Return how many tasks of the machine run, or wait for a core; 0 where this is unknown."""
    try:
        return int(_LOAD.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0
