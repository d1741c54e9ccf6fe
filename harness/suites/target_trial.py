"""A trial of an audit target for its author: the changes that a few writes leave, and what is missing for its claims.

It decides nothing, and the report does not show it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.changes import Change
from harness.audit.target_file import TrailFeature
from harness.database import SqlError, cancelled_after, describe_in_full, raised_within
from harness.errors import DatabaseError
from harness.suites.actors import ADA, BOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.actor import Actor
    from harness.checks.context import CheckContext
    from harness.database import Client

_INSERT = "INSERT INTO public.posts (slug, title) VALUES ('{slug}', 'a title')"
_UPDATE = "UPDATE public.posts SET title = 'another title' WHERE slug = '{slug}'"
_DELETE = "DELETE FROM public.posts WHERE slug = '{slug}'"
#: of a write, which takes some milliseconds
LONGEST_S = 10.0


class TriedWrite(Struct, frozen=True, kw_only=True):
    """One step of a trial, and the changes that it left."""

    #: what the application did
    step: str
    changes: tuple[Change, ...]
    #: what is wrong, in one sentence without a full stop; "" when nothing is
    wrong: str = ""


def try_writes(ctx: CheckContext, show: Callable[[TriedWrite], None]) -> list[str]:
    """Write as the application does, and return what is wrong, in one sentence each.

    :param show: called with each step once its changes are read.
    :raises SqlError: of the target's own statements.
    :raises DatabaseError: for rows of the trail that have no canonical form.
    """
    return _Writes(ctx, show).run()


class _Writes:
    """The steps of one trial."""

    def __init__(self, ctx: CheckContext, show: Callable[[TriedWrite], None]) -> None:
        self._ctx = ctx
        self._show = show
        self._seen: set[str] = set()
        self._wrong: list[str] = []

    def run(self) -> list[str]:
        # both now: the deadline of a step is about the connections that are open when it begins
        client, second = self._ctx.client(), self._ctx.client()
        for operation, statement in (("insert", _INSERT), ("update", _UPDATE), ("delete", _DELETE)):
            with self._step(operation, [operation]):
                self._write(client, ADA, statement.format(slug="first"))
        with self._step("truncate", ["truncate"]):
            try:
                self._write(client, ADA, "TRUNCATE public.posts CASCADE")
            except SqlError as error:  # a trail that does not record it may refuse it
                if self._ctx.claims(TrailFeature.TRUNCATE) or not raised_within(error):
                    raise
        with self._step("rollback of an insert", []):
            self._ctx.application.begin_audited(client, ADA)
            client.run(_INSERT.format(slug="undone"))
            client.run("ROLLBACK")
        with self._step("insert of two rows", ["insert", "insert"]):
            self._write(client, ADA, f"{_INSERT.format(slug='one')}, ('two', 'a title')")
        with self._step("two concurrent updates", ["update", "update"]):
            self._concurrently(client, second)
        return self._wrong

    def _concurrently(self, first: Client, second: Client) -> None:
        """Update two rows in transactions that overlap; the second one commits first."""
        for client, actor, slug in ((first, ADA, "one"), (second, BOB, "two")):
            self._ctx.application.begin_audited(client, actor)
            client.run(_UPDATE.format(slug=slug))
        second.run("COMMIT")
        first.run("COMMIT")

    def _write(self, client: Client, actor: Actor, statement: str) -> None:
        with self._ctx.audited(client, actor):
            client.run(statement)

    @contextlib.contextmanager
    def _step(self, step: str, expected: list[str]) -> Iterator[None]:
        """Run one step within a deadline, and show the changes that it left."""
        wrong = ""
        expected = self._ctx.expected_ops(*expected)
        clients = list(self._ctx.clients_in_use)
        with contextlib.ExitStack() as stack:
            late = [stack.enter_context(cancelled_after(client, LONGEST_S)) for client in clients]
            try:
                yield
            except SqlError as error:
                ended = any(event.is_set() for event in late)
                wrong = f"did not end within {LONGEST_S:g} s" if ended else f"failed: {describe_in_full(error)}"
                for client in self._ctx.clients_in_use:
                    with contextlib.suppress(SqlError):
                        client.run("ROLLBACK")
        changes = tuple(change for change in self._ctx.changes() if change.id not in self._seen)
        self._seen |= {change.id for change in changes}
        operations = sorted(change.op for change in changes if change.table_name == "posts")
        if not wrong and operations != sorted(expected):
            wrong = f"left {_listed(operations)} instead of {_listed(sorted(expected))}"
        self._show(TriedWrite(step=step, changes=changes, wrong=wrong))
        if wrong:
            self._wrong.append(f"the {step} {wrong}")
        if any(client.closed for client in clients):  # the capture caught the cancellation
            raise DatabaseError("; ".join([*self._wrong, "nothing else is tried"]), where=self._ctx.target.where)


def _listed(operations: list[str]) -> str:
    return " and ".join(f"{operations.count(one)} x {one}" for one in dict.fromkeys(operations)) or "no change"
