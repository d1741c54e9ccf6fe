"""The two JSON files that the application is configured by: one to serve, one to prepare its database.

Secrets are in these files and nowhere else: not in arguments, not in the environment, not in a log line.
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
    """A file of settings has a mistake; the message names file and key."""


class Actor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who acts, as the audit trail spells it: every type but anonymous has an id."""

    type: Literal["user", "admin", "service_account", "job", "system", "anonymous"]
    id: str | None = None

    def __post_init__(self) -> None:
        if self.type == "anonymous":
            if self.id is not None:
                raise ValueError("an anonymous actor has no id")
        elif not (self.id and self.id.strip()):
            raise ValueError(f"an actor of type {self.type} needs an id")

    def as_json(self) -> str:
        return msgspec.json.encode(self).decode()


class JobSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How jobs are found, retried and judged."""

    #: between two looks for jobs that are due; without notifications, also between enqueuing and running
    stage_interval_s: Seconds = 1.0
    concurrency: Small = 2
    #: a job that ran this long without ending is taken to be lost, and run again
    rescue_after_s: Seconds = 300.0
    rescue_interval_s: Seconds = 60.0
    #: the first retry comes after at most this; whole seconds, as Oban schedules
    backoff_base_s: Small = 2
    backoff_cap_s: Small = 60
    #: a job may wait that long without any succeeding before the runner counts as not ready
    waiting_bound_s: Seconds = 30.0
    #: that long a job that failed for good makes the runner count as not ready, unless another succeeds after it
    failure_window_s: Seconds = 300.0


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `python -m hostapp FILE` reads. Its text shows no secret."""

    version: str
    host: str
    port: Annotated[int, Meta(ge=1, le=65_535)]
    #: through the whole chain
    dsn: str
    #: listen: through the chain; poll: no notifications; direct: past the pooler, at `direct_dsn`
    notifier: Literal["listen", "poll", "direct"]
    direct_dsn: str | None = None
    #: psycopg prepares a statement on the server after that many uses; null: never
    prepare_threshold: Annotated[int, Meta(ge=0)] | None
    pool_size: Annotated[int, Meta(ge=2, le=1000)] = 4
    #: bearer token to the actor whose it is
    tokens: dict[str, Actor]
    jobs: JobSettings = JobSettings()
    #: an audited transaction's statements are ended by the server after that
    statement_timeout_s: Seconds = 5.0
    #: /ready takes no longer than that
    ready_bound_s: Seconds = 1.0

    def __post_init__(self) -> None:
        if (self.notifier == "direct") != (self.direct_dsn is not None):
            raise ValueError("`direct_dsn` goes with the notifier `direct`, and only with it")

    def __repr__(self) -> str:
        return f"Settings({self.version!r}, {self.host}:{self.port}, notifier={self.notifier})"


class MigrationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `python -m hostapp migrate FILE` reads. Its text shows no secret."""

    #: past the pooler, as the role that is to own the tables
    dsn: str
    #: who the application connects as
    application_role: Annotated[str, Meta(min_length=1, max_length=63)]

    def __repr__(self) -> str:
        return f"MigrationSettings(application_role={self.application_role!r})"


def load_settings(path: Path) -> Settings:
    """Read what the application serves with.

    :raises SettingsError: naming file and key, and never a value.
    """
    return _decoded(path, Settings)


def load_migration(path: Path) -> MigrationSettings:
    """Read what the database is prepared with.

    :raises SettingsError: naming file and key, and never a value.
    """
    return _decoded(path, MigrationSettings)


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise SettingsError(f"{path}: the settings cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
