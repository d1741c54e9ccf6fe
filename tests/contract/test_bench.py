"""Every part of the bench works: each is measured at the smallest scale that exercises all of its code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.waiting import NotYet, poll
from tests.bench.__main__ import PARTS, main
from tests.conftest import require_engine
from tests.contract.command_line import ended

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine


def _started(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=places.SHIPPED,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    # the bench creates its checkouts and folders in this one
    return {**os.environ, "TMPDIR": str(tmp_path)}


def _printed_parts(environment: dict[str, str], engine: str, *parts: str) -> set[str]:
    """Run parts in quick mode in one process, and return the parts that print tables with figures, as documented."""
    done = ended(_started(environment, "--quick", "--markdown", "--engine", engine, *parts))
    assert done.returncode == 0, done.stderr
    tables = dict(re.findall(r"^### (.+)\n\n((?:\|.*\n)+)", done.stdout, re.MULTILINE))
    figures = {title: table.splitlines()[2:] for title, table in tables.items()}
    assert not re.search(r"\b(within|OVER) [0-9]", done.stdout), "bounds are for the usual scale"
    assert all(re.search(r"[0-9]", line) for lines in figures.values() for line in lines)
    documented = (places.SHIPPED / "docs" / "performance.md").read_text(encoding="utf-8")
    columns = {
        title: header.split(" | ")
        for title, header in re.findall(r"^### (.+)\n\n\| (.*) \|\n", documented, re.MULTILINE)
    }
    for title, table in tables.items():
        printed = table.splitlines()[0].strip("| ").split(" | ")
        # a machine without a Compose has no column for it
        expected = [column for column in columns.get(title, ()) if column in printed or column != "Compose"]
        assert printed == expected, f"docs/performance.md has no table {title!r} with the columns {printed}"
    named = {part.name for part in PARTS}
    # the tables of growth-topologies and growth-checks are `growth: topologies` and `growth: checks`
    whole = {title.replace("growth: ", "growth-").partition(":")[0] for title, lines in figures.items() if lines}
    assert whole <= named
    return whole


@pytest.mark.long
def test_every_part_prints_figures(any_engine: Engine, environment: dict[str, str]) -> None:
    parts = {part.name for part in PARTS} - {"startup"}
    assert _printed_parts(environment, any_engine.name, *sorted(parts)) == parts


def test_docker_is_compared_with_other_tools(environment: dict[str, str]) -> None:
    require_engine("docker")
    assert _printed_parts(environment, "docker", "startup") == {"startup"}


@pytest.mark.long
def test_beside_measures_another_commit_after_its_images_are_built_and_removes_its_checkout(
    environment: dict[str, str], tmp_path: Path
) -> None:
    _require_checkout()
    require_engine("docker")
    done = ended(_started(environment, "--quick", "--engine", "docker", "--beside", "HEAD", "one"))
    assert done.returncode == 0, done.stderr
    built, measured = done.stderr.rindex("bench: images of "), done.stderr.index("bench: one: ")
    assert built < measured
    assert re.search(r"^  Ratio [0-9.]+\.$", done.stdout, re.MULTILINE), done.stdout
    assert list(tmp_path.glob("pooler-harness-bench-*")) == []


def test_an_interrupted_bench_removes_its_checkout(
    any_engine: Engine, environment: dict[str, str], tmp_path: Path
) -> None:
    _require_checkout()
    process = _started(environment, "--quick", "--engine", any_engine.name, "--beside", "HEAD", "one")

    def checked_out() -> None:
        if not list(tmp_path.glob("pooler-harness-bench-*/tree/pyproject.toml")):
            raise NotYet("no checkout yet")

    try:
        poll(checked_out, what="the checkout", deadline_s=60)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        assert ended(process).returncode == 130
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.glob("pooler-harness-bench-*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beside", "no-such-commit", "one"], "no such commit"),
        (["--beside", "HEAD", "startup"], "none of these parts compares commits"),
        (["no-such-part"], "unknown part 'no-such-part'"),
        (["--rounds", "0"], "invalid number '0', expected 1 or more"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_message(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler belongs to a process of its own
    code: object
    try:
        code = main(arguments)
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err


def _require_checkout() -> None:
    if not (places.SHIPPED / ".git").exists():
        pytest.skip("the project is not a git checkout")
