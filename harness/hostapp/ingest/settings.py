"""The settings of the pipeline's programs: variables of the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields

from ..connection_strings import problem_of
from ..settings import Actor, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Actor", "Settings", "SettingsError", "database_url", "load_settings"]

_Text = Annotated[str, Meta(min_length=1)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]
_Small = Annotated[int, Meta(ge=1, le=64)]


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of API and worker. Each field is a variable of that name, in capital letters."""

    #: connection string through the whole chain
    database_url: _Text
    #: port of the API on 127.0.0.1
    port: Annotated[int, Meta(ge=1, le=65_535)] = 4000
    #: the object store, as this machine reaches it
    s3_endpoint: _Text
    #: the object store, as clients reach it: presigned addresses are for this one
    s3_public_endpoint: str = ""
    s3_bucket: _Text
    #: begins each key
    s3_prefix: str = ""
    aws_access_key_id: _Text
    aws_secret_access_key: _Text
    aws_region: _Text = "us-east-1"
    #: users of the API: `token=type:id`, separated by commas
    ingest_tokens: str = ""
    #: downloads of a file that always fails
    attempts: Annotated[int, Meta(ge=1, le=100)] = 4
    #: the shortest delay after the first failed download, and the longest delay of all
    shortest_delay_s: _Seconds = 0.2
    longest_delay_s: _Seconds = 2.0
    #: an upload is taken over from a worker that has not renewed its lease for this long
    lease_s: _Seconds = 30.0
    #: how often an idle worker looks for uploads
    poll_s: _Seconds = 1.0
    #: how long a presigned address is valid
    url_valid_s: Annotated[float, Meta(ge=1, le=604_800)] = 900.0
    #: uploads that a worker processes at a time
    concurrency: _Small = 4
    #: connections of each process: two workers and an API fit into a session pool of eight
    pool_size: _Small = 2

    def __repr__(self) -> str:
        return f"Settings(port={self.port}, s3_bucket={self.s3_bucket!r})"

    @property
    def public_endpoint(self) -> str:
        return self.s3_public_endpoint or self.s3_endpoint

    @property
    def actors(self) -> dict[str, Actor]:
        """The users of the API by their tokens.

        :raises SettingsError: for an entry of another form; the message quotes none.
        """
        actors = {}
        for number, entry in enumerate(filter(None, self.ingest_tokens.split(",")), start=1):
            token, _, actor = entry.strip().partition("=")
            kind, _, name = actor.partition(":")
            if not token or token in actors:
                raise SettingsError(f"INGEST_TOKENS, entry {number}: expected a token of its own")
            try:
                actors[token] = msgspec.convert({"type": kind, "id": name}, Actor)
            except msgspec.ValidationError as error:
                raise SettingsError(f"INGEST_TOKENS, entry {number}: expected token=type:id: {error}") from None
        return actors


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of API and worker.

    :param environment: by default, that of this process.
    :raises SettingsError: naming the variable, but no value.
    """
    given = os.environ if environment is None else environment
    required = [field.name for field in fields(Settings) if field.required]
    if missing := [name.upper() for name in required if not given.get(name.upper())]:
        raise SettingsError(f"missing variables of the environment: {', '.join(missing)}")
    values = {field: given[field.upper()] for field in Settings.__struct_fields__ if given.get(field.upper())}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"a variable of the environment is invalid: {error}") from None
    if settings.longest_delay_s < settings.shortest_delay_s:
        raise SettingsError("LONGEST_DELAY_S is less than SHORTEST_DELAY_S, expected at least as much")
    _ = settings.actors
    _require_connection_string(settings.database_url)
    return settings


def database_url() -> str:
    """Return the connection string of a migration.

    :raises SettingsError: when the variable is missing or invalid.
    """
    if not (url := os.environ.get("DATABASE_URL", "")):
        raise SettingsError("missing variable DATABASE_URL, expected a connection string of PostgreSQL")
    _require_connection_string(url)
    return url


def _require_connection_string(url: str) -> None:
    if problem := problem_of(url):
        raise SettingsError(f"invalid connection string in DATABASE_URL: {problem}")
