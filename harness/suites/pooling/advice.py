"""Advice: what to do instead of a feature that does not work behind some pooler, or that misleads the audit trail."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from harness import config
from harness.errors import ConfigError

FILE = Path(__file__).with_name("advice.toml")

_Feature = Annotated[str, Meta(min_length=1)]


class Advice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One piece of advice, for all features that it helps with."""

    features: Annotated[tuple[_Feature, ...], Meta(min_length=1)]
    #: one or two sentences
    instead: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\.$")]
    #: the documentation that supports it
    source: Annotated[str, Meta(pattern=r"^https://\S+$")]


class Practice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that an application must not do with the audit trail, and what to do instead.

    Its check is OK if the practice does the documented harm, so the status does not warn anybody.
    """

    check: Annotated[str, Meta(pattern=r"^[a-z]+\.[a-z-]+$")]
    #: the practice, as the feature map titles it
    what: Annotated[str, Meta(min_length=1, max_length=120)]
    #: one or two sentences
    instead: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\.$")]
    #: the documentation that supports it: a web address, or a file of this project
    source: Annotated[str, Meta(pattern=r"^(https://\S+|docs/\S+\.md)$")]


class AdviceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of all advice."""

    advice: tuple[Advice, ...]
    practice: tuple[Practice, ...] = ()


def load_advice(path: Path) -> dict[str, Advice]:
    """Read a file of advice.

    :return: the advice by feature.
    :raises ConfigError: with the file and the key.
    """
    found: dict[str, Advice] = {}
    for entry in config.load(path, AdviceFile).advice:
        for feature in entry.features:
            if feature in found:
                raise ConfigError(f"advice.features: {feature!r} has two entries, expected one", where=str(path))
            found[feature] = entry
    return found


def require_known(advice: dict[str, Advice], features: frozenset[str], path: Path = FILE) -> None:
    """Require that all advice is about known features.

    :raises ConfigError: at the first unknown feature.
    """
    for feature in advice:
        if feature not in features:
            hint = config.nearest(feature, features)
            raise ConfigError(f"advice.features: unknown feature {feature!r}; {hint}", where=str(path))


@cache
def shipped_advice() -> dict[str, Advice]:
    """Return the advice that the harness ships, by feature."""
    return load_advice(FILE)


@cache
def practices() -> dict[str, Practice]:
    """Return what an application must not do with the audit trail, by the check that shows it."""
    return {practice.check: practice for practice in config.load(FILE, AdviceFile).practice}


def advice_for(check: str) -> Advice | Practice | None:
    """Return the advice for a check: about its feature, or about the practice that it shows; None without advice."""
    suite, _, feature = check.partition(".")
    return shipped_advice().get(feature) if suite == "pooling" else practices().get(check)
