"""The process of the API."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

import uvicorn

from .api import Api
from .database import async_pool
from .ending import end_soon
from .storage import Storage

if TYPE_CHECKING:
    from types import FrameType

    from .settings import Settings

_LOG = logging.getLogger("ingest.api")


def serve(settings: Settings) -> int:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT, and return the exit code."""
    # uvicorn handles the signals, and raises them again at its end: the exit code then is 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server: Any = uvicorn.Server(
        uvicorn.Config(
            Api(settings, async_pool(settings), Storage(settings)).application(),
            host="127.0.0.1",
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
    )
    end_gracefully = server.handle_exit

    def end(number: int, frame: FrameType | None) -> None:
        end_gracefully(number, frame)
        # a query to a frozen database cannot even be cancelled
        end_soon()

    server.handle_exit = end
    _LOG.info("started", extra={"fields": {"port": settings.port}})
    server.run()
    _LOG.info("stopped")
    return 0 if server.started else 1
