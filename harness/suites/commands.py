"""Commands of other test suites as checks: behind a topology, each is a row of the parity table."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from shlex import join
from threading import Lock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, Capability, Check, Control, breaks, check
from harness.database import console
from harness.errors import ConfigError, TimedOutError, UsageError
from harness.host.command import run, variables
from harness.host.junit_verdict import JUnitResult, add_up, find_junit, read_junit
from harness.model import Section, Status
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.checks.context import CheckContext
    from harness.host.declarations import CommandDeclaration

_EXIT, _THROUGH = "exit code", "the command came through the pooler"
_CONSOLE = Capability(
    "an admin console",
    "no pooler here has a console that shows its traffic",
    lambda topology: topology.pooler is not None and topology.pooler.product == "pgbouncer",
)
#: time for setup and teardown, in addition to the command's own deadline, seconds
_SETUP_S = 30.0
_STATISTICS_S = 4.0
#: where test runners write JUnit XML by default
_DEFAULT_JUNIT = (
    *("*junit*.xml", "results.xml", "test-results.xml", "TEST-*.xml", "test-results/**/*.xml", "junit/*.xml"),
    *("_build/test/lib/*/*.xml", "target/surefire-reports/*.xml", "build/test-results/**/*.xml"),
)


def command_checks(
    declared: Iterable[CommandDeclaration], on_output: Callable[[str], None] | None = None
) -> tuple[Check | Control, ...]:
    """Return a check for each command, and its controls: it must fail when the server is unreachable or bypassed.

    A suite that passes without the server does not use the given address, and its OK would prove nothing.

    :param on_output: called with every line of the commands' output.
    """
    checks: list[Check | Control] = []
    for command in declared:
        declare = check(
            f"command.{command.name}",
            claim=command.title.rstrip("."),
            section=Section.COMMANDS,
            severity=P0,
            area="test suite of its own",
        )
        run_command = _runs(command, on_output or _discard)
        command_check = replace(declare(run_command), longest_s=command.deadline_s + _SETUP_S)
        checks += [
            command_check,
            breaks(command_check, at=_EXIT)(the_server_is_unreachable),
            breaks(command_check, at=_THROUGH, needs=(_CONSOLE,))(the_address_bypasses_the_pooler),
        ]
    return tuple(checks)


def _discard(_line: str) -> None:
    """Show nothing: the log keeps the output."""


def the_server_is_unreachable(ctx: CheckContext) -> None:
    ctx.sabotaged = True


def the_address_bypasses_the_pooler(ctx: CheckContext) -> None:
    ctx.past_the_pooler = True


def _runs(declared: CommandDeclaration, on_output: Callable[[str], None]) -> Callable[[CheckContext], None]:
    def run_command(ctx: CheckContext) -> None:
        lab = ctx.lab
        owner = ctx.empty_database("command")
        database = owner.info.dbname
        owner.close()
        role = lab.roles.owner  # a test suite creates its own tables
        chain, direct = lab.through(role, database), lab.owner(database)
        if ctx.sabotaged:
            closed = _closed_port()
            chain, direct = replace(chain, port=closed), replace(direct, port=closed)
        if ctx.past_the_pooler:
            chain = direct
        mode = str(ctx.mode or "none")
        given = variables(chain, direct) | {"HARNESS_TOPOLOGY": ctx.topology.name, "POOL_MODE": mode}
        root = Path.cwd() / declared.folder
        before = _own_sessions(ctx, database)
        # one command at a time in a folder: their output files would mix
        with _in_folder(root):
            since = time.time()
            try:
                ended = run(
                    declared.command,
                    folder=root,
                    given=given,
                    deadline_s=declared.deadline_s,
                    say=on_output,
                    stopped=lambda: lab.is_closed,
                )
            except UsageError as error:
                raise NotExercisedError(error.what) from None
            results = _results(declared, root, since)
        lab.keep_log(f"command-{declared.name}", ended.output)
        ctx.fact("command", join(declared.command))
        ctx.fact("took", f"{ended.seconds:g} s")
        if lab.is_closed:
            raise NotExercisedError("the run ended before the command did")
        ctx.expect(_EXIT, ended.reason or ended.exit_code, equals=0)
        # a suite that ignores the given address passes everywhere, and proves nothing about this topology
        ctx.expect("the command used the given database", _used(ctx, database, before), equals=True)
        if (passed := _passed_the_pooler(ctx, database)) is not None:
            ctx.expect(_THROUGH, passed, equals=True)
        _expect_results(ctx, declared, results)

    return run_command


def _sessions(ctx: CheckContext, database: str) -> int:
    """Return how many sessions a database has had (https://www.postgresql.org/docs/current/monitoring-stats.html)."""
    ctx.admin.run("SELECT pg_stat_clear_snapshot()")
    return int(ctx.admin.value("SELECT sessions FROM pg_stat_database WHERE datname = %s", [database]) or 0)


def _own_sessions(ctx: CheckContext, database: str) -> int:
    """Wait until the statistics count the harness's own session, and return the number of sessions."""

    def probe() -> int:
        if not (sessions := _sessions(ctx, database)):
            raise NotYet("no session")
        return sessions

    return poll(probe, what="statistics of a session that ended", deadline_s=_STATISTICS_S)


def _used(ctx: CheckContext, database: str, before: int) -> bool:
    """Return whether the database has had another session; servers count one with a delay of about a second."""

    def probe() -> bool:
        if _sessions(ctx, database) <= before:
            raise NotYet("no session")
        return True

    try:
        return poll(probe, what="a session of the command", deadline_s=_STATISTICS_S, interval_s=0.05)
    except TimedOutError:
        return False


def _passed_the_pooler(ctx: CheckContext, database: str) -> bool | None:
    """Return whether a query to the database passed the pooler; None without an admin console to ask.

    Otherwise a suite that uses only the server's own address would count as working behind the pooler
    (https://www.pgbouncer.org/usage.html#show-commands).
    """
    endpoint = ctx.lab.console()
    if endpoint is None:
        return None
    rows = console(endpoint, "SHOW STATS")
    return any(row["database"] == database and int(row["total_query_count"]) > 0 for row in rows)


_folders: dict[Path, Lock] = {}
_folders_lock = Lock()


def _in_folder(folder: Path) -> Lock:
    with _folders_lock:
        return _folders.setdefault(folder.resolve(), Lock())


def _results(declared: CommandDeclaration, root: Path, since: float) -> JUnitResult | ConfigError | None:
    """Return the test results that the command wrote, or the error in reading them; None when it wrote none."""
    try:
        files = find_junit(declared.junit or _DEFAULT_JUNIT, root, since)
        return add_up([read_junit(path) for path in files]) if files else None
    except ConfigError as error:
        return error if declared.junit else None  # a default pattern may match some other XML


def _expect_results(ctx: CheckContext, declared: CommandDeclaration, results: JUnitResult | ConfigError | None) -> None:
    if isinstance(results, ConfigError):
        ctx.expect("readable JUnit XML", f"{results.where}: {results.what}", equals="JUnit XML")
    elif results is None:
        if declared.junit:
            ctx.expect("JUnit XML was written", observed=False, equals=True)
    else:
        ctx.fact("tests", results.tests)
        ctx.fact("skipped", results.skipped)
        ctx.expect("tests that failed", list(results.failed), equals=[])
        verdict = results.verdict
        text = verdict.status if verdict.status is Status.OK else f"{verdict.status}: {verdict.reason}"
        ctx.expect("verdict of the test results", str(text), equals=str(Status.OK))


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
