"""What a check is, what a control is, and the catalogue of both.

A decorator returns a frozen value and registers nothing; a suite is a module, and the catalogue is
built from an explicit list of modules. Duplicates and checks that nothing can break are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import TrailFeature
from harness.config import nearest
from harness.errors import ConfigError, UsageError
from harness.model import PathLabel, PoolMode, Prepare, Section, Severity, Topology

if TYPE_CHECKING:
    from types import ModuleType

    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext

P0, P1, P2 = Severity.P0, Severity.P1, Severity.P2

_ID = re.compile(r"^[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*$")


class Capability(Struct, frozen=True):
    """What a check may need of a topology, and the one sentence that says why another lacks it."""

    name: str
    lacking: str
    given: Callable[[Topology], bool]


TRANSACTION_BLOCKS = Capability(
    "transaction blocks",
    "statement pooling refuses transaction blocks",
    lambda topology: topology.pool_mode is not PoolMode.STATEMENT,
)
MOVES = Capability(
    "server connections that change",
    "a client keeps one server connection until it disconnects, so there is no move to survive",
    lambda topology: topology.pool_mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT},
)
MADE_BY_THE_SERVER = Capability(
    "values that the server makes itself",
    "the server makes the value itself, so a pooler has no part in it: shown where there is none",
    lambda topology: topology.pooler is None,
)
NAMED_STATEMENTS = Capability(
    "named prepared statements",
    "the client prepares no statement on the server here",
    lambda topology: topology.client.prepare is Prepare.NAMED,
)
SEVERAL_SERVER_CONNECTIONS = Capability(
    "several server connections",
    "the pool has a single server connection, so two transactions cannot be open at a time",
    lambda topology: topology.pooler is None or topology.pooler.default_pool_size > 1,
)


def lacking(needs: tuple[Capability, ...], topology: Topology) -> str | None:
    """Return the sentence of the first capability that a topology lacks; None when it has them all."""
    return next((each.lacking for each in needs if not each.given(topology)), None)


class Safety(StrEnum):
    """What a check does to an environment that others use."""

    #: it breaks things, or writes wherever it likes
    NO = "no"
    #: it reads
    READS = "reads"
    #: it writes where the operator said that checks may
    WRITES = "writes"
    #: it takes a path that the operator declared
    PATH = "path"


CheckFunction = Callable[["CheckContext"], None]


class Check(Struct, frozen=True, kw_only=True):
    """One property of the system under test."""

    id: str
    claim: str
    section: Section
    severity: Severity
    #: where a person would look first when it does not hold
    area: str
    #: the item of the checklist walkthrough that it answers, such as `2.1`; none when empty
    item: str
    needs: tuple[Capability, ...]
    #: what the audit target must claim for the check to judge it
    requires_features: tuple[TrailFeature, ...]
    #: judges only targets whose actor is set like that; any when empty
    scope: str
    run: CheckFunction
    #: the row of the feature map that it fills; none when empty
    feature: str = ""
    #: groups run one after another, and the checks of a group side by side; "" for those that run with all others
    serial_group: str = ""
    #: it restarts servers or changes the pooler's settings, so nothing else runs in its topology meanwhile
    disrupts: bool = False
    #: the audited path of a host application that it takes, if it does
    path: PathLabel | None = None
    #: whether it may be run in an environment that others use, too
    environment_safety: Safety = Safety.NO
    #: in an environment it is asked after all others: it looks for what they left
    last: bool = False
    #: longer than this it hangs; the driver suite has a deadline of its own, and a shorter one
    longest_s: float = 90.0

    def lacking(self, topology: Topology | None, target: AuditTarget) -> str | None:
        """Return why the check does not apply to a topology or an audit target, in one sentence; None when it does.

        :param topology: None for an environment that nobody declared as one.
        """
        if unclaimed := next((each for each in self.requires_features if each not in target.claims), None):
            return unclaimed.unclaimed
        if self.scope and target.actor.scope != self.scope:
            return f"the audit target has its actor set for the {target.actor.scope}, not for the {self.scope}"
        return lacking(self.needs, topology) if topology else None


class Control(Struct, frozen=True, kw_only=True):
    """A deliberate break that must turn its check to Issue, at the expectation it names."""

    name: str
    check: str
    at: str
    needs: tuple[Capability, ...]
    apply: CheckFunction

    def lacking(self, topology: Topology) -> str | None:
        return lacking(self.needs, topology)


class TrailBreak(Struct, frozen=True, kw_only=True):
    """A break of the audit trail itself: it must turn exactly these checks to Issue, of all in these suites."""

    name: str
    what: str
    among: tuple[str, ...]
    turns: frozenset[str]
    #: checks of those suites that are not run under it
    excluded: frozenset[str]
    apply: CheckFunction

    def control_of(self, identity: str) -> Control:
        """Return the break as a control of one check; which expectation it turns is not asked."""
        return Control(name=self.name, check=identity, at="", needs=(), apply=self.apply)


def check(
    identity: str,
    *,
    claim: str,
    section: Section,
    severity: Severity,
    area: str,
    item: str = "",
    needs: tuple[Capability, ...] = (),
    requires_features: tuple[TrailFeature, ...] = (),
    scope: str = "",
    feature: str = "",
    serial_group: str = "",
    disrupts: bool = False,
    path: PathLabel | None = None,
    environment_safety: Safety = Safety.NO,
    last: bool = False,
) -> Callable[[CheckFunction], Check]:
    """Declare a check.

    :param identity: `suite.what-it-is-about`.
    :param claim: one sentence, true when the check is OK.
    :param area: where to look first when it does not hold.
    :param item: the item of the checklist walkthrough that it answers, such as `2.1`; a check of none answers none.
    :param requires_features: features that an audit target must claim; one that does not gives N/A with that sentence.
    :param scope: `transaction` or `session`, where the check is about actors that are set like that.
    :param apart: the name of a group. The groups run one after another, and the checks of a group side by side.
    :param disrupts: it restarts servers or changes the pooler's settings; nothing else runs in its topology meanwhile.
    :raises ConfigError: for an id or a claim that is not of this form.
    """
    if not _ID.match(identity):
        raise ConfigError(f"check {identity!r}: an id is `suite.words-with-dashes`")
    if not claim or claim != claim.strip() or "\n" in claim or claim.endswith("."):
        raise ConfigError(f"check {identity!r}: a claim is one sentence, on one line, without a full stop")

    def declare(function: CheckFunction) -> Check:
        return Check(
            id=identity,
            claim=claim,
            section=section,
            severity=severity,
            area=area,
            item=item,
            needs=needs,
            requires_features=requires_features,
            scope=scope,
            run=function,
            feature=feature,
            serial_group=serial_group,
            disrupts=disrupts,
            path=path,
            environment_safety=environment_safety,
            last=last,
        )

    return declare


def breaks(target: Check, *, at: str, needs: tuple[Capability, ...] = ()) -> Callable[[CheckFunction], Control]:
    """Declare a control of a check: the function breaks something, before the check runs."""

    def declare(function: CheckFunction) -> Control:
        name = getattr(function, "__name__", "control").replace("_", "-")
        return Control(name=name, check=target.id, at=at, needs=needs, apply=function)

    return declare


def breaks_trail(
    *, what: str, among: tuple[str, ...], turns: Iterable[str], excluded: Iterable[str] = ()
) -> Callable[[CheckFunction], TrailBreak]:
    """Declare a break of the audit trail.

    :param what: one sentence: what the trail no longer does.
    :param among: the suites whose checks are all run under it.
    :param turns: the checks that it must turn to Issue; all others must stay as they are.
    :param aside: checks of those suites that are not run under it.
    """

    def declare(function: CheckFunction) -> TrailBreak:
        name = getattr(function, "__name__", "break").replace("_", "-")
        return TrailBreak(
            name=name, what=what, among=among, turns=frozenset(turns), excluded=frozenset(excluded), apply=function
        )

    return declare


class Fixtures(Struct, frozen=True, kw_only=True):
    """The tables that checks write to, made once in the template database."""

    sql: Path
    #: tables that capture is put on
    attached: tuple[str, ...]
    #: tables that also keep prior values
    attached_with_changed_from: tuple[str, ...] = ()


class Catalogue(Struct, frozen=True):
    """All checks and their controls."""

    checks: tuple[Check, ...]
    controls: tuple[Control, ...]
    fixtures: Fixtures
    trail_breaks: tuple[TrailBreak, ...] = ()

    def select(self, suites: Iterable[str] = (), checks: Iterable[str] = ()) -> tuple[Check, ...]:
        """Return the checks of the named suites and the named checks; all when nothing is named.

        :raises UsageError: for a name that there is not.
        """
        suites, checks = set(suites), set(checks)
        known, known_suites = {each.id for each in self.checks}, set(self.suites())
        for name in suites - known_suites:
            raise UsageError(f"there is no suite {name!r}", hint=nearest(name, known_suites))
        for name in checks - known:
            raise UsageError(f"there is no check {name!r}", hint=nearest(name, known))
        if not suites and not checks:
            return self.checks
        return tuple(each for each in self.checks if each.id in checks or each.id.partition(".")[0] in suites)

    def suites(self) -> list[str]:
        return list(dict.fromkeys(each.id.partition(".")[0] for each in self.checks))

    def with_checks(self, found: Iterable[Check | Control]) -> Catalogue:
        """Return the catalogue with what a project declares itself, such as its audited paths.

        :raises ConfigError: for an id that is there twice.
        """
        found = list(found)
        checks = (*self.checks, *(each for each in found if isinstance(each, Check)))
        _require_different(checks)
        return Catalogue(
            checks,
            (*self.controls, *(each for each in found if isinstance(each, Control))),
            self.fixtures,
            self.trail_breaks,
        )

    def controls_of(self, identity: str) -> tuple[Control, ...]:
        return tuple(each for each in self.controls if each.check == identity)


def build_catalogue(modules: Iterable[ModuleType], fixtures: Fixtures) -> Catalogue:
    """Collect the checks and controls of the suites, in the order they are written.

    :raises ConfigError: for an id that is there twice, a control of a check that is not there, or a
        check without a control.
    """
    found = list(_declared(modules))
    checks = [each for each in found if isinstance(each, Check)]
    controls = [each for each in found if isinstance(each, Control)]
    trail_breaks = [each for each in found if isinstance(each, TrailBreak)]
    seen = _require_different(checks)
    for control in controls:
        if control.check not in seen:
            raise ConfigError(f"the control {control.name} breaks {control.check}, which is no check")
    for each in checks:
        if not any(control.check == each.id for control in controls):
            raise ConfigError(f"nothing can break the check {each.id}: it has no control, so it proves nothing")
    for trail_break in trail_breaks:
        if unknown := sorted((trail_break.turns | trail_break.excluded) - seen):
            raise ConfigError(f"the break {trail_break.name} names {', '.join(unknown)}, which is no check")
    return Catalogue(tuple(checks), tuple(controls), fixtures, tuple(trail_breaks))


def _require_different(checks: Iterable[Check]) -> set[str]:
    seen: set[str] = set()
    for each in checks:
        if each.id in seen:
            raise ConfigError(f"there are two checks with the id {each.id}")
        seen.add(each.id)
    return seen


def _declared(modules: Iterable[ModuleType]) -> Iterator[Check | Control | TrailBreak]:
    for module in modules:
        for name, found in vars(module).items():
            # a declaration may be several values: a check and its controls, or those of a whole table
            for value in found if isinstance(found, tuple) and not name.startswith("_") else (found,):
                # what a module imported from another is declared there, not here
                if isinstance(value, Check | Control | TrailBreak):
                    function = value.run if isinstance(value, Check) else value.apply
                    if getattr(function, "__module__", "") == module.__name__:
                        yield value
