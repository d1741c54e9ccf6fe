"""What was found so far, and what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import DatabaseError, TimedOutError
from harness.model import Confidence, Finding

if TYPE_CHECKING:
    from collections.abc import Callable

#: what a step that looks may meet, and the steps after it go on without
TROUBLE = (DatabaseError, TimedOutError)

#: the startup parameters that are tried: name, value, another value in case the first is the default
PARAMETERS: dict[str, tuple[str, str]] = {
    "application_name": ("pooler-harness identify", "pooler-harness identify"),
    "TimeZone": ("Asia/Tokyo", "Europe/Paris"),
    "DateStyle": ("German, DMY", "SQL, MDY"),
    "IntervalStyle": ("iso_8601", "postgres_verbose"),
    # converts nothing, so that it is accepted whatever the database's own encoding is
    "client_encoding": ("SQL_ASCII", "SQL_ASCII"),
    "search_path": ("pg_catalog", "pg_catalog, public"),
    "extra_float_digits": ("2", "3"),
    "options": ("-c statement_timeout=54321", "-c statement_timeout=54322"),
}

#: every fact that there may be a finding about, and what it is about; `values` says which values it has
FACTS: dict[str, str] = {
    "pooler": "whether a pooler is between client and server: yes, no",
    "product": "PgBouncer, Odyssey, Pgpool-II, pgagroal, unknown pooler, PostgreSQL",
    "version": "the product's version, or bounds such as >= 1.20, < 1.23",
    "pool_mode": "session, transaction, statement, none",
    "pool_size": "server connections that one role gets at the same time: 4, at least 12, none",
    "prepared_statements": "tracked across moves, kept with the session, untracked and lost",
    **{
        f"parameter.{name}": "startup parameter: kept, lost on a move, honoured (no move was seen), dropped, refused"
        for name in PARAMETERS
    },
    "tls_client": "TLS to what the client connects to: used, offered, refused",
    "tls_server": "TLS to the server, as the server sees it: used, not used",
    "authentication": "what a login is asked for: scram-sha-256, md5, cleartext, gss, sspi, nothing",
    "server_version": "of PostgreSQL",
    "in_recovery": "whether the server is a standby: yes, no",
    "default_transaction_isolation": "as the server says it",
    "direct": "whether the direct address has no pooler: yes, no",
    "same_server": "whether chain and direct address end at the same server: yes, no",
    "direct_authentication": "as authentication, at the direct address",
    "direct_tls": "as tls_client, at the direct address",
    "direct_server_version": "as server_version, at the direct address",
    "max_prepared_statements": "PgBouncer's setting",
    "max_client_conn": "PgBouncer's setting",
    "server_reset_query": "PgBouncer's setting",
    "server_reset_query_always": "PgBouncer's setting",
    "server_lifetime": "PgBouncer's setting, in seconds",
    "query_wait_timeout": "PgBouncer's setting, in seconds",
    "ignore_startup_parameters": "PgBouncer's setting",
    "track_extra_parameters": "PgBouncer's setting",
}

#: without a direct address or a console nobody expects these
_OPTIONAL = tuple(FACTS)[tuple(FACTS).index("direct") :]
_RANK = {Confidence.UNKNOWN: 0, Confidence.LIKELY: 1, Confidence.CERTAIN: 2}


class Recognition(Struct, frozen=True, kw_only=True):
    """What was found about one chain, in the order of :data:`FACTS`."""

    findings: tuple[Finding, ...]
    elapsed_ms: float = 0.0

    def finding(self, fact: str) -> Finding | None:
        """Return the finding about a fact; None when nobody looked for it."""
        return next((each for each in self.findings if each.fact == fact), None)

    def value(self, fact: str) -> str:
        """Return what was found about a fact; "" when it is unknown."""
        found = self.finding(fact)
        return found.value if found else ""

    def is_certain(self, fact: str) -> bool:
        found = self.finding(fact)
        return found is not None and found.confidence is Confidence.CERTAIN


class Notes:
    """Collects findings; of two about one fact the more certain one stays, and of equals the first."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._found: dict[str, Finding] = {}

    def certain(self, fact: str, value: str, how: str) -> None:
        """Note what a server said itself, or what was forced and seen."""
        self._note(fact, value, how, Confidence.CERTAIN)

    def likely(self, fact: str, value: str, how: str) -> None:
        """Note what everything that was tried agrees with."""
        self._note(fact, value, how, Confidence.LIKELY)

    def unknown(self, fact: str, how: str) -> None:
        """Note why a fact could not be found."""
        self._note(fact, "", how, Confidence.UNKNOWN)

    def _note(self, fact: str, value: str, how: str, confidence: Confidence) -> None:
        before = self._found.get(fact)
        if before is None or _RANK[confidence] > _RANK[before.confidence]:
            text = self._redact(" ".join(how.split()))
            self._found[fact] = Finding(fact=fact, value=self._redact(value), how=text, confidence=confidence)

    def value(self, fact: str) -> str:
        found = self._found.get(fact)
        return found.value if found else ""

    def how(self, fact: str) -> str:
        found = self._found.get(fact)
        return found.how if found else ""

    def is_certain(self, fact: str) -> bool:
        found = self._found.get(fact)
        return found is not None and found.confidence is Confidence.CERTAIN

    def findings(self, otherwise: str) -> tuple[Finding, ...]:
        """Return everything in the order of FACTS; what nobody noted is unknown, for the reason given."""
        for fact in FACTS:
            if fact not in _OPTIONAL:
                self.unknown(fact, otherwise)
        return tuple(self._found[fact] for fact in FACTS if fact in self._found)
