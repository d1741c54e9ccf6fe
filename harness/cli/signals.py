"""Ctrl-C, SIGTERM and SIGHUP: stop what runs, remove servers, keep the evidence, exit with 130."""

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

    Outside a run, a signal raises. Within `deferred_to` it calls the interrupt function of the run instead: an
    exception at an arbitrary statement would tear a teardown apart.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Build the handler; :meth:`install` registers it.

        :param notify: called with one line of prose for each signal during a run.
        """
        self._notify = notify
        self._interrupt: Callable[[], None] | None = None
        self.received = False

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def deferred_to(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call a function for each signal within the block, in place of raising."""
        self._interrupt = interrupt
        try:
            yield
        finally:
            self._interrupt = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if self._interrupt is None:
            raise InterruptedRunError(f"interrupted by {signal.Signals(number).name}")
        self._interrupt()
        self._notify("still tearing down" if again else f"{signal.Signals(number).name}: tearing down")
