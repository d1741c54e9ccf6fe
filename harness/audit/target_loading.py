"""Which audit targets there are, and one of them built from its file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import config
from harness.audit.installing import FILES
from harness.audit.target import AuditTarget
from harness.audit.target_file import NEEDS_STATEMENT, Statements, TargetFile, TrailFeature
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHIPPED = Path(__file__).parent / "targets"
#: becomes the name of a folder, beside that of the runs
_NAME = re.compile(r"^(?!runs$)[A-Za-z0-9][A-Za-z0-9_-]*$")


def reference_target() -> AuditTarget:
    """Return our own audit layer."""
    path = _SHIPPED / "reference.toml"
    return _built(path, "reference", FILES, claims=frozenset(TrailFeature))


def shipped_targets() -> dict[str, str]:
    """Return the targets that come with the project, and what they are."""
    found = {path.stem: config.load(path, TargetFile).summary for path in sorted(_SHIPPED.glob("*.toml"))}
    return {"reference": found.pop("reference")} | found


def load_target(named: str, install: Sequence[str] = ()) -> AuditTarget:
    """Return a shipped target by its name, or the one that a TOML file describes.

    :param install: SQL files that install it, instead of those it names.
    :raises ConfigError: naming file, line and key.
    """
    if named == "reference":
        if install:
            raise ConfigError("the reference layer installs its own SQL", hint="leave out --audit-sql")
        return reference_target()
    if not named.endswith(".toml"):
        known = shipped_targets()
        if named not in known:
            raise ConfigError(
                f"there is no audit target {named!r}",
                hint=f"{config.nearest(named, known)}; a target of your own is a path that ends in .toml",
            )
        path = _SHIPPED / f"{named}.toml"
    else:
        path = Path(named)
        if path.stem == "reference":
            raise ConfigError("only the reference layer is called `reference`", where=named, hint="rename the file")
    return _built(path, path.stem, tuple(Path(each) for each in install))


def _built(
    path: Path, name: str, install: tuple[Path, ...], claims: frozenset[TrailFeature] | None = None
) -> AuditTarget:
    if not _NAME.match(name):
        raise ConfigError(
            f"the audit target {name!r} cannot be called that: its report gets a folder of that name",
            where=str(path),
            hint="letters, digits, dashes and underscores, and not `runs`",
        )
    file = config.load(path, TargetFile)
    stripped = {key: value.rstrip().rstrip(";") for key, value in msgspec.structs.asdict(file.statements).items()}
    file = msgspec.structs.replace(file, statements=Statements(**stripped))
    claimed = frozenset(file.claims) if claims is None else claims
    if claims is None and TrailFeature.LIBRARY in claimed:
        raise ConfigError(
            "claims: only the reference layer can claim `library`", where=config.at_key(str(path), "claims")
        )
    for feature in sorted(claimed):
        for needed in NEEDS_STATEMENT.get(feature, ()):
            if not getattr(file.statements, needed):
                raise ConfigError(
                    f"claims: {feature} is claimed, and there is no statements.{needed} to try it with",
                    where=config.at_key(str(path), "claims"),
                    hint=f"add statements.{needed}, or leave {feature} out: its checks are then N/A",
                )
    files = install or tuple(path.parent / each for each in file.install)
    digest = hashlib.sha256(path.read_bytes())
    for each in files:
        try:
            digest.update(each.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"install: {each} cannot be read: {error.strerror}", where=config.at_key(str(path), "install")
            ) from None
    return AuditTarget(
        name=name,
        summary=file.summary,
        where=str(path),
        fingerprint=digest.hexdigest()[:16],
        install=files,
        tables=file.tables,
        actor=file.actor,
        statements=file.statements,
        claims=claimed,
        documentation=file.documentation,
    )
