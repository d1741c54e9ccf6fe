"""Checks in a shared environment that an operator named. They break nothing there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec.structs import asdict, replace

from harness.audit.placeholders import ROLE_NAMES, uses
from harness.audit.target import AuditTarget
from harness.audit.target_file import ABOUT_A_TABLE
from harness.checks.execution import accept_known, in_quarantine, run_check
from harness.checks.load import LoadSettings
from harness.checks.record import CheckRecord, NotExercisedError
from harness.checks.registry import Safety
from harness.database import Side, SqlError, describe
from harness.errors import HarnessError
from harness.events import CheckFinished, CheckStarted, Listener, Notice
from harness.host.canary import Canary, scratch_canary
from harness.host.environment import Environment, look_at
from harness.host.leftovers import find_leftovers
from harness.model import (
    INTERRUPTED,
    NOT_BEGUN,
    EndedBy,
    EnvironmentEvidence,
    Finding,
    KnownIssue,
    PlannedCheck,
    Quarantine,
    Result,
    Status,
    Subject,
)
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.checks.collection import Catalogue
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check
    from harness.database import Client
    from harness.host.declarations import PathDeclaration
    from harness.host.site import Site
    from harness.redaction import Redactor
    from harness.store import RunStore

#: why nobody owes a row in an environment: it runs on topologies of the harness
NOT_SAFE = "not safe in a shared environment: the check breaks things, or writes; it runs on topologies of the harness"
_NOT_NAMED = "the check writes, and the operator named neither a canary table nor a scratch schema"


class EnvironmentContext(CheckRecord):
    """The context of one check in an operator's environment. It closes everything that the check opened."""

    def __init__(
        self,
        environment: Environment,
        evidence: EnvironmentEvidence,
        target: AuditTarget,
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__(target)
        self._stopped = stopped
        self._reader: Client | None = None
        self._environment = environment
        self._evidence = evidence

    @property
    def site(self) -> Site:
        """The host application of the environment."""
        site = self._environment.site(self.target)
        return replace(  # the timeout of a check breaks these connections as well
            site,
            trail=lambda: self._keep(site.trail()),
            application=lambda: self._keep(site.application(), Side.APPLICATION),
            stopped=self._stopped,
        )

    @property
    def audited_tables(self) -> tuple[str, ...]:
        """The tables that the operator declares as captured."""
        return self._environment.declared.audited_tables

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        """Return the findings about the chain, and its declared facts by name."""
        return self._evidence.findings, dict(self._environment.declared.declared)

    @property
    def sharing_mode(self) -> bool:
        """Whether clients share server connections, one transaction at a time each; true when it is unknown."""
        mode, pooler = self._evidence.found("pool_mode"), self._evidence.found("pooler")
        if mode is not None:
            return mode.value in {"transaction", "statement"}
        return pooler is None or pooler.value != "no"

    def client(self) -> Client:
        """Connect through the chain as the application role."""
        return self._keep(self._environment.client(), Side.APPLICATION)

    def trail_reader(self) -> Client:
        """Return a connection that may read the trail; it is opened once, and again when it is closed."""
        if self._reader is None or self._reader.closed:
            self._reader = self._keep(self._environment.reader())
        return self._reader

    @contextlib.contextmanager
    def canary(self) -> Iterator[Canary]:
        """Return a captured table to write to: the operator's own, or one made for the check in the scratch schema.

        :raises NotExercisedError: when the operator named neither.
        """
        declared = self._environment.declared
        if declared.canary:
            yield Canary.named(declared.canary, self._environment.journal)
        elif declared.scratch_schema:
            role = self.client().value("SELECT current_user")
            # a timeout does not break the owner's connection: it has to remove the table
            connect, journal = self._environment.owner, self._environment.journal
            schema = declared.scratch_schema
            with scratch_canary(connect, self.target, schema, role, self.left_behind, journal) as canary:
                yield canary
        else:
            raise NotExercisedError(_NOT_NAMED)


class EnvironmentWorkspace(Struct, frozen=True):
    """The source of contexts for the checks of one environment."""

    environment: Environment
    evidence: EnvironmentEvidence
    target: AuditTarget
    #: returns whether the run has to end
    stopped: Callable[[], bool]
    load: LoadSettings = LoadSettings()
    _contexts: list[EnvironmentContext] = []

    def cut(self) -> None:
        """Break the connections of the running check, so that it gets an error wherever it waits."""
        for ctx in list(self._contexts):
            ctx.cut(EndedBy.INTERRUPTION, INTERRUPTED)

    @contextlib.contextmanager
    def context(self, _check: str) -> Iterator[CheckContext]:
        ctx = EnvironmentContext(self.environment, self.evidence, self.target, self.stopped)
        self._contexts.append(ctx)
        try:
            # a check that is safe in an environment uses only the members that both kinds of context have
            yield cast("CheckContext", ctx)
        finally:
            self._contexts.remove(ctx)
            ctx.close()

    def own_failure(self, *, read_logs: bool = True) -> None:
        """Return None: the servers are the operator's."""

    def host_context(self) -> contextlib.AbstractContextManager[CheckContext]:
        return self.context("")


def names_roles(target: AuditTarget) -> bool:
    """Return whether a role is named in what an environment runs of a target: the statements about no table."""
    statements = [text for name, text in asdict(target.statements).items() if name not in ABOUT_A_TABLE]
    return any(uses(text, ROLE_NAMES) for text in (*statements, target.actor.declare))


def of_roles(target: AuditTarget, role: str, owner: str) -> AuditTarget:
    """Return the target with its roles, except in the statements about a table: the scratch table has its own owner."""
    filled = target.of_roles(role, owner)
    about_a_table = {name: getattr(target.statements, name) for name in ABOUT_A_TABLE}
    return replace(filled, role="", statements=replace(filled.statements, **about_a_table))


def _subject(evidence: EnvironmentEvidence) -> Subject:
    """Return the identity of an environment: its server and database, its declaration, the versions that it runs."""
    server = evidence.found("server_version")
    facts = {"declaration": evidence.declared_as, "server and database": evidence.database}
    facts |= {"server version": server.value} if server else {}
    facts |= {f"version of {name}": version for name, version in evidence.versions.items()}
    covers = "what the servers report, the declaration in harness.toml, and the versions that it declares"
    return Subject(facts={name: value for name, value in facts.items() if value}, covers=covers)


class EnvironmentRun:
    """Runs the plan of one environment, one check at a time. `interrupt` may be called from a signal handler."""

    def __init__(
        self,
        environment: Environment,
        plan: tuple[PlannedCheck, ...],
        catalogue: Catalogue,
        target: AuditTarget,
        known: tuple[KnownIssue, ...],
        store: RunStore,
        redactor: Redactor,
        listener: Listener,
        *,
        declared_as: str = "",
        paths: Sequence[PathDeclaration] = (),
        quarantine: Sequence[Quarantine] = (),
    ) -> None:
        self._environment = environment
        self._paths = paths
        self._declared_as = declared_as
        self._plan = plan
        self._checks = {check.id: check for check in catalogue.checks}
        self._target = target
        self._known = known
        self._quarantine = quarantine
        self._store = store
        self._redactor = redactor
        self._notify = listener
        self.interrupted = Event()
        self._workspace: EnvironmentWorkspace | None = None

    def interrupt(self) -> None:
        """End the running check, and start no other."""
        self.interrupted.set()
        if self._workspace:
            self._workspace.cut()

    def execute(self) -> None:
        """Run the plan. On return every planned row has a result on disk.

        :raises HarnessError: when the evidence cannot be stored.
        """
        name = self._environment.name
        failure = ""
        try:
            evidence = look_at(self._environment, self._redactor, self._declared_as, self.interrupted)
            may_ask = evidence.reached and not self.interrupted.is_set()
            target = self._target_here() if may_ask else self._target
            if may_ask:
                evidence = replace(evidence, notes=(*evidence.notes, *self._leftovers(target)))
            subjects = self._store.record.subjects | {name: _subject(evidence)}
            self._store.update(environments={name: evidence}, subjects=subjects)
            for sentence in (*evidence.contradictions, *evidence.notes):
                self._notify(Notice(f"{name}: {sentence}"))
            if not evidence.reached:
                self._notify(Notice(f"{name} was not reached: {evidence.reason}"))
            stopped = self.interrupted.is_set
            workspace = self._workspace = EnvironmentWorkspace(self._environment, evidence, target, stopped)
            for row in self._plan:
                self._finish(self._run_row(self._checks[row.check], row, evidence, workspace))
        except BaseException as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            state = "interrupted" if self.interrupted.is_set() else "failed" if failure else "finished"
            with contextlib.suppress(HarnessError) if failure else contextlib.nullcontext():
                self._store.update(state=state, ended_at=utc_now(), failure=failure)

    def _target_here(self) -> AuditTarget:
        """Return the target with the roles of the environment, and the tables that its query finds.

        What cannot be read here is left out.
        """
        target = self._target
        try:
            if names_roles(target):
                target = of_roles(target, *self._environment.roles())
            if target.statements.tables:
                with contextlib.closing(self._environment.reader()) as reader:
                    target = target.with_found_tables(reader)
        except (SqlError, HarnessError) as error:
            said = describe(error) if isinstance(error, SqlError) else error.what
            self._notify(Notice(f"{self._environment.name}: roles or tables of the trail were not found: {said}"))
        return target

    def _leftovers(self, target: AuditTarget) -> list[str]:
        """Clear what killed runs left, if this run may write at all, and return a sentence for everything found."""
        environment, safeties = self._environment, {self._checks[row.check].environment_safety for row in self._plan}
        if environment.journal is None:
            return []
        clears = bool(safeties & {Safety.WRITES, Safety.PATH})
        return find_leftovers(environment, target, environment.journal, self._paths, clears=clears)

    def _run_row(
        self, check: Check, row: PlannedCheck, evidence: EnvironmentEvidence, workspace: EnvironmentWorkspace
    ) -> Result:
        interrupted = self.interrupted.is_set()
        reason = (
            NOT_BEGUN
            if interrupted
            else row.out_of_scope or NOT_SAFE
            if row.out_of_scope or check.environment_safety is Safety.NO
            else f"the environment was not reached: {evidence.reason}"
            if not evidence.reached
            else ""
        )
        if reason:
            return Result(
                target=row.target,
                check=row.check,
                status=Status.NOT_RUN,
                reason=reason,
                ended_by=EndedBy.INTERRUPTION if interrupted else None,
                started_at=utc_now(),
                reproduce=row.reproduce,
            )
        self._notify(CheckStarted(row.target, check.id))
        result = run_check(check, row, None, workspace, interrupted=self.interrupted)
        if left := result.facts.get("left behind"):
            self._notify(Notice(f"{row.target}: {check.id} could not clean up: {left}"))
        return accept_known(result, self._known)

    def _finish(self, result: Result) -> None:
        result = in_quarantine(result, self._quarantine)
        self._notify(CheckFinished(self._store.append_or_refuse(result)))
