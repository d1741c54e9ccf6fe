"""`python -m harness`."""

import os
import signal


# importing takes a moment, in which Ctrl-C has nothing to tear down
def _end(_number: int, _frame: object) -> None:
    os.write(2, b"interrupted by SIGINT\n")
    os._exit(130)


signal.signal(signal.SIGINT, _end)

from harness.cli.main import main  # noqa: E402

raise SystemExit(main())
