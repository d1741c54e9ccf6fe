"""Validates request bodies, with error messages for each invalid field."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

#: longest title or slug, in characters; both columns are of type text
LONGEST = 200
#: largest body, in bytes
LARGEST_BODY = 64 * 1024

Errors = dict[str, list[str]]


class Post(Struct, frozen=True, kw_only=True):
    """The fields of a new post."""

    title: str
    slug: str


class InvalidError(Exception):
    """Some fields are invalid; `errors` maps each of them to its messages."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(", ".join(sorted(errors)))
        self.errors = errors


def decoded(body: bytes) -> Any:
    """Decode a JSON body.

    :raises ValueError: for invalid JSON.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("found JSON that is nested too deeply") from None


def _reject_constant(constant: str) -> None:
    raise ValueError(f"found {constant}, which JSON does not allow")


def post_from(document: Any) -> Post:
    """Read `{"post": {"title": …, "slug": …}}`.

    :raises InvalidError: naming every invalid field.
    """
    post = document.get("post") if isinstance(document, dict) else None
    if not isinstance(post, dict):
        raise InvalidError({"post": ["must be an object"]})
    errors = {name: messages for name in ("title", "slug") if (messages := _errors_of(post.get(name)))}
    if errors:
        raise InvalidError(errors)
    return Post(title=post["title"], slug=post["slug"])


def title_from(document: Any) -> str:
    """Read `{"title": …}`.

    :raises InvalidError: when the title is invalid.
    """
    title = document.get("title") if isinstance(document, dict) else None
    if messages := _errors_of(title):
        raise InvalidError({"title": messages})
    return str(title)


def _errors_of(value: object) -> list[str]:
    if value is None:
        return ["can't be blank"]
    if not isinstance(value, str):
        return ["must be text"]
    if not value.strip():
        return ["can't be blank"]
    if len(value) > LONGEST:
        return [f"should be at most {LONGEST} characters"]
    # PostgreSQL cannot store NUL or an unpaired surrogate
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        return ["has characters that cannot be stored"]
    return []
