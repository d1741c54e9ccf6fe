"""`python -m harness`, and the start of the console scripts: from the first import to the exit, a signal gives 130."""

from __future__ import annotations

import atexit
import gc
import os
import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _exit_at_once(number: int, _frame: object) -> None:
    os.write(2, f"interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(130)


def _ignore_signals() -> None:
    """Ignore signals for the last moment, in which Python would restore the handlers that kill the process."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def start() -> int:
    """Run one command and return its exit code.

    Importing the harness takes about half a second. Then, and once the command has ended, a signal has nothing to tear
    down.
    """
    for number in _SIGNALS:
        signal.signal(number, _exit_at_once)
    atexit.register(_ignore_signals)  # the first function that is registered runs last
    gc.disable()  # what is imported is never garbage; the import of a command ends with enabling it
    from harness.cli.main import main  # noqa: PLC0415 -- after the handlers are in place

    return main()


if __name__ == "__main__":
    raise SystemExit(start())
