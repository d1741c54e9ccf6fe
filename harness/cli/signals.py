"""Ctrl-C, SIGTERM and SIGHUP: stop what runs, remove servers, keep the evidence, exit with 130."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from harness.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


#: outside a run, this signal and later ones end the process at once
_LAST = 3


class Signals:
    """Turns signals into an orderly end.

    Outside a run, the first signal raises, and the second one waits for the teardown that the first one began. Within
    `deferred_to` each signal calls the interrupt function of the run instead: an exception at an arbitrary statement
    would tear a teardown apart.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        """Build the handler; :meth:`install` registers it.

        :param notify: called with one line of prose for each signal during a run.
        """
        self._notify = notify
        self._interrupt: Callable[[], None] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._count = 0
        #: what happens after the first signal of a run
        self.teardown = "tearing down"

    @property
    def received(self) -> bool:
        """Whether a signal has arrived."""
        return self._count > 0

    def install(self) -> None:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Register the handlers again that were in place before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred_to(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call a function for each signal within the block, in place of raising, in a thread of its own.

        It is called at once if a signal has arrived already, which :meth:`held_back` did not raise.
        """
        before, self._interrupt = self._interrupt, interrupt
        try:
            if self.received:
                interrupt()
            yield
        finally:
            self._interrupt = before

    def held_back(self) -> contextlib.AbstractContextManager[None]:
        """Raise for no signal within the block, where a run that is stored already cannot be interrupted yet."""
        return self.deferred_to(lambda: None)

    def _interrupted(self, interrupt: Callable[[], None], said: str) -> None:
        interrupt()
        self._notify(said)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        name = signal.Signals(number).name
        if (interrupt := self._interrupt) is not None:
            said = "still tearing down" if self._count > 1 else f"{name}: {self.teardown}"
            # what the signal interrupts may hold the lock of an event or a stream, as an earlier handler may: setting
            # that event here would wait for ever, and `threading.Thread` has such a lock itself
            _thread.start_new_thread(self._interrupted, (interrupt, said))
        elif self._count == 1:
            raise InterruptedRunError(f"interrupted by {name}")
        elif self._count < _LAST:
            self._notify("still tearing down; the next signal ends the process at once")
        else:
            os._exit(InterruptedRunError.exit_code)
