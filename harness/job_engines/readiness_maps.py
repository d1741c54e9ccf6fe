"""Readiness maps: areas that a project begins with, and replaces one by one.

A map is a TOML file in the form of `harness.toml`, with `[[readiness]]` entries and nothing else. The shipped maps have
the areas of a published readiness document, and name the checks that prove each of them for one job engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from harness import config
from harness.errors import ConfigError
from harness.host.readiness_file import ReadinessArea

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHIPPED = Path(__file__).parent / "readiness"
_SUFFIX = ".toml"


class ReadinessMap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The areas of one map."""

    readiness: Annotated[tuple[ReadinessArea, ...], Meta(min_length=1)]


def shipped_maps() -> dict[str, tuple[ReadinessArea, ...]]:
    """Return the areas of each shipped map."""
    return {path.stem: _load(path) for path in sorted(_SHIPPED.glob(f"*{_SUFFIX}"))}


def is_own_map(named: str) -> bool:
    """Return whether a map is a file of the project's own; the checks of a shipped map belong to this version."""
    return named.endswith(_SUFFIX)


def areas_of(named: str) -> tuple[ReadinessArea, ...]:
    """Return the areas of a map.

    :param named: the name of a shipped map, or the path of a TOML file; "" for none.
    :raises ConfigError: for an unknown name, or with file, line and key of a mistake.
    """
    if not named:
        return ()
    if is_own_map(named):
        return _load(Path(named))
    known = shipped_maps()
    if named not in known:
        raise ConfigError(
            f"readiness_map: unknown map {named!r}",
            hint=f"{config.nearest(named, known)}; name a map of your own by its path, which ends in {_SUFFIX}",
        )
    return known[named]


def with_map(areas: Sequence[ReadinessArea], declared: Sequence[ReadinessArea]) -> tuple[ReadinessArea, ...]:
    """Return the areas of a map and the declared ones. A declared area replaces the area of its name in the map."""
    own = {area.area: area for area in declared}
    mapped = {area.area: own.get(area.area, area) for area in areas}
    return (*mapped.values(), *(area for area in declared if area.area not in mapped))


def require_sound_areas(areas: Sequence[ReadinessArea], path: Path) -> None:
    """Reject areas that nothing could ever prove or explain, and two areas of one name.

    :raises ConfigError: with the name of the area.
    """
    seen = set()
    for area in areas:
        if not area.checks and not area.not_run.strip():
            raise ConfigError(
                f"readiness: {area.area}: found neither checks nor not_run",
                where=str(path),
                hint="name the checks that prove the area, or say in `not_run` why nothing runs for it",
            )
        if area.area in seen:
            raise ConfigError(
                f"readiness: {area.area}: declared twice", where=str(path), hint="put its checks into one entry"
            )
        seen.add(area.area)


def _load(path: Path) -> tuple[ReadinessArea, ...]:
    areas = config.load(path, ReadinessMap).readiness
    require_sound_areas(areas, path)
    return areas
