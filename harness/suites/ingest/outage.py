"""PostgreSQL that is down for a time, on servers that belong to the check."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.errors import ServiceFailedError, TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext

#: a server accepts connections through the chain again within, seconds
_BACK_S = 40.0


@contextlib.contextmanager
def database_down(ctx: CheckContext) -> Iterator[None]:
    """Keep PostgreSQL down within the block, and wait until the chain answers again after it.

    :raises NotExercisedError: when its address is another one after it: programs could not find it.
    :raises ServiceFailedError: when it does not come back.
    """
    server, lab = ctx.lab.postgres, ctx.lab
    before = server.endpoint()
    server.stop()
    try:
        if server.state().running:
            raise NotExercisedError(f"PostgreSQL is {server.state().detail}, although it was stopped")
        yield
    finally:
        server.restart()
        ctx.forget_connections()

        def answers() -> None:
            if not lab.answers():
                raise NotYet("no answer")

        try:
            poll(answers, what="the chain to answer again", deadline_s=_BACK_S, cancelled=lab.closing)
        except TimedOutError as error:
            raise ServiceFailedError(error.what, where=server.name) from None
    if server.endpoint() != before:
        raise NotExercisedError("PostgreSQL has another address after its restart, which programs cannot know")
