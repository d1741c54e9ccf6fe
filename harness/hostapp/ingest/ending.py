"""The end of a process after a signal, also while a dependency keeps its connections open and answers nothing."""

from __future__ import annotations

import logging
import os
import time
from threading import Thread

_LOG = logging.getLogger("ingest.main")
#: longer than the grace of downloads and requests, and than the wait for a connection of the pool
_STOP_S = 5.0


def end_soon() -> None:
    """Let the process end, whatever its threads wait for. A graceful end is sooner, and nothing happens any more."""
    Thread(target=_end, name="end", daemon=True).start()


def _end() -> None:
    time.sleep(_STOP_S)
    _LOG.warning("stopped without an answer of the database or the store")
    logging.shutdown()
    os._exit(0)
