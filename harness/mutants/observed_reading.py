"""What a check reads of the trail: the rows, and the columns that it looks at."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import msgspec

from harness.audit.target import AuditTarget, Change
from harness.mutants.observed_queries import exact_rows, query_of
from harness.mutants.observed_rows import Row, known

if TYPE_CHECKING:
    from harness.database import Client
    from harness.mutants.observed_mutation import Mutation

_COLUMNS = frozenset(Change.__struct_fields__)
#: more rows are not kept: such a check may notice anything
_MOST_ROWS = 50_000


class Reading:
    """The reads of one check that ran undisturbed. Threads of the check share it."""

    def __init__(self) -> None:
        self.reads: list[list[Row]] = []
        self.seen: set[str] = set()
        #: the check read more rows than are kept
        self.is_cut = False
        self._rows = 0
        self._kind = _noting(self.seen)
        self._lock = Lock()

    def keep(self, rows: list[Row]) -> list[Row]:
        """Keep the rows of one read, and return them as they are."""
        with self._lock:
            self._rows += len(rows)
            if self._rows > _MOST_ROWS:
                self.is_cut = True
            else:
                self.reads.append(rows)
        return rows

    def noting(self, changes: list[Change]) -> list[Change]:
        """Return equal changes that note which of their columns are looked at."""
        return [self._kind(**msgspec.structs.asdict(change)) for change in changes]

    def meets(self, mutation: Mutation) -> bool:
        """Return whether a mutation changes any row that the check read, in whatever column."""
        return self._differs(mutation, _COLUMNS)

    def may_notice(self, mutation: Mutation) -> bool:
        """Return whether a mutation changes the rows of a read, their order, or a column that the check looks at.

        Until its first look at a changed value a check does the same as without the mutation.
        """
        return self.is_cut or self._differs(mutation, self.seen)

    def _differs(self, mutation: Mutation, names: set[str] | frozenset[str]) -> bool:
        read = mutation.started()
        return any(_differ(rows, read(rows), names) for rows in self.reads)


def _differ(rows: list[Row], others: list[Row], names: set[str] | frozenset[str]) -> bool:
    if len(rows) != len(others):
        return True
    return any(
        known(value) != known(another)
        for row, other in zip(rows, others, strict=True)
        if row is not other
        for name in names
        if (value := row.get(name)) is not (another := other.get(name))
    )


class WatchedTarget(AuditTarget, frozen=True, kw_only=True):
    """An audit target whose changes note which of their columns are looked at."""

    reading: Reading

    def changes_where(self, client: Client, condition: str = "") -> list[Change]:
        return self.reading.noting(super().changes_where(client, condition))

    def changes_query(self, client: Client) -> str:
        query = super().changes_query(client)
        with self.within_a_query():
            self.reading.keep(exact_rows(client, query)[0])
        self.reading.seen.update(_COLUMNS)  # the server looks at them
        return query


class MutatedTarget(AuditTarget, frozen=True, kw_only=True):
    """An audit target whose rows are mutated, also within queries."""

    def changes_query(self, client: Client) -> str:
        query = super().changes_query(client)
        with self.within_a_query():
            rows, types = exact_rows(client, query)
        return query_of(self.observed(rows), types) if types and self.observed else query


def watched(target: AuditTarget, reading: Reading) -> AuditTarget:
    """Return the target with a hook that keeps what is read."""
    return WatchedTarget(**(_fields(target) | {"observed": reading.keep}), reading=reading)


def mutated(target: AuditTarget, mutation: Mutation) -> AuditTarget:
    """Return the target with a hook that mutates what is read in one run of a check."""
    return MutatedTarget(**(_fields(target) | {"observed": mutation.started()}))


def _fields(target: AuditTarget) -> dict[str, Any]:
    return {name: getattr(target, name) for name in AuditTarget.__struct_fields__}


def _noting(seen: set[str]) -> type[Change]:
    """Return a class of changes that notes the names of the columns that are read."""

    def get(change: Change, name: str) -> Any:
        if name in _COLUMNS:
            seen.add(name)
        return object.__getattribute__(change, name)

    def equals(change: Change, other: object) -> bool:
        seen.update(_COLUMNS)
        return isinstance(other, Change) and msgspec.structs.astuple(change) == msgspec.structs.astuple(other)

    def shown(change: Change) -> str:
        seen.update(_COLUMNS)
        return f"Change{msgspec.structs.astuple(change)!r}"

    namespace = {
        "__getattribute__": get,
        "__eq__": equals,
        "__repr__": shown,
        "__hash__": lambda change: hash(change.id),
    }
    kind = msgspec.defstruct("Change", [], bases=(Change,), namespace=namespace, frozen=True, kw_only=True)
    return cast("type[Change]", kind)
