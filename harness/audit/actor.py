"""Actors: one of six types and an id, validated when they are created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import msgspec
from msgspec import Struct

ActorTag = Literal["unknown_actor_type", "missing_actor_id", "invalid_actor_ref_map", "missing_actor_ref"]


class ActorError(ValueError):
    """An invalid actor. `tag` identifies the mistake for programs."""

    def __init__(self, tag: ActorTag, message: str) -> None:
        super().__init__(message)
        self.tag: ActorTag = tag


class Actor(Struct, frozen=True):
    """An actor: a type and, for all types but anonymous, an id. An anonymous actor's id is dropped.

    :raises ActorError: for an unknown type, or a missing or blank id.
    """

    type: str
    id: str | None = None

    TYPES: ClassVar[tuple[str, ...]] = ("user", "admin", "service_account", "job", "system", "anonymous")

    def __post_init__(self) -> None:
        if self.type not in self.TYPES:
            raise ActorError("unknown_actor_type", f"found {self.type!r}, needed one of {', '.join(self.TYPES)}")
        if self.type == "anonymous":
            msgspec.structs.force_setattr(self, "id", None)
        elif not isinstance(self.id, str) or not self.id.strip():
            raise ActorError("missing_actor_id", f"an actor of type {self.type} needs an id: a text that is not blank")

    @classmethod
    def from_map(cls, value: object) -> Actor:
        """Return the actor that a plain map describes, in the form of job arguments and of the trail.

        :raises ActorError: as for the class, and for anything but a map with a type.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
            raise ActorError("invalid_actor_ref_map", "needed a map with a type, and an id for all but anonymous")
        return cls(value["type"], value.get("id"))

    @property
    def reference(self) -> dict[str, str]:
        """Return the actor as the trail stores it."""
        return {"type": self.type} if self.id is None else {"type": self.type, "id": self.id}

    @property
    def setting(self) -> str:
        """Return the value of the setting that declares the actor: JSON text."""
        return msgspec.json.encode(self.reference).decode()
