"""Exit codes of the command line. `harness --help` prints the meanings."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, for scripts and CI."""

    OK = 0
    ISSUE = 1
    USAGE = 2
    NOTHING_VERIFIED = 3
    NOT_RUN = 4
    INTERRUPTED = 130


MEANINGS: tuple[tuple[str, str], ...] = (
    ("0", "every row is OK, N/A or a known Issue; Not run rows count only under --strict"),
    ("1", "at least one Issue, or a finding of the command at hand"),
    ("2", "invalid usage or configuration"),
    ("3", "nothing could be verified; a topology did not start; no path of an environment ran; evidence was not kept"),
    ("4", "at least one Not run row, under --strict"),
    ("130", "interrupted by Ctrl-C, SIGTERM or SIGHUP; servers are removed, and every planned row has its answer"),
)
