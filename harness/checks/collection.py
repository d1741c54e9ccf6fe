"""The catalogue: the checks, controls and breaks that suites declare.

Duplicate ids, and checks without a control, are rejected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.registry import Check, Control, TrailBreak
from harness.config import nearest
from harness.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType


class Fixtures(Struct, frozen=True, kw_only=True):
    """The tables that checks write to. The workspace creates them once, in the template database."""

    #: a file of SQL that runs as the owner of the tables
    sql: Path
    #: names of tables to capture, as SQL spells them. The first is an ordinary table: an error there is the target's
    attached: tuple[str, ...]
    #: tables whose changes also hold the prior values; none by default
    attached_with_changed_from: tuple[str, ...] = ()


class Catalogue(Struct, frozen=True):
    """All checks and their controls; :func:`build_catalogue` makes one from suites."""

    #: in the order of the suites and of their source; ids are unique
    checks: tuple[Check, ...]
    #: each belongs to one of the checks, and each check of a suite has at least one
    controls: tuple[Control, ...]
    #: the tables that the checks write to
    fixtures: Fixtures
    #: breaks of the audit trail that `prove` tries
    trail_breaks: tuple[TrailBreak, ...] = ()

    def select(self, suites: Iterable[str] = (), checks: Iterable[str] = ()) -> tuple[Check, ...]:
        """Return the checks of the named suites and the named checks; all checks when nothing is named.

        :param suites: names of suites: the part of an id before the dot.
        :param checks: ids of checks.
        :raises UsageError: for an unknown name, with the nearest known ones.
        """
        suites, checks = set(suites), set(checks)
        known, known_suites = {check.id for check in self.checks}, set(self.suites())
        for name in suites - known_suites:
            raise UsageError(f"unknown suite {name!r}", hint=nearest(name, known_suites))
        for name in checks - known:
            raise UsageError(f"unknown check {name!r}", hint=nearest(name, known))
        if not suites and not checks:
            return self.checks
        return tuple(check for check in self.checks if check.id in checks or check.id.partition(".")[0] in suites)

    def suites(self) -> list[str]:
        """Return the names of the suites, in the order of their checks."""
        return list(dict.fromkeys(check.id.partition(".")[0] for check in self.checks))

    def with_checks(self, found: Iterable[Check | Control]) -> Catalogue:
        """Return the catalogue with the checks that a project declares itself, such as its audited paths.

        :param found: checks and their controls, in any order.
        :raises ConfigError: for a duplicate id.
        """
        found = list(found)
        checks = (*self.checks, *(value for value in found if isinstance(value, Check)))
        _require_unique(checks)
        return Catalogue(
            checks,
            (*self.controls, *(value for value in found if isinstance(value, Control))),
            self.fixtures,
            self.trail_breaks,
        )

    def controls_of(self, identity: str) -> tuple[Control, ...]:
        """Return the controls of a check, by its id."""
        return tuple(control for control in self.controls if control.check == identity)


def build_catalogue(modules: Iterable[ModuleType], fixtures: Fixtures) -> Catalogue:
    """Collect the checks, controls and breaks that suites declare, in the order of their source.

    :param modules: the suites. Their declarations count, and tuples of declarations under public names; declarations
        that a module imports from another do not.
    :param fixtures: the tables that the checks write to.
    :raises ConfigError: for a duplicate id, a check without a control, or an unknown check that a control or a break
        names.
    """
    found = list(_declared(modules))
    checks = [value for value in found if isinstance(value, Check)]
    controls = [value for value in found if isinstance(value, Control)]
    trail_breaks = [value for value in found if isinstance(value, TrailBreak)]
    known = _require_unique(checks)
    for control in controls:
        if control.check not in known:
            raise ConfigError(f"the control {control.name} breaks the unknown check {control.check}")
    for check in checks:
        if not any(control.check == check.id for control in controls):
            raise ConfigError(f"check {check.id}: missing control, expected at least one that turns it to Issue")
    for trail_break in trail_breaks:
        if unknown := sorted((trail_break.turns | trail_break.excluded) - known):
            raise ConfigError(f"the break {trail_break.name} names unknown checks: {', '.join(unknown)}")
    return Catalogue(tuple(checks), tuple(controls), fixtures, tuple(trail_breaks))


def _require_unique(checks: Iterable[Check]) -> set[str]:
    seen: set[str] = set()
    for check in checks:
        if check.id in seen:
            raise ConfigError(f"duplicate check id {check.id}")
        seen.add(check.id)
    return seen


def _declared(modules: Iterable[ModuleType]) -> Iterator[Check | Control | TrailBreak]:
    for module in modules:
        for name, found in vars(module).items():
            # a declaration may be a tuple: a check and its controls, or those of a whole table
            for value in found if isinstance(found, tuple) and not name.startswith("_") else (found,):
                # an imported declaration belongs to the module that declared it
                if isinstance(value, Check | Control | TrailBreak):
                    function = value.run if isinstance(value, Check) else value.apply
                    if getattr(function, "__module__", "") == module.__name__:
                        yield value
