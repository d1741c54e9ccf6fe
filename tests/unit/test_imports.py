"""A process loads what its command needs, and nothing else: start-up is most of the time of a short command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness import places
from harness.cli.commands import COMMANDS
from harness.cli.main import root
from harness.cli.parser import Entry, in_help
from harness.cli.summaries import summary_of
from tests.tables import each_row

#: runs each command in a process of its own, which begins with what every command loads
_RUN = """
import contextlib, io, json, os, sys
from harness.cli.main import main
for line in sys.argv[1:]:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(line.split())
    print(json.dumps([line, sorted(sys.modules)]), flush=True)
    os._exit(0)
"""
_SDK = {"docker", "requests", "urllib3"}
_REPORT = {"jinja2", "harness.report.render"}
_PROGRESS = {"rich"}
_HTTP = {"httpx2"}
_DRIVER = {"psycopg"}
_DOCUMENTS = {"markdown_it"}
_SUITES = {"harness.suites.catalogue"}
_ALL = _SDK | _REPORT | _PROGRESS | _HTTP | _DRIVER | _DOCUMENTS | _SUITES
#: by command
_UNNEEDED = {
    "--help": _ALL,
    "completion": _ALL,
    "list": _ALL - _DRIVER - _SUITES,
    "list topologies": _ALL - _DRIVER - _SUITES,
    "matrix": _ALL - _DRIVER - _SUITES,
    "lint --rules": _ALL - _DOCUMENTS - _PROGRESS,
    "audit coverage": _ALL - _DRIVER - _PROGRESS,
    "identify --help": _ALL - _DRIVER,
    "verify --dry-run": _SDK | _HTTP | _PROGRESS,
    "verify --help": _SDK | _HTTP | _PROGRESS,
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Return the modules that each command loads."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *_UNNEEDED],
        cwd=places.SHIPPED,
        env={**os.environ, "PYTHONPATH": str(places.SHIPPED)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {line: set(modules) for line, modules in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("line", _UNNEEDED)
def test_a_command_loads_only_what_it_needs(loaded: dict[str, set[str]], line: str) -> None:
    assert "harness.cli.main" in loaded[line]
    assert sorted(_UNNEEDED[line] & loaded[line]) == []


@each_row("entry", COMMANDS, ids=[entry.name for entry in COMMANDS])
def test_the_help_text_of_the_program_says_what_the_command_itself_says(entry: Entry) -> None:
    """The source is read without an import; it shows the same as the command."""
    command = root.commands[entry.name]
    assert command.name == entry.name
    assert summary_of(entry.place) == in_help(command) == entry.in_help()


@pytest.mark.parametrize("place", ["harness.cli.verify:missing", "harness.cli.missing:verify", "msgspec._core:verify"])
def test_a_source_that_does_not_show_a_command_gives_no_summary(place: str) -> None:
    assert summary_of(place) is None


def test_the_commands_of_the_program_are_complete() -> None:
    with pytest.raises(TypeError, match="cannot add more"):
        root.commands["more"] = root
    with pytest.raises(TypeError, match="cannot remove verify"):
        del root.commands["verify"]
    assert "more" not in root.commands
    assert len(root.commands) == len(COMMANDS)
