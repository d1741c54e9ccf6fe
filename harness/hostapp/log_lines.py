"""Log lines as JSON objects, from this application and its libraries, without values, tokens or SQL."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import correlation  # relative: the folder is delivered as a package of its own

if TYPE_CHECKING:
    from types import TracebackType

#: part of the application by prefix of the logger's name
_CONTEXTS = (
    ("hostapp.http", "http"),
    ("hostapp.job", "job"),
    ("hostapp.database", "database"),
    ("uvicorn", "http"),
    ("starlette", "http"),
    ("oban", "oban"),
    ("psycopg", "database"),
)
_FRAMES = 12


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line with ts, level, ctx and msg, and the ids of the current request or job."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "ctx": context_of(record.name),
            "msg": record.getMessage(),
        }
        for name in ("correlation_id", "request_id", "job_id"):
            if (value := getattr(correlation, name).get()) is not None:
                line[name] = value
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = described(record.exc_info[1])
            line["frames"] = frames_of(record.exc_info[2])
        return json.dumps(line, default=lambda value: type(value).__name__)


def context_of(name: str) -> str:
    """Return the part of the application that a logger belongs to: http, job, oban, database or app."""
    return next((context for begin, context in _CONTEXTS if name == begin or name.startswith(f"{begin}.")), "app")


def described(error: BaseException) -> str:
    """Return a description of an error, without the values that PostgreSQL quotes in its DETAIL."""
    name = type(error).__name__
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        primary = getattr(getattr(error, "diag", None), "message_primary", None)
        return f"{name} {sqlstate}: {primary}" if primary else f"{name} {sqlstate}"
    return f"{name}: {error}" if str(error) else name


def frames_of(trace: TracebackType | None) -> list[str]:
    """Return the stack frames of an error, innermost last, without source lines: a line may hold a value."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-_FRAMES:]]


def log_as_json() -> None:
    """Log as JSON in the whole process: libraries, warnings, and uncaught exceptions."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # this application logs each request itself, with its ids
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(capture=True)
    logger = logging.getLogger("hostapp")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logger.critical("uncaught exception, the process ends", exc_info=(kind, error, trace))

    sys.excepthook = uncaught
    sys.unraisablehook = lambda lost: logger.error(
        "exception ignored", exc_info=lost.exc_value if isinstance(lost.exc_value, Exception) else None
    )
