"""The checks of a trail on faulty variants of sound trails: one of them has to notice each fault.

The sound trails run first, and whole. The checks that are OK there are then tried on each variant, those first that
noticed others of its kind, until one turns to Issue.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.audit.target_loading import load_target
from harness.checks.execution import run_check
from harness.checks.observing import TRAIL_SUITES
from harness.checks.workspace import Workspace, ended_service
from harness.errors import HarnessError
from harness.job_engines.scratch import scratch_folder
from harness.model import PlannedCheck, Result, Status
from harness.mutants.variants import sql_of, target_file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from threading import Event

    from harness.audit.target import AuditTarget
    from harness.checks.collection import Catalogue
    from harness.checks.registry import Check
    from harness.lab.lab import Lab
    from harness.mutants.variant import Variant

#: the suites whose checks judge a trail
_SUITES = (*TRAIL_SUITES, "observability")
#: no further check is tried on a variant after so many seconds
_LONGEST_S = 300.0
#: how much less the notice of a variant of another kind counts
_OTHER_KINDS = 0.2
#: how much sooner a check is tried whose id has the name of the kind
_NAMESAKE = 20


class Outcome(StrEnum):
    """The result of a faulty variant."""

    NOTICED = "noticed"
    SURVIVED = "survived"
    #: it did not install, or no table could be attached: a mistake of the library
    UNUSABLE = "unusable"


class JudgedVariant(Struct, frozen=True, kw_only=True):
    """A faulty variant in one topology."""

    topology: str
    trail: str
    name: str
    kind: str
    fault: str
    blind: bool
    #: why no check has to notice it
    survives: str
    outcome: Outcome
    #: the check that noticed it, and what it said; or why the variant is unusable
    check: str = ""
    reason: str = ""
    #: how many checks were tried
    tried: int = 0
    duration_ms: float = 0.0

    @property
    def full_name(self) -> str:
        return f"{self.trail}/{self.name}"


class JudgedTrail(Struct, frozen=True, kw_only=True):
    """A sound trail in one topology: each of its Issues is a mistake of the check."""

    topology: str
    trail: str
    ok: int
    #: by check: the reason
    issues: dict[str, str]
    not_run: dict[str, str]


class Judged(Struct, frozen=True, kw_only=True):
    """What was found so far."""

    sound: tuple[JudgedTrail, ...] = ()
    variants: tuple[JudgedVariant, ...] = ()


class BrokenTrails:
    """Judges variants in the lab of one topology."""

    def __init__(
        self,
        catalogue: Catalogue,
        lab: Lab,
        stop: Event,
        notify: Callable[[JudgedTrail | JudgedVariant], None],
        *,
        jobs: int,
        earlier: Mapping[str, str],
    ) -> None:
        """Judge nothing yet.

        :param stop: set when no check may begin any more.
        :param notify: gets each finding; threads call it, one at a time.
        :param jobs: how many checks, and then how many variants, run side by side.
        :param earlier: by the full name of a variant: the check that noticed it before, which is tried first.
        """
        self._catalogue = catalogue
        self._lab = lab
        self._stop = stop
        self._notify = notify
        self._jobs = jobs
        self._earlier = earlier
        self._lock = Lock()
        #: by trail: how long each check that is OK on the sound one takes
        self._ok_ms: dict[str, dict[str, float]] = {}
        #: by check and kind: how often it was tried, and how often it noticed
        self._tries: Counter[tuple[str, str]] = Counter()
        self._noticed: Counter[tuple[str, str]] = Counter()

    def judge(self, variants: Sequence[Variant]) -> None:
        """Judge the sound trails of some variants, then the variants.

        :raises HarnessError: when a sound trail could not be provisioned, or a server ended.
        """
        for trail in dict.fromkeys(variant.trail for variant in variants):
            if not self._stop.is_set():
                self._judge_sound(trail)
        with (
            scratch_folder() as folder,
            ThreadPoolExecutor(self._jobs, thread_name_prefix="variant") as pool,
        ):
            pending = [pool.submit(self._judge_variant, variant, folder) for variant in variants]
            try:
                for future in pending:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _judge_sound(self, trail: str) -> None:
        target = load_target(str(target_file_of(trail)))
        workspace = self._workspace(target, trail)
        checks = self._checks_of(workspace.target)

        def run(check: Check) -> Result | None:
            return None if self._stop.is_set() else self._result(check, workspace)

        try:
            with ThreadPoolExecutor(self._jobs, thread_name_prefix="sound") as pool:
                results = list(filter(None, pool.map(run, checks)))
        finally:
            self._remove(workspace)
        if self._stop.is_set():
            return
        by_status = {
            status: {result.check: result for result in results if result.status is status} for status in Status
        }
        self._ok_ms[trail] = {name: result.duration_ms for name, result in by_status[Status.OK].items()}
        judged = JudgedTrail(
            topology=self._lab.topology.name,
            trail=trail,
            ok=len(by_status[Status.OK]),
            issues={name: result.reason for name, result in by_status[Status.ISSUE].items()},
            not_run={name: result.reason for name, result in by_status[Status.NOT_RUN].items()},
        )
        with self._lock:
            self._notify(judged)

    def _judge_variant(self, variant: Variant, folder: Path) -> None:
        if self._stop.is_set():
            return
        began = time.monotonic()
        judged = replace(self._judged(variant, folder), duration_ms=round((time.monotonic() - began) * 1000, 1))
        if self._stop.is_set():
            return
        if judged.outcome is not Outcome.NOTICED and (ended := ended_service(self._lab)):
            raise HarnessError(ended.what, where=f"topology {self._lab.topology.name}")  # no check could notice it
        with self._lock:
            self._notify(judged)

    def _judged(self, variant: Variant, folder: Path) -> JudgedVariant:
        judged = JudgedVariant(
            topology=self._lab.topology.name,
            trail=variant.trail,
            name=variant.name,
            kind=variant.kind,
            fault=variant.fault,
            blind=variant.blind,
            survives=variant.survives,
            outcome=Outcome.UNUSABLE,
        )
        sql = folder / f"{variant.trail}-{variant.name}.sql"
        try:
            sql.write_text(sql_of(variant), encoding="utf-8")
            target = load_target(str(target_file_of(variant.trail)), [str(sql)])
            workspace = self._workspace(target, variant.name)
        except HarnessError as error:
            return replace(judged, reason=str(error))
        try:
            return self._tried(variant, judged, workspace)
        finally:
            self._remove(workspace)

    def _tried(self, variant: Variant, judged: JudgedVariant, workspace: Workspace) -> JudgedVariant:
        ends = time.monotonic() + _LONGEST_S
        left = {
            check.id: check for check in self._checks_of(workspace.target) if check.id in self._ok_ms[variant.trail]
        }
        tried = 0
        left_open = ""
        while left and not self._stop.is_set():
            if time.monotonic() > ends:
                left_open += f"; {len(left)} checks were not tried within {_LONGEST_S:g} s"
                break
            check = left.pop(min(left, key=lambda name: self._expected_ms(name, variant)))
            result = self._result(check, workspace)
            tried += 1
            noticed = result.status is Status.ISSUE and any(found.broken for found in result.expectations)
            with self._lock:
                self._tries[check.id, variant.kind] += 1
                self._noticed[check.id, variant.kind] += noticed
            if noticed:
                return replace(judged, outcome=Outcome.NOTICED, check=check.id, reason=result.reason, tried=tried)
            if result.status in {Status.ISSUE, Status.NOT_RUN}:  # a check that broke has noticed nothing
                left_open += f"; {check.id} is {result.status}: {result.reason}"
        return replace(
            judged,
            outcome=Outcome.SURVIVED,
            reason=f"none of {tried} checks turned to Issue{left_open}",
            tried=tried,
        )

    def _expected_ms(self, name: str, variant: Variant) -> float:
        """Return about how long it takes until a check notices: its time, over how often it noticed so far."""
        if self._earlier.get(variant.full_name) == name:
            return 0.0
        with self._lock:
            tries, noticed = self._tries[name, variant.kind], self._noticed[name, variant.kind]
            others = sum(count for (check, _), count in self._noticed.items() if check == name) - noticed
        expected = self._ok_ms[variant.trail][name] * (tries + 2) / (noticed + _OTHER_KINDS * others + 1)
        return expected / _NAMESAKE if variant.kind in name else expected

    def _checks_of(self, target: AuditTarget) -> list[Check]:
        """Return the checks of a trail that apply to a target, the longest first."""
        checks = (check for check in self._catalogue.checks if check.id.partition(".")[0] in _SUITES)
        return sorted(
            (
                check
                for check in checks
                if check.lacking(self._lab.topology, target) is None
                and not (check.disrupts or check.own_servers or check.on_demand or check.path)
            ),
            key=lambda check: -check.longest_s,
        )

    def _workspace(self, target: AuditTarget, what: str) -> Workspace:
        template = f"trail_{what[:40].replace('-', '_')}_{secrets.token_hex(3)}"
        return Workspace(self._lab, target, self._catalogue.fixtures, template=template)

    def _result(self, check: Check, workspace: Workspace) -> Result:
        topology = self._lab.topology
        row = PlannedCheck(
            target=topology.name,
            check=check.id,
            claim=check.claim,
            section=check.section,
            severity=check.severity,
            area=check.area,
            reproduce="",
        )
        return run_check(check, row, topology, workspace, interrupted=self._stop)

    def _remove(self, workspace: Workspace) -> None:
        """Remove the databases of a workspace: the lab has room for a few trails, and not for all."""
        if not self._lab.is_closed:
            workspace.drop_template()
        workspace.close()
