"""Verifying an operator's environment: only safe checks run, and the behaviour of its host is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.audit.target_loading import load_target
from harness.cli.main import main
from harness.database import connect, create_database
from harness.engine.owner import Owner
from harness.host import path_rows
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.model import EvidenceClass, Result, Status
from harness.redaction import Redactor
from harness.store import StoredRun, new_run_id, read_run
from tests.contract.a_host import PERSONAL, SCHEMA, Host, concurrent_writes
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.protocol import Engine
    from harness.lab.lab import Lab

pytestmark = pytest.mark.engine

FILE = """
[environments.staging]
dsn = "env:STAGING_URL"
direct = "env:STAGING_DIRECT_URL"
trail = "env:STAGING_TRAIL_URL"
base_url = "env:STAGING_BASE_URL"
application = "a host of the tests"
audited_tables = ["public.posts"]
scratch_schema = "scratch"
declared = { pool_mode = "transaction" }

[[environments.staging.callers]]
actor = { type = "user", id = "ada" }
headers = { authorization = "Bearer env:TOKEN_OF_ADA" }
[[environments.staging.callers]]
actor = { type = "user", id = "bob" }
headers = { authorization = "Bearer env:TOKEN_OF_BOB" }

[environments.staging.production]
declared_by = "ada, in docs/production.md"
[environments.staging.production.facts]
pooler = "yes"
product = "PgBouncer"
pool_mode = "transaction"

[[paths]]
name = "new-post"
title = "POST /posts"
kind = "HTTP"
deadline_s = 2
repeated = "refused"
[[paths.steps]]
path = "/posts"
headers = { x-correlation-id = "{correlation}" }
json = { slug = "{unique}" }
status = 201
answer = { slug = "{unique}" }
[paths.expect]
table = "public.posts"
operation = "insert"
where = { slug = "{unique}" }
correlation = "{correlation}"
action = "post_created"
[[paths.cleanup]]
method = "DELETE"
path = "/posts/{unique}"
status = 204
[paths.fails]
why = "the test host fails after its first write"
[[paths.fails.steps]]
path = "/posts"
json = { slug = "{unique}", then = "fail" }
status = 422

[[paths]]
name = "retitle"
title = "the job that changes a title"
kind = "job"
deadline_s = 3
[[paths.steps]]
path = "/posts"
json = { slug = "{unique}-post" }
status = 201
keep = { post_id = "id" }
[paths.job]
worker = "Retitle"
args = { post_id = "{post_id}", title = "{unique}", correlation_id = "{correlation}", actor_ref = { id = "{actor.id}" } }
[paths.expect]
table = "public.posts"
operation = "update"
where = { title = "{unique}" }
correlation = "{correlation}"
job_id = "{job_id}"

[[paths]]
name = "remove-post"
title = "DELETE /posts/{slug}"
kind = "HTTP"
deadline_s = 2
repeated = "once"
[[paths.steps]]
path = "/posts"
json = { slug = "{unique}" }
status = 201
keep = { post_id = "id" }
[[paths.steps]]
method = "DELETE"
path = "/posts/{unique}"
status = 204
[paths.expect]
table = "public.posts"
operation = "delete"
key = { id = "{post_id}" }

[[paths]]
name = "nightly"
title = "the nightly import"
kind = "job"
not_applicable = "no nightly import in this deployment"
"""

_WATCHED_S = path_rows._LATE_S[EvidenceClass.HOST]


@pytest.fixture(scope="module")
def staging(some_engine: Engine) -> Iterator[tuple[Lab, Host]]:
    """Start a staging system: a transaction pool, the reference audit layer, and a host."""
    lab = stand_up(some_engine, load_topologies()["transaction"], Owner.me(new_run_id()), Redactor())
    try:
        with lab.connect_admin() as admin:
            create_database(admin, "staging", owner=lab.roles.owner.name)
        with connect(lab.owner("staging")) as owner:
            target = load_target("reference").of_roles("harness_app", owner.info.user)
            target.install_in(owner)
            owner.run(SCHEMA)
            owner.run("CREATE SCHEMA scratch")
            target.attach(owner, "public.posts")
            target.grant(owner)
            owner.run("INSERT INTO public.posts (slug) VALUES ('taken')")
        host = Host(lab.chain("staging"))
        host.start()
        try:
            yield lab, host
        finally:
            host.close()
    finally:
        lab.close()


@pytest.fixture
def verify(
    staging: tuple[Lab, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, StoredRun]]:
    """Return a function that verifies the staging system; its host has one fault, or none."""
    lab, host = staging
    given = {
        "STAGING_URL": lab.chain("staging"),
        "STAGING_DIRECT_URL": lab.owner("staging"),
        "STAGING_TRAIL_URL": lab.admin("staging"),
    }
    for name, at in given.items():
        monkeypatch.setenv(name, f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}/{at.dbname}")
    monkeypatch.setenv("TOKEN_OF_ADA", "token-of-ada-1234")
    monkeypatch.setenv("TOKEN_OF_BOB", "token-of-bob-1234")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness.toml").write_text(FILE)

    def run(*arguments: str, fault: str = "", base_url: str = "") -> tuple[int, StoredRun]:
        monkeypatch.setenv("STAGING_BASE_URL", base_url or host.base_url)
        host.fault = fault
        # only a host that writes later needs to be watched for as long as in an environment
        watched_s = _WATCHED_S if fault == "once more, later" else path_rows._LATE_S[EvidenceClass.CI]
        monkeypatch.setitem(path_rows._LATE_S, EvidenceClass.HOST, watched_s)
        try:
            code = main(["verify", "--environment", "staging", *arguments])
        finally:
            host.fault = ""
        return code, read_run(tmp_path / "reports" / "runs" / "latest")

    return run


def row(run: StoredRun, check: str) -> Result:
    return next(result for result in run.answers() if result.check == check)


@pytest.mark.long
def test_safe_checks_verify_a_sound_environment(
    verify: Callable[..., tuple[int, StoredRun]], staging: tuple[Lab, Host], tmp_path: Path
) -> None:
    with concurrent_writes(staging[1]):
        code, run = verify("--strict")  # rows that are not safe in an environment are not owed
    statuses = {result.check: (result.status, result.reason) for result in run.answers()}
    assert code == 0, {check: reason for check, (status, reason) in statuses.items() if status is Status.ISSUE}
    assert run.record.evidence_class is EvidenceClass.HOST
    exercised = {name for name, (status, _) in statuses.items() if status is Status.OK}
    assert exercised == {
        "pooling.recognised",
        "environment.no-actor-left",
        "environment.trail-closed",
        "environment.tables-captured",
        "environment.canary-attributed",
        "environment.canary-rolled-back",
        "path.new-post",
        "path.new-post-two-callers",
        "path.new-post-repeated",
        "path.new-post-failure",
        "path.retitle",
        "path.retitle-two-callers",
        "path.retitle-repeated",
        "path.remove-post",
        "path.remove-post-two-callers",
        "path.remove-post-repeated",
    }
    assert statuses["path.nightly"] == (Status.NA, "no nightly import in this deployment")
    assert statuses["capture.insert"][0] is Status.NOT_RUN
    assert "not safe" in statuses["capture.insert"][1]
    assert statuses["path.new-post-no-trigger"][0] is Status.NOT_RUN
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    staged = next(entry for entry in report["topologies"] if entry["environment"] == "staging")
    assert (staged["evidence_class"], staged["pool_mode"]) == ("CI", "transaction")
    assert staged["matches_prod"] == "partial"
    assert "the harness started staging itself" in staged["rationale"]  # a lab is not a staging system
    # checks that are not safe there owe no answer, so they are not printed as Not run
    counted = report["counts"]["staging"]
    assert counted["out_of_scope"] == sum(not row.owed for row in run.record.plan) > 0
    assert counted["not_run"] == sum(
        row.owed and answer.status is Status.NOT_RUN for row, answer in zip(run.record.plan, run.answers(), strict=True)
    )
    unsafe = report["rows"]["staging"]["capture.insert"]
    assert (unsafe["status"], "not safe" in unsafe["out_of_scope"]) == ("Not run", True)
    matrix = (tmp_path / "reports" / "matrix.md").read_text().partition("## Breaks")[0]
    assert "| capture.insert | P0 |" in matrix
    assert "Not run" not in next(line for line in matrix.splitlines() if line.startswith("| capture.insert |"))
    assert not [row for row in report["paths"] if "audit trigger missing: Not run" in row["notes"]]
    lab, _ = staging
    with connect(lab.admin("staging")) as admin:
        assert admin.value("SELECT count(*) FROM oban_jobs") == 0
        # the cleanup of the path removed its posts; the job path declares no cleanup
        assert admin.value("SELECT count(*) FROM posts WHERE slug ~ '^h[0-9a-f]{16}$'") == 0
        assert admin.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'scratch'::regnamespace") == 0


#: by fault of the host: the check that finds it, the status of its row, and what its reason says
FAULTS = {
    "error": [("path.new-post", Status.ISSUE, "observed 500")],
    "redirect": [("path.new-post", Status.NOT_RUN, "redirect")],
    "stream": [("path.new-post", Status.ISSUE, "no complete response within 2 s")],
    "big": [("path.new-post", Status.ISSUE, "larger than 1 MiB")],
    "another tenant": [("path.new-post", Status.ISSUE, "an unexpected slug")],
    "another actor": [
        ("path.new-post", Status.ISSUE, "another value"),
        ("path.new-post-two-callers", Status.ISSUE, "name another caller"),
    ],
    "half of it": [("path.new-post-failure", Status.ISSUE, "rows in the trail: expected 0, observed 1")],
    "busy": [("path.new-post-repeated", Status.NOT_RUN, "the host answered 429")],
    "once more, later": [("path.new-post", Status.ISSUE, "rows in the trail: expected 1, observed 2")],
    "twice": [("path.new-post", Status.ISSUE, "changes of public.posts in that transaction")],
    "never": [("path.retitle", Status.ISSUE, "available after 0 of 20 attempts")],
    "discards": [("path.retitle", Status.ISSUE, "discarded")],
    "runs twice": [("path.retitle", Status.ISSUE, "rows in the trail: expected 1, observed 2")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_host_is_reported_and_never_ok(
    verify: Callable[..., tuple[int, StoredRun]], staging: tuple[Lab, Host], fault: str
) -> None:
    code, run = verify(*(f"--check={check}" for check, _, _ in FAULTS[fault]), fault=fault)
    for check, status, reason in FAULTS[fault]:
        found = row(run, check)
        assert (found.status, reason in found.reason) == (status, True), found
        assert code == (1 if status is Status.ISSUE else 3)
    evidence = "".join(path.read_text() for path in run.folder.rglob("*") if path.is_file())
    for secret in (PERSONAL, "token-of-ada", staging[1].base_url, "somebody-else"):
        assert secret not in evidence
    with connect(staging[0].admin("staging")) as admin:
        assert admin.value("SELECT count(*) FROM oban_jobs WHERE state IN ('available', 'retryable')") == 0


def test_an_actor_that_a_path_leaves_on_a_server_connection_is_found_in_the_same_run(
    verify: Callable[..., tuple[int, StoredRun]], staging: tuple[Lab, Host]
) -> None:
    try:
        code, run = verify("--check", "environment.no-actor-left", "--check", "path.new-post", fault="for the session")
    finally:
        with connect(staging[0].admin("staging")) as admin:  # the pool then opens connections without an actor
            admin.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'harness_app' AND state = 'idle'"
            )
    assert (code, row(run, "path.new-post").status) == (1, Status.OK)
    assert row(run, "environment.no-actor-left").status is Status.ISSUE


def test_rows_that_are_written_after_the_response_are_a_limit(verify: Callable[..., tuple[int, StoredRun]]) -> None:
    _, run = verify("--check", "path.new-post", fault="answers first")
    found = row(run, "path.new-post")
    assert found.status is Status.OK
    assert found.limit is not None
    assert "not in the trail when it answered" in found.limit.outcome
    assert found.facts["written with its trail"] == "by the same transaction"


def test_a_path_is_not_run_when_no_role_can_count_its_rows(
    verify: Callable[..., tuple[int, StoredRun]], staging: tuple[Lab, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = staging[0].admin("staging")
    monkeypatch.setenv("STAGING_TRAIL_URL", f"postgresql://auditor:of-an-auditor@{at.host}:{at.port}/{at.dbname}")
    with connect(staging[0].admin("staging")) as admin:
        admin.run(
            "ALTER TABLE posts ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY mine ON posts USING (current_setting('threadline.actor_ref', true) <> '');"
            "CREATE ROLE auditor LOGIN PASSWORD 'of-an-auditor';"
            "SELECT threadline_grant('auditor', reading => true)"
        )
        try:
            _, run = verify("--check", "path.new-post", "--check", "path.new-post-failure")
        finally:
            admin.run("DROP POLICY mine ON posts; ALTER TABLE posts DISABLE ROW LEVEL SECURITY")
            admin.run("DROP OWNED BY auditor; DROP ROLE auditor")
    for check in ("path.new-post", "path.new-post-failure"):
        assert row(run, check).status is Status.NOT_RUN
        assert "row security hides rows of public.posts" in row(run, check).reason


def test_a_path_is_not_run_when_the_host_is_down(verify: Callable[..., tuple[int, StoredRun]]) -> None:
    code, run = verify("--check", "path.new-post", base_url="http://127.0.0.1:9")
    assert row(run, "path.new-post").status is Status.NOT_RUN
    assert "connection refused" in row(run, "path.new-post").reason
    assert code == 3
    # no request arrived, so nothing can be left, and no note says so
    assert list((places.cache() / "environments").glob(f"{run.record.run_id}-*")) == []


def test_a_path_is_not_run_when_the_host_rejects_the_caller(
    verify: Callable[..., tuple[int, StoredRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_ADA", "another-token-1234")
    code, run = verify("--check", "path.new-post")
    assert "it rejects the caller" in row(run, "path.new-post").reason
    assert code == 3


#: the statements of the reference layer, which name roles, as those of a trail of one's own
_OWN = (
    ('tables = ["public.audit_transactions"', 'claims = ["coverage"]\ntables = ["public.audit_transactions"'),
    ("FROM public.threadline_coverage()", "FROM public.threadline_coverage() WHERE {owner_literal} <> {role_literal}"),
    ("t ON t.id = c.transaction_id\nORDER", "t ON t.id = c.transaction_id\nWHERE {role_literal}::regrole IS NOT NULL\nORDER"),
)  # fmt: skip


def test_statements_of_a_target_name_the_roles_of_the_environment(
    verify: Callable[..., tuple[int, StoredRun]], tmp_path: Path
) -> None:
    text = Path(load_target("reference").where).read_text()
    for old, new in _OWN:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "mine.toml").write_text(text)
    checks = ("environment.tables-captured", "environment.canary-attributed")
    code, run = verify("--audit-target", "mine.toml", *(f"--check={check}" for check in checks))
    assert {check: (row(run, check).status, row(run, check).reason) for check in checks} == dict.fromkeys(
        checks, (Status.OK, "")
    )
    assert code == 0


def test_an_unreachable_environment_is_not_run(
    verify: Callable[..., tuple[int, StoredRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGING_URL", "postgresql://somebody:a-secret-password@127.0.0.1:9/none")
    code, run = verify()
    assert code == 3
    assert not run.record.environments["staging"].reached
    assert {result.status for result in run.answers()} == {Status.NOT_RUN}


def test_the_same_database_under_another_name_is_not_production(
    verify: Callable[..., tuple[int, StoredRun]], tmp_path: Path
) -> None:
    before, _, after = FILE.partition("[environments.staging.production]")
    file = f"{before}[[paths]]{after.partition('[[paths]]')[2]}"
    prod = '[environments.prod]\ndsn = "env:STAGING_DIRECT_URL"\nprepare = "unnamed"\n'
    (tmp_path / "harness.toml").write_text(
        prod + file.replace("[environments.staging]", '[environments.staging]\ncompare_with = "prod"', 1)
    )
    verify("--check", "environment.tables-captured")
    main(["verify", "--environment", "prod", "--check", "environment.no-actor-left"])
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    staged = next(entry for entry in report["topologies"] if entry["environment"] == "staging")
    assert staged["matches_prod"] == "partial"
    assert staged["rationale"].startswith("staging and prod are the same database on the same server")


def test_privileges_of_a_role_that_can_be_assumed_count(
    verify: Callable[..., tuple[int, StoredRun]], staging: tuple[Lab, Host]
) -> None:
    lab, _ = staging
    with connect(lab.admin("staging")) as admin:
        admin.run("CREATE ROLE gardener")
        admin.run("GRANT DELETE ON audit_changes TO gardener")
        admin.run("ALTER ROLE harness_app NOINHERIT")
        admin.run("GRANT gardener TO harness_app")
        try:
            code, run = verify("--check", "environment.trail-closed")
        finally:
            admin.run("REVOKE gardener FROM harness_app")
            admin.run("ALTER ROLE harness_app INHERIT")
            admin.run("DROP OWNED BY gardener")
            admin.run("DROP ROLE gardener")
    found = row(run, "environment.trail-closed")
    assert (code, found.status) == (1, Status.ISSUE)
    assert "DELETE on public.audit_changes as role gardener" in found.reason


def test_a_small_session_pool_is_not_exhausted(any_engine: Engine, tmp_path: Path) -> None:
    shipped = (places.TOPOLOGIES / "session.toml").read_text()
    (tmp_path / "small.toml").write_text(shipped.replace("default_pool_size = 8", "default_pool_size = 2"))
    done = harness_here(
        tmp_path,
        *("verify", "small", "--check", "environment.no-actor-left", "--engine", any_engine.name),
        *("--topologies-folder", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    found = row(read_run(tmp_path / "reports" / "runs" / "latest"), "environment.no-actor-left")
    assert found.status is Status.OK
