"""The application under test, as far as checks imitate it: how it opens transactions and declares its actors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from harness.database import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.actor import Actor
    from harness.audit.actor_convention import ActorConvention


class Application:
    """The habits of the application under test: those that the audit target asks for. A control replaces one of them.

    The reference target asks for an actor that is set locally, in the transaction of the write and before it. Where the
    trail records no actor, the application declares none.
    """

    def __init__(self, convention: ActorConvention) -> None:
        self.convention = convention
        #: the name of the first setting that holds the actor; "" for a convention without settings
        self.setting = next(iter(convention.names), "")
        #: opens the transaction of a unit of work
        self.transaction: Callable[[Client], contextlib.AbstractContextManager[Any]] = Client.transaction
        #: sets the actor of the following writes
        self.declare: Callable[[Client, Actor], None] = (
            self.declare_locally if convention.is_local else self.declare_for_the_session
        )
        #: opens a transaction without a `with` block
        self.begin: Callable[[Client], object] = lambda client: client.run("BEGIN")
        #: whether it passes settings in the startup message
        self.sends_startup_options = True
        #: the operator's retention policy; its keys override the policy of a check
        self.policy: dict[str, Any] = {}
        #: the status that it records for its actions
        self.action_status = "ok"
        #: whether it acknowledges a unit of work before it commits
        self.acknowledges_early = False
        #: whether it repeats a unit of work whose outcome it does not know
        self.repeats_unknown = False
        #: the statement that undoes a transaction
        self.undo = "ROLLBACK"
        #: the statement that undoes the work since a savepoint; {} is its name
        self.undo_to = "ROLLBACK TO SAVEPOINT {}"

    def declare_locally(self, client: Client, actor: Actor) -> None:
        """Declare the actor until the transaction ends, where it is held by settings."""
        self._declare(client, actor, local=True)

    def declare_for_the_session(self, client: Client, actor: Actor) -> None:
        """Declare the actor until the session ends, or until another is declared, where it is held by settings."""
        self._declare(client, actor, local=False)

    def _declare(self, client: Client, actor: Actor, *, local: bool) -> None:
        if values := self.values(actor):
            calls = ", ".join(f"set_config(%s, %s, {str(local).lower()})" for _ in values)
            client.value(f"SELECT {calls}", [text for setting in values.items() for text in setting])
        elif statements := self.convention.declaration(actor):
            # several statements, which cannot be prepared
            client.execute(statements.encode(), prepare=False)

    def values(self, actor: Actor) -> dict[str, str]:
        """Return the settings that the application declares an actor by, with their values."""
        first = next(iter(self.convention.names), "")
        return {self.setting if name == first else name: text for name, text in self.convention.values(actor).items()}

    def declaration(self, actor: Actor) -> str:
        """Return the SQL by which the application declares an actor, with literals; "" where it declares none."""
        return self.convention.declaration(actor, values=self.values(actor))

    def declare_nothing(self, _client: Client, _actor: Actor) -> None:
        """Set no actor."""

    def begin_nothing(self, _client: Client) -> None:
        """Open no transaction, so that every statement commits alone."""

    @contextlib.contextmanager
    def audited(self, client: Client, actor: Actor | None, *, first: str = "") -> Iterator[Client]:
        """Open one audited unit of work, as the audit target asks for it.

        :param actor: None for work without an actor.
        :param first: a statement that begins the transaction, such as SET TRANSACTION, which no other may precede.
        """
        within = self.convention.is_local
        if actor and not within:
            self.declare(client, actor)
        with self.transaction(client):
            if first:
                client.run(first)
            if actor and within:
                self.declare(client, actor)
            yield client

    def begin_audited(self, client: Client, actor: Actor, *, first: str = "") -> None:
        """Open an audited unit of work without a `with` block.

        :param first: see :meth:`audited`.
        """
        within = self.convention.is_local
        if not within:
            self.declare(client, actor)
        self.begin(client)
        if first:
            client.run(first)
        if within:
            self.declare(client, actor)
