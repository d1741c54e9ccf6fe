"""The trial of a trail: a few writes of the application, and which of the properties of a trail their changes have.

One property that a trail lacks is one fact. Without the trial, each check that depends on it would report the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, json
from msgspec.structs import replace

from harness import config
from harness.audit.actor import Actor
from harness.audit.changes import Change
from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.text_values import holding_texts
from harness.database import SqlError, cancelled_after, describe_in_full, is_rejected, quote_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from harness.audit.target import AuditTarget
    from harness.database import Client

#: the table that the trial writes to, which is captured, and its parts
_SCHEMA, _TABLE = "public", "posts"
_ADA, _BOB = Actor("user", "trial-ada"), Actor("user", "trial-bob")
#: the writes of one transaction, by the property that they show
_WRITES = {
    Recorded.INSERTS: "INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'first title')",
    Recorded.UPDATES: "UPDATE public.posts SET title = 'second title' WHERE slug = '{slug}'",
    Recorded.DELETES: "DELETE FROM public.posts WHERE slug = '{slug}'",
}
_OPERATIONS = {Recorded.INSERTS: "insert", Recorded.UPDATES: "update", Recorded.DELETES: "delete"}
#: the slugs of the row that is inserted without an actor, and of the one that is then updated and deleted without one
_UNDECLARED, _DECLARED = "trial-undeclared", "trial-declared"
_COUNT = "SELECT count(*) FROM public.posts WHERE slug = %s AND title = 'first title'"
_ROWS = {"insert": "the inserted row", "update": "the updated row", "delete": "the deleted row"}
#: a table with a number and a truth value, which a trail of texts holds as texts
_TRIED = "tried"
_MAKE = """
CREATE TABLE public.tried (id integer, flag boolean, title text, PRIMARY KEY (id, flag));
GRANT ALL ON public.tried TO {role}"""
_TYPED_WRITES = {
    Recorded.INSERTS: "INSERT INTO public.tried VALUES (1, true, 'first title')",
    Recorded.UPDATES: "UPDATE public.tried SET title = 'second title'",
    Recorded.DELETES: "DELETE FROM public.tried",
}
#: a write of one row takes some milliseconds
_LONGEST_S = 20.0


class Trial(Struct, frozen=True, kw_only=True):
    """What a trial of the trail found."""

    #: what is missing of the properties that were not found, in one sentence each without a full stop
    missing: dict[Recorded, str]
    #: the property without which the others cannot be seen, because a write failed or nothing was recorded at all
    failed: Recorded | None = None
    #: the changes of the trial, in the order in which the trail has them
    changes: tuple[Change, ...] = ()
    #: the columns that hold every value as a text: `text_values.KEY`, `text_values.IMAGE` or both
    texts: frozenset[str] = frozenset()

    def lacking(self, property_: Recorded) -> str | None:
        """Return in one sentence why the trail lacks a property, with the check that shows it; None when it has it."""
        if property_ in self.missing:
            return property_.missing
        if self.failed and property_ is not Recorded.TIME:
            return f"a trial of the trail shows nothing about {property_.meaning}: see {self.failed.check}"
        return None

    def shows(self, property_: Recorded) -> bool:
        """Return whether the changes have a property for certain, such as one that the target file omits."""
        if property_ is Recorded.IMAGE:
            return any(change.data_after for change in self.changes if change.op != "delete")
        return _OPERATIONS.get(property_) in {change.op for change in self.changes}


def try_trail(target: AuditTarget, application: Client, undeclared: Client | None, admin: Client) -> Trial:
    """Write in two transactions with an actor each, then without one, and return which properties the trail has.

    :param application: a direct connection of the application's role to a database in which nothing was written yet.
    :param undeclared: another such connection, for the writes without an actor; None leaves them out.
    :param admin: reads the trail.
    :raises SqlError: for a statement of the target that does not run.
    :raises DatabaseError: for rows of the trail that have no canonical form.
    """
    last = (Recorded.DELETES,) if Recorded.DELETES in target.omits else ()
    for number, actor in enumerate((_ADA, _BOB)):
        writes = {at: write.format(slug=f"trial-{number}") for at, write in _WRITES.items() if at not in last}
        if problem := _write(target, application, actor, writes):
            return problem
    read = target.changes(admin)
    changes = _of_the_table(read)
    expected = [shown for shown in _OPERATIONS if shown not in target.omits]
    if not changes and expected:
        of = f", and {len(read)} for the table {read[0].table_schema}.{read[0].table_name}" if read else ""
        sentence = f"no change was recorded for an insert, an update and a delete of {_SCHEMA}.{_TABLE}{of}"
        return Trial(missing={expected[0]: sentence}, failed=expected[0])
    missing = {
        property_: sentence for property_, sentence in _missing(target, changes) if property_ not in target.omits
    }
    if last:  # a history in a column of the row goes with the row
        writes = {at: _WRITES[at].format(slug="trial-0") for at in last}
        if problem := _write(target, application, _ADA, writes):
            return problem
        changes += tuple(change for change in _of_the_table(target.changes(admin)) if change.op == "delete")
    if Recorded.ACTOR not in missing and Recorded.ACTOR not in target.omits:
        row = {Recorded.INSERTS: _WRITES[Recorded.INSERTS].format(slug=_DECLARED)}
        if problem := _write(target, application, _ADA, row):
            return problem
        if undeclared is None:
            return Trial(missing=missing, changes=changes)
        statements = {_OPERATIONS[at]: _WRITES[at] for at in _WRITES if at not in target.omits and at not in missing}
        if TrailFeature.TRUNCATE in target.claims:
            statements["truncate"] = "TRUNCATE public.bookmarks"
        if sentence := _wrong_without_actor(target, undeclared, admin, statements):
            missing[Recorded.UNDECLARED] = sentence
    return Trial(missing=missing, changes=changes)


def _of_the_table(changes: Iterable[Change], table: str = _TABLE) -> tuple[Change, ...]:
    return tuple(change for change in changes if (change.table_schema, change.table_name) == (_SCHEMA, table))


def with_texts(trial: Trial, target: AuditTarget, owner: Client, application: Client, admin: Client) -> Trial:
    """Return a trial with the columns that hold texts. Only where its numbers are texts does another write show it.

    :param owner: creates a table, and attaches capture to it.
    :raises SqlError: when the trail cannot be read.
    """
    images = [image for change in trial.changes for image in (change.table_pk, change.data_after) if image]
    if not any(isinstance(image.get("id"), str) for image in images):
        return trial
    try:
        owner.run(_MAKE.format(role=quote_identifier(target.role)))
        target.attach(owner, f"public.{_TRIED}")
    except SqlError:
        return trial  # the checks of other tables report it
    deletes = Recorded.DELETES not in target.omits
    writes = {at: write for at, write in _TYPED_WRITES.items() if deletes or at is not Recorded.DELETES}
    if _write(target, application, _ADA, writes):
        return trial
    return replace(trial, texts=holding_texts(_of_the_table(target.changes(admin), _TRIED)))


def _write(target: AuditTarget, client: Client, actor: Actor, writes: Mapping[Recorded, str]) -> Trial | None:
    """Write in one transaction; return the trial's end when a statement fails or does not end."""
    convention = target.actor
    declaration = convention.declaration(actor)
    doing, at = f"declaration of the actor, {_place_of_declaration(target)},", Recorded.ACTOR
    with cancelled_after(client, _LONGEST_S) as late:
        try:
            if declaration and not convention.is_local:
                client.execute(declaration.encode(), prepare=False)
            with client.transaction():
                if declaration and convention.is_local:
                    client.execute(declaration.encode(), prepare=False)
                for at, write in writes.items():
                    doing = f"audited {_OPERATIONS[at]}"
                    client.run(write)
                doing = "commit of an audited transaction"
        except SqlError as error:
            what = f"did not end within {_LONGEST_S:g} s" if late.is_set() else f"failed: {describe_in_full(error)}"
            return Trial(missing={at: f"the {doing} {what}"}, failed=at)
    return None


def _place_of_declaration(target: AuditTarget) -> str:
    """Return key, file and line of how an application declares its actor."""
    key = f"actor.{target.actor.way}"
    return f"{key} ({Path(config.at_key(target.where, key)).name})"


def _wrong_without_actor(target: AuditTarget, client: Client, admin: Client, writes: Mapping[str, str]) -> str:
    """Write without an actor, and return what differs from `required` of the target file; "" when nothing does.

    :param client: a connection on which no actor was declared.
    :param writes: a statement for each operation.
    """
    for operation, statement in writes.items():
        slug = _UNDECLARED if operation == "insert" else _DECLARED
        before, known = admin.value(_COUNT, [slug]), {change.id for change in target.changes(admin)}
        answer, is_refusal = _answer(client, statement.format(slug=slug))
        made = admin.value(_COUNT, [slug]) != before
        left = [change for change in target.changes(admin) if change.id not in known]
        what = f"{operation} without an actor"
        if is_refusal and not target.actor.required:
            return f"the {what} {answer}; by design? Then set `required = true` in `[actor]`"
        if answer and not is_refusal:
            return f"the {what} {answer}"
        if answer and (made or left):
            return f"the {what} {answer}, and left {'its row' if made else 'a change'}"
        if target.actor.required and not answer:
            found = f"is recorded with the actor {_shown(left[0].actor)}" if left else "is not refused"
            return f"the {what} {found}, although `[actor]` has `required = true`"
    return ""


def _answer(client: Client, statement: str) -> tuple[str, bool]:
    """Return how a statement failed, "" when it did not, and whether the server rejected it."""
    with cancelled_after(client, _LONGEST_S) as late:
        try:
            client.run(statement)
        except SqlError as error:
            if late.is_set():
                return f"did not end within {_LONGEST_S:g} s", False
            return f"failed: {describe_in_full(error)}", is_rejected(error)
    return "", False


def _missing(target: AuditTarget, changes: tuple[Change, ...]) -> Iterator[tuple[Recorded, str]]:
    """Yield each property that the changes do not have, with a sentence."""
    operations = [change.op for change in changes]
    odd = sorted(set(operations) - {*_OPERATIONS.values(), "truncate"})
    for shown, operation in _OPERATIONS.items():
        if operation not in operations:
            instead = f", and changes have the op {_shown(odd[0])}" if odd else ""
            yield shown, f"no change was recorded for {'an' if operation[0] in 'iu' else 'a'} {operation}{instead}"
    if sentence := _missing_actor(target, changes):
        yield Recorded.ACTOR, sentence
    if sentence := _missing_transaction(changes):
        yield Recorded.TRANSACTION_ID, sentence
    written = [change for change in changes if change.op in {"insert", "update"}]
    if written and not any(change.data_after for change in written):
        yield Recorded.IMAGE, f"{_ROWS[written[0].op]} has no image: data_after is {_shown(written[0].data_after)}"
    made = [operation for _ in (_ADA, _BOB) for operation in _ROWS]
    made = [operation for operation in made if operation in operations]
    if operations != made and sorted(operations) == sorted(made):
        yield Recorded.ORDER, f"the writes {', '.join(made)} come back in the order {', '.join(operations)}"


def _missing_actor(target: AuditTarget, changes: tuple[Change, ...]) -> str:
    for change in changes:
        row = _ROWS.get(change.op, f"the change {change.op}")
        if change.actor is None:
            return f"{row} has no actor"
        if not isinstance(change.actor, dict):
            return f"{row} has the actor {_shown(change.actor)}, needed a JSON object with type and id"
        if change.actor.get("id") not in [_ADA.id, _BOB.id]:
            declared = " or ".join(_shown(target.actor.application_s(actor)) for actor in (_ADA, _BOB))
            return f"{row} has the actor {_shown(change.actor)} instead of {declared}"
    return ""


def _missing_transaction(changes: tuple[Change, ...]) -> str:
    for change in changes:
        if change.transaction_id is None:
            return f"{_ROWS.get(change.op, change.op)} has no transaction id"
    number = len({change.transaction_id for change in changes})
    if number == 1:
        return "the changes of two transactions have the same transaction id"
    return f"the changes of two transactions have {number} transaction ids" if number > len((_ADA, _BOB)) else ""


def _shown(value: Any) -> str:
    return "NULL" if value is None else spelled(value)


def spelled(value: Any) -> str:
    """Return a value of a change as JSON, or as Python spells what JSON has no form for."""
    try:
        return json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)
