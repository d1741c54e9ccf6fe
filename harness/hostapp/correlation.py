"""The ids that connect a request with its job, its audit rows and its log lines."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

#: ASCII, so that the length in bytes is the same everywhere; no space at either end
_ACCEPTABLE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")

#: ids of the current request or job
correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[int | None] = ContextVar("job_id", default=None)


def is_acceptable(text: object) -> bool:
    """Return whether an id has 1 to 256 printable ASCII characters, without a space at either end."""
    return isinstance(text, str) and _ACCEPTABLE.fullmatch(text) is not None


def given_or_fresh(header: str | None) -> str:
    """Return the id that a client sent, stripped, or a new one when the client sent none that is acceptable."""
    text = (header or "").strip(" \t")
    return text if is_acceptable(text) else str(uuid.uuid4())
