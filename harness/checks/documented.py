"""The behaviour that products document: probes compare their outcomes with it.

`topologies/behaviour/<product>.toml` lists it, each entry with its source. A feature without an entry is expected to
work, as it does without a pooler. `postgres.toml` lists what PostgreSQL itself documents not to work.

An entry whose condition is unknown permits its outcomes in addition to those of the first entry that certainly applies.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from harness import config, places
from harness.checks.conditions import Condition, Facts, all_hold, facts_of, read_conditions
from harness.errors import ConfigError
from harness.model import Behaviour, FeatureOutcome, Outcome, PoolMode, Version
from harness.versions import numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness.model import Topology, TopologyEvidence

WORKS = Outcome(behaviour=Behaviour.WORKS)
#: an unknown version
NEWEST = (10**6,)

_OUTCOME = re.compile(r"^(?P<behaviour>[a-z]+)(?: \((?P<sqlstate>[0-9A-Z]{5})?(?:, )?(?P<closed>closed)?\))?$")


class BehaviourEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One documented behaviour."""

    #: names of pooling checks, without the suite; names of driver checks, with `driver-` before them
    features: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: the documented outcome, as :func:`read_outcome` reads it; several when timing decides between them
    outcome: tuple[str, ...] | str
    #: where the product documents it
    source: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    #: pool modes that it applies to; all when empty
    modes: tuple[PoolMode, ...] = ()
    #: the first version that it applies to
    since: Version | None = None
    #: the first version that it no longer applies to: one that documents the change, or for a defect one that was
    #: observed without it
    before: Version | None = None
    #: conditions on effective settings; :mod:`harness.checks.conditions` lists them
    when: dict[str, Any] = {}
    #: the source is the product's issue tracker, or its source code: the outcome stays an Issue, and a known one
    defect: bool = False

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the documented outcomes.

        :raises ConfigError: for an invalid outcome.
        """
        texts = (self.outcome,) if isinstance(self.outcome, str) else self.outcome
        return tuple(map(read_outcome, texts))

    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions on effective settings.

        :raises ConfigError: for an invalid condition.
        """
        return read_conditions(self.when)

    def is_about(self, feature: str, facts: Facts) -> bool | None:
        """Return whether the entry applies to a feature of a chain; None if a setting that decides it is unknown."""
        return feature in self.features and self.is_for(facts)

    def is_for(self, facts: Facts) -> bool | None:
        """Return whether the entry applies to a chain; None if a setting that decides it is unknown."""
        version = numbers_of(facts.version) or NEWEST
        return (
            (not self.modes or facts.mode in self.modes)
            and (self.since is None or version >= numbers_of(self.since))
            and (self.before is None or version < numbers_of(self.before))
            and all_hold(self.conditions(), facts)
        )


class BehaviourFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`topologies/behaviour/<product>.toml`."""

    #: the versions that the entries were compared with
    seen: Annotated[tuple[Version, ...], Meta(min_length=1)]
    behaviour: tuple[BehaviourEntry, ...] = ()


class Documented(Struct, frozen=True, kw_only=True):
    """What is documented about one feature of one chain."""

    #: the first entry that applies; None when no entry does, so that the feature is expected to work
    entry: BehaviourEntry | None = None
    #: entries before it that may apply: a setting that decides it is unknown
    possible: tuple[BehaviourEntry, ...] = ()

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the expected outcomes: those of the entry, by default that it works, and the possible ones."""
        certain = self.entry.outcomes() if self.entry else (WORKS,)
        possible = (outcome for entry in self.possible for outcome in entry.outcomes())
        return tuple(dict.fromkeys((*certain, *possible)))


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
def load_behaviour(product: str) -> BehaviourFile | None:
    """Return the file about a product; None for a product without one.

    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    path = places.TOPOLOGIES / "behaviour" / f"{product}.toml"
    return load_behaviour_file(path) if path.exists() else None


def load_behaviour_file(path: Path) -> BehaviourFile:
    """Read and validate one file.

    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    loaded = config.load(path, BehaviourFile)
    for number, entry in enumerate(loaded.behaviour):
        for key, read in (("outcome", entry.outcomes), ("when", entry.conditions)):
            try:
                read()
            except ConfigError as error:
                raise ConfigError(error.what, where=f"{path}: behaviour[{number}].{key}", hint=error.hint) from None
    return loaded


def require_sound(features: Iterable[str]) -> None:
    """Validate all files of documented behaviour.

    :param features: the names of all features.
    :raises ConfigError: for a mistake in one of the files, or an unknown feature.
    """
    known = set(features)
    for path in sorted((places.TOPOLOGIES / "behaviour").glob("*.toml")):
        for number, entry in enumerate(load_behaviour_file(path).behaviour):
            for name in entry.features:
                if name not in known:
                    raise ConfigError(
                        f"behaviour[{number}].features: unknown feature {name!r}",
                        where=str(path),
                        hint=config.nearest(name, known),
                    )


def documented(feature: str, facts: Facts, *, defects: bool = True) -> Documented:
    """Return what a product documents about a feature, for its version, mode and effective settings.

    :param facts: an unknown version counts as the newest.
    :param defects: whether to include entries whose source is the product's issue tracker.
    """
    loaded = load_behaviour(facts.product)
    possible: list[BehaviourEntry] = []
    for entry in loaded.behaviour if loaded else ():
        if entry.defect and not defects:
            continue
        applies = entry.is_about(feature, facts)
        if applies:
            return Documented(entry=entry, possible=tuple(possible))
        if applies is None:
            possible.append(entry)
    return Documented(possible=tuple(possible))


def better_than(feature: str, facts: Facts) -> str:
    """Return the last older version that was seen and in which a feature did not work, if it works in this one.

    Such as `1.25.1: lost (https://…)`; "" if nothing documents a difference.
    """
    loaded, version = load_behaviour(facts.product), numbers_of(facts.version)
    older = [seen for seen in (loaded.seen if loaded else ()) if (number := numbers_of(seen)) < version[: len(number)]]
    if not older or WORKS not in documented(feature, facts).outcomes():
        return ""
    last = max(older, key=numbers_of)
    found = documented(feature, replace(facts, version=last))
    if found.entry is None or WORKS in found.outcomes():
        return ""
    return f"{last}: {' or '.join(map(str, found.entry.outcomes()))} ({found.entry.source})"


def compare(observed: Outcome, found: Documented, right: Documented, *, strictly: bool = False) -> FeatureOutcome:
    """Compare an observed outcome with the documented ones.

    A feature that works where a limit is documented is better than documented. No other outcome is better than another.

    :param found: what is documented, including defects in the product's issue tracker.
    :param right: the same without defects.
    :param strictly: whether a feature that works against its documentation is a difference as well. A control makes it
        work, and the check has to notice.
    """
    expected = right.outcomes()
    if found.entry and found.entry.defect and observed in found.entry.outcomes():
        return FeatureOutcome(observed=observed, expected=expected, source=found.entry.source, defect=True)
    entries = [*filter(None, (right.entry,)), *right.possible]
    source = next((entry.source for entry in entries if observed in entry.outcomes()), "")
    return FeatureOutcome(
        observed=observed,
        expected=expected,
        source=source or (right.entry.source if right.entry else ""),
        better=observed == WORKS and observed not in expected and not strictly,
    )


def newer_than_seen(topology: Topology, evidence: TopologyEvidence) -> tuple[str, ...]:
    """Return a sentence for each product of a chain that is newer than all versions its entries were compared with."""
    titles = {service.product: service.title or service.product for service in evidence.services}
    sentences = (_newer_than_seen(titles[facts.product], facts) for facts in facts_of(topology, evidence))
    return tuple(filter(None, sentences))


def _newer_than_seen(title: str, facts: Facts) -> str:
    loaded, version = load_behaviour(facts.product), numbers_of(facts.version)
    if loaded is None or not version:
        return ""
    newest = max(loaded.seen, key=numbers_of)
    if version[: len(numbers_of(newest))] <= numbers_of(newest):
        return ""
    resting = sum(entry.is_for(facts) is not False for entry in loaded.behaviour)
    return (
        f"{title} {facts.version.partition(' ')[0]} is newer than every version that its documented behaviour was "
        f"compared with (the newest is {newest}), so {resting} entries that apply here rest on older versions"
    )
