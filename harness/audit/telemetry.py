"""Events for listeners: counts and durations, never values, actors, correlations or free text."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("harness.audit")


class Event(Struct, frozen=True):
    """A completed operation, emitted after its commit."""

    name: str
    measurements: dict[str, int | float | str]


class Telemetry:
    """Passes events to listeners. An exception in a listener is logged and never affects the audited work."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []

    def attach(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on, and return a function that detaches it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, name: str, **measurements: float | str) -> None:
        event = Event(name, dict(measurements))
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 -- no exception of a listener may stop the work
                _log.exception("a telemetry listener failed at %s", name)


#: used by callers that pass no other
default = Telemetry()
