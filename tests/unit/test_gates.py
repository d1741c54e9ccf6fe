"""`gates`: a repository that keeps every gate, and one that violates each of them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from datetime import date
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli.main import main
from harness.errors import ConfigError
from harness.gates import copies, smoke
from harness.gates.copies import Copies
from harness.gates.declaration import GatesDeclaration, Seed, SeededCheck, Steps, load_declaration
from harness.gates.documents import owns
from harness.gates.gates import GATES, judge_gates
from harness.gates.quarantine import quarantine_row
from harness.gates.secret_shapes import secrets_in
from harness.gates.seeding import seeded_rows
from harness.gates.smoke import smoke_row
from harness.gates.tree import Tree
from harness.gates.workflow_rows import read_workflows
from harness.gates.yaml_nodes import Node, read_yaml
from harness.model import Status
from tests.tables import each_row
from tests.unit.repositories import CI, GOOD, commit, in_git, repository, write

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates.rows import GateRow

TODAY = date(2026, 11, 1)
OK, ISSUE, NA, NOT_RUN = Status.OK, Status.ISSUE, Status.NA, Status.NOT_RUN
#: random, and of no service
TOKEN = "ghp_" + "q7Zr2LxW9tBv4KsN8mYc3HdJ6gPf1AoE5iUu"
PASSWORD = "Vq9zL2xR7tBw4KsN8m"


def rows_of(root: Path, *, runs: bool = False) -> dict[str, GateRow]:
    declared = load_declaration(root, None)
    rows = judge_gates(root, declared, TODAY, runs=runs, say=lambda _: None, stopped=lambda: False)
    return {row.gate: row for row in rows}


def test_a_repository_that_keeps_all_gates_is_ok(tmp_path: Path) -> None:
    rows = rows_of(repository(tmp_path / "r"), runs=True)
    assert {gate: row.status for gate, row in rows.items()} == dict.fromkeys(rows, OK), rows
    assert {gate.partition(".")[0] if gate.startswith("seeded") else gate for gate in rows} == {g.name for g in GATES}


def test_nothing_of_the_repository_runs_by_default(tmp_path: Path) -> None:
    rows = rows_of(repository(tmp_path / "r"))
    assert {gate for gate, row in rows.items() if row.status is NOT_RUN} == {
        "smoke.fails",
        "seeded.lint",
        "runbooks.commands",
    }
    assert {row.status for row in rows.values()} == {OK, NOT_RUN}


VIOLATIONS: list[tuple[str, dict[str, str | None], str]] = [
    ("workflow.present", {CI: None}, "no workflow runs for pull requests"),
    ("workflow.present", {CI: "on: pull_request\njobs: [\n"}, "invalid YAML in line"),
    ("workflow.present", {CI: GOOD[CI].replace("pull_request:", "push:")}, "no workflow runs for pull requests"),
    ("workflow.lint", {CI: GOOD[CI].replace("ruff check .", "echo lint")}, "no pull-request workflow runs a linter"),
    ("workflow.types", {CI: GOOD[CI].replace("run: mypy", "run: mypy || true")}, "`|| true` hides its failure"),
    ("workflow.unit", {CI: GOOD[CI].replace("pytest tests", "pytest --co -q | tee log")}, "the pipe hides its failure"),
    ("workflow.smoke", {"scripts/smoke.sh": None, CI: GOOD[CI].replace("run: ./scripts/smoke.sh", "run: ls")}, "a smoke test"),
    ("workflow.failures", {CI: GOOD[CI].replace("run: mypy", "run: mypy\n        continue-on-error: true")}, "continue-on-error"),
    ("smoke.fails", {"scripts/smoke.sh": "#!/bin/sh\ncurl -f localhost\ntest -f src/app.py\n"}, "exits with 0 although what it runs (curl) fails"),
    ("seeded.lint", {"harness.toml": GOOD["harness.toml"].replace("! grep -rn eval src", "true")}, "passes with the mistake"),
    ("seeded.lint", {"src/other.py": "eval(2)"}, "fails without its seed"),
    ("template.fields", {".github/pull_request_template.md": None}, "no template"),
    ("template.fields", {".github/pull_request_template.md": "## Plan\n\n<!--\n## Tests\n-->\n"}, "without Tests, Acceptance Criteria"),
    ("codeowners.patterns", {".github/CODEOWNERS": None}, "no CODEOWNERS"),
    ("codeowners.patterns", {".github/CODEOWNERS": "* @org/team\n/gone/ @ada\n"}, "/gone/ matches no file"),
    ("codeowners.patterns", {".github/CODEOWNERS": "* ada\n"}, "invalid owner ada"),
    ("runbooks.links", {"docs/runbooks/restart.md": None}, "no runbook"),
    ("runbooks.links", {"docs/runbooks/restart.md": "see [it](../gone.md)\n"}, "../gone.md not found"),
    ("runbooks.commands", {"docs/runbooks/restart.md": "```sh run\necho begins\nfalse\necho ends\n```\n"}, "exit code 1: begins"),
    ("secrets.tree", {"src/app.py": f"TOKEN = '{TOKEN}'\n"}, "a GitHub token"),
    ("quarantine.entries", {"quarantine.toml": '[[quarantine]]\nid = "a"\n'}, "without issue link, date, owner, expiry"),
    ("quarantine.entries", {"quarantine.toml": GOOD["quarantine.toml"].replace("2099", "2026")}, "expired on 2026-01-05"),
    ("quarantine.entries", {"tests/test_app.py": "@pytest.mark.flaky(reruns=3)\ndef test_it(): ...\n"}, "without a link"),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "changes", "reason"), VIOLATIONS, ids=[f"{v[0]}-{v[2][:30]}" for v in VIOLATIONS])
def test_each_gate_turns_to_issue(tmp_path: Path, gate: str, changes: dict[str, str | None], reason: str) -> None:
    rows = rows_of(repository(tmp_path / "r", changes), runs=gate.startswith(("smoke", "seeded", "runbooks")))
    assert rows[gate].status is ISSUE, rows[gate]
    assert reason in " ".join([rows[gate].reason, *map(str, rows[gate].places)])
    assert rows[gate].fix


def test_a_place_names_file_and_line(tmp_path: Path) -> None:
    root = repository(
        tmp_path / "r", {CI: GOOD[CI].replace("run: mypy", "run: |\n          mypy\n          pytest || :")}
    )
    [place] = rows_of(root)["workflow.failures"].places
    assert (place.path, place.line) == (CI, 12)


# --- secrets ---------------------------------------------------------------------------------------------------


def test_a_secret_that_was_removed_is_in_the_history(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", {"src/app.py": f"TOKEN = '{TOKEN}'\n"})
    write(root, "src/app.py", "NAME = 'app'\n")
    commit(root)
    rows = rows_of(root)
    assert rows["secrets.tree"].status is OK
    assert rows["secrets.history"].status is ISSUE
    assert rows["secrets.history"].places[0].path == "src/app.py"
    assert TOKEN not in str(rows)


def test_a_secret_of_another_branch_and_of_a_merge_is_found(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    in_git(root, "checkout", "--quiet", "-b", "other")
    write(root, "b.env", f"API_TOKEN={TOKEN}\n")
    commit(root)
    in_git(root, "checkout", "--quiet", "main")
    assert "b.env" in str(rows_of(root)["secrets.history"].places)


@pytest.mark.parametrize("attribute", ["binary", "-diff", "diff=spy"])
def test_an_attribute_hides_no_secret(tmp_path: Path, attribute: str) -> None:
    root = repository(tmp_path / "r", {".gitattributes": f"*.env {attribute}\n"})
    in_git(root, "config", "diff.spy.binary", "true")
    write(root, "a.env", f"API_TOKEN={TOKEN}\n")
    commit(root)
    row = rows_of(root)["secrets.history"]
    assert (row.status, row.places[0].path) == (ISSUE, "a.env")


def test_binary_files_of_the_history_are_counted_and_take_no_room(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", {"harness.toml": "[gates.secrets]\nhistory_mb = 1\n"})
    for content in (b"\0", b"\1"):
        (root / "image").write_bytes(b"\0\n" + (content * 199 + b"\n") * 10_000 + TOKEN.encode())
        commit(root)
    write(root, "text", "b\n")
    commit(root)
    row = rows_of(root)["secrets.history"]
    assert (row.status, "2 changes of binary files" in row.reason) == (OK, True), row


@pytest.mark.parametrize(("bound", "why"), [("history_s = 0.001", "within 0.001 s"), ("history_mb = 1", "beyond 1 MB")])
def test_a_history_that_was_not_read_to_its_end_is_not_run(tmp_path: Path, bound: str, why: str) -> None:
    large = "".join(f"{number:>12} lines of a long history without any hint\n" for number in range(20_000))
    root = repository(tmp_path / "r", {"large.txt": large, "harness.toml": f"[gates.secrets]\n{bound}\n"})
    row = rows_of(root)["secrets.history"]
    assert row.status is NOT_RUN
    assert why in row.reason


@pytest.mark.parametrize(
    "line",
    [
        f"token = '{TOKEN}'",
        f"DATABASE_URL=postgresql://app:{PASSWORD}@db.prod.example-corp.com/app",
        f"  password: {PASSWORD}",
        f'    "client_secret": "{PASSWORD}",',
        "-----BEGIN RSA PRIVATE KEY-----",
        f"Authorization: Bearer {PASSWORD}aB3",
    ],
)
def test_secrets_are_found(line: str) -> None:
    assert list(secrets_in(line.encode(), ()))


@each_row(
    "line",
    [
        "DATABASE_URL=postgresql://postgres:postgres@localhost:5432/app",
        f"DATABASE_URL=postgresql://app:{PASSWORD}@db:5432/app",
        "password = os.environ['APP_PASSWORD_1']",
        "api_key = settings.api_key_v2",
        "token = secrets.token_urlsafe(32)",
        "password: ${{ secrets.DB_PASSWORD_1 }}",
        "password: changeme123-changeme",
        "secret_key_base = 'development-only-0123456789'",
        "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE",
        "  if '-----BEGIN PRIVATE KEY-----' in text:",
        "integrity sha512-Vq9zL2xR7tBw4KsN8mYc3HdJ6gPf1AoE5iUuQ==",
    ],
)
def test_defaults_and_code_are_not_secrets(line: str) -> None:
    assert not list(secrets_in(line.encode(), ()))


def test_documented_defaults_files_and_marks_are_allowed(tmp_path: Path) -> None:
    allowed = f"[gates.secrets]\ndefaults = ['{PASSWORD}']\nfiles = ['tests/**']\n"
    changes = {"a.env": f"PASSWORD={PASSWORD}\n", "tests/x.py": TOKEN, "b.py": f"x = '{TOKEN}'  # gitleaks:allow\n"}
    rows = rows_of(repository(tmp_path / "r", {**changes, "harness.toml": allowed}))
    assert [rows[gate].status for gate in ("secrets.tree", "secrets.history")] == [OK, OK]
    assert "1 lines are marked" in rows["secrets.tree"].reason


def test_a_secret_in_a_long_line_is_found() -> None:
    for before in (100, 3_900, 3_990, 20_000):
        assert list(secrets_in(b"x " * (before // 2) + f"; token = '{TOKEN}'; ".encode() + b"y " * 9_000, ()))


@pytest.mark.parametrize(
    "pattern", ["*a" * 60 + "b", "**/" * 60 + "b", "**" * 60 + "b", "*" * 200 + "/b", "?*" * 50 + "b"]
)
def test_hostile_patterns_of_owners_end(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, "a" * 120 + "/" + "a" * 120, "")
    assert not owns(Tree(tmp_path), pattern)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_line_can_be_searched(line: bytes) -> None:
    assert all(secret.shape for secret in secrets_in(line, ()))


# --- hostile repositories --------------------------------------------------------------------------------------


def test_links_that_lead_out_are_neither_read_nor_copied(tmp_path: Path) -> None:
    write(tmp_path, "outside/secret.env", f"API_TOKEN={TOKEN}\n")
    root = repository(tmp_path / "r", git=False)
    (root / "link.env").symlink_to("../outside/secret.env")
    (root / "folder").symlink_to("../outside")
    (root / "loop").symlink_to("loop")
    in_git(root, "init", "--quiet")
    commit(root)
    rows = rows_of(root, runs=True)
    assert rows["secrets.tree"].status is OK
    made = Copies(Tree(root), (), lambda _: None, lambda: False)
    with made.copy() as folder:
        assert not any((folder / name).is_symlink() for name in ("link.env", "folder", "loop"))
    assert "link.env (a link that leads out)" in made.skipped


def test_the_user_s_tree_is_never_changed(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", {"docs/runbooks/restart.md": "```sh run\nrm src/app.py; echo x > new\n```\n"})
    before = sorted(root.rglob("*"))
    assert rows_of(root, runs=True)["runbooks.commands"].status is OK
    assert sorted(root.rglob("*")) == before


def test_git_in_a_copy_never_finds_the_user_s_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of git runs with these variables, and a folder for temporary files may be in a repository."""
    command = "git rev-parse --show-toplevel; git add --all; git -c user.name=a -c user.email=a@b commit -m x || true"
    files = {
        "docs/runbooks/restart.md": f"```sh run\n{command}\n```\n",
        "seed.diff": "--- a/src/app.py\n+++ b/src/app.py\n@@ -1 +1 @@\n-NAME = 'app'\n+OTHER = 'app'\n",
        "harness.toml": "[[gates.checks]]\nname = 'lint'\nrun = ['sh', '-c', 'git add --all && grep -q NAME src/app.py']\n"
        "seed = { patch = 'seed.diff' }\n",
    }
    root = repository(tmp_path / "r", files)
    write(root, "src/other.py", "CHANGED = 1\n")
    head, index = (in_git(root, *arguments) for arguments in (("rev-parse", "HEAD"), ("ls-files", "--stage")))
    (root / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    names = {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index"}
    for git, status in ((copies._GIT, OK), (("false",), NOT_RUN)):  # false: git fails, as on a full disk
        monkeypatch.setattr(copies, "_GIT", git)
        for name, value in names.items():
            monkeypatch.setenv(name, str(root / value))
        found = rows_of(root, runs=True)
        for name in names:
            monkeypatch.delenv(name)
        assert [found[gate].status for gate in ("seeded.lint", "runbooks.commands")] == [status, status]
        assert in_git(root, "rev-parse", "HEAD") == head
        assert in_git(root, "ls-files", "--stage") == index


def test_a_copy_of_a_worktree_is_a_repository_of_its_own(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    in_git(root, "worktree", "add", "--quiet", str(tmp_path / "w"))
    made = Copies(Tree(tmp_path / "w"), (".git", ".", "src"), lambda _: None, lambda: False)
    with made.copy() as folder:
        assert in_git(folder, "rev-parse", "--show-toplevel").strip() == str(folder)
        assert in_git(folder, "log", "--format=%s").splitlines() == ["copy"]
    assert not made.skipped
    (tmp_path / "w/.git").write_text("gitdir: gone\n")
    assert ".git" not in Tree(tmp_path / "w").files


def test_a_pipe_blocks_no_row(tmp_path: Path) -> None:
    root = repository(
        tmp_path / "r", {"docs/runbooks/restart.md": "[a](../../b#L1) [c](c.md#d)\n```sh run\ntrue\n```\n"}
    )
    for name in ("b", "docs/runbooks/c.md", ".github/workflows/x.yml", "package.json", "Makefile", "tests_flaky.py"):
        os.mkfifo(root / name)
    assert rows_of(root, runs=True)["runbooks.commands"].status is OK


def test_a_repository_that_cannot_be_copied_leaves_the_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository(tmp_path / "r")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for at, value, why in (
        (copies, 100, "more than"),
        (shutil, full, "No space left"),
        (tempfile, full, "No space left"),
    ):
        name = {copies: "_LARGEST", shutil: "copy2", tempfile: "mkdtemp"}[at]
        with monkeypatch.context() as patched:
            patched.setattr(at, name, value)
            rows = rows_of(root, runs=True)
        for gate in ("seeded.lint", "runbooks.commands"):
            assert (rows[gate].status, why in rows[gate].reason) == (NOT_RUN, True), rows[gate]
        assert rows["secrets.history"].status is OK


def test_a_folder_without_git_has_no_history(tmp_path: Path) -> None:
    rows = rows_of(repository(tmp_path / "r", git=False))
    assert rows["secrets.history"].status is NOT_RUN
    assert {row.status for gate, row in rows.items() if gate.startswith(("workflow", "codeowners"))} == {OK}


def test_the_repository_s_git_configuration_starts_no_program(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", {".gitattributes": "*.py diff=spy\n"})
    for key in (
        "core.fsmonitor",
        "diff.external",
        "diff.spy.textconv",
        "core.pager",
        "gpg.program",
        "diff.spy.command",
    ):
        in_git(root, "config", key, f"touch {tmp_path}/spied; true")
    in_git(root, "config", "log.showSignature", "true")
    assert rows_of(root)["secrets.history"].status is OK
    assert not (tmp_path / "spied").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "on: &x {pull_request: *x}\njobs: *x\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "[" * 600,  # deeper than the stack
        "a: b: c\n",
        "\x00",
        "- 1\n--- 2\n",
    ],
)
def test_any_yaml_is_read_or_refused_with_a_reason(tmp_path: Path, text: str) -> None:
    found = read_yaml(text)
    assert isinstance(found, str) or found.all_text() is not None
    assert rows_of(repository(tmp_path / "r", {CI: text}))["workflow.failures"].status in {ISSUE, NOT_RUN}


@given(st.text(alphabet="abon: -[]{}&*!|>\n'\"#<", max_size=80))
@settings(max_examples=100)
def test_any_text_is_a_node_or_a_reason(text: str) -> None:
    found = read_yaml(text)
    assert isinstance(found, Node) or found


def test_binary_and_huge_files_are_counted(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", git=False)
    (root / "a.bin").write_bytes(b"\0" + TOKEN.encode())
    (root / "long.txt").write_text("x" * 3_000_000 + f"\ntoken = '{TOKEN}'\n")
    row = rows_of(root)["secrets.tree"]
    assert (row.status, row.places[0].path, row.places[0].line) == (ISSUE, "long.txt", 47)


# --- seeds -----------------------------------------------------------------------------------------------------


def seeded(root: Path, *command: str, seed: Seed, deadline_s: float = 60.0) -> GateRow:
    check = SeededCheck(name="it", run=command, seed=seed, deadline_s=deadline_s)
    tree = Tree(root)
    [row] = seeded_rows(tree, (check,), Copies(tree, (), lambda _: None, lambda: False))
    return row


BAD = Seed(file="src/bad.py", text="eval(1)")


@pytest.mark.parametrize(
    ("command", "seed", "status", "reason"),
    [
        (("no-such-program",), BAD, NOT_RUN, "not found"),
        (("sh", "-c", "exit 127"), BAD, NOT_RUN, "cannot run here"),
        (("python3", "-c", "import no_such_module"), BAD, NOT_RUN, "No module named"),
        (("sleep", "60"), BAD, NOT_RUN, "did not end within"),
        (("true",), BAD, ISSUE, "passes with the mistake that src/bad.py plants"),
        (("false",), BAD, ISSUE, "fails without its seed"),
        (("test", "!", "-e", "src/bad.py"), BAD, OK, "fails with the mistake"),
        (("test", "!", "-e", "src/bad.py"), Seed(file="src/bad.py", expect="eval"), NOT_RUN, "lacks 'eval'"),
        (("true",), Seed(patch="gone.diff"), NOT_RUN, "gone.diff not found"),
        (("grep", "-q", "NAME", "src/app.py"), Seed(patch="seed.diff"), OK, "seed.diff"),
    ],
)
def test_a_seeded_check(tmp_path: Path, command: tuple[str, ...], seed: Seed, status: Status, reason: str) -> None:
    patch = "--- a/src/app.py\n+++ b/src/app.py\n@@ -1 +1 @@\n-NAME = 'app'\n+OTHER = 'app'\n"
    row = seeded(repository(tmp_path / "r", {"seed.diff": patch}), *command, seed=seed, deadline_s=2.0)
    assert (row.status, reason in row.reason) == (status, True), row


@pytest.mark.parametrize(
    ("command", "program", "status", "reason"),
    [
        ("test-tool", "test-tool", OK, "passes, and fails when test-tool fails: exit code 1"),
        ("test-tool || true", "test-tool", ISSUE, "passes although test-tool fails"),
        ("true", "test-tool", NOT_RUN, "does not run test-tool from PATH"),
        ("false", "test-tool", ISSUE, "fails without its seed"),
    ],
)
def test_a_program_that_fails_is_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, program: str, status: Status, reason: str
) -> None:
    write(tmp_path, "bin/test-tool", "#!/bin/sh\n")
    (tmp_path / "bin/test-tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    row = seeded(repository(tmp_path / "r"), "sh", "-c", command, seed=Seed(program=program))
    assert (row.status, reason in row.reason) == (status, True), row


def test_no_part_of_a_secret_is_left_where_a_long_line_of_output_is_cut(tmp_path: Path) -> None:
    start = "x" * (290 - len("token = ''"))  # the line is cut within the token
    row = seeded(repository(tmp_path / "r", {}), "echo", f"{start} token = '{TOKEN}'", seed=BAD)
    assert row.status is ISSUE
    [place] = row.places
    assert place.what.startswith(start)
    assert TOKEN[:6] not in place.what


# --- smoke scripts ---------------------------------------------------------------------------------------------

SMOKE = "scripts/smoke.sh"


def smoke_of(root: Path) -> GateRow:
    tree = Tree(root)
    return smoke_row(
        tree, read_workflows(tree, Steps()), Copies(tree, (), lambda _: None, lambda: False), declared=False
    )


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("set -e\ncurl -f localhost\necho passed\n", OK, "fails when what it runs (curl) fails: exit code 1"),
        ("set -e\nno-such-program --version\n", OK, "(no-such-program)"),
        ("curl -f localhost\ntest -f src/app.py\n", ISSUE, "exits with 0 although what it runs (curl) fails"),
        ("docker info || { echo skipped; exit 0; }\ncurl -f localhost\n", ISSUE, "(docker)"),
        ('set -e\nfor n in 1 2 3; do curl -f localhost && ok=1; sleep 60; done\ntest -z "$no"\n', ISSUE, "(curl)"),
        ("set -e\n./scripts/start.sh\n", OK, "(start.sh)"),
        ("./scripts/start.sh\ntest -f src/app.py\n", ISSUE, "(start.sh)"),
        (". scripts/start.sh\ncurl -f localhost\n", OK, "(docker, curl)" ),
        ('set -eu\ntest "$NO_SUCH_VARIABLE"\ncurl -f localhost\n', NOT_RUN, "fails before it runs a program"),
        ("grep -q smoke scripts/smoke.sh\n", NOT_RUN, "runs no program that can be replaced"),
        ("curl -f localhost; /bin/ls -d scripts\n", NOT_RUN, "/bin/ls cannot be replaced"),
        ("curl -f localhost; (exec 3<>/dev/tcp/localhost/1) 2>&-; test -d scripts\n", NOT_RUN, "/dev/tcp cannot be"),
        ("while ! curl -f localhost; do sleep 1; done\n", NOT_RUN, "did not end within"),
    ],
)  # fmt: skip
def test_a_smoke_script_runs_where_nothing_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, status: Status, reason: str
) -> None:
    monkeypatch.setattr(smoke, "_DEADLINE_S", 0.2 if "while" in script else 60.0)
    files = {SMOKE: f"#!/usr/bin/env bash\n{script}", "scripts/start.sh": "#!/bin/sh\ndocker compose up -d\n"}
    row = smoke_of(repository(tmp_path / "r", files, git=False))
    assert (row.status, reason in row.reason) == (status, True), row
    if status is not OK:
        assert row.fix


def test_a_smoke_test_that_is_no_shell_script_needs_a_declared_check(tmp_path: Path) -> None:
    files = {CI: GOOD[CI].replace("./scripts/smoke.sh", "python smoke.py"), "smoke.py": "import app\n"}
    row = smoke_of(repository(tmp_path / "r", files, git=False))
    assert (row.status, "seed" in row.fix) == (NOT_RUN, True)
    declared = "[[gates.checks]]\nname = 'smoke'\nrun = ['python', 'smoke.py']\nseed = { file = 'app.py' }\n"
    row = rows_of(repository(tmp_path / "d", {**files, "harness.toml": declared}))["smoke.fails"]
    assert (row.status, row.reason) == (NA, "not a shell script; see the declared check `smoke`")


def test_a_stand_in_runs_nothing_and_removes_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    script = f'#!/bin/sh\nset -e\nrm -rf {outside}\npython3 -c \'open("{outside}/new", "w")\'\n'
    assert smoke_of(repository(tmp_path / "r", {SMOKE: script}, git=False)).status is OK
    assert (outside.is_dir(), list(outside.iterdir())) == (True, [])


# --- declarations, owners and the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[gates]\ntemplate = 1\n", "template"),
        ("[gates.omit]\n'secrets.tree' = 'we have many of them'\n", "secrets.tree"),
        ("[gates]\nrunbooks = ['../x']\n", "runbooks"),
        ("[[gates.checks]]\nname = 'a'\nrun = ['x']\nseed = {}\n", "found none of patch, file and program"),
        ("[[gates.checks]]\nname='a'\nrun=['x']\nseed={file='f'}\n" * 2, "declared twice"),
    ],
)
def test_mistakes_of_a_declaration_are_named(tmp_path: Path, text: str, mistake: str) -> None:
    write(tmp_path, "harness.toml", text)
    with pytest.raises(ConfigError) as error:
        load_declaration(tmp_path, None)
    assert mistake in str(error.value)


def test_an_omitted_gate_is_na_with_its_reason(tmp_path: Path) -> None:
    declared = "[gates.omit]\n'codeowners.patterns' = 'one group of maintainers reviews everything'\n"
    row = rows_of(repository(tmp_path / "r", {".github/CODEOWNERS": None, "harness.toml": declared}))[
        "codeowners.patterns"
    ]
    assert (row.status, row.reason) == (NA, "omitted: one group of maintainers reviews everything")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*", True), ("*.py", True), ("/src/", True), ("src/", True), ("src/*", True), ("/src/**", True), ("app.py", True),
        ("**/app.py", True), ("**/*.py", True), ("s*c/*.p?", True), ("*r*/a*p.py", True), ("s*x/*.py", False), ("/app.py", False), ("docs/app.py", False), ("*.js", False), ("/src/app", False), ("app.py/", False),
    ],
)  # fmt: skip
def test_patterns_of_code_owners(tmp_path: Path, pattern: str, matches: bool) -> None:
    write(tmp_path, "src/app.py", "")
    assert owns(Tree(tmp_path), pattern) is matches


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("quarantine.yml", "- test: a\n  issue: '#7'\n  added: 2026-01-05\n  owner: ada\n  until: 2099-01-05\n", OK),
        ("tests/flaky.json", '{"quarantine": [{"id": "a", "link": "https://x.org/1", "date": "2026-01-05", "owner": "b", "expires": "2099-01-01"}]}', OK),
        ("quarantine.yml", "- test: a\n  issue: soon\n  added: 2026-01-05\n  owner: ada\n  until: 2099-01-05\n", ISSUE),
        ("quarantine.yml", "- a\n", ISSUE),
        ("quarantine.toml", "[[", ISSUE),
        ("harness.toml", "[[quarantine]]\ncheck = 'a'\nlink = 'https://x.org/1'\nowner = 'b'\nexpires = '2099-01-01'\n", ISSUE),
        ("other.toml", "", NA),
    ],
)  # fmt: skip
def test_quarantine_files(tmp_path: Path, name: str, text: str, status: Status) -> None:
    write(tmp_path, name, text)
    assert quarantine_row(Tree(tmp_path), (), TODAY).status is status


def test_rows_are_printed_for_people_and_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = repository(tmp_path / "r")
    assert main(["gates", str(root)]) == 0
    assert "OK      workflow.lint         a linter: `ruff check .`\n" in capsys.readouterr().out
    assert main(["gates", str(root), "--strict"]) == 4
    write(root, ".github/CODEOWNERS", "/gone @ada\n")
    capsys.readouterr()
    assert main(["gates", str(root), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"OK": 11, "Issue": 1, "N/A": 0, "Not run": 3}
    [row] = [row for row in document["rows"] if row["status"] == "Issue"]
    assert row["places"] == [{"path": ".github/CODEOWNERS", "line": 1, "what": "/gone matches no file"}]


def test_bad_input_is_an_error_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gates", str(tmp_path / "gone")]) == 2
    assert main(["gates"]) == 2
    write(tmp_path, "harness.toml", "gates = 1\n")
    assert main(["gates", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["gates", "--rules"]) == 0
    assert "secrets.history" in capsys.readouterr().out


def test_the_declaration_has_defaults_for_every_key() -> None:
    assert GatesDeclaration().template_fields == ("Plan", "Tests", "Acceptance Criteria")
