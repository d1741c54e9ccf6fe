"""`python -m harness`."""

import os
import signal

# importing takes a moment, in which Ctrl-C has nothing to tear down
signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))

from harness.cli.main import main  # noqa: E402

raise SystemExit(main())
