"""Ctrl-C and SIGTERM: end what goes on, tear down, keep the evidence, exit 130."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from harness.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Turns signals into an orderly end.

    Outside a run a signal raises; within `deferred_to` it calls the run's own interrupt instead, so that
    no teardown is ever torn apart by an exception from nowhere.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._interrupt: Callable[[], None] | None = None
        self.received = False

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._hear)

    @contextlib.contextmanager
    def deferred_to(self, interrupt: Callable[[], None]) -> Iterator[None]:
        self._interrupt = interrupt
        try:
            yield
        finally:
            self._interrupt = None

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if self._interrupt is None:
            raise InterruptedRunError(f"interrupted by {signal.Signals(number).name}")
        self._interrupt()
        self._say("still tearing down" if again else f"{signal.Signals(number).name}: tearing down")
