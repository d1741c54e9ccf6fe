"""Errors for the person at the terminal: what was found, what was needed, where, and what to try.

One base, one class per cause. The command line prints `str(error)` and exits with `exit_code`;
a traceback is for mistakes of the harness itself, never for these.
"""

from __future__ import annotations


class HarnessError(Exception):
    """The harness could not do what was asked."""

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", hint: str = "", detail: str = "") -> None:
        """Build an error.

        :param what: one sentence: what was found and what was needed.
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
    """A configuration file has a mistake."""

    exit_code = 2


class StoreError(HarnessError):
    """The evidence cannot be written or read."""


class EngineUnavailableError(HarnessError):
    """No engine can run a service here."""


class ImageUnavailableError(HarnessError):
    """An image is neither present, nor can it be pulled or built."""


class ServiceFailedError(HarnessError):
    """A service did not start, died, or never answered."""


class DatabaseError(HarnessError):
    """A server refused a connection or a statement that the harness itself needs."""


class TimedOutError(HarnessError):
    """A deadline passed."""


class InterruptedRunError(HarnessError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
