"""A host application with the audit trail behind it, as checks reach them: our own on a topology, or an operator's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.audit.target import AuditTarget
from harness.database import Client
from harness.errors import ConfigError
from harness.host.declarations import Caller
from harness.model import EvidenceClass

if TYPE_CHECKING:
    from collections.abc import Mapping


_LONGEST = 80
#: how evidence tells of a value that may be somebody else's
ANOTHER = "another value"


class Site(Struct, frozen=True, kw_only=True):
    """Where the requests go, who makes them, and where it shows what came of them."""

    name: str
    evidence_class: EvidenceClass
    base_url: str
    callers: tuple[Caller, ...]
    target: AuditTarget
    #: what the host is, where the harness started it
    about: str = ""
    #: connects as who may read the trail
    trail: Callable[[], Client]
    #: connects as the application does, through the chain
    application: Callable[[], Client]
    #: connects past the pooler as a superuser; only where the harness stood the servers up
    admin: Callable[[], Client] | None = None
    #: says whether nothing that the host began is still under way; only where the harness started the host
    is_idle: Callable[[Client], bool] | None = None
    #: whether nothing more is to be sent: the run is to end
    stopped: Callable[[], bool] = bool
    #: whether the proxies and certificates of this machine's environment hold for the requests
    trust_env: bool = True

    @property
    def is_ours(self) -> bool:
        return self.evidence_class is EvidenceClass.CI


class Values:
    """What the texts of a declaration may name: made up for one time that a path is taken, or kept from an answer."""

    def __init__(self, caller: Caller | None) -> None:
        """Make up a unique text and a correlation id, by which this time is told from everybody else's."""
        unique = f"h{secrets.token_hex(8)}"
        actor = caller.actor if caller else {}
        self.caller = caller
        self.actor = dict(actor)
        self._kept: set[str] = set()
        self._held: dict[str, Any] = {
            "unique": unique,
            "correlation": f"harness-{unique}",
            **{f"actor.{name}": value for name, value in actor.items()},
        }

    @property
    def unique(self) -> str:
        return str(self._held["unique"])

    @property
    def correlation(self) -> str:
        return str(self._held["correlation"])

    def keep(self, name: str, value: Any) -> None:
        """Remember a value that an answer held: it may be anybody's."""
        self._held[name] = value
        self._kept.add(name)

    def has(self, name: str) -> bool:
        return name in self._held

    def fill(self, told: Any) -> Any:
        """Return a declared value with its names filled in; a text that is nothing but a name keeps the value's type.

        :raises ConfigError: for a name that nothing has.
        """
        if isinstance(told, str):
            return self._filled(told)
        if isinstance(told, dict):
            return {str(self._filled(key)): self.fill(value) for key, value in told.items()}
        return [self.fill(each) for each in told] if isinstance(told, list | tuple) else told

    def text(self, told: str) -> str:
        return str(self._filled(told))

    def _filled(self, told: str) -> Any:
        if told.startswith("{") and told[1:-1] in self._held and told.endswith("}"):
            return self._held[told[1:-1]]
        parts = told.split("{")
        filled = parts[0]
        for part in parts[1:]:
            name, closed, rest = part.partition("}")
            if closed and name in self._held:
                filled += f"{self._held[name]}{rest}"
            elif closed and name.replace(".", "").replace("-", "").replace("_", "").isalnum():
                raise ConfigError(
                    f"{{{name}}}: nothing is called that here; known: {', '.join(f'{{{each}}}' for each in self._held)}"
                )
            else:
                filled += "{" + part
        return filled

    def knows(self, value: object) -> bool:
        """Say whether a value was made up or declared here: then it is no personal value of anybody else's."""
        ours = (held for name, held in self._held.items() if name not in self._kept)
        return any(value == held or str(value) == str(held) for held in ours) or value == self.actor


def discreet(value: Any, values: Values, *, ours: bool) -> str:
    """Return a value that was seen, as evidence may show it.

    Of an operator's environment it may be somebody else's: then only that it is another is told.
    """
    if value is None:
        return "none"
    if ours or values.knows(value):
        text = value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return ANOTHER


def place(data: Any, where: str) -> Any:
    """Return the value at a place of a decoded JSON document, such as `data.items.0.id`.

    :raises KeyError: when there is none.
    """
    for part in where.split("."):
        try:
            data = data[int(part)] if isinstance(data, list) else data[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise KeyError(where) from None
    return data


def holds(found: Any, wanted: Any) -> bool:
    """Say whether a decoded JSON value holds another: every key of it, with what it holds; numbers also as texts."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and holds(found[key], value) for key, value in wanted.items()
        )
    return bool(found == wanted) or (
        isinstance(found, str | int) and isinstance(wanted, str | int) and str(found) == str(wanted)
    )


def fill_all(told: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a declared table with its names filled in."""
    return {key: values.fill(value) for key, value in told.items()}
