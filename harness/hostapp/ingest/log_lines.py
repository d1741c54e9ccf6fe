"""Log lines as JSON objects on stdout: `ts`, `level`, `msg`, and `ctx` with what the line is about."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..correlation import correlation_id
from ..log_lines import described, frames_of

if TYPE_CHECKING:
    from types import TracebackType


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line. Fields of `extra={"fields": …}` are part of its context."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        context: dict[str, Any] = {"program": self._program, "logger": record.name}
        if (correlation := correlation_id.get()) is not None:
            context["correlation_id"] = correlation
        context |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            context["error"] = described(record.exc_info[1])
            context["frames"] = frames_of(record.exc_info[2])
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "ctx": context,
        }
        return json.dumps(line, default=lambda value: type(value).__name__)


def start(program: str) -> None:
    """Log as JSON in the whole process: libraries, warnings and uncaught exceptions of all threads."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(program))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True
    # this application logs the loss of its database once, and the pool at each attempt to connect
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logger = logging.getLogger("ingest")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logger.critical("uncaught exception, the process ends", exc_info=(kind, error, trace))

    def uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
        logger.critical("uncaught exception in a thread", exc_info=arguments.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = lambda lost: logger.error(
        "exception ignored", exc_info=lost.exc_value if isinstance(lost.exc_value, Exception) else None
    )
