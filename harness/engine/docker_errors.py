"""The exceptions of the Docker SDK, and their messages."""

from __future__ import annotations

import docker.errors
import requests.exceptions
import urllib3.exceptions

from harness.errors import TimedOutError

#: the SDK raises its own exceptions, and those of the libraries that it uses
DOCKER_ERRORS = (
    TimedOutError,
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
)


def message_of(error: Exception) -> str:
    """Return the message of the innermost of the SDK's nested exceptions."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return str(explanation)
    inner: BaseException = error
    while (inner.__cause__ or inner.__context__) is not None:
        inner = inner.__cause__ or inner.__context__  # type: ignore[assignment]
    return str(inner) or type(inner).__name__
