"""Faults of the network: links that are cut, held back or slow, and connections that are lost at COMMIT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.suites.resilience.injection import seen
from harness.waiting import NotYet
from harness.wire.link import CUT, PASS, SLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.lab.links import ApplicationLink, ServerLink
    from harness.suites.resilience.injection import Injection
    from harness.wire.commit_loss import Lost

_SLOW_BYTES_PER_S = 40_000.0
_SLOW_DELAY_S = 0.05
#: commits that one fault loses
_LOST_COMMITS = 3


def _server_link(injection: Injection) -> ServerLink:
    if injection.lab.server_link is None:
        raise NotExercisedError(f"no link is between the pooler and PostgreSQL: {injection.lab.no_server_link}")
    return injection.lab.server_link


def _application_link(injection: Injection) -> ApplicationLink:
    if injection.lab.open_link is None:
        raise NotExercisedError("the application does not connect through a link")
    return injection.lab.open_link


def _harm(injection: Injection, link: ServerLink | ApplicationLink, state: str) -> str:
    """Change the state of a link, and wait until a connection was harmed."""

    def passing() -> str:
        if link is not injection.lab.server_link and link is not injection.lab.open_link:
            return ""  # the link of the application is closed, and its connections with it
        held = link.counts()
        link.change(PASS)
        return f"forwards again; held until then: {held.held_to_server} and {held.held_to_client} bytes"

    before = link.counts()
    injection.on_heal(passing)
    changed = link.change(state, bytes_per_s=_SLOW_BYTES_PER_S, delay_s=_SLOW_DELAY_S)

    def harmed() -> None:
        now = link.counts()
        harm = {
            CUT: now.resets + now.refused - before.resets - before.refused,
            SLOW: now.to_client - changed.to_client,  # without what has passed before it was slow
        }
        if not harm.get(state, now.held_to_server + now.held_to_client):
            raise NotYet(f"the link is {now.state}, and no connection has met it")

    seen(harmed, f"an effect of the link's state {state}")
    now = link.counts()
    if state == CUT:
        resets, refused = now.resets - before.resets, now.refused - before.refused
        return f"connections that were reset: {resets} open, {refused} new"
    if state == SLOW:
        return f"in each direction at most {_SLOW_BYTES_PER_S:.0f} bytes/s, with {_SLOW_DELAY_S:g} s of delay"
    return f"bytes held back: {now.held_to_server} to the server, {now.held_to_client} to the client"


def harm_server_link(state: str) -> Callable[[Injection], str]:
    """Return the action that harms the link between the pooler and PostgreSQL."""
    return lambda injection: _harm(injection, _server_link(injection), state)


def harm_application_link(state: str) -> Callable[[Injection], str]:
    """Return the action that harms the link between the application and the outermost service."""
    return lambda injection: _harm(injection, _application_link(injection), state)


def lose_commits(lost: Lost) -> Callable[[Injection], str]:
    """Return the action that loses commits of the application, see :class:`harness.wire.commit_loss.CommitLoss`."""

    def act(injection: Injection) -> str:
        commits = _application_link(injection).commits
        before = commits.lost

        def stop() -> str:
            commits.disarm()
            return f"commits that were lost: {commits.lost - before}"

        injection.on_heal(stop)
        commits.arm(lost, _LOST_COMMITS)

        def happened() -> None:
            if commits.lost == before:
                raise NotYet("no COMMIT")

        seen(happened, "a COMMIT of the application that is lost")
        what = "which the server did not get" if lost == "request" else "which the server did, and whose answer is lost"
        return f"COMMIT, {what}: {commits.lost - before} so far"

    return act
