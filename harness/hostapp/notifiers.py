"""Chooses how Oban learns of new jobs: LISTEN through the chain, LISTEN past the pooler, or polling only.

LISTEN is state of a server connection. A pooler that assigns the connection to another client after the transaction
loses it, and leaks the notifications to that client. Oban also polls for jobs at an interval, so without notifications
a job starts at most one interval later.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

# Oban chooses its notifier through an undocumented extension point, so its version has an upper bound.
from oban._extensions import put_ext
from oban._notifier import PostgresNotifier, build_notifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings


class NoNotifier:
    """Implements Oban's notifier protocol without notifications. Signals to other nodes are not sent."""

    async def start(self) -> None:
        """Start nothing."""

    async def stop(self) -> None:
        """Stop nothing."""

    async def listen(
        self,
        channel: str,
        callback: Callable[[str, dict[str, Any]], Any],
        wait: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 -- Oban's protocol
    ) -> str:
        """Return a token; the callback is never called."""
        del channel, callback, wait, timeout
        return str(uuid.uuid4())

    async def unlisten(self, token: str) -> None:
        """Accept any token and do nothing."""

    async def notify(self, channel: str, payloads: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Send nothing."""


class _DirectQuery:
    """Oban's queries with another address for LISTEN. NOTIFY still goes through the pool."""

    def __init__(self, query: Any, dsn: str) -> None:
        self._query = query
        self._dsn = dsn

    async def dsn(self) -> str:
        return self._dsn

    async def notify(self, channel: str, payloads: list[str]) -> None:
        await self._query.notify(channel, payloads)


def choose_notifier(settings: Settings) -> None:
    """Make all Oban instances of this process use the notifier from the settings."""
    direct = settings.direct_dsn

    def build(spec: dict[str, Any], query: Any) -> Any:
        if settings.notifier == "poll":
            return NoNotifier()
        if direct is not None:
            return PostgresNotifier(query=_DirectQuery(query, direct), prefix="public")
        return build_notifier(spec, query)

    put_ext("notifier.build", build)
