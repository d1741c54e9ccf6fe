"""What to do instead when a migration tool needs what a transaction pool does not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.model import PoolMode

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: the documented limit, by what a tool prints when it meets it; the feature names the pooler's own documentation of it
_LIMITS = (
    (
        re.compile(r"prepared statement \S+ (does not exist|already exists)|bind message supplies", re.IGNORECASE),
        "sql-prepare-kept",
        "a named prepared statement belongs to a server connection, and this pool assigns one for each transaction",
    ),
    (
        re.compile(
            r"advisory lock|another migration|already running|migration lock|acquire (the )?lock|ConcurrentMigration"
            r"|you don't own a lock",
            re.IGNORECASE,
        ),
        "advisory-lock",
        "a session-level advisory lock belongs to a server connection, and this pool assigns one for each transaction",
    ),
    (
        re.compile(r"unsupported startup parameter", re.IGNORECASE),
        "startup-options",
        "this pooler refuses startup parameters that it does not know",
    ),
)
#: PgBouncer's table of features by pool mode, for a pooler without an entry of its own
_FEATURES = "https://www.pgbouncer.org/features.html"
_INSTEAD = "run migrations past the pooler (DIRECT_URL), and declare direct = true"
#: an error as psql prints it. Without ON_ERROR_STOP it goes on, and ends with 0
_ERROR = re.compile(r"^(?:psql:[^\n]*?: )?((?:ERROR|FATAL|PANIC): .*)$", re.MULTILINE)
#: the fact of a row that says what to do instead
ADVICE = "what to do instead"


def advise(ctx: CheckContext, printed: str, *, past_the_pooler: bool) -> None:
    """Record the documented limit that the output of a tool shows, and what to do instead."""
    if past_the_pooler or ctx.mode not in {PoolMode.TRANSACTION, PoolMode.STATEMENT}:
        return
    for pattern, feature, why in _LIMITS:
        if pattern.search(printed):
            record_limit(ctx, feature, why)
            return


def record_lock_limit(ctx: CheckContext) -> None:
    """Record that a session-level lock excludes nobody behind a transaction pool."""
    _, feature, why = _LIMITS[1]
    record_limit(ctx, feature, why)


def record_limit(ctx: CheckContext, feature: str, why: str) -> None:
    """Record why a tool fails here, with the source, and what to do instead."""
    entry = ctx.documented(feature)
    ctx.fact(ADVICE, f"{_INSTEAD}: {why} ({entry.source if entry else _FEATURES})")


def errors_in(printed: str) -> str:
    """Return the first error of the server that the output of a command shows, and how many follow; "" without one."""
    found = _ERROR.findall(printed)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return " ".join(found[0].split()) + more if found else ""
