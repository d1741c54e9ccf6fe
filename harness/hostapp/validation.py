"""What a request's body must hold, and what is said of each field that is wrong."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

#: characters; both columns are text, and what is longer is no title
LONGEST = 200
#: bytes of a body
LARGEST_BODY = 64 * 1024

Errors = dict[str, list[str]]


class Post(Struct, frozen=True, kw_only=True):
    """What a post is created from."""

    title: str
    slug: str


class InvalidError(Exception):
    """Fields are wrong; `errors` says of each what."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(", ".join(sorted(errors)))
        self.errors = errors


def decoded(body: bytes) -> Any:
    """Decode a body.

    :raises ValueError: when it is not JSON.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def post_from(document: Any) -> Post:
    """Read `{"post": {"title": …, "slug": …}}`.

    :raises InvalidError: naming every field that is wrong.
    """
    post = document.get("post") if isinstance(document, dict) else None
    if not isinstance(post, dict):
        raise InvalidError({"post": ["must be an object"]})
    errors = {name: wrong for name in ("title", "slug") if (wrong := _wrong(post.get(name)))}
    if errors:
        raise InvalidError(errors)
    return Post(title=post["title"], slug=post["slug"])


def title_from(document: Any) -> str:
    """Read `{"title": …}`.

    :raises InvalidError: when the title is wrong.
    """
    title = document.get("title") if isinstance(document, dict) else None
    if wrong := _wrong(title):
        raise InvalidError({"title": wrong})
    return str(title)


def _wrong(value: object) -> list[str]:
    if value is None:
        return ["can't be blank"]
    if not isinstance(value, str):
        return ["must be text"]
    if not value.strip():
        return ["can't be blank"]
    if len(value) > LONGEST:
        return [f"should be at most {LONGEST} characters"]
    # PostgreSQL stores neither a NUL nor half of a surrogate pair
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        return ["has characters that cannot be stored"]
    return []
