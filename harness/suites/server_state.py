"""The state of a server outside of its databases: what commands change of it is restored after them."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import Struct

from harness.database import load_queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.database import Client
    from harness.lab.lab import Lab

_QUERY = load_queries(Path(__file__).parent / "server_state.sql")["server_state"]


class Restorable(Struct, frozen=True):
    """One thing of a server, such as the settings of a login."""

    #: the statements that make it what it is
    make: tuple[str, ...]
    #: the statements that remove it; none for a thing that always exists
    remove: tuple[str, ...]


def state_of(admin: Client) -> dict[str, Restorable]:
    """Return the attributes and memberships of the logins, settings and the results of ALTER SYSTEM, by name."""
    return {name: Restorable(tuple(make), tuple(remove)) for name, make, remove in admin.rows(_QUERY)}


def restoring(before: Mapping[str, Restorable], now: Mapping[str, Restorable]) -> list[str]:
    """Return the statements that lead back to an earlier state; none if nothing differs."""
    removed = [statement for name, found in now.items() if before.get(name) != found for statement in found.remove]
    made = [statement for name, found in before.items() if now.get(name) != found for statement in found.make]
    return [*removed, *made]


_first: WeakKeyDictionary[Lab, dict[str, Restorable]] = WeakKeyDictionary()
_first_lock = Lock()


def remember(lab: Lab) -> dict[str, Restorable]:
    """Return the state of a lab's server before its first command. A later change may be one that was not restored."""
    with _first_lock:
        if lab not in _first:
            with lab.connect_admin() as admin:
                _first[lab] = state_of(admin)
        return _first[lab]


def restore(admin: Client, before: Mapping[str, Restorable]) -> None:
    """Restore an earlier state.

    :raises SqlError: when a statement fails, such as one about a role that is gone.
    """
    statements = restoring(before, state_of(admin))
    for statement in statements:  # one by one: ALTER SYSTEM runs in no transaction
        admin.run(statement)
    if statements:
        admin.run("SELECT pg_reload_conf()")
