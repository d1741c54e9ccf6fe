"""Errors for the person at the terminal: what was found, what was expected, where, and what to try.

There is one base class, and one class per cause. The command line prints `str(error)` and exits with `exit_code`. It
prints a traceback only for other exceptions, which are mistakes in the harness.
"""

from __future__ import annotations


class HarnessError(Exception):
    """The base of all errors for users."""

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", hint: str = "", detail: str = "") -> None:
        """Create an error.

        :param what: one sentence: what was found and what was expected.
        :param where: a file, key, service or address.
        :param hint: what to try next.
        :param detail: longer evidence, such as the tail of a service's log.
        """
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.detail:
            lines += [f"  | {line}" for line in self.detail.rstrip().splitlines()]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)


class UsageError(HarnessError):
    """An argument names something that does not exist or is not allowed."""

    exit_code = 2


class ConfigError(HarnessError):
    """A configuration file is invalid."""

    exit_code = 2


class StoreError(HarnessError):
    """The evidence of a run cannot be written or read."""


class EngineUnavailableError(HarnessError):
    """No engine can run services here."""


class ImageUnavailableError(HarnessError):
    """An image is missing, and can be neither pulled nor built."""


class ServiceFailedError(HarnessError):
    """A service did not start, ended, or never answered."""


class DatabaseError(HarnessError):
    """A server rejected a connection or a statement of the harness itself."""


class TimedOutError(HarnessError):
    """A deadline passed."""


class InterruptedRunError(HarnessError):
    """The run was interrupted by Ctrl-C, SIGTERM or SIGHUP."""

    exit_code = 130
