"""Whether a run is as the harness wrote it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

#: the most sentences that are kept about one run: a forged file may hold any number of bad lines
MOST_SENTENCES = 20


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
    #: one sentence for each row that was refused, with file and line
    refused: tuple[str, ...] = ()
    #: number of refused rows, also of those without a sentence
    refusals: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Breaks and refused rows; a sentence at the end says how many more there are."""
        more = self.refusals - len(self.refused)
        return (*self.breaks, *self.refused, *((f"and {more} more refused rows",) if more else ()))
