"""Checks and their controls: the extension points of the harness.

A suite is a module. :func:`check`, :func:`breaks` and :func:`breaks_trail` turn a function into a frozen value; they
register nothing. :mod:`harness.checks.collection` collects these values from an explicit list of modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target_file import Recorded, TrailFeature
from harness.errors import ConfigError
from harness.lab.effective import declared_limits
from harness.model import IngestLabel, JobLabel, PathLabel, PoolMode, Prepare, Section, Severity, Topology

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext

#: the sections whose checks judge the audit trail
TRAIL_SECTIONS = frozenset(
    {
        *(Section.CAPTURE, Section.ACTOR, Section.REDACTION, Section.RETENTION, Section.EXPORT),
        *(Section.OBSERVABILITY, Section.CONTINUITY),
    }
)
P0, P1, P2 = Severity.P0, Severity.P1, Severity.P2

_ID = re.compile(r"^[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*$")


class Capability(Struct, frozen=True):
    """A property of topologies that a check may need."""

    #: a noun phrase for lists
    name: str
    #: the reason of the N/A row in a topology without it: one sentence, without a full stop
    lacking: str
    #: returns whether a topology has it
    given: Callable[[Topology], bool]


TRANSACTION_BLOCKS = Capability(
    "transaction blocks",
    "statement pooling refuses transaction blocks",
    lambda topology: topology.pool_mode is not PoolMode.STATEMENT,
)
MOVES = Capability(
    "server connections that change",
    "a client keeps one server connection until it disconnects, so it never moves to another",
    lambda topology: topology.pool_mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT},
)
MADE_BY_THE_SERVER = Capability(
    "values that the server makes itself",
    "the server itself makes the value, so a pooler cannot change it: shown without a pooler",
    lambda topology: topology.pooler is None,
)
NAMED_STATEMENTS = Capability(
    "named prepared statements",
    "the client does not prepare statements on the server here",
    lambda topology: topology.client.prepare is Prepare.NAMED,
)
SEVERAL_SERVER_CONNECTIONS = Capability(
    "several server connections",
    "the pool has a single server connection, so two transactions cannot be open at the same time",
    lambda topology: (limits := declared_limits(topology)) is None or limits.largest > 1,
)


def lacking(needs: tuple[Capability, ...], topology: Topology) -> str | None:
    """Return the sentence of the first capability that a topology lacks; None when it has all of them."""
    return next((capability.lacking for capability in needs if not capability.given(topology)), None)


class Safety(StrEnum):
    """Whether a check may run in an environment that others use, and what it does there."""

    #: it may not: it breaks things, or writes to any table
    NO = "no"
    #: it only reads
    READS = "reads"
    #: it writes only to the canary table or the scratch schema that the operator named
    WRITES = "writes"
    #: it runs a path of the host application that the operator declared
    PATH = "path"


#: a load and the comparison of its rows, in times of the load
_WITH_JUDGE = 1.5
#: the body of a check, or of a control: it uses its context, and returns nothing
CheckFunction = Callable[["CheckContext"], None]


class Check(Struct, frozen=True, kw_only=True):
    """One property of the system under test. :func:`check` documents the fields."""

    id: str
    claim: str
    section: Section
    severity: Severity
    area: str
    item: str
    needs: tuple[Capability, ...]
    requires_features: tuple[TrailFeature, ...]
    scope: str
    run: CheckFunction
    judges: tuple[TrailFeature, ...] = ()
    records: tuple[Recorded, ...] = ()
    feature: str = ""
    serial_group: str = ""
    disrupts: bool = False
    own_servers: bool = False
    server_link: bool = False
    on_demand: bool = False
    path: PathLabel | None = None
    job: JobLabel | None = None
    ingest: IngestLabel | None = None
    out_of_scope: str = ""
    environment_safety: Safety = Safety.NO
    last: bool = False
    loads: int = 0
    rounds: bool = False
    #: seconds after which the check is cut off and is Not run. Drivers have a deadline of their own, and a shorter one
    longest_s: float = 90.0

    @property
    def judges_trail(self) -> bool:
        """Whether the check judges the audit trail in a database of its own: not a feature, a path or a load."""
        return self.section in TRAIL_SECTIONS and not (self.feature or self.path or self.loads)

    def limit_s(self, soak_s: float) -> float:
        """Return the seconds after which the check is cut off.

        :param soak_s: how long each of its loads lasts.
        """
        return self.longest_s + _WITH_JUDGE * self.loads * soak_s

    def lacking(self, topology: Topology | None, target: AuditTarget) -> str | None:
        """Return in one sentence why the check does not apply to a topology or an audit target; None when it applies.

        :param topology: None for an environment: it has no declared topology.
        """
        for feature in self.requires_features:
            if feature not in target.claims:
                return feature.unclaimed
        for property_ in self.records:
            if reason := target.lacking(property_):
                return reason
        if self.scope and target.actor.scope != self.scope:
            return f"the audit target sets its actor for the {target.actor.scope}, not for the {self.scope}"
        return lacking(self.needs, topology) if topology else None


class Control(Struct, frozen=True, kw_only=True):
    """A deliberate break that must turn its check to Issue. :func:`breaks` documents the fields."""

    name: str
    #: the id of the check
    check: str
    at: str
    needs: tuple[Capability, ...]
    apply: CheckFunction

    def lacking(self, topology: Topology) -> str | None:
        """Return in one sentence why the control does not apply to a topology; None when it applies."""
        return lacking(self.needs, topology)


class TrailBreak(Struct, frozen=True, kw_only=True):
    """A break of the audit trail itself. :func:`breaks_trail` documents the fields."""

    name: str
    what: str
    among: tuple[str, ...]
    turns: frozenset[str]
    excluded: frozenset[str]
    apply: CheckFunction

    def control_of(self, identity: str) -> Control:
        """Return the break as a control of one check, at any expectation."""
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
    judges: tuple[TrailFeature, ...] = (),
    scope: str = "",
    records: tuple[Recorded, ...] = (),
    feature: str = "",
    serial_group: str = "",
    disrupts: bool = False,
    own_servers: bool = False,
    server_link: bool = False,
    on_demand: bool = False,
    loads: int = 0,
    rounds: bool = False,
    longest_s: float = 90.0,
    path: PathLabel | None = None,
    job: JobLabel | None = None,
    ingest: IngestLabel | None = None,
    out_of_scope: str = "",
    environment_safety: Safety = Safety.NO,
    last: bool = False,
) -> Callable[[CheckFunction], Check]:
    """Declare a check: the function gets a :class:`CheckContext`, and compares facts with `ctx.expect`.

    The check is OK when it made at least one expectation and all of them held, and an Issue when one did not hold. The
    function raises :class:`NotExercisedError` for Not run and :class:`NotApplicableError` for N/A. A deadline that
    passed is Not run; other exceptions are Issues of the check itself, unless the servers are an operator's.

    :param identity: the id, `suite.what-it-is-about`: lower-case letters, one dot, then words and digits with dashes.
        `--suite` and `--check` select by it, and stored runs hold it, so it stays the same for the life of the check.
    :param claim: one sentence without a full stop. It is true when the check is OK, and no wider than the probe.
    :param section: the section of the walkthrough, or of the report, that lists the check.
    :param severity: of an Issue: P0 wrong or missing data, or security; P1 operational friction or docs; P2 residual
        depth. A check of a documented feature sets it by the outcome; see :meth:`CheckContext.judge`.
    :param area: where to look first when the check is an Issue, such as `capture trigger`.
    :param item: the item of the checklist walkthrough that the check answers, such as `2.1`; none when empty.
    :param needs: capabilities that a topology must have. The check is N/A in other topologies, with the sentence of the
        first missing capability. Every topology qualifies when empty.
    :param requires_features: features that the audit target must claim. The check is N/A for other targets, with the
        sentence of the first feature that is not claimed. Every target qualifies when empty.
    :param judges: features that the check judges where the audit target claims them. It applies to other targets, too.
    :param scope: `transaction` or `session`: N/A for audit targets that set the actor for the other; any when empty.
    :param records: properties of the audit trail that all expectations depend on. The check is N/A for a trail that
        lacks one, with a pointer to the check that shows it. None when empty.
    :param feature: the title of the row in the feature map that the check fills; none when empty.
    :param serial_group: the name of a group. Groups run one after another, and the checks of one group side by side.
        When empty, the check runs next to all others.
    :param disrupts: whether the check restarts servers or changes settings of the pooler. Nothing else runs in its
        topology meanwhile.
    :param own_servers: whether the check runs on a second lab of its topology, whose data is on disk with fsync and
        synchronous commit. Such checks run one after another, next to those of the first lab, and may crash servers.
    :param server_link: whether that second lab has a link between the pooler and PostgreSQL, which the check can cut.
    :param on_demand: whether the check runs only when it or its suite is named.
    :param loads: how many loads of the time that the user asks for run one after another.
    :param rounds: whether the check injects its fault as often as the user asks for.
    :param longest_s: seconds after which the check is cut off and is Not run. The time of its loads is added, and half
        of it for the comparison of their rows.
    :param path: the audited path of a host application that the check runs; the check gets the database of the host.
        None for a check that gets a database of its own.
    :param job: the job engine and the case that the check tries; None for other checks.
    :param ingest: the ingest pipeline and the case that the check tries; None for other checks.
    :param out_of_scope: why the check cannot run here and nobody owes an answer, in one sentence without a full stop.
        Empty for all other checks.
    :param environment_safety: whether the check may run in an environment that others use, and what it does there.
        By default it may not.
    :param last: whether the check runs after all others in an environment, because it looks for what they left.
    :return: a decorator that turns the function into the :class:`Check`.
    :raises ConfigError: for an invalid id or claim.
    """
    if not _ID.match(identity):
        raise ConfigError(f"invalid check id {identity!r}, expected `suite.words-with-dashes`")
    if not claim or claim != claim.strip() or "\n" in claim or claim.endswith("."):
        raise ConfigError(f"check {identity!r}: invalid claim, expected one sentence on one line without a full stop")

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
            judges=judges,
            scope=scope,
            records=records,
            run=function,
            feature=feature,
            serial_group=serial_group,
            disrupts=disrupts,
            own_servers=own_servers,
            server_link=server_link,
            on_demand=on_demand,
            loads=loads,
            rounds=rounds,
            longest_s=longest_s,
            path=path,
            job=job,
            ingest=ingest,
            out_of_scope=out_of_scope,
            environment_safety=environment_safety,
            last=last,
        )

    return declare


def breaks(target: Check, *, at: str, needs: tuple[Capability, ...] = ()) -> Callable[[CheckFunction], Control]:
    """Declare a control of a check: the function breaks something in the context of the check, before the check runs.

    The check is proven when it turns to Issue at the named expectation. The name of the control is the function's name,
    with dashes.

    :param target: the check. Each check needs at least one control.
    :param at: the name of the expectation that must not hold under the control.
    :param needs: capabilities that a topology must have for the control to work; every topology qualifies when empty.
        A check must keep at least one applicable control in each topology that it applies to.
    :return: a decorator that turns the function into the :class:`Control`.
    """

    def declare(function: CheckFunction) -> Control:
        name = getattr(function, "__name__", "control").replace("_", "-")
        return Control(name=name, check=target.id, at=at, needs=needs, apply=function)

    return declare


def breaks_trail(
    *, what: str, among: tuple[str, ...], turns: Iterable[str], excluded: Iterable[str] = ()
) -> Callable[[CheckFunction], TrailBreak]:
    """Declare a break of the audit trail: the function breaks the trail in the context of each check, before it runs.

    `prove` tries each break in one topology. The break is caught when exactly the checks of `turns` become Issue. The
    name of the break is the function's name, with dashes.

    :param what: one sentence without a full stop: what the trail no longer does.
    :param among: the suites whose checks run under the break.
    :param turns: ids of the checks that must become Issue. All other checks of these suites must stay OK.
    :param excluded: ids of checks of these suites that do not run under the break; none by default.
    :return: a decorator that turns the function into the :class:`TrailBreak`.
    """

    def declare(function: CheckFunction) -> TrailBreak:
        name = getattr(function, "__name__", "break").replace("_", "-")
        return TrailBreak(
            name=name, what=what, among=among, turns=frozenset(turns), excluded=frozenset(excluded), apply=function
        )

    return declare
