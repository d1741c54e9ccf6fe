"""The behaviour that products document: probes compare their outcomes with it.

`topologies/behaviour/<product>.toml` lists it, each entry with its source. A feature without an entry is expected to
work, as it does without a pooler. `postgres.toml` lists what PostgreSQL itself documents not to work.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from harness import config, places
from harness.errors import ConfigError
from harness.model import Behaviour, Outcome, PoolMode, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

WORKS = Outcome(behaviour=Behaviour.WORKS)

_OUTCOME = re.compile(r"^(?P<behaviour>[a-z]+)(?: \((?P<sqlstate>[0-9A-Z]{5})?(?:, )?(?P<closed>closed)?\))?$")


class BehaviourEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One documented behaviour."""

    #: names of pooling checks, without the suite; names of driver checks, with `driver-` before them
    features: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: the documented outcome, as :func:`read_outcome` reads it; several when timing decides between them
    outcome: tuple[str, ...] | str
    source: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    #: pool modes that it applies to; all when empty
    modes: tuple[PoolMode, ...] = ()
    #: the first version that it applies to, and the first that it no longer applies to
    since: Version | None = None
    before: Version | None = None
    #: effective settings that it applies to: patterns by name, with * for any text; a missing setting is ""
    when: dict[str, str] = {}
    #: the source is the product's issue tracker: the outcome stays an Issue, and a known one
    defect: bool = False

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the documented outcomes.

        :raises ConfigError: for an invalid outcome.
        """
        texts = (self.outcome,) if isinstance(self.outcome, str) else self.outcome
        return tuple(map(read_outcome, texts))

    def is_about(
        self, feature: str, mode: PoolMode | None, version: tuple[int, ...], settings: Mapping[str, str]
    ) -> bool:
        """Return whether the entry applies to a feature of a product in a mode, a version and its settings."""
        return (
            feature in self.features
            and (not self.modes or mode in self.modes)
            and (self.since is None or version >= _numbers(self.since))
            and (self.before is None or version < _numbers(self.before))
            and all(fnmatchcase(settings.get(name, ""), pattern) for name, pattern in self.when.items())
        )


class BehaviourFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`topologies/behaviour/<product>.toml`."""

    behaviour: tuple[BehaviourEntry, ...] = ()


def read_outcome(text: str) -> Outcome:
    """Return an outcome from its spelling, such as `lost` or `fails (08P01, closed)`.

    :raises ConfigError: for any other text.
    """
    found = _OUTCOME.match(text)
    if not found or found["behaviour"] not in set(Behaviour):
        raise ConfigError(
            f"invalid outcome {text!r}, expected one of {', '.join(Behaviour)}, and optionally an SQLSTATE in brackets"
        )
    return Outcome(
        behaviour=Behaviour(found["behaviour"]), sqlstate=found["sqlstate"] or "", closed=bool(found["closed"])
    )


@cache
def load_behaviour(product: str) -> tuple[BehaviourEntry, ...]:
    """Return the entries about a product, in the order of its file; none for a product without a file.

    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    path = places.TOPOLOGIES / "behaviour" / f"{product}.toml"
    return load_behaviour_file(path) if path.exists() else ()


def load_behaviour_file(path: Path) -> tuple[BehaviourEntry, ...]:
    """Return the entries of one file, in its order.

    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    entries = config.load(path, BehaviourFile).behaviour
    for number, entry in enumerate(entries):
        try:
            entry.outcomes()
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{path}: behaviour[{number}].outcome") from None
    return entries


def require_sound(features: Iterable[str]) -> None:
    """Validate all files of documented behaviour.

    :param features: the names of all features.
    :raises ConfigError: for a mistake in one of the files, or an unknown feature.
    """
    known = set(features)
    for path in sorted((places.TOPOLOGIES / "behaviour").glob("*.toml")):
        for number, entry in enumerate(load_behaviour_file(path)):
            for name in entry.features:
                if name not in known:
                    raise ConfigError(
                        f"behaviour[{number}].features: unknown feature {name!r}",
                        where=str(path),
                        hint=config.nearest(name, known),
                    )


def documented(
    product: str,
    feature: str,
    mode: PoolMode | None,
    version: str,
    settings: Mapping[str, str],
    *,
    defects: bool = True,
) -> BehaviourEntry | None:
    """Return the first entry that applies to a feature of a product in a mode, a version and its settings.

    :param mode: None without a pooler.
    :param version: as the product reports it; an unknown version counts as the newest.
    :param settings: the effective settings, by name.
    :param defects: whether to include entries whose source is the product's issue tracker.
    """
    numbers = _numbers(version) or (10**6,)
    for entry in load_behaviour(product):
        if (defects or not entry.defect) and entry.is_about(feature, mode, numbers, settings):
            return entry
    return None


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
