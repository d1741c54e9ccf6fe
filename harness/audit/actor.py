"""Who acts: six types, checked where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import msgspec
from msgspec import Struct

ActorTag = Literal["unknown_actor_type", "missing_actor_id", "invalid_actor_ref_map", "missing_actor_ref"]


class ActorError(ValueError):
    """What was given is no actor; `tag` says what is wrong, for programs."""

    def __init__(self, tag: ActorTag, message: str) -> None:
        super().__init__(message)
        self.tag: ActorTag = tag


class Actor(Struct, frozen=True):
    """Who did it: a type and, for all but anonymous, an id.

    :raises ActorError: for an unknown type or a missing or blank id. An anonymous actor's id is dropped.
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
            raise ActorError("missing_actor_id", f"an actor of type {self.type} needs an id that is a text")

    @classmethod
    def from_map(cls, given: object) -> Actor:
        """Return the actor that a plain map describes, as it lies in job arguments and in the trail.

        :raises ActorError: also for what is no map, or a map without a type.
        """
        if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
            raise ActorError("invalid_actor_ref_map", "needed a map with a type, and an id for all but anonymous")
        return cls(given["type"], given.get("id"))

    @property
    def reference(self) -> dict[str, str]:
        """Return the actor as the trail stores it."""
        return {"type": self.type} if self.id is None else {"type": self.type, "id": self.id}

    @property
    def setting(self) -> str:
        """Return the actor as the application sets it: JSON text."""
        return msgspec.json.encode(self.reference).decode()
