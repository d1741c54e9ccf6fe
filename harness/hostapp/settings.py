"""The two JSON configuration files: one for serving, and one for preparing the database.

Secrets are in these files only: not in arguments, environment variables or log lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from pathlib import Path

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Small = Annotated[int, Meta(ge=1, le=1000)]
T = TypeVar("T")


class SettingsError(Exception):
    """A settings file is invalid; the message names file and key."""


class Actor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An actor in the format of the audit trail. Every type except anonymous has an id."""

    type: Literal["user", "admin", "service_account", "job", "system", "anonymous"]
    id: str | None = None

    def __post_init__(self) -> None:
        if self.type == "anonymous":
            if self.id is not None:
                raise ValueError("found an id on an anonymous actor, expected none")
        elif not (self.id and self.id.strip()):
            raise ValueError(f"missing id of an actor of type {self.type}")

    def as_json(self) -> str:
        return msgspec.json.encode(self).decode()


class JobSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings for polling, retries and readiness of jobs. Durations are in seconds."""

    #: polling interval for due jobs; without notifications, also the longest delay between enqueuing and running
    stage_interval_s: Seconds = 1.0
    concurrency: Small = 2
    #: a job that has run for this long is considered lost, and runs again
    rescue_after_s: Seconds = 300.0
    rescue_interval_s: Seconds = 60.0
    #: longest delay before the first retry; whole seconds, because Oban schedules in seconds
    backoff_base_s: Small = 2
    backoff_cap_s: Small = 60
    #: not ready when a due job has waited for this long and no job has succeeded meanwhile
    waiting_bound_s: Seconds = 30.0
    #: not ready for this long after a job was discarded, unless another job succeeds
    failure_window_s: Seconds = 300.0


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of `python -m hostapp FILE`. Its `repr` shows no secret."""

    version: str
    host: str
    port: Annotated[int, Meta(ge=1, le=65_535)]
    #: connection string through the whole chain
    dsn: str
    #: listen: through the chain; poll: no notifications; direct: past the pooler, with `direct_dsn`
    notifier: Literal["listen", "poll", "direct"]
    direct_dsn: str | None = None
    #: number of executions after which psycopg prepares a statement on the server; null: never
    prepare_threshold: Annotated[int, Meta(ge=0)] | None
    pool_size: Annotated[int, Meta(ge=2, le=1000)] = 4
    #: bearer token to its actor
    tokens: dict[str, Actor]
    jobs: JobSettings = JobSettings()
    #: statement timeout in audited transactions
    statement_timeout_s: Seconds = 5.0
    #: time limit of /ready
    ready_bound_s: Seconds = 1.0

    def __post_init__(self) -> None:
        if (self.notifier == "direct") != (self.direct_dsn is not None):
            raise ValueError("`direct_dsn` and the notifier `direct` require each other")

    def __repr__(self) -> str:
        return f"Settings({self.version!r}, {self.host}:{self.port}, notifier={self.notifier})"


class MigrationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of `python -m hostapp migrate FILE`. Its `repr` shows no secret."""

    #: connection string past the pooler, for the role that will own the tables
    dsn: str
    #: the role of the application
    application_role: Annotated[str, Meta(min_length=1, max_length=63)]

    def __repr__(self) -> str:
        return f"MigrationSettings(application_role={self.application_role!r})"


def load_settings(path: Path) -> Settings:
    """Read the settings for serving.

    :raises SettingsError: naming file and key, but no value.
    """
    settings = _decoded(path, Settings)
    _require_connection_strings(path, dsn=settings.dsn, direct_dsn=settings.direct_dsn)
    return settings


def load_migration(path: Path) -> MigrationSettings:
    """Read the settings for preparing the database.

    :raises SettingsError: naming file and key, but no value.
    """
    settings = _decoded(path, MigrationSettings)
    _require_connection_strings(path, dsn=settings.dsn)
    return settings


def _require_connection_strings(path: Path, **strings: str | None) -> None:
    # psycopg is loaded for valid settings only
    from .connection_strings import problem_of  # noqa: PLC0415

    for key, string in strings.items():
        if string is not None and (problem := problem_of(string)):
            raise SettingsError(f"{path}: invalid connection string in {key}: {problem}")


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise SettingsError(f"{path}: the settings file cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
