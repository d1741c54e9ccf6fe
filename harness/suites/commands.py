"""Commands of other test suites as checks: run behind a topology, they are rows of the parity table."""

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

_EXIT, _THROUGH = "exit code", "it came through the pooler"
_CONSOLE = Capability(
    "an admin console",
    "there is no pooler whose console tells what passed it",
    lambda topology: topology.pooler is not None and topology.pooler.product == "pgbouncer",
)
#: kept back for standing up and tearing down around the command's own deadline
_AROUND_S = 30.0
_STATISTICS_S = 4.0
#: where test runners write JUnit XML when nobody says where
_USUAL = (
    *("*junit*.xml", "results.xml", "test-results.xml", "TEST-*.xml", "test-results/**/*.xml", "junit/*.xml"),
    *("_build/test/lib/*/*.xml", "target/surefire-reports/*.xml", "build/test-results/**/*.xml"),
)


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
        found += [
            made,
            breaks(made, at=_EXIT)(the_server_is_out_of_reach),
            breaks(made, at=_THROUGH, needs=(_CONSOLE,))(the_address_leads_past_the_pooler),
        ]
    return tuple(found)


def _unheard(_line: str) -> None:
    """Say nothing: the log keeps it."""


def the_server_is_out_of_reach(ctx: CheckContext) -> None:
    ctx.sabotaged = True


def the_address_leads_past_the_pooler(ctx: CheckContext) -> None:
    ctx.past_the_pooler = True


def _runs(declared: CommandDeclaration, say: Callable[[str], None]) -> Callable[[CheckContext], None]:
    def run_it(ctx: CheckContext) -> None:
        lab = ctx.lab
        owner = ctx.empty_database("command")
        database = owner.info.dbname
        owner.close()
        role = lab.roles.owner  # a test suite makes its own tables
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
        # one at a time in a folder: what they write there would be each other's
        with _in_folder(root):
            since = time.time()
            try:
                ended = run(
                    declared.command,
                    folder=root,
                    given=given,
                    deadline_s=declared.deadline_s,
                    say=say,
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
        # a suite that ignores the address passes everywhere, and says nothing about this topology
        ctx.expect("it used the database that it was given", _used(ctx, database, before), equals=True)
        if (passed := _passed_the_pooler(ctx, database)) is not None:
            ctx.expect(_THROUGH, passed, equals=True)
        _expect_results(ctx, declared, results)

    return run_it


def _sessions(ctx: CheckContext, database: str) -> int:
    """Return how many sessions a database has had (https://www.postgresql.org/docs/current/monitoring-stats.html)."""
    ctx.admin.run("SELECT pg_stat_clear_snapshot()")
    return int(ctx.admin.value("SELECT sessions FROM pg_stat_database WHERE datname = %s", [database]) or 0)


def _own_sessions(ctx: CheckContext, database: str) -> int:
    """Wait until the statistics tell of the harness's own session, and return how many there are then."""

    def probe() -> int:
        if not (found := _sessions(ctx, database)):
            raise NotYet("no session")
        return found

    return poll(probe, what="statistics of a session that ended", deadline_s=_STATISTICS_S)


def _used(ctx: CheckContext, database: str, before: int) -> bool:
    """Wait a moment for the statistics to show a session, which servers tell of with a delay of a second."""

    def probe() -> bool:
        if _sessions(ctx, database) <= before:
            raise NotYet("no session")
        return True

    try:
        return poll(probe, what="a session of the command", deadline_s=_STATISTICS_S, interval_s=0.05)
    except TimedOutError:
        return False


def _passed_the_pooler(ctx: CheckContext, database: str) -> bool | None:
    """Say whether a query to the database passed the pooler; None where nobody can be asked.

    Without it a suite that uses the server's own address only would pass for one that works behind the pooler
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
    """Return what the command wrote of its tests; None when it wrote nothing."""
    try:
        files = find_junit(declared.junit or _USUAL, root, since)
        return add_up([read_junit(path) for path in files]) if files else None
    except ConfigError as error:
        return error if declared.junit else None  # else it is some other XML


def _expect_results(ctx: CheckContext, declared: CommandDeclaration, results: JUnitResult | ConfigError | None) -> None:
    if isinstance(results, ConfigError):
        ctx.expect("JUnit XML that can be read", f"{results.where}: {results.what}", equals="JUnit XML")
    elif results is None:
        if declared.junit:
            ctx.expect("JUnit XML was written", observed=False, equals=True)
    else:
        ctx.fact("tests", results.tests)
        ctx.fact("skipped", results.skipped)
        ctx.expect("tests that failed", list(results.failed), equals=[])
        verdict = results.verdict
        told = verdict.status if verdict.status is Status.OK else f"{verdict.status}: {verdict.reason}"
        ctx.expect("what the results are worth", str(told), equals=str(Status.OK))


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
