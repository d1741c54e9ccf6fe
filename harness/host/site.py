"""A host application and its audit trail, as checks reach them: the reference host on a topology, or an operator's."""

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
from harness.host.journal import Journal
from harness.model import EvidenceClass

if TYPE_CHECKING:
    from collections.abc import Mapping


_LONGEST = 80
#: what evidence shows in place of a value that may be personal data
ANOTHER = "another value"


class Site(Struct, frozen=True, kw_only=True):
    """The host's address, its callers, and the connections that show what its requests wrote."""

    name: str
    evidence_class: EvidenceClass
    base_url: str
    callers: tuple[Caller, ...]
    target: AuditTarget
    #: describes the host, where the harness started it
    about: str = ""
    #: connects with the role that may read the trail
    trail: Callable[[], Client]
    #: connects as the application does, through the chain
    application: Callable[[], Client]
    #: connects past the pooler as a superuser; only where the harness started the servers
    admin: Callable[[], Client] | None = None
    #: returns whether the host has no work in progress; only where the harness started the host
    is_idle: Callable[[Client], bool] | None = None
    #: returns whether the run is ending, so that no further request is sent
    stopped: Callable[[], bool] = bool
    #: notes what requests create, where others use the host, too
    journal: Journal | None = None
    #: whether requests use the proxies and certificates of this machine's environment
    trust_env: bool = True

    @property
    def is_ours(self) -> bool:
        return self.evidence_class is EvidenceClass.CI


class Values:
    """The placeholders of one attempt at a path: generated for it, or kept from a response."""

    def __init__(self, caller: Caller | None) -> None:
        """Generate a unique text and a correlation id, which identify the rows of this attempt.

        :param caller: gives `{actor.type}`, `{actor.id}` and the headers of each request; None for a path without one.
        """
        unique = f"h{secrets.token_hex(8)}"
        actor = caller.actor if caller else {}
        self.caller = caller
        self.actor = dict(actor)
        self._kept: set[str] = set()
        self._values: dict[str, Any] = {
            "unique": unique,
            "correlation": f"harness-{unique}",
            **{f"actor.{name}": value for name, value in actor.items()},
        }

    @property
    def unique(self) -> str:
        return str(self._values["unique"])

    @property
    def correlation(self) -> str:
        return str(self._values["correlation"])

    def keep(self, name: str, value: Any) -> None:
        """Store a value from a response under a name. It may be personal data."""
        self._values[name] = value
        self._kept.add(name)

    def known(self) -> dict[str, Any]:
        """Return all values by name, for the journal."""
        return dict(self._values)

    def has(self, name: str) -> bool:
        return name in self._values

    def fill(self, declared: Any) -> Any:
        """Return a declared value with its placeholders filled in, in nested tables and lists, too.

        A text that consists of one placeholder becomes the value itself and keeps its type.

        :raises ConfigError: for a placeholder without a value.
        """
        if isinstance(declared, str):
            return self._filled(declared)
        if isinstance(declared, dict):
            return {str(self._filled(key)): self.fill(value) for key, value in declared.items()}
        return [self.fill(item) for item in declared] if isinstance(declared, list | tuple) else declared

    def text(self, declared: str) -> str:
        """Return a declared text with its placeholders filled in.

        :raises ConfigError: for a placeholder without a value.
        """
        return str(self._filled(declared))

    def _filled(self, text: str) -> Any:
        if text.startswith("{") and text[1:-1] in self._values and text.endswith("}"):
            return self._values[text[1:-1]]
        parts = text.split("{")
        filled = parts[0]
        for part in parts[1:]:
            name, closed, rest = part.partition("}")
            if closed and name in self._values:
                filled += f"{self._values[name]}{rest}"
            elif closed and name.replace(".", "").replace("-", "").replace("_", "").isalnum():
                placeholders = ", ".join(f"{{{known}}}" for known in self._values)
                raise ConfigError(
                    f"unknown placeholder {{{name}}}, expected one of {placeholders}",
                    hint="`keep` in a step stores a value of its response under a name",
                )
            else:
                filled += "{" + part
        return filled

    def knows(self, value: object) -> bool:
        """Return whether a value was generated or declared here, so that it cannot be personal data."""
        own = (known for name, known in self._values.items() if name not in self._kept)
        return any(value == known or str(value) == str(known) for known in own) or value == self.actor


def discreet(value: Any, values: Values, *, ours: bool) -> str:
    """Return an observed value as evidence may show it.

    In an operator's environment a value may be personal data. Evidence then shows only that it differs.

    :param ours: the harness started the host, so every value is test data.
    """
    if value is None:
        return "none"
    if ours or values.knows(value):
        text = value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return ANOTHER


def value_at(data: Any, path: str) -> Any:
    """Return the value at a path of a decoded JSON document, such as `data.items.0.id`.

    :raises KeyError: when the document has no such path.
    """
    for part in path.split("."):
        try:
            data = data[int(part)] if isinstance(data, list) else data[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise KeyError(path) from None
    return data


def holds(found: Any, wanted: Any) -> bool:
    """Return whether a decoded JSON value contains another one.

    An object contains all keys and values of `wanted`, and may have more. A number equals its text.
    """
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and holds(found[key], value) for key, value in wanted.items()
        )
    return bool(found == wanted) or (
        isinstance(found, str | int) and isinstance(wanted, str | int) and str(found) == str(wanted)
    )


def fill_all(declared: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a declared table with the placeholders in its values filled in; its keys stay.

    :raises ConfigError: for a placeholder without a value.
    """
    return {key: values.fill(value) for key, value in declared.items()}
