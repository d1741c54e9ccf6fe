"""The errors of the Docker SDK."""

from __future__ import annotations

import docker.errors
import requests.exceptions
import urllib3.exceptions

from harness.errors import TimedOutError

#: what the Docker SDK raises: its own errors, and those of the libraries below it
DOCKER_ERRORS = (
    TimedOutError,
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
)


def message_of(error: Exception) -> str:
    """Return the innermost message of the SDK's nested errors."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return str(explanation)
    inner: BaseException = error
    while (inner.__cause__ or inner.__context__) is not None:
        inner = inner.__cause__ or inner.__context__  # type: ignore[assignment]
    return str(inner) or type(inner).__name__
