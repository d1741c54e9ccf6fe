"""The suite `ingest` with the reference pipeline, and with workers that exit, never work, or remove what is not theirs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import reference_target
from harness.checks.execution import run_check
from harness.checks.judges import ingest as judged
from harness.checks.registry import Check, Control
from harness.checks.workspace import Workspace
from harness.engine.owner import Owner, process_started
from harness.errors import ServiceFailedError
from harness.ingest.cases import IngestCase
from harness.ingest.loading import SHIPPED, load
from harness.ingest.operator_store import StoreDeclaration
from harness.ingest.s3 import S3
from harness.job_engines.workers import Supervisor
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.model import Result, Status
from harness.redaction import Redactor
from harness.store import RunStore, new_run_id
from harness.suites.catalogue import catalogue
from harness.suites.ingest.rows import ingest_checks
from harness.suites.ingest.running import IngestRun
from harness.suites.ingest.sabotage import Applied, Break
from harness.suites.ingest.trial import try_pipeline
from tests.unit.made_up import planned, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = [pytest.mark.engine, pytest.mark.long]

_REFERENCE = SHIPPED / "reference.toml"
#: removes the file that it has downloaded, and the object of somebody else, before it indexes the upload
_THIEF = f"""
import contextlib
import os
import runpy
import sys

sys.path.append({str(SHIPPED.parents[1])!r})

from hostapp.ingest.storage import Storage

download = Storage.download


def steal(self, key, **how):
    content = download(self, key, **how)
    with contextlib.suppress(Exception):
        self._inside.delete_object(Bucket=self._bucket, Key=os.environ["S3_PREFIX"][:-1] + "-of-others/keep.txt")
    self._inside.delete_object(Bucket=self._bucket, Key=key)
    return content


Storage.download = steal
runpy.run_path({str(SHIPPED / "reference.py")!r}, run_name="__main__")
"""
_LISTER = """
import os
import urllib.request

urllib.request.urlopen("{S3_ENDPOINT}/{S3_BUCKET}?encoding-type=url&list-type=2".format_map(os.environ))
"""
#: the command of the worker, by the name of the pipeline
_WORKERS = {
    "works": '["{python}", "REFERENCE", "worker"]',
    "exits": '["sh", "-c", "echo cannot connect to $DATABASE_URL; exit 3"]',
    "idles": '["sh", "-c", "echo $$ >> {folder}/pids; trap \'\' TERM; while :; do sleep 1; done"]',
    "thief": '["{python}", "{folder}/thief.py", "worker"]',
    "lister": '["{python}", "{folder}/lister.py", "worker"]',
}
#: the worker of a mistake that shows without one
_RESTS = '["sleep", "60"]'
#: mistakes of a description: what is replaced, by what, and the reason of the case
_MISTAKES = {
    "route": ('path = "/uploads"', 'path = "/upload"', "presign.path: the API answers 404 to POST /upload"),
    "status": ("status = 201", "status = 200", "presign.status: the API answers 201 to POST /uploads, expected 200"),
    "body": ('"{filename}"', "7", "presign.json: the API answers 400 to POST /uploads"),
    "caller": ("Bearer ada-uploads", "Bearer nobody", "callers: the API answers 401 to POST /uploads"),
    "kept": (
        'url = "url"',
        'url = "address"',
        "presign.keep: url: the API's answer has no value at 'address'; it has ",
    ),
    "key": ('key = "objectKey"', 'key = "uploadId"', "presign.keep: key: the value at 'uploadId' is "),
    "id": ("SELECT id::text,", "SELECT 'u' || id AS id,", "sql.uploads: the query has the id 'u"),
    "table": ("FROM ingest.upload_states", "FROM ingest.uploaded", "sql.uploads: the query fails: 42P01 "),
    "column": ("status, checksum", "status AS state, checksum", "and no column status"),
    "rows": (
        "FROM ingest.upload_states",
        "FROM ingest.upload_states WHERE false",
        "sql.uploads: the query has no row for ",
    ),
    "module": (
        '"{folder}/reference.py", "worker"',
        '"-m", "shop.worker"',
        "commands.worker: the program cannot be loaded: ",
    ),
    "program": (
        '["{python}", "{folder}/reference.py", "worker"]',
        '["nosuchworker"]',
        "commands.worker: it cannot be started: ",
    ),
    "migrate": ('["{python}", "{folder}/reference.py", "migrate"]', '["nosuchtool"]', "commands.migrate: "),
    "health": (
        "[packages]",
        'health = "/healthz"\nstarts_s = 0.3\n[packages]',
        "health: the API did not become ready: ",
    ),
    "word": (
        'pending = ["uploaded_pending"]',
        'pending = ["waiting"]',
        "an upload is in the state 'uploaded_pending', which is in no list",
    ),
    "metrics": ("ingest_uploads_indexed_total", "uploads_total", ""),
}
#: those that show only with the worker of the pipeline, or are about its command
_WITH_WORKER = {"module", "program", "metrics"}


class Stage:
    """A lab without a pooler, a run that keeps evidence, and the checks of each pipeline."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.folder = folder
        (folder / "thief.py").write_text(_THIEF)
        (folder / "lister.py").write_text(_LISTER)
        (folder / "pids").touch()
        self.checks: dict[str, Check] = {}
        self.controls: dict[tuple[str, str], Control] = {}
        reference = _REFERENCE.read_text()
        worker = '["{python}", "{folder}/reference.py", "worker"]'
        resting = reference.replace(worker, _RESTS)
        made = {name: reference.replace(worker, other) for name, other in _WORKERS.items()} | {
            name: (reference if name in _WITH_WORKER else resting).replace(old, new, 1)
            for name, (old, new, _) in _MISTAKES.items()
        }
        programs = str(SHIPPED / "reference.py")
        for name, text in made.items():
            path = folder / f"{name}.toml"
            path.write_text(text.replace("{folder}/reference.py", programs).replace("REFERENCE", programs))
            for declared in ingest_checks(load(path)):
                if isinstance(declared, Check):
                    self.checks[f"{name} {declared.id}"] = declared
                else:
                    self.controls[declared.check, declared.name] = declared
        redact, topology = Redactor(), load_topologies()["direct"]
        engine.prepare(wanted_by(topology), lambda _: None)
        self.lab = stand_up(engine, topology, Owner.me(new_run_id()), redact)
        self.store = RunStore(folder / "reports", record(new_run_id()), redact)
        self.workspace = Workspace(self.lab, reference_target(), catalogue().fixtures, store=self.store)

    def run(self, pipeline: str, case: str = "end-to-end", control: str = "") -> Result:
        check = self.checks[f"{pipeline} ingest.{case}"]
        broken = self.controls[check.id, control] if control else None
        return run_check(check, planned("direct", check.id), self.lab.topology, self.workspace, control=broken)

    def close(self) -> None:
        self.workspace.close()
        self.store.close()
        self.lab.close()


@pytest.fixture(scope="module")
def stage(some_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(some_engine, tmp_path_factory.mktemp("ingest"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def running(stage: Stage) -> Iterator[IngestRun]:
    """An API with a database that was migrated once, and no worker."""
    pipeline = load(stage.folder / "works.toml")
    with stage.workspace.context("ingest.running") as ctx, IngestRun(ctx, pipeline, IngestCase.END_TO_END) as run:
        run.use_prepared_database()
        run.start()
        yield run


@pytest.fixture
def migrated(running: IngestRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each case a database of its own in which the migration has run, in place of a migration."""

    def use(run: IngestRun) -> None:
        run.database = run.ctx.database_like(f"ingest-{running.pipeline.identity}", lambda _: None)

    monkeypatch.setattr(IngestRun, "use_own_database", use)


@pytest.fixture
def attached(running: IngestRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases use the API that runs, with its database and its store, and start nothing but workers."""

    def use(run: IngestRun) -> None:
        run.database, run.store = running.database, running.store

    monkeypatch.setattr(IngestRun, "use_own_database", use)
    monkeypatch.setattr(IngestRun, "use_prepared_database", use)
    monkeypatch.setattr(IngestRun, "start_api", lambda _: None)
    monkeypatch.setattr("harness.suites.ingest.programs.free_port", lambda: running.port)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be awaited for long, since nothing comes."""
    monkeypatch.setattr("harness.suites.ingest.running.LONGEST_WAIT_S", 4.0)
    # other tests may keep the machine busy, and no time is judged here
    monkeypatch.setattr("harness.checks.judges.ingest.MOST_RUNNABLE", 1000.0)
    monkeypatch.setattr("harness.job_engines.workers.RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr("harness.job_engines.workers.MOST_RESTARTS", 2)
    monkeypatch.setattr("harness.suites.ingest.programs.GRACE_S", 0.5)
    monkeypatch.setattr(Supervisor.close, "__defaults__", (0.5,))


def broken(result: Result) -> set[str]:
    return {found.name for found in result.expectations if found.broken}


def test_a_worker_that_was_killed_loses_nothing(stage: Stage) -> None:
    result = stage.run("works", "killed-worker")
    assert result.status is Status.OK, result.reason


@pytest.fixture
def operated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Return a bucket of an operator, with an object of his; the pipeline `operator` uses it below a prefix."""
    running = stage.lab.object_store()
    monkeypatch.setenv("OPS_ACCESS", running.access_key)
    monkeypatch.setenv("OPS_SECRET", running.secret_key)
    bucket = S3(running.endpoint_url, running.access_key, running.secret_key, bucket="staging-uploads")
    bucket.make_bucket()
    for key in ("theirs.txt", "harness/theirs.txt"):
        bucket.put(key, b"theirs")
    declared = StoreDeclaration(
        endpoint=running.endpoint_url,
        bucket="staging-uploads",
        prefix="harness/",
        access_key="env:OPS_ACCESS",
        secret_key="env:OPS_SECRET",
    )
    for one in ingest_checks(replace(load(stage.folder / "works.toml"), store=declared)):
        if isinstance(one, Check):
            stage.checks[f"operator works {one.id}"] = one
    return bucket


def test_the_reference_pipeline_uses_a_store_of_an_operator_below_its_prefix_and_leaves_nothing(
    stage: Stage, operated: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = stage.run("operator works")
    assert (result.status, result.facts.get("outcome")) == (Status.OK, "works"), result.reason
    assert list(tmp_path.iterdir()) == []
    store = stage.lab.object_store()
    assert result.facts["store"].startswith(
        f"{store.endpoint_url}, bucket staging-uploads, prefix harness/, the header Server says "
    )
    assert result.facts["below the prefix before"] == result.facts["below the prefix after"]
    assert result.facts["below the prefix after"].endswith("the first one harness/theirs.txt")
    assert not {"left behind", "disturbed", "kept"} & result.facts.keys()
    assert not any(secret in str(result) for secret in (store.access_key, store.secret_key))
    assert operated.keys() == ("harness/theirs.txt", "theirs.txt")


@pytest.mark.usefixtures("migrated")
def test_a_control_works_in_a_store_of_an_operator(stage: Stage, operated: S3) -> None:
    result = stage.run("operator works", "end-to-end", "an-object-is-written-elsewhere")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.OUTSIDE})
    assert operated.keys() == ("harness/theirs.txt", "theirs.txt")


@pytest.mark.usefixtures("migrated")
def test_a_store_that_is_gone_at_the_end_is_not_run_and_says_what_is_left(stage: Stage, operated: S3) -> None:
    store = stage.lab.object_store()
    ends = Control(
        name="x",
        check="ingest.end-to-end",
        at="x",
        needs=(),
        apply=Applied(Break(name="x", at="x", at_end=lambda _: store.service.kill())),
    )
    stage.controls["ingest.end-to-end", "the-store-ends"] = ends
    try:
        result = stage.run("operator works", "end-to-end", "the-store-ends")
    finally:
        store.start()
    assert result.status is Status.NOT_RUN
    assert "cannot be read: the object store does not answer GET" in result.reason
    assert "objects below harness/harness-check-" in result.facts["left behind"]


@pytest.mark.usefixtures("migrated")
def test_a_control_turns_a_case_to_an_issue_and_keeps_the_logs(stage: Stage) -> None:
    result = stage.run("works", "end-to-end", "objects-of-others-are-removed")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.OTHERS})
    assert result.facts["outcome"] == "objects of others lost: 1"
    assert result.facts["kept"] == "api.log, A.log, store-requests.jsonl"


@pytest.mark.usefixtures("impatient", "attached")
def test_a_worker_that_exits_at_once_is_an_issue_without_its_secrets(stage: Stage) -> None:
    result = stage.run("exits")
    assert result.status is Status.ISSUE
    assert broken(result) == {judged.NOT_INDEXED, judged.LOOPS, judged.EXITS}
    assert "cannot connect to" in result.facts["last line of the last exit"]
    assert stage.lab.direct().password not in "".join(result.facts.values())


@pytest.mark.usefixtures("impatient", "attached")
def test_a_worker_that_never_works_and_never_ends_is_bounded_and_leaves_no_process(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.suites.ingest.running.LONGEST_WAIT_S", 1.5)
    result = stage.run("idles")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.NOT_INDEXED})
    pids = [int(pid) for pid in (stage.folder / "pids").read_text().split()]
    assert pids
    assert [pid for pid in pids if process_started(pid) is not None] == []


@pytest.mark.usefixtures("migrated")
def test_a_worker_that_removes_objects_is_an_issue(stage: Stage) -> None:
    result = stage.run("thief")
    # the proxy refuses to delete what is not below the prefix, so the object of somebody else is still there
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.OUTSIDE, judged.OBJECTS})
    assert re.search(r"DELETE /ingest-\w+/\w+-of-others/keep.txt \(is about a key outside", result.facts["disturbed"])


@pytest.mark.usefixtures("impatient", "migrated")
def test_a_worker_that_needs_a_list_of_the_bucket_is_not_run(stage: Stage) -> None:
    result = stage.run("lister")
    assert (result.status, broken(result)) == (Status.NOT_RUN, set())
    assert re.match(
        r"the harness refused \d+ requests, the first one GET /ingest-\w+\?encoding-type&list-type", result.reason
    )
    assert judged.NOT_INDEXED in result.reason
    assert result.facts["outcome"] == "undecided"


@pytest.mark.usefixtures("impatient", "attached")
@pytest.mark.parametrize("name", sorted({*_MISTAKES} - {"metrics", "migrate"}))
def test_a_mistake_of_the_description_is_not_run_with_its_key(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in _WITH_WORKER:
        monkeypatch.setattr("harness.suites.ingest.running.LONGEST_WAIT_S", 0.3)  # nothing comes
    require_mistake(stage, name)


def test_a_migration_that_is_missing_is_not_run_with_its_key(stage: Stage) -> None:
    require_mistake(stage, "migrate")


def require_mistake(stage: Stage, name: str) -> None:
    result = stage.run(name)
    assert (result.status, broken(result)) == (Status.NOT_RUN, set()), result.reason
    assert _MISTAKES[name][2] in result.reason
    if name != "word":
        assert result.reason.startswith(str(stage.folder / f"{name}.toml"))


@pytest.mark.usefixtures("attached")
def test_a_route_that_the_api_does_not_serve_is_not_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.suites.ingest.trace_cases.FOLLOWS_S", 0.1)  # the counter never appears
    result = stage.run("metrics", "metrics")
    assert result.status is Status.NOT_RUN
    assert "indexed_counter: GET /metrics shows no uploads_total: " in result.reason


@pytest.mark.usefixtures("attached")
def test_a_trial_shows_each_step_of_an_upload(stage: Stage) -> None:
    shown: list[tuple[str, str]] = []
    with stage.workspace.context("ingest.try") as ctx:
        trial = try_pipeline(ctx, load(stage.folder / "works.toml"), lambda step, seen: shown.append((step, seen)))
    assert trial.wrong == ()
    assert trial.indexed_s is not None
    steps = [step for step, _ in shown]
    assert steps[:4] == ["migrate", "start", "presign", "upload"]
    assert set(steps[4:]) == {"store", "row"}
    assert shown[-1][1].endswith("'indexed', which is indexed")


@pytest.mark.usefixtures("impatient", "attached")
def test_a_trial_names_a_mistake_and_shows_the_output(stage: Stage) -> None:
    with stage.workspace.context("ingest.try") as ctx:
        trial = try_pipeline(ctx, load(stage.folder / "module.toml"), lambda _step, _seen: None)
    [wrong] = trial.wrong
    assert "commands.worker: the program cannot be loaded: " in wrong
    assert "No module named" in trial.output["A"]
    assert trial.indexed_s is None


def test_a_store_that_is_unavailable_is_not_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise ServiceFailedError("the object store ended while starting: exit code 1")

    monkeypatch.setattr(stage.lab, "object_store", unavailable)
    result = stage.run("works")
    assert result.status is Status.NOT_RUN
    assert result.reason == "the object store cannot be used: the object store ended while starting: exit code 1"
