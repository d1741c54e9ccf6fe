"""Operators on actors: actors that are lost, kept for others, or spelt in another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.mutants.observed_columns import column
from harness.mutants.observed_rows import transactions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.mutants.observed_rows import Row

OTHER = "mallory"


def _is_actor(row: Row) -> bool:
    return isinstance(row.get("actor"), dict)


def actors(rows: list[Row], change: Callable[[dict[str, Any]], Any]) -> list[Row]:
    """Replace the actors; a row without one keeps none."""
    return column(rows, "actor", lambda row: change(row["actor"]), _is_actor)


def ids(rows: list[Row], change: Callable[[str], Any]) -> list[Row]:
    """Replace the ids of actors; an anonymous one keeps none."""

    def changed(actor: dict[str, Any]) -> dict[str, Any]:
        if actor.get("id") is None:
            return actor
        plain = str(actor["id"])
        # a trail may have ids of another type than text
        return {**actor, "id": new} if (new := change(plain)) != plain else actor

    return actors(rows, changed)


def types(rows: list[Row], change: Callable[[str], Any]) -> list[Row]:
    """Replace the types of actors."""
    return actors(rows, lambda actor: {**actor, "type": change(str(actor["type"]))} if "type" in actor else actor)


def without(actor: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in actor.items() if key != name}


def renamed(actor: dict[str, Any], name: str, new: str) -> dict[str, Any]:
    return {new if key == name else key: value for key, value in actor.items()}


def instead_of_nobody(rows: list[Row], actor: Any) -> list[Row]:
    """Name an actor where none was declared."""
    return column(rows, "actor", lambda _row: actor, lambda row: row.get("actor") is None)


def last_seen(rows: list[Row]) -> list[Row]:
    """Name the last actor where none was declared, as a session does that keeps its setting."""
    seen: Any = None
    shown = []
    for row in rows:
        seen = row.get("actor") or seen
        shown.append({**row, "actor": seen})
    return shown


def only_on_first_rows(rows: list[Row]) -> list[Row]:
    """Name the actor on the first change of each transaction only."""
    first = {id(group[0]) for group in transactions_of(rows)}
    return column(rows, "actor", lambda _row: None, lambda row: id(row) not in first)


def other_type(kind: str) -> str:
    return "admin" if kind == "user" else "user"


def pseudonyms(rows: list[Row]) -> list[Row]:
    """Number the ids of actors in their order."""
    numbers: dict[str, str] = {}
    return ids(rows, lambda own: numbers.setdefault(own, str(len(numbers) + 1)))
