"""The facts that recognition can find, and the findings about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import DatabaseError, TimedOutError
from harness.model import Confidence, Finding

if TYPE_CHECKING:
    from collections.abc import Callable

#: the errors of a probe; its facts are then unknown, and the next probe runs
PROBE_ERRORS = (DatabaseError, TimedOutError)

#: the startup parameters to try: name to a value, and another value in case the first is the default
PARAMETERS: dict[str, tuple[str, str]] = {
    "application_name": ("pooler-harness identify", "pooler-harness identify"),
    "TimeZone": ("Asia/Tokyo", "Europe/Paris"),
    "DateStyle": ("German, DMY", "SQL, MDY"),
    "IntervalStyle": ("iso_8601", "postgres_verbose"),
    # does not convert, so that the server accepts it for every encoding of the database
    "client_encoding": ("SQL_ASCII", "SQL_ASCII"),
    "search_path": ("pg_catalog", "pg_catalog, public"),
    "extra_float_digits": ("2", "3"),
    "options": ("-c statement_timeout=54321", "-c statement_timeout=54322"),
}

#: the facts, and for each a description with its values
FACTS: dict[str, str] = {
    "pooler": "whether a pooler is between client and server: yes, no",
    "product": "PgBouncer, Odyssey, Pgpool-II, pgagroal, unknown pooler, PostgreSQL",
    "version": "the product's version, or bounds such as >= 1.20, < 1.23",
    "poolers": "how many poolers are in a row: none, at least 1, at least 2",
    "pool_mode": "session, transaction, statement, none",
    "pool_size": "server connections that one role gets at the same time: 4, at least 12, none",
    "prepared_statements": "tracked across moves, kept with the session, untracked and lost",
    **{
        f"parameter.{name}": "startup parameter: kept, lost on a move, honoured (no move was seen), dropped, refused"
        for name in PARAMETERS
    },
    "tls_client": "TLS between the client and the address it connects to: used, offered, refused",
    "tls_server": "TLS to PostgreSQL, as PostgreSQL sees it: used, not used",
    "authentication": "the login method: scram-sha-256, md5, cleartext, gss, sspi, nothing",
    "parameter_status": "the server's parameters that the client learns by ParameterStatus: complete, at the login, "
    "at the login only, incomplete, wrong, none",
    "security_fixes": "published security fixes that the pooler's version lacks: none, or the version that has them",
    "server_version": "the version of PostgreSQL",
    "in_recovery": "whether the server is a standby: yes, no",
    "default_transaction_isolation": "the isolation level that the role's sessions begin with",
    "direct": "whether the direct address has no pooler: yes, no",
    "same_server": "whether the chain and the direct address end at the same server: yes, no",
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
    "inner_version": "the version, or a bound, of another PgBouncer behind the first",
    "login_notice": "the notices of the login",
}

#: the facts that need a direct address or an admin console, or that few chains have
_OPTIONAL = tuple(FACTS)[tuple(FACTS).index("direct") :]
_RANK = {Confidence.UNKNOWN: 0, Confidence.LIKELY: 1, Confidence.CERTAIN: 2}


class Recognition(Struct, frozen=True, kw_only=True):
    """The findings about one chain, in the order of :data:`FACTS`."""

    findings: tuple[Finding, ...]
    elapsed_ms: float = 0.0

    def finding(self, fact: str) -> Finding | None:
        """Return the finding about a fact; None if the fact was not probed."""
        return next((finding for finding in self.findings if finding.fact == fact), None)

    def value(self, fact: str) -> str:
        """Return the value of a fact; "" if it is unknown."""
        found = self.finding(fact)
        return found.value if found else ""

    def is_certain(self, fact: str) -> bool:
        found = self.finding(fact)
        return found is not None and found.confidence is Confidence.CERTAIN


class Findings:
    """Collects findings. Of several about one fact, the most certain is kept; of equally certain ones, the first."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Collect nothing yet.

        :param redact: removes secrets from values and explanations.
        """
        self._redact = redact
        self._found: dict[str, Finding] = {}

    def certain(self, fact: str, value: str, how: str) -> None:
        """Add a finding that the server stated, or that a probe forced and observed.

        :param how: the observation, as one sentence or phrase of the evidence.
        """
        self._add(fact, value, how, Confidence.CERTAIN)

    def likely(self, fact: str, value: str, how: str) -> None:
        """Add a finding that agrees with every observation, but could not be forced."""
        self._add(fact, value, how, Confidence.LIKELY)

    def unknown(self, fact: str, how: str) -> None:
        """Add the reason why a fact is unknown."""
        self._add(fact, "", how, Confidence.UNKNOWN)

    def _add(self, fact: str, value: str, how: str, confidence: Confidence) -> None:
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

    def completed(self, reason: str) -> tuple[Finding, ...]:
        """Return the findings in the order of FACTS.

        :param reason: why facts without a finding are unknown; facts that need more addresses are left out.
        """
        for fact in FACTS:
            if fact not in _OPTIONAL:
                self.unknown(fact, reason)
        return tuple(self._found[fact] for fact in FACTS if fact in self._found)
