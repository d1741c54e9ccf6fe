"""Validates the body of `POST /uploads`."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from ..validation import Errors, InvalidError

__all__ = ["InvalidError", "UploadRequest", "upload_request_from"]

_LONGEST = 200
#: a part of an object key: no path, and nothing that a shell, a URL or a log reads as something else
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTENT_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}(; ?[A-Za-z0-9-]{1,30}=[A-Za-z0-9._-]{1,60})*"
)
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\\ud800-\udfff]")


class UploadRequest(Struct, frozen=True, kw_only=True):
    """A file that somebody is going to upload."""

    filename: str
    project: str
    content_type: str


def upload_request_from(document: Any) -> UploadRequest:
    """Read `{"filename": …, "projectId": …, "contentType": …}`; the last one is optional.

    :raises InvalidError: naming every invalid field.
    """
    if not isinstance(document, dict):
        raise InvalidError({"body": ["must be an object"]})
    filename, project = document.get("filename"), document.get("projectId")
    content_type = document.get("contentType") or "application/octet-stream"
    errors: Errors = {}
    if message := _wrong_filename(filename):
        errors["filename"] = [message]
    if not project:
        errors["projectId"] = ["is required"]
    elif not isinstance(project, str) or not _PROJECT.fullmatch(project):
        errors["projectId"] = ["must begin with a letter or digit, and have letters, digits, `.`, `_` and `-` only"]
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        errors["contentType"] = ["must be a media type such as text/plain"]
    if errors:
        raise InvalidError(errors)
    return UploadRequest(filename=str(filename), project=str(project), content_type=str(content_type))


def _wrong_filename(filename: Any) -> str:
    if filename is None or filename == "":
        return "is required"
    if not isinstance(filename, str) or not filename.strip():
        return "must be text"
    if len(filename) > _LONGEST:
        return f"must have at most {_LONGEST} characters"
    if filename in {".", ".."} or _FORBIDDEN_IN_NAMES.search(filename):
        return "must be a name without a path and without control characters"
    return ""
