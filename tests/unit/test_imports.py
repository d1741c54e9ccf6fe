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

_RUN = """
import contextlib, io, json, sys
from harness.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""
_SDK = {"docker", "requests", "urllib3"}
_REPORT = {"jinja2", "harness.report.render"}
_PROGRESS = {"rich"}
_HTTP = {"httpx2"}
_DRIVER = {"psycopg"}
_DOCUMENTS = {"markdown_it"}
_SUITES = {"harness.suites.catalogue"}
_ALL = _SDK | _REPORT | _PROGRESS | _HTTP | _DRIVER | _DOCUMENTS | _SUITES


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        ("--help", _ALL),
        ("completion", _ALL),
        ("list", _ALL - _DRIVER - _SUITES),
        ("list topologies", _ALL - _DRIVER - _SUITES),
        ("matrix", _ALL - _DRIVER - _SUITES),
        ("lint --rules", _ALL - _DOCUMENTS - _PROGRESS),
        ("audit coverage", _ALL - _DRIVER - _PROGRESS),
        ("identify --help", _ALL - _DRIVER),
        ("verify --dry-run", _SDK | _HTTP | _PROGRESS),
        ("verify --help", _SDK | _HTTP | _PROGRESS),
    ],
)
def test_a_command_loads_only_what_it_needs(arguments: str, unneeded: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments.split()],
        cwd=places.SHIPPED,
        env={**os.environ, "PYTHONPATH": str(places.SHIPPED)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert "harness.cli.main" in loaded
    assert sorted(unneeded & loaded) == []


@pytest.mark.parametrize("entry", COMMANDS, ids=[entry.name for entry in COMMANDS])
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
