"""Controls of the checks that write without an actor: the target file says that the trail refuses it, and it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.registry import breaks
from harness.suites.actor import actions, basics, identities, sharing
from harness.suites.sabotage import claim_required

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: each check with the expectation about its writes without an actor
_WRITES = (
    (basics.local_setting, "actor on the client's next change"),
    (basics.unset, "actor"),
    (basics.residue, "actors"),
    (sharing.shared_connection, sharing.UNDECLARED_ACTOR),
    (sharing.moved_connection, sharing.UNDECLARED_ACTOR),
    (sharing.after_error, "actor on the next change"),
    (sharing.vanished_client, "actor on the next change"),
    (sharing.many_clients, "writes without an actor that are not refused"),
    (sharing.single_message, sharing.UNDECLARED_ACTOR),
    (identities.writers, "actor of a write by the application, without an actor"),
    (actions.jobs, "actor of the worker's own write"),
)


def required_and_not_refused(ctx: CheckContext) -> None:
    """Claim that the trail refuses what it records."""
    claim_required(ctx)


CONTROLS = tuple(breaks(check, at=at)(required_and_not_refused) for check, at in _WRITES)
