"""The mutations of actors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.audit.target_file import Recorded, TrailFeature
from harness.mutants import observed_actors as actors
from harness.mutants import observed_columns as columns
from harness.mutants.observed_columns import column
from harness.mutants.observed_mutation import Mutation, mutation
from harness.mutants.observed_rows import Row, same_kind

if TYPE_CHECKING:
    from collections.abc import Callable


def _of_op(op: str) -> Callable[[Row], bool]:
    return lambda row: same_kind(row, op)


def _actor(
    name: str, what: str, apply: Callable[[list[Row]], list[Row]], *, feature: TrailFeature | None = None
) -> Mutation:
    return mutation(f"actor.{name}", what, apply, feature=feature, records=Recorded.ACTOR)


def _for_nobody(name: str, what: str, apply: Callable[[list[Row]], list[Row]]) -> Mutation:
    return replace(_actor(f"{name}-for-nobody", f"names {what} where none was declared", apply), undeclared=True)


def _ids(name: str, what: str, change: Callable[[str], object]) -> Mutation:
    return _actor(name, what, lambda rows: actors.ids(rows, change))


def _text_ids(name: str, what: str, change: Callable[[str], object]) -> Mutation:
    return replace(_ids(name, what, change), text_ids=True)


def _lost_for(op: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: column(rows, "actor", lambda _row: None, _of_op(op))


_TYPES = TrailFeature.ACTOR_TYPES
MUTATIONS = (
    _actor("null", "records no actor", lambda rows: column(rows, "actor", lambda _row: None)),
    *(
        _actor(
            f"null-for-{op}s",
            f"records no actor of {op}s",
            _lost_for(op),
        )
        for op in ("insert", "update", "delete")
    ),
    _actor(
        "null-for-truncates",
        "records no actor of a TRUNCATE",
        lambda rows: column(rows, "actor", lambda _row: None, _of_op("truncate")),
        feature=TrailFeature.TRUNCATE,
    ),
    _actor("first-for-all", "names the first actor for all changes", lambda rows: columns.of_first_row(rows, "actor")),
    _actor(
        "last-for-all",
        "names the last actor for all changes",
        lambda rows: column(rows, "actor", lambda _row: rows[-1].get("actor")),
    ),
    _actor(
        "of-the-row-before", "names the actor of the change before", lambda rows: columns.of_rows_before(rows, "actor")
    ),
    _actor(
        "of-the-row-after", "names the actor of the change after", lambda rows: columns.of_rows_after(rows, "actor")
    ),
    _actor(
        "of-the-transaction-before",
        "names the actor of the transaction before",
        lambda rows: columns.of_transaction_before(rows, "actor"),
    ),
    _actor(
        "of-the-table",
        "names the first actor of each table",
        lambda rows: columns.of_same_group(rows, "actor", lambda row: row.get("table_name"), last=False),
    ),
    _actor(
        "lost-after-first-row",
        "names the actor on the first change of a transaction only",
        actors.only_on_first_rows,
    ),
    _actor("another-for-all", "names somebody else", lambda rows: actors.ids(rows, lambda _own: actors.OTHER)),
    _for_nobody(
        "somebody", "an actor", lambda rows: actors.instead_of_nobody(rows, {"type": "user", "id": actors.OTHER})
    ),
    _for_nobody("kept", "the last actor", actors.last_seen),
    _for_nobody(
        "anonymous", "an anonymous actor", lambda rows: actors.instead_of_nobody(rows, {"type": "anonymous"})
    ),
    _for_nobody(
        "empty",
        "an actor with an empty id",
        lambda rows: actors.instead_of_nobody(rows, {"type": "user", "id": ""}),
    ),
    _actor(
        "anonymous-for-all",
        "names an anonymous actor for all changes",
        lambda rows: actors.actors(rows, lambda _actor: {"type": "anonymous"}),
    ),
    _text_ids("ids-upper-cased", "turns ids of actors into upper case", str.upper),
    _text_ids("ids-lower-cased", "turns ids of actors into lower case", str.lower),
    _text_ids("ids-trimmed", "removes blanks around ids of actors", str.strip),
    _ids("ids-padded", "adds blanks to ids of actors", lambda own: f"{own}  "),
    _ids("ids-cut-to-2", "cuts ids of actors to 2 characters", lambda own: own[:2]),
    _ids("ids-cut-to-8", "cuts ids of actors to 8 characters", lambda own: own[:8]),
    _text_ids("ids-cut-to-16", "cuts ids of actors to 16 characters", lambda own: own[:16]),
    _text_ids("ids-cut-to-63", "cuts ids of actors to 63 characters", lambda own: own[:63]),
    _ids("ids-emptied", "empties ids of actors", lambda _own: ""),
    _ids("ids-null", "records NULL for ids of actors", lambda _own: None),
    _ids("ids-prefixed", "puts a prefix before ids of actors", lambda own: f"user:{own}"),
    _text_ids("zeros-dropped", "drops leading zeros of ids of actors", lambda own: own.lstrip("0") or "0"),
    _ids("zero-added", "adds a leading zero to ids of actors", lambda own: f"0{own}"),
    _text_ids(
        "ids-as-numbers",
        "keeps ids of digits as numbers",
        lambda own: int(own) if own.isascii() and own.isdigit() else own,
    ),
    _text_ids(
        "ids-in-ascii",
        "replaces letters beyond ASCII in ids of actors",
        lambda own: own.encode("ascii", "replace").decode(),
    ),
    _ids("ids-quoted", "keeps ids of actors in quotes", lambda own: f'"{own}"'),
    _text_ids("quotes-doubled", "doubles quotes in ids of actors", lambda own: own.replace("'", "''")),
    _actor("ids-numbered", "keeps numbers in place of the ids of actors", actors.pseudonyms),
    _actor(
        "id-missing",
        "records the type of actors only",
        lambda rows: actors.actors(rows, lambda actor: actors.without(actor, "id")),
    ),
    _actor(
        "id-renamed",
        "records the id of actors under another name",
        lambda rows: actors.actors(rows, lambda actor: actors.renamed(actor, "id", "user_id")),
    ),
    _actor(
        "type-missing",
        "records the id of actors only",
        lambda rows: actors.actors(rows, lambda actor: actors.without(actor, "type")),
        feature=_TYPES,
    ),
    _actor(
        "types-exchanged",
        "records another type of actors",
        lambda rows: actors.types(rows, actors.other_type),
        feature=_TYPES,
    ),
    _actor(
        "types-as-user",
        "records every actor as a user",
        lambda rows: actors.types(rows, lambda _type: "user"),
        feature=_TYPES,
    ),
    _actor(
        "types-upper-cased",
        "turns types of actors into upper case",
        lambda rows: actors.types(rows, str.upper),
        feature=_TYPES,
    ),
    _actor(
        "types-null",
        "records NULL for types of actors",
        lambda rows: actors.types(rows, lambda _type: None),
        feature=_TYPES,
    ),
    _actor(
        "anonymous-as-null",
        "records nobody for an anonymous actor",
        lambda rows: column(rows, "actor", lambda _row: None, lambda row: row.get("actor") == {"type": "anonymous"}),
        feature=_TYPES,
    ),
    _actor(
        "id-only",
        "records an id in place of an object",
        lambda rows: actors.actors(rows, lambda actor: actor.get("id")),
    ),
)
