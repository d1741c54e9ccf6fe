"""What a faulty variant of a sound trail is."""

from __future__ import annotations

from msgspec import Struct


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sound trail with one fault."""

    #: the name of the sound trail
    trail: str
    name: str
    #: what is wrong with it, in one sentence
    fault: str
    #: what the fault is about, such as `values`: the checks that noticed others of its kind are tried first
    kind: str
    #: whether it was written without having read the checks
    blind: bool = False
    #: why no check notices it; empty for a fault that the checks must notice
    survives: str = ""
    #: texts of the trail's SQL, and their replacements, in order
    replace: tuple[tuple[str, str], ...] = ()
    #: SQL that runs at the end
    append: str = ""

    @property
    def full_name(self) -> str:
        """Return the name with its trail: names are unique within a trail."""
        return f"{self.trail}/{self.name}"


class VariantFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of variants."""

    variant: tuple[Variant, ...]
