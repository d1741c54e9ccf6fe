"""Whether a run is as the harness wrote it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Verdict(StrEnum):
    """What the chain and the rules say about a run."""

    #: every byte that counts is as written
    WHOLE = "whole"
    #: it differs from what the harness wrote: somebody edited it, or a disk or a transfer damaged it
    EDITED = "edited"
    #: its chain has not been closed: it was killed, or is still running
    UNFINISHED = "unfinished"
    #: an older version wrote it, without a chain
    NOT_CHAINED = "not chained"


class Integrity(Struct, frozen=True, kw_only=True):
    """The verdict about a run, with what breaks it."""

    verdict: Verdict
    #: one sentence for each break of the chain, with file and line, the first one first
    breaks: tuple[str, ...] = ()
    #: one sentence for each cause of refused rows, with file, first line and number of rows
    refused: tuple[str, ...] = ()
    #: number of refused rows
    refusals: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Breaks, then the causes of refused rows."""
        return (*self.breaks, *self.refused)


def more_of(number: int, noun: str) -> str:
    """Return how many more there are, for the end of the sentence about the first one; "" for none."""
    return f" (and {number} more {noun}{'s' if number > 1 else ''})" if number else ""
