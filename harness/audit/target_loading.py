"""List the shipped audit targets, and load a target from its file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import config
from harness.audit.actor_convention import NO_ACTOR, ActorConvention
from harness.audit.installing import FILES
from harness.audit.placeholders import ROLE_NAMES, TABLE_NAMES, quoted_literal, unknown_placeholder
from harness.audit.target import AuditTarget
from harness.audit.target_file import (
    ABOUT_A_TABLE,
    NEEDS_STATEMENT,
    REDACTION_TEXTS,
    Recorded,
    Statements,
    TargetFile,
    TrailFeature,
)
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHIPPED = Path(__file__).parent / "targets"
#: the name of a target becomes a folder next to `runs`
_NAME = re.compile(r"^(?!runs$)[A-Za-z0-9][A-Za-z0-9_-]*$")


def reference_target() -> AuditTarget:
    """Return our own audit layer."""
    path = _SHIPPED / "reference.toml"
    return _load(path, "reference", FILES, claims=frozenset(TrailFeature))


def shipped_targets() -> dict[str, str]:
    """Return the names and summaries of the shipped targets, the reference layer first."""
    summaries = {path.stem: config.load(path, TargetFile).summary for path in sorted(_SHIPPED.glob("*.toml"))}
    return {"reference": summaries.pop("reference")} | summaries


def load_target(named: str, install: Sequence[str] = ()) -> AuditTarget:
    """Return a target.

    :param named: the name of a shipped target, or the path of a TOML file.
    :param install: SQL files that install the trail, instead of those that the target names.
    :raises ConfigError: with file, line and key.
    """
    if named == "reference":
        if install:
            raise ConfigError("the reference layer installs its own SQL", hint="leave out --audit-sql")
        return reference_target()
    if not named.endswith(".toml"):
        known = shipped_targets()
        if named not in known:
            raise ConfigError(
                f"unknown audit target {named!r}",
                hint=f"{config.nearest(named, known)}; name a target of your own by its path, which ends in .toml",
            )
        path = _SHIPPED / f"{named}.toml"
    else:
        path = Path(named)
        if path.stem == "reference":
            raise ConfigError(
                "the name `reference` is reserved for the reference layer", where=named, hint="rename the file"
            )
    return _load(path, path.stem, tuple(Path(sql) for sql in install))


def _load(
    path: Path, name: str, install: tuple[Path, ...], claims: frozenset[TrailFeature] | None = None
) -> AuditTarget:
    if not _NAME.match(name):
        raise ConfigError(
            f"invalid name {name!r} of an audit target: its reports get a folder of that name",
            where=str(path),
            hint="rename the file: letters, digits, dashes and underscores, but not `runs`",
        )
    file = config.load(path, TargetFile)
    stripped = {key: value.rstrip().rstrip(";") for key, value in msgspec.structs.asdict(file.statements).items()}
    file = msgspec.structs.replace(file, statements=Statements(**stripped))
    _require_consistent(file, path)
    claimed = frozenset(map(TrailFeature, file.claims)) if claims is None else claims
    for feature in sorted(claimed):
        for needed in NEEDS_STATEMENT.get(feature, ()):
            if not getattr(file.statements, needed):
                raise ConfigError(
                    f"claims: {feature} requires statements.{needed}, which is missing",
                    where=config.at_key(str(path), "claims"),
                    hint=f"add statements.{needed}, or remove {feature}: its checks are then N/A",
                )
    files = install or tuple(path.parent / name for name in file.install)
    digest = hashlib.sha256(path.read_bytes())
    for sql in files:
        where = "" if install else config.at_key(str(path), "install")
        if sql.exists() and not sql.is_file():  # a pipe can be read only once, and may block for ever
            raise ConfigError(f"install: {sql} is not a regular file", where=where)
        try:
            digest.update(sql.read_bytes())
        except OSError as error:
            raise ConfigError(f"install: cannot read {sql}: {error.strerror}", where=where) from None
    return AuditTarget(
        name=name,
        summary=file.summary,
        where=str(path),
        fingerprint=digest.hexdigest()[:16],
        install=files,
        needs_superuser=file.install_as == "superuser",
        tables=file.tables,
        actor=file.actor or NO_ACTOR,
        statements=file.statements,
        claims=claimed,
        omits=frozenset(map(Recorded, file.omits)),
        own_columns=frozenset(file.own_columns),
        reattach=file.reattach,
        switches=file.switches,
        documentation=file.documentation,
        limits=file.limits,
        accepted=file.accepted,
    )


def _require_consistent(file: TargetFile, path: Path) -> None:
    """Reject keys that contradict each other, and undefined placeholders.

    :raises ConfigError: with file, line and key.
    """
    if not file.tables and not file.statements.tables:
        hint = "name the tables of the trail, or a query for them in statements.tables"
        raise ConfigError("tables: missing key", where=str(path), hint=hint)
    if file.actor is None and Recorded.ACTOR not in file.omits:
        hint = 'say how an application declares its actor, or that the trail records none: omits = ["actor"]'
        raise ConfigError("actor: missing key", where=str(path), hint=hint)
    if file.actor and Recorded.ACTOR in file.omits:
        hint = "a trail that records no actor has no table [actor]"
        raise _error(path, "omits", "found 'actor', and a table [actor]", hint)
    if file.actor:
        _require_one_way(file.actor, path)
    for key, statement in msgspec.structs.asdict(file.statements).items():
        if key == "changes" and file.statements.each:  # the columns of `each` are its placeholders
            continue
        names = (*TABLE_NAMES, *ROLE_NAMES) if key in ABOUT_A_TABLE else ROLE_NAMES
        _require_placeholders(path, f"statements.{key}", statement, names, REDACTION_TEXTS.get(key, ()))
    for switch in file.switches:
        _require_placeholders(path, "switches", switch, ROLE_NAMES)


def _require_one_way(actor: ActorConvention, path: Path) -> None:
    ways = [key for key in ("setting", "settings", "declare") if getattr(actor, key)]
    if len(ways) != 1:
        what = f"found {' and '.join(ways) or 'none of them'}, needed one of setting, settings and declare"
        raise _error(path, f"actor.{[*ways, 'setting'][0]}", what)
    if actor.setting:
        return
    if actor.value != "json":
        raise _error(path, "actor.value", f"found {actor.value!r}, which is the form of actor.setting")
    texts = [actor.declare, *actor.settings.values()]
    if not any("{id}" in text for text in texts):
        raise _error(path, f"actor.{ways[0]}", "missing {id}", "{id} and {type} stand for the actor's id and type")
    _require_placeholders(path, "actor.declare", actor.declare, ROLE_NAMES, ("id", "type"))
    for text in actor.settings.values():
        if found := unknown_placeholder(text, (), ("id", "type")):
            raise _error(path, "actor.settings", *found)


def _require_placeholders(
    path: Path, key: str, statement: str, names: tuple[str, ...], texts: tuple[str, ...] = ()
) -> None:
    if found := unknown_placeholder(statement, names, texts) or quoted_literal(statement, names, texts):
        raise _error(path, key, *found)


def _error(path: Path, key: str, what: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{key}: {what}", where=config.at_key(str(path), key), hint=hint)
