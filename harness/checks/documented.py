"""What products document of themselves: the behaviour that a probe's outcome is compared with.

`topologies/behaviour/<product>.toml` lists it, each entry with its source. What no entry is about is expected to be as
it is without a pooler; what PostgreSQL itself documents to be otherwise is in `postgres.toml`.
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

    #: names of pooling checks, without the suite
    features: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: what comes of them; any one of several where timing decides
    outcome: tuple[str, ...] | str
    source: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    #: pool modes it is about; all when empty
    modes: tuple[PoolMode, ...] = ()
    #: the first version it is about, and the first it is not about any more
    since: Version | None = None
    before: Version | None = None
    #: effective settings it is about: name to value, with * for anything
    when: dict[str, str] = {}
    #: no documentation but the product's own issue tracker: it stays an Issue, a known one
    defect: bool = False

    def outcomes(self) -> tuple[Outcome, ...]:
        texts = (self.outcome,) if isinstance(self.outcome, str) else self.outcome
        return tuple(map(read_outcome, texts))

    def is_about(
        self, feature: str, mode: PoolMode | None, version: tuple[int, ...], settings: Mapping[str, str]
    ) -> bool:
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
            f"found the outcome {text!r}, needed one of {', '.join(Behaviour)}, an SQLSTATE in brackets after it"
        )
    return Outcome(
        behaviour=Behaviour(found["behaviour"]), sqlstate=found["sqlstate"] or "", closed=bool(found["closed"])
    )


@cache
def load_behaviour(product: str) -> tuple[BehaviourEntry, ...]:
    """Return what is documented of a product; nothing where there is no file.

    :raises ConfigError: naming file, key, what was found and what is allowed.
    """
    path = places.TOPOLOGIES / "behaviour" / f"{product}.toml"
    return load_behaviour_file(path) if path.exists() else ()


def load_behaviour_file(path: Path) -> tuple[BehaviourEntry, ...]:
    entries = config.load(path, BehaviourFile).behaviour
    for number, entry in enumerate(entries):
        try:
            entry.outcomes()
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{path}: behaviour[{number}].outcome") from None
    return entries


def require_sound(features: Iterable[str]) -> None:
    """Read all of what is documented.

    :raises ConfigError: for a mistake in any of the files, or for a feature that there is not.
    """
    known = set(features)
    for path in sorted((places.TOPOLOGIES / "behaviour").glob("*.toml")):
        for number, entry in enumerate(load_behaviour_file(path)):
            for name in entry.features:
                if name not in known:
                    raise ConfigError(
                        f"behaviour[{number}].features: there is no feature {name!r}",
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
    """Return the first entry about a feature of a product in a mode, a version and its settings.

    :param version: as the product gives it; one that is not known is taken for the newest.
    """
    numbers = _numbers(version) or (10**6,)
    entries = (each for each in load_behaviour(product) if defects or not each.defect)
    found = (each for each in entries if each.is_about(feature, mode, numbers, settings))
    return next(found, None)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
