"""Workflows: which steps check a pull request, and what hides their failure. The shell's rules are those of Bash."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gates.declaration import Steps
from harness.gates.programs import kinds_inside, kinds_of
from harness.gates.shell import commands_of
from harness.gates.shell_words import UnreadableScriptError
from harness.gates.tree import Tree
from harness.gates.workflow_rows import read_workflows, workflow_rows
from harness.model import Status
from tests.tables import each_row
from tests.unit.repositories import CI, WORKFLOW, in_git, workflow, write

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates.rows import GateRow

OK, ISSUE, NOT_RUN = Status.OK, Status.ISSUE, Status.NOT_RUN

#: scripts with one check, CHECK, and whether their failure is that of the script, under `set -e` and without
SCRIPTS: list[tuple[str, bool, bool]] = [
    ("CHECK", True, True),
    ("CHECK || true", False, False),
    ("CHECK || :", False, False),
    ("CHECK || echo failed", False, False),
    ("CHECK || exit 0", False, False),
    ("CHECK || exit 1", True, True),
    ("CHECK || { echo failed; exit 1; }", True, True),
    ("CHECK || { echo failed; true; }", False, False),
    ("CHECK || (echo failed; exit 3)", True, True),
    ("CHECK || false", True, True),
    ("CHECK; exit 0", True, False),
    ("CHECK\necho done", True, False),
    ("set +e\nCHECK\necho done", False, False),
    ("set +e\nCHECK\ncode=$?\nset -e\nexit $code", True, True),
    ("set -e\nCHECK\necho done", True, True),
    ("set -o errexit\nCHECK\necho done", True, True),
    ("CHECK | cat", False, False),
    ("set -o pipefail\nCHECK | cat", True, True),
    ("set -euo pipefail\nCHECK 2>&1 | cat\necho done", True, True),
    ("true | CHECK", True, True),
    ("CHECK && echo done", True, True),
    ("CHECK && echo done\necho more", False, False),
    ("true && CHECK\necho more", True, False),
    ("CHECK &", False, False),
    ("! CHECK", False, False),
    ("(CHECK) || true", False, False),
    ("(CHECK; echo done)", True, False),
    ("{ CHECK; echo done; } || true", False, False),
    ("{ CHECK; echo done; } && true", False, False),
    ("if ! CHECK; then exit 1; fi\necho done", True, True),
    ("if CHECK; then echo good; else exit 1; fi", True, True),
    ("for name in a; do\n  CHECK || true\ndone", False, False),
    ("for name in a; do CHECK; done", True, True),
    ("case a in\n  a) CHECK ;;\n  *) echo no ;;\nesac", True, True),
    ("run() {\n  CHECK\n}\nrun", True, True),
    ("run() {\n  CHECK\n}\nrun || true", False, False),
    ("run() {\n  CHECK\n}\necho done", False, False),
    ("run() {\n  CHECK\n}\nrun || true\nrun", True, True),
    ("run() {\n  CHECK\n  echo done\n}\nrun || exit 1", False, False),
    ("run() {\n  CHECK\n  echo done\n}\nif ! run; then exit 1; fi", False, False),
    ("run() {\n  CHECK\n}\nif run; then echo done; fi", False, False),
    ("inner() {\n  CHECK\n}\nrun() {\n  inner || true\n}\nrun", False, False),
    ("inner() {\n  CHECK\n}\nrun() {\n  inner\n  echo done\n}\nrun || exit 1", False, False),
    ("cat > /dev/null <<END\nCHECK || true\nEND\nCHECK", True, True),
    ("# CHECK || true\nCHECK", True, True),
    ("CHECK \\\n  || true", False, False),
    ("CHECK || code=$?\nexit ${code:-0}", True, True),
    # exit codes that are replaced, kept or looked at later
    ("trap 'exit 0' EXIT\nCHECK", False, False),
    ("trap 'exit 0' ERR\nCHECK", False, False),
    ("trap 'exit 0' TERM INT\nCHECK", True, True),
    ("CHECK\ntrap 'exit 0' EXIT", True, False),
    ("trap 'exit 0' EXIT\ntrap - EXIT\nCHECK", True, True),
    ("trap 'echo bye' EXIT\nCHECK", True, True),
    ("trap 'echo bye; exit' EXIT\nCHECK", True, True),
    ("trap 'echo bye; exit $?' EXIT\nCHECK", False, False),
    ("trap 'code=$?; echo bye; exit $code' EXIT\nCHECK", True, True),
    ("clean() {\n  echo bye\n  exit 0\n}\ntrap clean EXIT\nCHECK", False, False),
    ("clean() {\n  echo bye\n}\ntrap clean EXIT\nCHECK", True, True),
    ("CHECK\nexit", True, True),
    ("CHECK\nset +e", True, False),
    ("CHECK; true", True, False),
    ("CHECK || exit", True, True),
    ("CHECK || exit $?", True, True),
    ("CHECK || { echo failed; exit $?; }", False, False),
    ("CHECK || { echo failed; exit; }", False, False),
    ("CHECK &\nwait", False, False),
    ("CHECK &\nwait $!", True, True),
    ('CHECK &\npid=$!\nwait "$pid"', True, True),
    ("CHECK & echo done", False, False),
    ("set +e\nCHECK | cat\nexit ${PIPESTATUS[0]}", True, True),
    ("CHECK | tee /dev/null > /dev/null", False, False),
    ("CHECK > >(cat)", True, True),
    ("if CHECK; then echo good; else echo bad; fi", False, False),
    ("if CHECK; then :; fi\necho done", False, False),
    ("if CHECK; then bad=0; else bad=1; fi\nexit $bad", True, True),
    # where a command is, and where only its text is
    ("found=$( CHECK )", True, True),
    ("found=`CHECK`", True, True),
    ('echo "$( CHECK )"', False, False),
    ("export found=$( CHECK )", False, False),
    ("found=$( CHECK; echo done)", False, False),
    ("CHECK && exit\nfailed=$?\necho log\nexit $failed", True, True),
    ("args=(a b 'c d')\nCHECK", True, True),
    ("args+=(\n  a # CHECK || true\n)\nCHECK || true", False, False),
    ("[[ a == b || a == a ]] && CHECK", True, True),
    ("((1 < 2)) && CHECK", True, True),
    ("n=$((1 << 2))\nCHECK", True, True),
    ("cat <<<'CHECK || true' > /dev/null\nCHECK", True, True),
    ("cat<<'END' >/dev/null\nit's\nEND\nCHECK", True, True),
    ("x=$(case a in a) echo b ;; esac)\nCHECK", True, True),
    ('x="$(echo ")" # it\'s\n)"\nCHECK', True, True),
    ("echo $'it\\'s' \"$'\"\nCHECK", True, True),
    ("case a in\n  (a|b) CHECK ;;\n  *) : ;;\nesac", True, True),
    ("( (CHECK) )", True, True),
    ("echo a >| /dev/null\nCHECK", True, True),
    ("for ((i = 0; i < 1; i++)); do CHECK; done", True, True),
    ("CHECK &> /dev/null", True, True),
]


@each_row(("script", "with_errexit", "without"), SCRIPTS, ids=[script[:30] for script, *_ in SCRIPTS])
@pytest.mark.parametrize("errexit", [True, False])
def test_bash_agrees_about_every_script(script: str, with_errexit: bool, without: bool, errexit: bool) -> None:
    """A verdict is that of Bash itself, or none: no Issue for a failure that counts, and no OK for one that is lost."""
    flags = ["-e"] if errexit else []
    done = subprocess.run(["bash", *flags, "-c", script.replace("CHECK", "(exit 7)")], check=False, capture_output=True)
    assert bool(done.returncode) is (with_errexit if errexit else without)
    ran = [ran for ran in commands_of(script, 1, errexit=errexit, pipefail=False) if ran.words[:1] == ("CHECK",)]
    assert ran
    if done.returncode:
        assert not ran[-1].lost
    else:
        assert ran[-1].lost or ran[-1].unclear


@given(st.lists(st.sampled_from(["a", " ", "\n", ";", "&&", "||", "|", "(", ")", "{ ", "; }", "if ", "; then ", "; fi", "'", '"', "$(", "`", "<<E", "\\", "for x in y; do ", "; done", "case x in ", "esac", "!", "&", "#", "[[ ", " ]]", "((", "))", "x=(", "<(", "<<<", "$'", "trap '", "' EXIT", "wait $!", "exit $?", "f() "]), max_size=25))  # fmt: skip
@settings(max_examples=150)
def test_any_text_is_read_or_refused(parts: list[str]) -> None:
    try:
        commands_of("".join(parts), 1, errexit=True, pipefail=False)
    except UnreadableScriptError as error:
        assert str(error)


@each_row(
    "text",
    [
        "(" * 2000,
        "if true; then " * 200,
        "$(" * 2000,
        "f() " * 2000,
        "((" * 2000,
        "((a) " * 2000,
        "x=(" * 2000,
        "{ $(" * 400,
        '"$(' * 400,
        "a@(b)" * 2000,
        "<<a " * 2000 + "\n",
        "trap '" * 400,
        "`" * 2001,
        "function f " * 2000,
        "${{" * 20_000,
        "a" * 70_000,
    ],
)
def test_deep_and_long_scripts_are_refused(text: str) -> None:
    with contextlib.suppress(UnreadableScriptError):
        assert len(commands_of(text, 1, errexit=True, pipefail=False)) <= 1


@each_row(
    ("command", "kinds"),
    [
        ("ruff check .", {"lint"}),
        ("./node_modules/.bin/eslint src", {"lint"}),
        ("npx --yes tsc --noEmit", {"types"}),
        ("uv run --frozen mypy src", {"types"}),
        ("python -m pytest -q", {"unit"}),
        ("CI=1 timeout 60 go test ./...", {"unit", "types"}),
        ("pytest tests/smoke", {"smoke"}),
        ("npm run lint:css", {"lint"}),
        ("npm test", {"unit"}),
        ("npm ci", set()),
        ("npm run ci", set()),
        ("pytest --collect-only", set()),
        ("ruff --version", set()),
        ("command -v pytest", set()),
        ("command pytest", {"unit"}),
        ("python3.12 -m pytest", {"unit"}),
        ("pypy3 -m unittest", {"unit"}),
        ("jest --passWithNoTests", {"unit"}),
        ("pip install pytest mypy ruff", set()),
        ("make lint types", {"lint", "types"}),
        ("./bootstrap lint types tests", {"lint", "types", "unit"}),
        ("bash scripts/smoke.sh", {"smoke"}),
        ("echo run the tests", set()),
        ("cp tests/a tests/b", set()),
        ("docker build -t test .", set()),
        ("just e2e", {"smoke"}),
        ("tox run -e typing", {"types"}),
        ("nox -s lint -- --fix", {"lint"}),
        ("make --version", set()),
        ("./scripts/should-e2e-run", set()),
        ("make build-test-image", set()),
        ("make build test", {"unit"}),
        ("${PREFIX}ruff check", {"lint"}),
        ("$VENV/bin/pytest", {"unit"}),
        ("./gradlew check", {"unit", "types"}),
        ("./mvnw -B verify", {"unit", "types"}),
        ("hatch run lint:all", {"lint"}),
        ("pdm run test", {"unit"}),
        ("php artisan test", {"unit"}),
        ("swift test", {"unit"}),
        ("swift build", set()),
    ],
)
def test_what_a_command_checks(command: str, kinds: set[str]) -> None:
    assert {str(kind) for kind in kinds_of(command.split(), Steps())} == kinds


@each_row(
    ("command", "kinds"),
    [
        ("uv run --group dev pytest", {"unit"}),
        ("conda run -n x mypy .", {"types"}),
        ("xargs ruff check", {"lint"}),
        ("docker compose exec -T app make test", {"unit"}),
        ("yarn workspace web jest", {"unit"}),
        ("uv pip install pytest", set()),
        ("poetry add --group dev ruff", set()),
        ("conda create -n x pytest", set()),
        ("docker compose run app pip install pytest", set()),
        ("docker run -v ./tests:/tests image", set()),
        ("docker run --volume=./tests:/tests image", set()),
        ("docker pull pytest", set()),
        ("echo uv run pytest", set()),
        ("docker tag x pytest", set()),
        ("conda list pytest", set()),
        ("uv tool install pytest", set()),
        ("uv run pytest --version", set()),
    ],
)
def test_what_a_command_checks_that_another_program_runs(command: str, kinds: set[str]) -> None:
    assert {str(kind) for kind in kinds_inside(command.split(), Steps())} == kinds


def rows(root: Path, steps: Steps | None = None, **files: str) -> dict[str, GateRow]:
    for name, text in {"scripts/smoke.sh": "#!/bin/sh\ncurl -f localhost/health\n", **files}.items():
        write(root, name, text)
    tree = Tree(root)
    found = workflow_rows(tree, read_workflows(tree, steps or Steps()))
    return {row.gate.removeprefix("workflow."): row for row in found}


def status_of(root: Path, gate: str, text: str, **files: str) -> Status:
    return rows(root, None, **{CI: text, **files})[gate].status


PACKAGE = '{"scripts": {"test": "jest; exit 0", "lint": "eslint . || true", "types": "tsc"}}'
MAKE = "PYTHON ?= python3\nvars:\n\t$(PYTHON) -m ruff check . || true\nlint:\n\t-ruff check .\ntest: unit\nunit:\n\t@pytest\n"


@pytest.mark.parametrize(
    ("step", "gate", "status"),
    [
        ("- run: npm test", "unit", ISSUE),
        ("- run: npm run lint", "lint", ISSUE),
        ("- run: npm run types", "types", OK),
        ("- run: cd web && npm run lint", "lint", OK),
        ("- run: |\n    cd web\n    npm test", "unit", ISSUE),
        ("- run: npm test\n  working-directory: web", "unit", ISSUE),
        ("- run: npm --prefix web run lint", "lint", OK),
        ("- run: npm run lint --workspace web", "lint", OK),
        ("- run: cd $FOLDER && npm run lint", "lint", OK),
        ("- run: make lint", "lint", ISSUE),
        ("- run: make test", "unit", OK),
        ("- run: make -i test", "unit", ISSUE),
        ("- run: bash scripts/loose.sh", "unit", ISSUE),
        ("- run: bash -e scripts/loose.sh", "unit", OK),
        ("- run: docker run image sh -c 'pytest; true'", "unit", ISSUE),
        ("- run: docker compose run --rm api pytest", "unit", OK),
        ("- run: pytest | tee log", "unit", ISSUE),
        ("- run: pytest | tee log\n  shell: bash", "unit", OK),
        ("- run: pytest\n  if: always()", "unit", OK),
        ("- run: pytest\n  if: github.event_name == 'push'", "unit", ISSUE),
        ("- run: pytest\n  if: matrix.os == 'linux'", "unit", NOT_RUN),
        ("- run: pytest\n  continue-on-error: true", "unit", ISSUE),
        ("- run: pytest\n  continue-on-error: ${{ matrix.experimental }}", "unit", NOT_RUN),
        ("- run: pytest\n  continue-on-error: false", "unit", OK),
        ("- run: pytest\n  shell: pwsh", "unit", NOT_RUN),
        ("- run: ${{ matrix.command }}", "unit", NOT_RUN),
        ("- run: ./ci everything", "unit", NOT_RUN),
        ("- run: $CHECK", "unit", NOT_RUN),
        ("- run: |\n    exit 0\n    pytest", "unit", ISSUE),
        ("- run: |\n    test -z $X && exit 0\n    pytest", "unit", OK),
        ("- run: just ci", "unit", NOT_RUN),
        ("- run: npm run ci", "unit", NOT_RUN),
        ("- run: npm ci", "unit", ISSUE),
        ("- run: jest --passWithNoTests", "unit", OK),
        ("- run: npm run types --if-present", "types", OK),
        ("- run: npm run style --if-present", "lint", NOT_RUN),
        ("- run: npm test --workspaces --if-present", "unit", NOT_RUN),
        ('- run: test -z "$(gofmt -l .)"', "lint", NOT_RUN),
        ("- run: gofmt -l .", "lint", ISSUE),
        ("- run: nix flake check", "unit", NOT_RUN),
        ("- run: hatch run cov", "unit", NOT_RUN),
        ("- run: ${{ inputs.command }}", "unit", NOT_RUN),
        ("- run: echo ${{ inputs.command }}", "unit", ISSUE),
        ("- run: $(npm bin)/eslint .", "lint", NOT_RUN),
        ("- uses: ./.github/actions/test", "unit", ISSUE),
        ("- uses: golangci/golangci-lint-action@v6", "lint", OK),
        ("- uses: someone/unknown@v1", "lint", NOT_RUN),
        ("- uses: actions/cache@v4", "lint", ISSUE),
        ("- run: pytest || ./retry", "unit", NOT_RUN),
        ("- run: tox -e test", "unit", OK),
        ("- run: tox -e test", "types", NOT_RUN),
        ("- run: npm run types", "lint", ISSUE),
        ("- run: shellcheck $(./ci/files)", "failures", OK),
        ("- run: make vars", "lint", ISSUE),
        ("- run: bash <<END\n    pytest\n    echo done\n    END".replace("- run: ", "- run: |\n    "), "unit", ISSUE),
    ],
)
def test_a_step(tmp_path: Path, step: str, gate: str, status: Status) -> None:
    action = "runs:\n  using: composite\n  steps:\n    - run: pytest || true\n      shell: bash\n"
    files = {
        "package.json": PACKAGE,
        "web/package.json": '{"scripts": {"lint": "eslint .", "test": "jest || true"}}',
        "Makefile": MAKE,
        "scripts/loose.sh": "#!/bin/bash\npytest\necho done\n",
        ".github/actions/test/action.yml": action,
    }
    assert status_of(tmp_path, gate, workflow(step), **files) is status


JOB = "  {}:\n    runs-on: ubuntu-latest\n{}    steps:\n      - run: {}\n"


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("other", "command", "gate"),
    [
        (JOB.format("deploy", "    if: github.event_name == 'push'\n", "make test deploy"), "make test", "unit"),
        (JOB.format("deploy", "    continue-on-error: true\n", "make test"), "make test", "unit"),
        (JOB.format("web", "", "cd web && make test"), "make test", "unit"),
    ],
)
def test_a_job_is_judged_whatever_another_calls(
    tmp_path: Path, other: str, command: str, gate: str, is_first: bool
) -> None:
    jobs = [other, JOB.format("test", "", command)]
    text = "on: pull_request\njobs:\n" + "".join(jobs if is_first else reversed(jobs))
    assert status_of(tmp_path, gate, text, Makefile=MAKE) is OK


@pytest.mark.parametrize(
    ("deploy", "smoke", "status"),
    [
        ("", "", OK),
        ("if: github.ref == 'refs/heads/main'", "", ISSUE),
        ("if: vars.DEPLOY == 'yes'", "", NOT_RUN),
        ("if: github.ref == 'refs/heads/main'", "if: always()", OK),
        ("needs: smoke", "", OK),
    ],
)
def test_a_job_is_skipped_with_those_that_it_needs(tmp_path: Path, deploy: str, smoke: str, status: Status) -> None:
    text = "on: pull_request\njobs:\n" + JOB.format("deploy", f"    {deploy}\n", "./deploy.sh")
    text += JOB.format("wait", "    needs: [deploy]\n", "sleep 9") + JOB.format(
        "smoke", f"    needs: wait\n    {smoke}\n", "./ci/smoke.sh"
    )
    assert status_of(tmp_path, "smoke", text, **{"ci/smoke.sh": "curl -f http://127.0.0.1/health\n"}) is status


@pytest.mark.parametrize(
    ("command", "script", "status"),
    [
        ("./ci/smoke.sh", "", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\n# curl -f localhost\necho smoke passed\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\nset -e\ncurl -f localhost || true\nexit 0\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\ncurl -f localhost\nexit 0\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/bash -e\ntrap 'exit 0' EXIT\ncurl -f localhost\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\nif curl -f localhost; then echo good; else echo bad; fi\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\nif curl -f localhost; then echo good; else exit 1; fi\n", OK),
        ("./ci/smoke.sh", "#!/bin/sh\nset -e\nfor n in 1 2; do curl -f localhost && break; sleep 1; done\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\nuntil curl -f localhost; do sleep 1; done\n", OK),
        ("./ci/smoke.sh", "#!/bin/sh\nset -e\ncheck() { curl -f localhost; }\ncheck || true\n", ISSUE),
        ("./ci/smoke.sh", "#!/bin/sh\nset -e\n./ci/inner.sh\n", ISSUE),
        ("./ci/smoke.sh", '#!/bin/bash\nset -e\nfound=$(curl -f localhost)\necho "$found"\n', OK),
        ("./ci/smoke.sh", "#!/bin/sh\nset -e\ncurl -f localhost\necho passed\n", OK),
        ("python ci/smoke.py", "import sys\n# later\nprint('ok')\nsys.exit(0)\n", ISSUE),
        ("python ci/smoke.py", "import app\nprint('ok')\n", OK),
        ("python ci/smoke.py", "print(run())\n", OK),
        ("node ci/smoke.js", "console.log('ok');\nprocess.exit(0);\n", ISSUE),
        ("npm run smoke", "", ISSUE),
        ("make smoke", "", ISSUE),
        ("make smoke-all", "", OK),
    ],
)
def test_a_smoke_script_that_cannot_fail_is_no_smoke_test(
    tmp_path: Path, command: str, script: str, status: Status
) -> None:
    files = {
        "ci/inner.sh": "#!/bin/sh\necho checked\n",
        "package.json": '{"scripts": {"smoke": "echo none yet"}}',
        "Makefile": "smoke:\n\t@echo none yet\nsmoke-all: smoke start\ninclude more.mk\n",
        "ci/smoke." + command.rpartition(".")[2]: script,
    }
    found = rows(tmp_path, None, **{CI: workflow(f"- run: {command}"), **files})
    assert found["smoke"].status is status, found["smoke"]
    if status is ISSUE:
        assert found["failures"].status is ISSUE


def test_a_script_that_is_not_there_checks_nothing(tmp_path: Path) -> None:
    text = "on: pull_request\njobs:\n" + JOB.format("smoke", "", "./ci/smoke.sh")
    assert status_of(tmp_path, "smoke", text) is NOT_RUN


@pytest.mark.parametrize("commands", [("bash -e", "bash"), ("bash", "bash -e")])
def test_a_script_is_judged_with_each_shell_that_runs_it(tmp_path: Path, commands: tuple[str, str]) -> None:
    text = workflow(*(f"- run: {command} ci/run.sh" for command in commands))
    assert status_of(tmp_path, "failures", text, **{"ci/run.sh": "#!/bin/bash\npytest\necho done\n"}) is ISSUE


UNREADABLE = "#!/bin/bash\nif true; then pytest || true\n"
LONG = "#!/bin/sh\n" + "echo\n" * 13_000 + "pytest || true\n"


@pytest.mark.parametrize(
    ("files", "command", "reason"),
    [
        ({"ci/test.sh": UNREADABLE}, "./ci/test.sh", "ci/test.sh is not read: "),
        ({"ci/test.sh": UNREADABLE}, "npm test", "ci/test.sh is not read: "),
        ({"ci/all.sh": UNREADABLE}, "./ci/all.sh", "ci/all.sh is not read: "),
        ({"ci/test.sh": LONG}, "./ci/test.sh", "more than 64,000 characters"),
        (
            {f"ci/test{n}.sh": f"#!/bin/sh -e\n./ci/test{n + 1}.sh\n" for n in range(9)},
            "./ci/test0.sh",
            "call each other",
        ),
    ],
)
def test_a_called_script_that_is_not_read_proves_nothing(
    tmp_path: Path, files: dict[str, str], command: str, reason: str
) -> None:
    package = '{"scripts": {"test": "./ci/test.sh"}}'
    twice = workflow(f"- run: {command}", f"- run: {command}")
    found = rows(tmp_path, None, **{CI: twice, "package.json": package, **files})
    assert [found[gate].status for gate in ("unit", "failures")] == [NOT_RUN, NOT_RUN]
    assert reason in str(found["unit"])


def test_a_script_that_calls_itself_is_read_once(tmp_path: Path) -> None:
    script = "#!/bin/bash -e\nif test -z $INSIDE; then INSIDE=1 ./ci/test.sh; exit; fi\npytest{}\n"
    for end, status in (("", OK), (" || true", ISSUE)):
        files = {CI: workflow("- run: ./ci/test.sh"), "ci/test.sh": script.format(end)}
        assert [rows(tmp_path, None, **files)[gate].status for gate in ("unit", "failures")] == [status, status]


@pytest.mark.parametrize(
    ("script", "library", "status"),
    [
        ("set -euo pipefail\nsource ./lib.sh\n", "pytest\necho done\n", OK),
        ("set -euo pipefail\n. ./lib.sh\n", "pytest | tee log\n", OK),
        (". ./lib.sh\n", "pytest\necho done\n", ISSUE),
        ("set -e\n. ./lib.sh || true\n", "pytest\n", ISSUE),
        (". ./lib.sh\npytest\necho done\n", "set -e\n", NOT_RUN),
        (". ./lib.sh\npytest | tee log\n", "set -e -o pipefail\n", NOT_RUN),
        (". ./lib.sh\npytest || true\n", "set -e\n", ISSUE),
        (". ./lib.sh\nif ! pytest; then exit 1; fi\necho done\n", "set -e\n", OK),
        (". venv/bin/activate\npytest\necho done\n", "", ISSUE),
        ('. "$NVM_DIR/nvm.sh"\npytest\necho done\n', "", ISSUE),
        ("set -e\neval 'pytest'\necho done\n", "", OK),
        ("eval 'pytest || true'\n", "", ISSUE),
        ('eval "$CHECK"\n', "", NOT_RUN),
    ],
)
def test_a_script_that_runs_in_the_same_shell_has_its_options(
    tmp_path: Path, script: str, library: str, status: Status
) -> None:
    files = {"ci.sh": f"#!/bin/bash\n{script}", "lib.sh": library}
    assert status_of(tmp_path, "unit", workflow("- run: ./ci.sh"), **files) is status


def test_a_large_makefile_and_one_with_another_name_are_read(tmp_path: Path) -> None:
    makefile = "# filler\n" * 10_000 + "test:\n\tpytest " + "x" * 3_000 + " || true\n"
    files = {"Makefile": makefile, "ci.mk": "test:\n\tpytest\n"}
    assert status_of(tmp_path, "unit", workflow("- run: make test"), **files) is ISSUE
    assert status_of(tmp_path, "unit", workflow("- run: make -f ci.mk test"), **files) is OK


@pytest.mark.parametrize(
    ("makefile", "status"),
    [
        ("# no .IGNORE here\ntest:\n\tpytest\n", OK),
        (".IGNORE: clean\nclean:\n\trm -f x\ntest:\n\tpytest\n", OK),
        (".IGNORE: test\ntest:\n\tpytest\n", ISSUE),
        (".IGNORE:\ntest:\n\tpytest\n", ISSUE),
        ("test:\n\techo begin\nifdef CI\n\techo in CI\nendif\n\tpytest\n", OK),
        ("ifeq ($(CI),true:1)\nX = 1\nendif\ntest:\n\tpytest\n", OK),
        ("test:\n\tpytest | tee log\n", ISSUE),
        ("SHELL := bash\n.SHELLFLAGS := -eu -o pipefail -c\ntest:\n\tpytest | tee log\n", OK),
        ("SHELL = /bin/bash -o pipefail\ntest:\n\tpytest | tee log\n", OK),
        ("test:\n\tpytest\n\techo done\n", OK),
        (".ONESHELL:\ntest:\n\t@pytest\n\t@echo done\n", ISSUE),
        (".ONESHELL:\n.SHELLFLAGS = -ec\ntest:\n\tpytest\n\techo done\n", OK),
    ],
)
def test_what_a_makefile_says_about_failures(tmp_path: Path, makefile: str, status: Status) -> None:
    assert status_of(tmp_path, "unit", workflow("- run: make test"), Makefile=makefile) is status


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("!startsWith(github.ref, 'refs/tags/')", OK),
        ("${{ !startsWith(github.ref, 'refs/heads/release') }}", OK),
        ("!(github.event_name == 'schedule')", OK),
        ("!(startsWith(github.ref, 'refs/tags/') && github.event_name == 'push')", NOT_RUN),
        ("(github.event_name == 'push') == false", NOT_RUN),
        ("github.event_name == 'push' || inputs.all", NOT_RUN),
        ("startsWith(github.ref, 'refs/tags/')", ISSUE),
        ("github.event_name == 'push' && github.ref != 'refs/heads/next'", ISSUE),
        ("github.event_name != 'pull_request'", ISSUE),
        ("github.event_name != 'schedule'", OK),
        ("github.event_name != 'schedule' && vars.TESTS == 'yes'", NOT_RUN),
        ("github.event.pull_request.draft == false", OK),
        ("github.event_name == 'pull_request' && !github.event.pull_request.draft", OK),
        ("github.event_name == 'pull_request' && github.event.pull_request.draft", NOT_RUN),
    ],
)
def test_a_condition(tmp_path: Path, condition: str, status: Status) -> None:
    assert status_of(tmp_path, "unit", workflow(f'- run: pytest\n  if: "{condition}"')) is status


def test_the_place_of_a_hidden_failure_is_where_it_is_hidden(tmp_path: Path) -> None:
    package = '{\n "scripts": {\n  "lint": "eslint . || true"\n }\n}\n'
    found = rows(tmp_path, None, **{CI: workflow("- run: npm run lint"), "package.json": package})
    [place] = found["failures"].places
    assert str(place) == "package.json:3: `eslint .`: `|| true` hides its failure"


@pytest.mark.parametrize(
    ("trigger", "status"),
    [
        ("pull_request", OK),
        ("[push, pull_request]", OK),
        ("push", ISSUE),
        ("pull_request_target", ISSUE),
        ("{pull_request: {types: [labeled]}}", ISSUE),
        ("{pull_request: {types: [opened, synchronize, reopened]}}", OK),
        ("{pull_request: {branches: [main]}}", OK),
        ("{pull_request: {branches: ['**']}}", OK),
        ("{pull_request: {branches: ['release/**']}}", NOT_RUN),
        ("{pull_request: {branches: ['**', '!main']}}", OK),
        ("{pull_request: {branches-ignore: ['dependabot/**']}}", OK),
        ("{pull_request: {branches-ignore: [main]}}", NOT_RUN),
        ("{pull_request: {paths-ignore: ['docs/**', '**.md']}}", OK),
        ("{pull_request: {paths: ['**']}}", OK),
        ("{pull_request: {paths: [src/**]}}", NOT_RUN),
        ("{pull_request: {paths: ['**', '!scripts/**']}}", NOT_RUN),
        ("{pull_request: {paths-ignore: ['scripts/*.sh']}}", NOT_RUN),
    ],
)
def test_what_runs_for_pull_requests(tmp_path: Path, trigger: str, status: Status) -> None:
    text = WORKFLOW.replace("on:\n  pull_request:\n", f"on: {trigger}\n")
    assert status_of(tmp_path, "present", text) is status


@pytest.mark.parametrize(
    ("trigger", "status"),
    [
        ("branches: [main]", ISSUE),
        ("branches-ignore: [next]", ISSUE),
        ("branches: [next]", OK),
        ("branches: ['ne*']", OK),
    ],
)
def test_the_main_branch_is_the_one_that_the_clone_knows(tmp_path: Path, trigger: str, status: Status) -> None:
    in_git(tmp_path, "init", "--quiet")
    in_git(tmp_path, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/next")
    text = WORKFLOW.replace("  pull_request:\n", f"  pull_request:\n    {trigger}\n")
    assert [status_of(tmp_path, gate, text) for gate in ("present", "unit")] == [status, status]


def test_workflows_with_filters_protect_the_files_that_one_of_them_covers(tmp_path: Path) -> None:
    filtered = WORKFLOW.replace("  pull_request:\n", "  pull_request:\n    paths: [{}]\n")
    files = {CI: filtered.format("'web/**'"), ".github/workflows/api.yml": filtered.format("'api/**', 'scripts/**'")}
    code = {"web/a.ts": "", "api/a.py": ""}
    found = rows(tmp_path, None, **files, **code)
    assert [found[gate].status for gate in ("present", "lint", "unit")] == [OK, OK, OK]
    found = rows(tmp_path, None, **files, **code, **{"tools/a.py": ""})
    assert [found[gate].status for gate in ("present", "lint", "unit")] == [NOT_RUN, NOT_RUN, NOT_RUN]
    assert "tools/a.py" in found["unit"].reason


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (("- run: pytest\n  id: unit\n  continue-on-error: true",), ISSUE),
        (
            (
                "- run: pytest\n  id: unit\n  continue-on-error: true",
                "- run: exit 1\n  if: steps.unit.outcome == 'failure'",
            ),
            NOT_RUN,
        ),
        (('- run: pytest || echo "failed=yes" >> "$GITHUB_OUTPUT"',), NOT_RUN),
        (('- run: if pytest; then echo "ok=1" >> $GITHUB_OUTPUT; else echo "ok=0" >> $GITHUB_OUTPUT; fi',), NOT_RUN),
    ],
)
def test_an_outcome_that_a_later_step_looks_at_is_not_lost(
    tmp_path: Path, steps: tuple[str, ...], status: Status
) -> None:
    assert status_of(tmp_path, "unit", workflow(*steps)) is status


def test_a_summary_job_that_checks_no_result_hides_failures(tmp_path: Path) -> None:
    job = "  all-green:\n    needs: checks\n    if: always()\n    runs-on: ubuntu-latest\n    steps:\n      - run: {}\n"
    text = WORKFLOW + job.format("echo done")
    assert status_of(tmp_path, "failures", text) is ISSUE
    text = WORKFLOW + job.format("echo good\n        if: ${{ !contains(needs.*.result, 'failure') }}")
    assert status_of(tmp_path, "failures", text) is ISSUE
    called = WORKFLOW + job.partition("    runs-on")[0] + "    uses: org/repository/.github/workflows/summary.yml@v1\n"
    assert status_of(tmp_path, "failures", called) is NOT_RUN
    text = WORKFLOW + job.format("test '${{ needs.checks.result }}' = success")
    assert status_of(tmp_path, "failures", text) is OK


@pytest.mark.parametrize(
    ("needs", "check", "status"),
    [
        ("[test]", "contains(needs.*.result, 'failure')", NOT_RUN),
        ("[lint, test]", "contains(needs.*.result, 'failure')", OK),
        ("[test]", "needs.test.result != 'success'", OK),
        ("[test]", "contains(needs.*.result, 'failure') || contains(needs.*.result, 'skipped')", OK),
    ],
)
def test_a_summary_of_failures_is_green_for_a_job_that_was_skipped(
    tmp_path: Path, needs: str, check: str, status: Status
) -> None:
    text = "on: pull_request\njobs:\n" + JOB.format("lint", "", "ruff check .")
    text += JOB.format("test", "    needs: [lint]\n", "pytest")
    text += JOB.format("all-green", f"    needs: {needs}\n    if: always()\n", f"exit 1\n        if: {check}")
    found = rows(tmp_path, None, **{CI: text})["failures"]
    assert found.status is status
    assert status is OK or "if lint fails, test is skipped" in found.reason


def test_values_of_a_matrix_are_read(tmp_path: Path) -> None:
    steps = (
        "- run: tox -e ${{ matrix.env }}",
        "- run: mypy\n  if: matrix.env == 'a-lint'",
        "- run: pytest\n  if: matrix.env == 'c'",
    )
    text = workflow(*steps).replace(
        "    steps:",
        "    strategy:\n      matrix:\n        include:\n          - env: a-lint\n          - env: b-e2e\n    steps:",
    )
    found = rows(tmp_path, None, **{CI: text})
    assert [found[gate].status for gate in ("lint", "smoke", "types", "unit")] == [OK, OK, OK, NOT_RUN]


@pytest.mark.parametrize(
    ("values", "condition", "status"),
    [
        ("lint: lint", "${{ matrix.lint }}", OK),
        ("lint: true", "matrix.lint", OK),
        ("lint: false", "matrix.lint", NOT_RUN),
        ("other: x", "matrix.lint", NOT_RUN),
    ],
)
def test_a_value_of_a_matrix_that_is_not_false_runs_a_step(
    tmp_path: Path, values: str, condition: str, status: Status
) -> None:
    text = workflow(f"- run: mix credo\n  if: {condition}").replace(
        "    steps:", f"    strategy:\n      matrix:\n        include:\n          - {values}\n    steps:"
    )
    assert status_of(tmp_path, "lint", text) is status


def test_reusable_workflows_are_read_and_circles_end(tmp_path: Path) -> None:
    reused = (
        WORKFLOW.replace("pull_request:", "workflow_call:") + "  again:\n    uses: ./.github/workflows/shared.yml\n"
    )
    caller = "on: pull_request\njobs:\n  a:\n    uses: ./.github/workflows/shared.yml\n  b:\n    uses: org/x/.github/w.yml@v1\n"
    found = rows(tmp_path, None, **{CI: caller, ".github/workflows/shared.yml": reused})
    assert [found[gate].status for gate in ("lint", "types", "unit", "smoke")] == [OK] * 4
    assert found["failures"].status is NOT_RUN  # the workflow of another repository


def test_declared_steps_are_recognised(tmp_path: Path) -> None:
    text = workflow("- run: ./ci everything", "- run: ./ci upload || true")
    assert rows(tmp_path, None, **{CI: text})["failures"].status is NOT_RUN
    found = rows(tmp_path, Steps(unit=("./ci everything",), other=("./ci upload",)), **{CI: text})
    assert [found[gate].status for gate in ("unit", "failures")] == [OK, OK]


RULES = "  rules:\n    - {}\n    - {}\n    - {}\n"
REQUEST, PUSH, OPEN = (
    f"if: '{condition}'"
    for condition in (
        '$CI_PIPELINE_SOURCE == "merge_request_event"',
        "$CI_COMMIT_BRANCH",
        "$CI_COMMIT_BRANCH && $CI_OPEN_MERGE_REQUESTS",
    )
)
NEVER = "\n      when: never"
GITLAB = "unit:\n  script:\n    - pytest{}\n"


@pytest.mark.parametrize(
    ("text", "gate", "status"),
    [
        (GITLAB.format(""), "unit", OK),
        (GITLAB.format(" | tee log"), "unit", OK),
        (GITLAB.format(" || true"), "unit", ISSUE),
        (GITLAB.format("") + "  allow_failure: true\n", "unit", ISSUE),
        (GITLAB.format("") + "  only: [tags]\n", "unit", ISSUE),
        (GITLAB.format("") + "  when: manual\n", "unit", ISSUE),
        (GITLAB.format("").replace("script", "after_script") + "  script: ls\n", "unit", ISSUE),
        (GITLAB.format("") + "  allow_failure: {exit_codes: [137]}\n", "unit", NOT_RUN),
        *(
            (GITLAB.format("") + f"  rules:\n    - if: '{condition}'\n", "unit", status)
            for condition, status in (
                ('$CI_PIPELINE_SOURCE == "merge_request_event"', OK),
                ("$CI_COMMIT_BRANCH != $CI_DEFAULT_BRANCH", OK),
                ("$CI_MERGE_REQUEST_TARGET_BRANCH_NAME == $CI_DEFAULT_BRANCH", OK),
                ("$CI_COMMIT_TAG == null", OK),
                ('$CI_COMMIT_TAG || $CI_PIPELINE_SOURCE == "merge_request_event"', NOT_RUN),
                ('$CI_PIPELINE_SOURCE == "merge_request_event" && $TESTS', NOT_RUN),
                ("$CI_COMMIT_TAG", ISSUE),
                ('$CI_COMMIT_TAG =~ /^v/ && $PUBLISH == "1"', ISSUE),
                ("$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", ISSUE),
                ('$CI_COMMIT_BRANCH == "main"', ISSUE),
                ('$CI_PIPELINE_SOURCE == "schedule"', ISSUE),
            )
        ),
        (GITLAB.format("") + "  rules:\n    - changes: [src/**]\n", "unit", NOT_RUN),
        (GITLAB.format("") + "  rules:\n    - if: $CI_COMMIT_TAG\n    - when: on_success\n", "unit", OK),
        (GITLAB.format("") + "  rules:\n    - allow_failure: true\n", "unit", ISSUE),
        (GITLAB.format("") + "  rules:\n    - when: manual\n", "unit", NOT_RUN),
        (GITLAB.format("") + "  rules:\n    - when: manual\n      allow_failure: true\n", "unit", ISSUE),
        (GITLAB.format("") + "  when: manual\n  allow_failure: false\n", "unit", NOT_RUN),
        (GITLAB.format("") + "  when: on_failure\n", "unit", ISSUE),
        (GITLAB.format("") + "  rules:\n    - when: never\n", "unit", ISSUE),
        (GITLAB.format("") + RULES.format(REQUEST + NEVER, PUSH + NEVER, "when: on_success"), "unit", ISSUE),
        (GITLAB.format("") + RULES.format(REQUEST + NEVER, "when: on_success", "when: never"), "unit", OK),
        (GITLAB.format("") + RULES.format("if: $SKIP" + NEVER, REQUEST, "when: never"), "unit", NOT_RUN),
        (GITLAB.format("") + RULES.format("if: $CI_COMMIT_TAG" + NEVER, REQUEST, "when: never"), "unit", OK),
        (GITLAB.format("") + "  allow_failure: true\n  rules:\n    - allow_failure: false\n", "unit", OK),
        (GITLAB.format("") + "  except: [merge_requests, branches]\n", "unit", ISSUE),
        (GITLAB.format("") + "  except: [tags]\n", "unit", OK),
        (GITLAB.format("") + "  only: {changes: [src/**]}\n", "unit", NOT_RUN),
        (GITLAB.format("") + "  only: [/^feature-/]\n", "unit", NOT_RUN),
        (
            "workflow:\n" + RULES.format("if: $CI_COMMIT_TAG", "when: never", "when: never") + GITLAB.format(""),
            "unit",
            ISSUE,
        ),
        ("workflow:\n" + RULES.format(REQUEST, OPEN + NEVER, PUSH) + GITLAB.format(""), "unit", OK),
        (GITLAB.format("").replace("- pytest", "- set +e\n    - pytest\n    - echo done"), "unit", ISSUE),
        (GITLAB.format("").replace("- pytest", "- pytest\n    - exit 0"), "unit", OK),
        (
            ".rules:\n  rules:\n    - when: never\n"
            + GITLAB.format("")
            + "  rules:\n    - !reference [.rules, rules]\n",
            "unit",
            ISSUE,
        ),
        (".base:\n  script: [pytest]\nunit:\n  script:\n    - !reference [.base, script]\n", "unit", OK),
        (".base:\n  script: [pytest]\nunit:\n  extends: .base\n", "unit", OK),
        ("include: other.yml\n" + GITLAB.format(""), "lint", NOT_RUN),
        (GITLAB.format(""), "lint", ISSUE),
        ("unit: [\n", "present", ISSUE),
        ("child:\n  trigger:\n    include: child.yml\n", "unit", NOT_RUN),
        ("deploy:\n  trigger: group/deploy\ntest:\n  script: [pytest]\n", "failures", OK),
    ],
)
def test_gitlab(tmp_path: Path, text: str, gate: str, status: Status) -> None:
    assert rows(tmp_path, None, **{".gitlab-ci.yml": text})[gate].status is status


def test_another_system_is_not_judged(tmp_path: Path) -> None:
    found = rows(tmp_path, None, Jenkinsfile="pipeline {}")
    assert {row.status for row in found.values()} == {NOT_RUN}
