"""How an application declares its actor to an audit trail, and how the harness spells its own actors for that."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import NAMESPACE_OID, uuid5

import msgspec
from msgspec import Meta, Struct

from harness.database import quote_literal

if TYPE_CHECKING:
    from harness.audit.actor import Actor

_NAME = r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*"
_SettingName = Annotated[str, Meta(pattern=rf"^{_NAME}$")]
_PLACEHOLDER = re.compile(r"\{(id|type)\}")
_SMALL_INTEGER = re.compile(r"^(0|[1-9][0-9]{0,9})\Z")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
#: a built-in setting that may hold the actor: without a declaration, it has the name of the harness's own connection
_PROGRAM, _OWN_NAMES = "application_name", re.compile(r"^(application|pooler-harness \w+)\Z")
#: the largest integer that an id becomes: PostgreSQL's type `integer` holds it
_LARGEST = 2**31 - 1


class IdType(StrEnum):
    """The type of actors' ids in an application."""

    TEXT = "text"
    INTEGER = "integer"
    UUID = "uuid"


class ActorConvention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an application declares the actor: by exactly one of `setting`, `settings` and `declare`."""

    #: the setting that holds the actor, such as `app.user_id`; a built-in one is possible
    setting: Annotated[str, Meta(pattern=rf"^({_NAME})?$")] = ""
    #: several settings with their values, in which `{id}` and `{type}` stand for the actor's
    settings: dict[_SettingName, str] = {}
    #: statements that declare the actor, such as `SELECT audit.begin({type}, {id})`, or that insert a row of its own;
    #: `{id}` and `{type}` are literals there. They run within the transaction and before its first write; with the
    #: scope `session`, before the transaction
    declare: str = ""
    #: the form of the value of `setting`: {"type": …, "id": …}, or the bare id
    value: Literal["json", "id"] = "json"
    #: the type of ids: the harness gives its actors ids of this type, and knows them again when it reads the trail
    ids: IdType = IdType.TEXT
    #: how long a declaration lasts: it is made in each transaction before its first write, or for the session before
    #: the transaction
    scope: Literal["transaction", "session"] = "transaction"
    #: whether the trail refuses a write without an actor: the write then fails, with any error of the server
    required: bool = False

    @property
    def is_declared(self) -> bool:
        """Whether an application declares an actor at all."""
        return bool(self.setting or self.settings or self.declare)

    @property
    def way(self) -> str:
        """The key that says how: `setting`, `settings` or `declare`."""
        return next((key for key in ("declare", "settings") if getattr(self, key)), "setting")

    @property
    def is_local(self) -> bool:
        """Whether a declaration ends with its transaction."""
        return self.scope == "transaction"

    @property
    def names_type(self) -> bool:
        """Whether a declaration says the type of an actor, and not its id alone."""
        if self.setting:
            return self.value == "json"
        return any("{type}" in text for text in (self.declare, *self.settings.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the settings that hold the actor; none for `declare`."""
        return tuple(self.settings) or ((self.setting,) if self.setting else ())

    def spell(self, actor: Actor) -> str:
        """Return the value of `setting` for an actor."""
        if self.value == "id":
            return "" if actor.id is None else str(self.spell_id(actor.id))
        if self.ids is IdType.TEXT:
            return actor.setting
        return msgspec.json.encode(self.application_s(actor)).decode()

    def application_s(self, actor: Actor) -> dict[str, str | int]:
        """Return an actor of the harness as the application has it: with an id of its type."""
        return {"type": actor.type} | ({} if actor.id is None else {"id": self.spell_id(actor.id)})

    def spell_id(self, text: str) -> str | int:
        """Return an id of the harness as the application has it."""
        return text if self.ids is IdType.TEXT else _IDS[self.ids].native(text)

    def values(self, actor: Actor) -> dict[str, str]:
        """Return the settings that declare an actor, with their values."""
        if self.setting:
            return {self.setting: self.spell(actor)}
        parts = {"type": actor.type, "id": "" if actor.id is None else str(self.spell_id(actor.id))}
        return {name: _filled(value, parts) for name, value in self.settings.items()}

    def declaration(self, actor: Actor, *, local: bool | None = None, values: dict[str, str] | None = None) -> str:
        """Return the SQL that declares an actor, with literals; "" where an application declares none.

        :param local: whether settings end with the transaction; by default as `scope` says.
        :param values: settings with their values, instead of :meth:`values`.
        """
        if self.declare:
            return _filled(self.declare, {"type": quote_literal(actor.type), "id": self._literal(actor.id)})
        shown = str(self.is_local if local is None else local).lower()
        calls = [
            f"set_config({quote_literal(name)}, {quote_literal(value)}, {shown})"
            for name, value in (self.values(actor) if values is None else values).items()
        ]
        return f"SELECT {', '.join(calls)}" if calls else ""

    def _literal(self, text: str | None) -> str:
        if text is None:
            return "NULL"
        spelled = self.spell_id(text)
        return str(spelled) if isinstance(spelled, int) else quote_literal(spelled)

    def read(self, actor: Any) -> Any:
        """Return an actor as the trail has it, with the harness's own id where the application's has another type."""
        if self.setting == _PROGRAM and isinstance(actor, dict) and _OWN_NAMES.match(str(actor.get("id"))):
            return None
        if self.ids is IdType.TEXT or not isinstance(actor, dict) or actor.get("id") is None:
            return actor
        return actor | {"id": _IDS[self.ids].known(str(actor["id"]))}


def _filled(text: str, parts: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], text)


class _Translation:
    """Ids of the harness, which are texts, as ids of another type: the same in every process, and back in this one."""

    def __init__(self, kind: IdType) -> None:
        self._kind = kind
        self._lock = Lock()
        self._native: dict[str, str | int] = {}
        self._texts: dict[str, str] = {}

    def native(self, text: str) -> str | int:
        """Return an id of the other type; every text has one of its own."""
        with self._lock:
            if text not in self._native:
                found, salt = self._make(text, 0), 0
                while self._texts.get(str(found), text) != text:
                    salt += 1
                    found = self._make(text, salt)
                self._native[text] = found
                self._texts[str(found)] = text
            return self._native[text]

    def known(self, native: str) -> str:
        """Return the text that became this id; an id that the harness did not make stays as it is."""
        with self._lock:
            return self._texts.get(native, native)

    def _make(self, text: str, salt: int) -> str | int:
        salted = f"{text}\0{salt}" if salt else text
        if self._kind is IdType.UUID:
            if not salt and _UUID.match(text):
                return text
            return str(uuid5(NAMESPACE_OID, salted))
        if not salt and _SMALL_INTEGER.match(text) and int(text) <= _LARGEST:
            return int(text)
        return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8]) % _LARGEST + 1


_IDS = {kind: _Translation(kind) for kind in (IdType.INTEGER, IdType.UUID)}
#: of a trail that records no actor, by design
NO_ACTOR = ActorConvention()
