"""`python -m harness`."""

import os
import signal


# importing the harness takes about half a second; until then, a signal has nothing to tear down
def _exit_at_once(number: int, _frame: object) -> None:
    os.write(2, f"interrupted by {signal.Signals(number).name}\n".encode())
    os._exit(130)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, _exit_at_once)

from harness.cli.main import main  # noqa: E402

raise SystemExit(main())
