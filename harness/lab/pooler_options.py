"""The names that a pooler accepts in its configuration, so that a misspelled one is found before anything starts.

PgBouncer reads the options of the entry `*` in [databases] only at a login, and then refuses every login.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct

from harness import config, places
from harness.errors import ConfigError
from harness.model import PoolMode
from harness.versions import numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.model import PoolerDeclaration

#: the tables of a topology file that hold options, and what an option there belongs to
_TABLES = {"settings": "PgBouncer itself", "database": "a database", "user": "a role"}


class _OptionsFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`topologies/config/<product>/options.toml`: names by table, and by the first version that accepts them."""

    #: the versions that were tried, oldest first
    seen: tuple[str, ...]
    #: of the product itself, of a database, and of a role
    settings: dict[str, tuple[str, ...]]
    database: dict[str, tuple[str, ...]]
    user: dict[str, tuple[str, ...]]


def require_known_options(pooler: PoolerDeclaration, where: str) -> None:
    """Reject an option that the declared version of the pooler does not accept.

    Names of a version between two that were tried, or newer than all of them, are accepted in case of doubt.

    :param where: the file, for the message.
    :raises ConfigError: naming the key.
    """
    path = places.TOPOLOGIES / "config" / pooler.product / "options.toml"
    if not path.is_file():
        return
    known = _options(path)
    tables: dict[str, Mapping[str, str]] = {
        "settings": pooler.settings,
        "database": pooler.database,
        "user": pooler.user,
    }
    for table, given in tables.items():
        accepted = _accepted(getattr(known, table), known.seen, pooler.version)
        for name in given:
            if accepted is not None and name not in accepted:
                raise _unknown(name, table, accepted, known, pooler, where)
        _require_pool_mode(table, given, where)


def _accepted(by_version: Mapping[str, tuple[str, ...]], seen: tuple[str, ...], version: str) -> frozenset[str] | None:
    """Return the names that a version may accept; None when it is newer than all versions that were tried."""
    numbers = numbers_of(version)
    if numbers[:2] > numbers_of(seen[-1]):
        return None
    # the first tried version that is not older decides: a name may be as old as the version before it
    newest = next(tried for tried in seen if numbers_of(tried) >= numbers[:2])
    return frozenset(
        name for since, names in by_version.items() if numbers_of(since) <= numbers_of(newest) for name in names
    )


def _unknown(
    name: str,
    table: str,
    accepted: frozenset[str],
    known: _OptionsFile,
    pooler: PoolerDeclaration,
    where: str,
) -> ConfigError:
    since = next((first for first, names in getattr(known, table).items() if name in names), None)
    elsewhere = [other for other in _TABLES if any(name in names for names in getattr(known, other).values())]
    hint = config.close_to(name, accepted)
    if since:
        hint = f"it is known from PgBouncer {since} on"
    elif elsewhere:
        hint = f"it is an option of {_TABLES[elsewhere[0]]}: declare it in pooler.{elsewhere[0]}"
    return ConfigError(
        f"pooler.{table}.{name}: PgBouncer {pooler.version} has no such option of {_TABLES[table]}",
        where=config.at_key(where, name),
        hint=hint,
    )


def _require_pool_mode(table: str, given: Mapping[str, str], where: str) -> None:
    mode = given.get("pool_mode")
    if mode is not None and mode not in tuple(PoolMode):
        raise ConfigError(
            f"pooler.{table}.pool_mode: found {mode!r}, allowed: {', '.join(PoolMode)}",
            where=config.at_key(where, table),
        )


@cache
def _options(path: Path) -> _OptionsFile:
    return config.load(path, _OptionsFile)
