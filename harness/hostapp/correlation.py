"""The ids that tie a request, its job, its audit row and its log lines together."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

#: ASCII, so that characters are bytes wherever the id goes; blanks only inside
_ACCEPTABLE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")

#: of the request or job that is being worked on
correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[int | None] = ContextVar("job_id", default=None)


def is_acceptable(text: object) -> bool:
    """Say whether an id is 1 to 256 printable ASCII characters that neither begin nor end with a blank."""
    return isinstance(text, str) and _ACCEPTABLE.fullmatch(text) is not None


def given_or_fresh(header: str | None) -> str:
    """Return the id that a client sent, without blanks around it, or a fresh one where that is not acceptable."""
    text = (header or "").strip(" \t")
    return text if is_acceptable(text) else str(uuid.uuid4())
