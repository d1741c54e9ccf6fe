"""How long and how often checks under load or faults run."""

from __future__ import annotations

from msgspec import Struct


class LoadSettings(Struct, frozen=True, kw_only=True):
    """The settings of checks under load or faults."""

    #: how often each fault is injected
    rounds: int = 1
    #: how long each load of the suite `soak` lasts, seconds
    soak_s: float = 30.0
