"""What the trail tells whoever listens: counts and durations, never values, actors, correlations or free text."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("harness.audit")


class Event(Struct, frozen=True):
    """Something that has happened: committed, not merely tried."""

    name: str
    measurements: dict[str, int | float | str]


class Telemetry:
    """Hands events to listeners. A listener that raises is logged and never breaks the work it listens to."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []

    def attach(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the function that is returned ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, name: str, **measurements: float | str) -> None:
        event = Event(name, dict(measurements))
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 -- whatever a listener does, the work goes on
                _log.exception("a telemetry listener failed at %s", name)


#: what is used when no other is given
default = Telemetry()
