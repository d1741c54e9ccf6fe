"""The cases about a pipeline whose database or store fails: its probes, and its answers.

No case decides anything: it records what it saw, and :mod:`harness.checks.judges.ingest_service` compares it.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from harness.checks.judges.ingest_reading import FixedTimes, times_in
from harness.checks.judges.ingest_service import BrokenDependency, Probe, ServiceSeen, is_ok
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.ingest.pipeline_file import Status
from harness.ingest.store_requests import Fault
from harness.suites.ingest.asking import Reply, ask
from harness.suites.ingest.awaiting import CLOCKS_S, FOLLOWS_S, PROBE_S, require_indexed, wait_for
from harness.suites.ingest.description import NO_ROUTE, Misfit, error_of
from harness.suites.ingest.outage import database_down
from harness.suites.ingest.programs import WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.judges.ingest_state import Upload
    from harness.suites.ingest.running import IngestRun

_A = WORKERS[0]
#: until a probe follows its database, seconds: orchestrators ask every ten seconds
_NOTICES_S = 10.0
#: until a probe is well again: the pooler and the pipeline connect anew first, seconds
_RECOVERS_S = 40.0
#: every statement that writes to a table of the pipeline fails as on a standby, or on a server that was made read-only
_REFUSE_WRITES = """
DO $$ DECLARE found record; BEGIN
    CREATE FUNCTION public.harness_refuses() RETURNS trigger LANGUAGE plpgsql AS
        $f$ BEGIN RAISE 'cannot write in a read-only transaction' USING ERRCODE = 'read_only_sql_transaction'; END $f$;
    FOR found IN
        SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND r.rolname = '{role}'
    LOOP
        EXECUTE format('CREATE TRIGGER harness_refuses BEFORE INSERT OR UPDATE OR DELETE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.harness_refuses()', found.name);
    END LOOP;
END $$
"""
_ACCEPT_WRITES = "DROP FUNCTION IF EXISTS public.harness_refuses() CASCADE"


# --- probes ----------------------------------------------------------------------------------------------


class _Probes:
    """Asks the two routes, and keeps the last answers."""

    def __init__(self, run: IngestRun) -> None:
        file = run.pipeline.file
        #: a pipeline with one route has to show both with it
        self.ready = file.ready or file.health
        self.health = file.health
        if not self.ready:
            raise NotApplicableError("the pipeline declares no route for probes")
        self._run = run
        self._times = FixedTimes()
        self.seen: list[Probe] = []

    def ask(self, route: str) -> Reply:
        return ask("GET", f"http://127.0.0.1:{self._run.port}{route}", deadline_s=PROBE_S)

    def is_ready(self) -> bool:
        return is_ok(self.ask(self.ready).status)

    def show(self, since: float) -> bool:
        """Return whether the answers have a time between this Unix time and now that was in earlier ones, too."""
        asked_s = time.monotonic()
        text = "\n".join(self.ask(route).text for route in {self.ready, self.health} if route)
        # a time may be cut to whole seconds
        moments = times_in(text, since - 1.0, time.time() + CLOCKS_S)
        return self._times.show(moments, asked_s, time.monotonic())

    def require_routes(self) -> None:
        """Require that the API serves the declared routes.

        :raises DescriptionError: when it answers that it does not.
        """
        for route, path in (("health", self.health), ("ready", self.ready)):
            if path and (status := self.ask(path).status) in NO_ROUTE:
                raise error_of(self._run.pipeline, Misfit(route, f"the API answers {status} to GET {path}"))

    def note(self, phase: str) -> None:
        """Record the answers of now."""
        for route, path in (("health", self.health), ("ready", self.ready)):
            if path:
                made = {"route": route, "phase": phase, "status": self.ask(path).status}
                self.seen.append(msgspec.convert(made, Probe))


def readiness(run: IngestRun) -> None:
    """PostgreSQL is stopped, and started again, under a pipeline that has just indexed a file."""
    run.use_prepared_database()
    run.start(_A)
    probes = _Probes(run)
    sent = time.time()
    require_indexed(run, run.upload())
    shown = [wait_for(run, lambda: probes.show(sent), "the time of the last indexing", FOLLOWS_S)]
    wait_for(run, probes.is_ready, "readiness", FOLLOWS_S)
    probes.require_routes()
    probes.note("up")
    with database_down(run.ctx):
        # an orchestrator treats a late answer as a missing one
        wait_for(run, lambda: not probes.is_ready(), "no readiness", _NOTICES_S)
        probes.note("down")
    wait_for(run, probes.is_ready, "readiness after the outage", _RECOVERS_S)
    probes.note("back")
    # a late answer shows nothing on a slow machine
    run.require_a_responsive_machine()
    run.service = ServiceSeen(probes=tuple(probes.seen), shows_indexing=tuple(shown))
    if not probes.is_ready():
        return
    _await_address(run)
    sent = time.time()
    require_indexed(run, run.upload())
    shown.append(wait_for(run, lambda: probes.show(sent), "the time of the next indexing", FOLLOWS_S))
    run.require_a_responsive_machine()
    run.service = replace(run.service, shows_indexing=tuple(shown))


def _await_address(run: IngestRun) -> None:
    """Wait until the API gives addresses again.

    :raises NotExercisedError: when it does not.
    """
    if not wait_for(run, lambda: not run.presign(run.plan(end="any")).error, "an address", _RECOVERS_S):
        raise NotExercisedError("the API gave no address after the failure, so its state afterwards shows nothing")


# --- failures --------------------------------------------------------------------------------------------


def failures(run: IngestRun) -> None:
    """Each dependency is broken in turn: no answer is a success whose request was not kept."""
    run.use_prepared_database()
    run.start(_A)
    require_indexed(run, run.upload())
    without_store, missing = _without_store(run)
    broken = [without_store]
    asked: list[tuple[BrokenDependency, Upload]] = []
    with _writes_refused(run) as tables:
        if tables:
            asked.append(_ask_while(run, "PostgreSQL refuses to write"))
        else:
            missing.append(f"no table belongs to {run.ctx.lab.roles.app.name}, so no write was refused")
    with database_down(run.ctx):
        asked.append(_ask_while(run, "PostgreSQL is down"))
        migrated = run.migrate(chain=False).exit_code
    # a pipeline may keep a request elsewhere, and write it later
    wanted = {upload.id for one, upload in asked if one.accepted and upload.id}
    if wanted:
        # its API writes them, also where no worker is left
        wait_for(run, lambda: wanted <= set(run.look()), "the rows of accepted requests", run.patience_s)
    run.look()
    broken += [replace(one, kept=upload.id in run.rows) for one, upload in asked]
    run.service = ServiceSeen(broken=tuple(broken), migrate_exit=migrated)
    run.ctx.fact("answers", ", ".join(f"{one.dependency}: {one.status or 'none'}" for one in broken))
    if missing:
        raise NotExercisedError("; ".join(missing))


def _without_store(run: IngestRun) -> tuple[BrokenDependency, list[str]]:
    """Upload a file that the pipeline cannot download, and return why this was not tried, too."""
    run.store.proxy.fail(Fault("down", side="internal"))
    one, upload = _ask_while(run, "the object store is down")
    if not upload.error:
        upload = run.put(upload)
        # a pipeline may look for the object before it downloads it
        run.wait(lambda: _asked_for(run, upload) > 1, "attempts at a download", run.patience_s)
    run.look()
    is_indexed = run.status(upload) is Status.INDEXED
    never = not upload.error and not is_indexed and not _asked_for(run, upload)
    run.store.proxy.heal()
    missing = ["no worker asked for the file while the object store was down"] if never else []
    return replace(one, kept=upload.id in run.rows, indexed=is_indexed), missing


def _asked_for(run: IngestRun, upload: Upload) -> int:
    """Return how often the pipeline's programs asked for an object while the store was down."""
    return sum((one.key, one.fault) == (upload.key, "down") for one in run.requests())


def _ask_while(run: IngestRun, dependency: str) -> tuple[BrokenDependency, Upload]:
    upload = run.presign(run.plan(end="any"))
    answer = run.answers[upload.number]
    return BrokenDependency(dependency=dependency, status=answer.status, accepted=answer.succeeded), upload


@contextlib.contextmanager
def _writes_refused(run: IngestRun) -> Iterator[int]:
    """Let every write to the pipeline's tables fail within the block, and return how many tables there are."""
    with run.ctx.lab.connect_admin(run.database) as admin:
        admin.run(_REFUSE_WRITES.replace("{role}", run.ctx.lab.roles.app.name))
        tables = admin.value("SELECT count(*) FROM pg_trigger WHERE tgname = 'harness_refuses'")
    try:
        yield tables
    finally:
        with run.ctx.lab.connect_admin(run.database) as admin:
            admin.run(_ACCEPT_WRITES)
