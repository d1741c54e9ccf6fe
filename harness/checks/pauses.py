"""How long the machine keeps the harness itself waiting: where it does, times show nothing about a subject."""

from __future__ import annotations

import time
from threading import Event, Thread

#: between two looks at the clock of this machine, seconds
_BEAT_S = 0.05
#: the machine kept the harness itself waiting for so long: times show nothing then, seconds
TOO_SLOW_S = 2.0


class PauseMeter:
    """Measures for how long the machine keeps a thread of the harness waiting that wants to run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._beat, daemon=True, name="pause meter")
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._stop.wait(_BEAT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began - _BEAT_S)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
