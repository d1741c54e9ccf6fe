"""Commands of other test suites as checks: run behind a topology, they are rows of the parity table."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.registry import P0, Check, Control, breaks, check
from harness.host.command import run, variables
from harness.host.junit import find_junit, read_junit
from harness.model import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.checks.bench import Bench
    from harness.host.declared import CommandDeclaration

_EXIT = "exit code"
#: kept back for standing up and tearing down around the command's own deadline
_AROUND_S = 30.0


def command_checks(
    declared: Iterable[CommandDeclaration], say: Callable[[str], None] | None = None
) -> tuple[Check | Control, ...]:
    """Return a check for each command, and its control: with the server out of reach it has to fail.

    A suite that passes all the same does not use the address that it was given, and its OK would be worth nothing.

    :param say: hears every line of the commands' output.
    """
    found: list[Check | Control] = []
    for each in declared:
        declare = check(
            f"command.{each.name}",
            claim=each.title.rstrip("."),
            section=Section.COMMANDS,
            severity=P0,
            area="test suite of its own",
        )
        made = replace(declare(_runs(each, say or _unheard)), longest_s=each.deadline_s + _AROUND_S)
        found += [made, breaks(made, at=_EXIT)(the_server_is_out_of_reach)]
    return tuple(found)


def _unheard(_line: str) -> None:
    """Say nothing: the log keeps it."""


def the_server_is_out_of_reach(bench: Bench) -> None:
    bench.otherwise = True


def _runs(declared: CommandDeclaration, say: Callable[[str], None]) -> Callable[[Bench], None]:
    def run_it(bench: Bench) -> None:
        lab = bench.lab
        database = bench.empty_database("command").info.dbname
        role = lab.roles.owner  # a test suite makes its own tables
        chain, direct = lab.through(role, database), lab.owner(database)
        if bench.otherwise:
            closed = _closed_port()
            chain, direct = replace(chain, port=closed), replace(direct, port=closed)
        mode = str(bench.mode or "none")
        given = variables(chain, direct) | {"HARNESS_TOPOLOGY": bench.topology.name, "POOL_MODE": mode}
        root = Path.cwd() / declared.folder
        since = time.time()
        ended = run(
            declared.command,
            folder=root,
            given=given,
            deadline_s=declared.deadline_s,
            say=say,
            stopped=lambda: lab.is_closed,
        )
        lab.keep_log(f"command-{declared.name}", ended.output)
        bench.fact("command", join(declared.command))
        bench.fact("took", f"{ended.seconds:g} s")
        bench.expect(_EXIT, ended.reason or ended.exit_code, equals=0)
        if declared.junit:
            _expect_results(bench, declared, root, since)

    return run_it


def _expect_results(bench: Bench, declared: CommandDeclaration, root: Path, since: float) -> None:
    files = find_junit(declared.junit, root, since)
    if not bench.expect("JUnit XML was written", bool(files), equals=True):
        return
    results = [read_junit(path) for path in files]
    bench.fact("tests", sum(each.tests for each in results))
    bench.fact("skipped", sum(each.skipped for each in results))
    failed = [name for each in results for name in each.failed]
    bench.expect("tests that failed", failed, equals=[])
    bench.expect("what the results are worth", [str(each.verdict) for each in results], equals=[])


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
