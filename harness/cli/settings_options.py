"""The options that override harness.toml and the environment."""

from __future__ import annotations

from msgspec import Struct

from harness.engine.protocol import EngineName


class SettingsOptions(Struct, frozen=True, kw_only=True):
    """Options of the command line that override harness.toml and the environment; None or empty: not given."""

    engine: EngineName | None = None
    storage: str | None = None
    jobs: int | None = None
    #: of checks under faults: how often each fault is injected
    rounds: int | None = None
    #: of checks under load: how long each load lasts, seconds
    soak_s: float | None = None
    reports: str | None = None
    topologies_folder: str | None = None
    #: `--set PRODUCT=VERSION`
    versions: tuple[str, ...] = ()
    #: `--image PRODUCT=REFERENCE`
    images: tuple[str, ...] = ()
    image_prefix: str | None = None
    pull: str | None = None
    audit_target: str | None = None
    audit_sql: tuple[str, ...] = ()
    #: names of job engines, or paths of their files: the command is about these only
    job_engines: tuple[str, ...] = ()
    #: names of variants of these job engines: the command is about these only
    job_variants: tuple[str, ...] = ()
    #: the name of a shipped ingest pipeline, or the path of its file
    pipeline: str | None = None
