"""Repositories for the gates: one that passes all of them, and changes that violate one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORKFLOW = """\
name: ci
on:
  pull_request:
jobs:
  checks:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: ruff check .
      - run: mypy
      - run: pytest tests
      - run: ./scripts/smoke.sh
"""
CI = ".github/workflows/ci.yml"
GOOD: dict[str, str] = {
    CI: WORKFLOW,
    "scripts/smoke.sh": "#!/bin/sh\nset -eu\ncurl --fail localhost:8080/health\n",
    ".github/pull_request_template.md": "## Plan\n\n## Tests\n\n## Acceptance criteria\n",
    ".github/CODEOWNERS": "*  @org/team\n/src/  @ada\n",
    "src/app.py": "NAME = 'app'\n",
    "docs/runbooks/restart.md": "# Restart\n\nSee [the app](../../src/app.py).\n\n```sh run\ntest -f src/app.py\n```\n",
    "quarantine.toml": '[[quarantine]]\nid = "tests/test_app.py::test_slow"\nissue = "https://example.org/issues/7"\n'
    'since = "2026-01-05"\nowner = "ada"\nexpires = "2099-01-05"\n',
    "harness.toml": "[[gates.checks]]\nname = 'lint'\nrun = ['sh', '-c', '! grep -rn eval src']\n"
    "seed = { file = 'src/bad.py', text = 'eval(1)' }\n",
}


def repository(folder: Path, changes: Mapping[str, str | None] | None = None, *, git: bool = True) -> Path:
    """Write a repository that passes all gates, with changes: a text replaces a file, None removes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**GOOD, **(changes or {})}.items():
        if text is not None:
            write(folder, name, text)
    if git:
        in_git(folder, "init", "--quiet", "--initial-branch=main")
        commit(folder)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if name.endswith(".sh"):
        file.chmod(0o755)


def commit(folder: Path) -> None:
    in_git(folder, "add", "--all")
    in_git(folder, "commit", "--quiet", "--allow-empty", "-m", "change")


def in_git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, and return its output."""
    author = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    given = {**os.environ, **author, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "commit.gpgSign=false", *arguments]
    return subprocess.run(command, cwd=folder, check=True, env=given, stdout=subprocess.PIPE, text=True).stdout


def workflow(*lines: str) -> str:
    """Return the good workflow with other lines in the place of its steps with commands."""
    head = WORKFLOW.partition("      - run: ruff")[0]
    return head + "".join(f"      {line}\n" for text in lines for line in text.split("\n"))
