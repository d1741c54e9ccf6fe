"""`python -m harness`."""

import os
import signal


# importing the harness takes about half a second; until then, Ctrl-C has nothing to tear down
def _exit_at_once(_number: int, _frame: object) -> None:
    os.write(2, b"interrupted by SIGINT\n")
    os._exit(130)


signal.signal(signal.SIGINT, _exit_at_once)

from harness.cli.main import main  # noqa: E402

raise SystemExit(main())
