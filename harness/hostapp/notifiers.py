"""How Oban learns of new jobs: by LISTEN through the chain, by LISTEN past the pooler, or by looking.

LISTEN belongs to a server connection. Behind a pooler that gives it to another client after the transaction it is
lost, and leaks to that client. Oban looks for jobs at an interval in any case, so without notifications a job only
starts up to that interval later.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

# The place where Oban's notifier is chosen is Oban's own extension point, not a documented one: hence the upper bound
# on its version.
from oban._extensions import put_ext
from oban._notifier import PostgresNotifier, build_notifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings


class NoNotifier:
    """Oban's notifier protocol for an application that nobody can notify; signals to other nodes are not sent."""

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
        """Return a token, as for a channel that stays silent."""
        del channel, callback, wait, timeout
        return str(uuid.uuid4())

    async def unlisten(self, token: str) -> None:
        """Forget a token."""

    async def notify(self, channel: str, payloads: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Tell nobody."""


class _DirectQuery:
    """Oban's queries with another address to listen at; what is sent still goes through the pool."""

    def __init__(self, query: Any, dsn: str) -> None:
        self._query = query
        self._dsn = dsn

    async def dsn(self) -> str:
        return self._dsn

    async def notify(self, channel: str, payloads: list[str]) -> None:
        await self._query.notify(channel, payloads)


def choose_notifier(settings: Settings) -> None:
    """Make Oban instances of this process use the notifier that the settings name."""
    direct = settings.direct_dsn

    def build(spec: dict[str, Any], query: Any) -> Any:
        if settings.notifier == "poll":
            return NoNotifier()
        if direct is not None:
            return PostgresNotifier(query=_DirectQuery(query, direct), prefix="public")
        return build_notifier(spec, query)

    put_ext("notifier.build", build)
