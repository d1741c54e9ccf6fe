"""Running checks where others work, too: in an environment that an operator named. Nothing is broken there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec.structs import replace

from harness.audit.target import AuditTarget
from harness.checks.execution import accept_known, run_check
from harness.checks.record import CheckRecord, NotExercisedError
from harness.checks.registry import Safety
from harness.errors import HarnessError
from harness.events import CheckFinished, CheckStarted, Listener, Notice
from harness.host.canary import Canary, scratch_canary
from harness.host.environment import Environment, look_at
from harness.model import EnvironmentEvidence, Finding, KnownIssue, PlannedCheck, Result, Status
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Catalogue, Check
    from harness.database import Client
    from harness.host.site import Site
    from harness.redaction import Redactor
    from harness.store import RunStore

NOT_SAFE = "not safe where others work: it breaks things, or writes; exercised on what the harness stands up itself"
_NOT_NAMED = "it writes, and the operator named neither a canary table nor a scratch schema"


class EnvironmentBench(CheckRecord):
    """What one check may touch of an operator's environment. Everything it opens is closed with it."""

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
        site = self._environment.site(self.target)
        return replace(  # what hangs is cut, wherever it was opened
            site,
            trail=lambda: self._keep(site.trail()),
            application=lambda: self._keep(site.application()),
            stopped=self._stopped,
        )

    @property
    def audited_tables(self) -> tuple[str, ...]:
        return self._environment.declared.audited_tables

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        """Return what was found of the chain, and what is declared of it."""
        return self._evidence.findings, dict(self._environment.declared.declared)

    @property
    def sharing_mode(self) -> bool:
        """Whether clients share server connections, each for a transaction at a time; also where nobody knows."""
        mode, pooler = self._evidence.found("pool_mode"), self._evidence.found("pooler")
        if mode is not None:
            return mode.value in {"transaction", "statement"}
        return pooler is None or pooler.value != "no"

    def client(self) -> Client:
        return self._keep(self._environment.client())

    def trail_reader(self) -> Client:
        """Return the connection of who may read the trail."""
        if self._reader is None or self._reader.closed:
            self._reader = self._keep(self._environment.reader())
        return self._reader

    @contextlib.contextmanager
    def canary(self) -> Iterator[Canary]:
        """Give a table to write to.

        :raises NotExercisedError: when the operator named none.
        """
        declared = self._environment.declared
        if declared.canary:
            yield Canary.named(declared.canary)
        elif declared.scratch_schema:
            role = self.client().value("SELECT current_user")
            # not among the clients that are cut: what was made has to be taken away
            making = self._environment.owner
            with scratch_canary(making, self.target, declared.scratch_schema, role, self.left_behind) as canary:
                yield canary
        else:
            raise NotExercisedError(_NOT_NAMED)


class EnvironmentPlace(Struct, frozen=True):
    """Where the checks of an environment are run."""

    environment: Environment
    evidence: EnvironmentEvidence
    target: AuditTarget
    #: whether the run is to end
    stopped: Callable[[], bool]
    _benches: list[EnvironmentBench] = []

    def cut(self) -> None:
        """End the connections of the check that runs, under whoever waits on them."""
        for each in list(self._benches):
            each.cut()

    @contextlib.contextmanager
    def context(self, _check: str) -> Iterator[CheckContext]:
        ctx = EnvironmentBench(self.environment, self.evidence, self.target, self.stopped)
        self._benches.append(ctx)
        try:
            # what is safe in an environment asks for no more than both kinds of bench have
            yield cast("CheckContext", ctx)
        finally:
            self._benches.remove(ctx)
            ctx.close()

    def own_failure(self) -> str:
        """The servers are the operator's: the harness owes them nothing."""
        return ""

    def host_context(self) -> contextlib.AbstractContextManager[CheckContext]:
        return self.context("")


class EnvironmentRun:
    """Runs the plan of one environment, a check at a time. `interrupt` may be called from a signal handler."""

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
    ) -> None:
        self._environment = environment
        self._declared_as = declared_as
        self._plan = plan
        self._checks = {each.id: each for each in catalogue.checks}
        self._target = target
        self._known = known
        self._store = store
        self._redactor = redactor
        self._tell = listener
        self.interrupted = Event()
        self._place: EnvironmentPlace | None = None

    def interrupt(self) -> None:
        """End the check that runs, and begin no other."""
        self.interrupted.set()
        if self._place:
            self._place.cut()

    def execute(self) -> None:
        """Run everything; on return every planned row has an answer on disk.

        :raises HarnessError: when the evidence could not be kept.
        """
        name = self._environment.name
        failure = ""
        try:
            evidence = look_at(self._environment, self._redactor, self._declared_as)
            self._store.update(environments={name: evidence})
            for each in (*evidence.contradictions, *evidence.notes):
                self._tell(Notice(f"{name}: {each}"))
            if not evidence.reached:
                self._tell(Notice(f"{name} was not reached: {evidence.reason}"))
            place = self._place = EnvironmentPlace(self._environment, evidence, self._target, self.interrupted.is_set)
            for row in self._plan:
                self._answer(self._exercise(self._checks[row.check], row, evidence, place))
        except BaseException as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            state = "interrupted" if self.interrupted.is_set() else "failed" if failure else "finished"
            with contextlib.suppress(HarnessError) if failure else contextlib.nullcontext():
                self._store.update(state=state, ended_at=utc_now(), failure=failure)

    def _exercise(
        self, check: Check, row: PlannedCheck, evidence: EnvironmentEvidence, place: EnvironmentPlace
    ) -> Result:
        why = (
            "the run was interrupted before this check began"
            if self.interrupted.is_set()
            else NOT_SAFE
            if check.environment_safety is Safety.NO
            else f"the environment was not reached: {evidence.reason}"
            if not evidence.reached
            else ""
        )
        if why:
            return Result(
                target=row.target,
                check=row.check,
                status=Status.NOT_RUN,
                reason=why,
                started_at=utc_now(),
                reproduce=row.reproduce,
            )
        self._tell(CheckStarted(row.target, check.id))
        result = run_check(check, row, None, place, interrupted=self.interrupted)
        if left := result.facts.get("left behind"):
            self._tell(Notice(f"{row.target}: {check.id} could not take away {left}"))
        return accept_known(result, self._known)

    def _answer(self, result: Result) -> None:
        self._store.append(result)
        self._tell(CheckFinished(result))
