"""The commands of other test suites as checks: behind a topology, each is a row of the parity table."""

from __future__ import annotations

import codecs
import contextlib
import re
import signal
import socket
import time
from pathlib import Path
from shlex import join
from threading import Lock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, P1, Capability, Check, Control, breaks, check
from harness.database import console
from harness.errors import ConfigError, TimedOutError, UsageError
from harness.host.command import run, variables
from harness.host.junit_verdict import JUnitResult, add_up, find_junit, read_junit
from harness.host.missing_right import lacked_superuser
from harness.lab.logins import LoginLog
from harness.model import Section, Status
from harness.suites.command_roles import CREATED_ROLES, RIGHTS, chosen_by_the_harness, leaves_nothing, own_database
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.checks.context import CheckContext
    from harness.host.command import CommandResult
    from harness.host.declarations import CommandDeclaration
    from harness.lab.logins import Login

_EXIT, _THROUGH = "exit code", "the command came through the pooler"
_USED = "the command logged in to the given server"
_FAILED, _RETRIED = "tests that failed", "tests that passed only on a retry"
_LOGGED = Capability(
    "a log of logins",
    "no pooler here logs which role logs in",
    lambda topology: topology.pooler is not None and topology.pooler.product == "pgbouncer",
)
#: time for setup and teardown, in addition to the command's own deadline, seconds
_SETUP_S = 60.0
#: a command may wait until the commands of other topologies have left its folder
_MOST_IN_A_FOLDER = 8
_LONGEST_NAME = 120
#: the fact of a result that says what else a reader of the test results should know
NOTES = "notes on the test results"
#: the fact of a result that names processes that the command left behind
LEFT_BEHIND = "processes that outlived the command and were ended"
#: logs arrive with a delay, seconds
_LOG_S = 4.0
#: JUnit files that are kept as evidence
_MOST_FILES = 200
_MOST_BYTES = 20 * 1024 * 1024
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
            # one after another: they would share the pool, the names of databases, and the log of logins
            serial_group=f"command.{command.name}",
        )
        run_command = _runs(command, on_output or _discard)
        command_check = replace(declare(run_command), longest_s=_MOST_IN_A_FOLDER * (command.deadline_s + _SETUP_S))
        checks += [
            command_check,
            breaks(command_check, at=_EXIT)(the_server_is_unreachable),
            breaks(command_check, at=_THROUGH, needs=(_LOGGED,))(the_address_bypasses_the_pooler),
        ]
    return tuple(checks)


def _discard(_line: str) -> None:
    """Show nothing: the log keeps the output."""


def log_of(check: str, attempt: int = 1) -> str:
    """Return the name of the log with the output of a command, by the id of its check; each attempt has its own."""
    return check.replace(".", "-") + (f".attempt-{attempt}" if attempt > 1 else "")


def the_server_is_unreachable(ctx: CheckContext) -> None:
    ctx.sabotaged = True


def the_address_bypasses_the_pooler(ctx: CheckContext) -> None:
    ctx.past_the_pooler = True


def _runs(declared: CommandDeclaration, on_output: Callable[[str], None]) -> Callable[[CheckContext], None]:
    def run_command(ctx: CheckContext) -> None:
        database = own_database(ctx, declared.login)
        with leaves_nothing(ctx, (database,)):
            _run_in(ctx, database, declared, on_output)

    return run_command


def _run_in(ctx: CheckContext, database: str, declared: CommandDeclaration, on_output: Callable[[str], None]) -> None:
    lab = ctx.lab
    role = lab.roles.commands[declared.login]
    chain, direct = lab.through(role, database), lab.at_server(role, database)
    if ctx.sabotaged:
        closed = _closed_port()
        chain, direct = replace(chain, port=closed), replace(direct, port=closed)
    if ctx.past_the_pooler:
        chain = direct
    given = variables(chain, direct) | {"HARNESS_TOPOLOGY": ctx.topology.name, "POOL_MODE": str(ctx.mode or "none")}
    root = Path.cwd() / declared.folder
    watch = _Watch(ctx, role.name, database)
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
        if not (ctx.sabotaged or ctx.past_the_pooler):
            _keep_files(ctx, declared, root, since)
    lab.keep_log(log_of(f"command.{declared.name}", ctx.attempt_number), ended.output)
    ctx.fact("command", join(declared.command))
    chosen = "" if declared.role else " (chosen by the harness)"
    ctx.fact("role", f"{declared.login}: {RIGHTS[declared.login]}{chosen}")
    if ctx.topology.pooler and (created := CREATED_ROLES.get(ctx.topology.pooler.product)):
        ctx.fact("roles that the command creates", created)
    ctx.fact("took", f"{ended.seconds:g} s")
    if ended.left_behind:
        ctx.fact(LEFT_BEHIND, ", ".join(ended.left_behind))
    if ended.exit_code is not None and ended.exit_code < 0:
        ctx.fact("the command was ended by", f"{_signal_name(-ended.exit_code)}, which the harness did not send")
    if lab.is_closed:
        raise NotExercisedError("the run ended before the command did")
    _expect(ctx, declared, ended, results, watch)


def _expect(
    ctx: CheckContext,
    declared: CommandDeclaration,
    ended: CommandResult,
    results: JUnitResult | ConfigError | None,
    watch: _Watch,
) -> None:
    """Judge a command, with the names of failed tests first: the exit code alone says little."""
    if isinstance(results, JUnitResult):
        ctx.fact("tests", results.tests)
        ctx.fact("skipped", results.skipped)
        if results.notes:
            ctx.fact(NOTES, "; ".join(results.notes))
    _require_rights(ctx, declared, ended, results)
    if isinstance(results, JUnitResult):
        ctx.expect(_FAILED, list(results.failed), equals=[])
    if ended.reason:  # the harness ended it, which says nothing about the chain
        raise NotExercisedError(f"the command {ended.reason}")
    failed = isinstance(results, JUnitResult) and bool(results.failed)
    ctx.expect(_EXIT, ended.exit_code, equals=0, consequence=failed)
    # a suite that ignores the given address passes everywhere, and proves nothing about this topology
    ctx.expect(_USED, watch.logged_in(), equals=True)
    if watch.pooler_logs:
        ctx.expect(_THROUGH, watch.passed_the_pooler(), equals=True)
    _expect_results(ctx, declared, results)


def _require_rights(
    ctx: CheckContext, declared: CommandDeclaration, ended: CommandResult, results: JUnitResult | ConfigError | None
) -> None:
    """Require that a command did not fail because its login is not a superuser, if no role is declared.

    Of several failed tests, each has to show it.

    :raises NotExercisedError: when it did.
    """
    if declared.role or ended.reason:
        return
    if isinstance(results, JUnitResult) and (bad := results.failures + results.errors):
        line = results.missing_right if results.without_right == bad else ""
    else:
        line = lacked_superuser(ctx.lab.redact(ended.output)) if ended.exit_code else ""
    if line:
        owed = "the role of your test suite (--role with exec)"
        reason = chosen_by_the_harness("the command failed", ctx.lab.redact(line), declared.login, owed)
        raise NotExercisedError(reason)


def _expect_results(ctx: CheckContext, declared: CommandDeclaration, results: JUnitResult | ConfigError | None) -> None:
    if isinstance(results, ConfigError):
        ctx.expect("readable JUnit XML", f"{results.where}: {results.what}", equals="JUnit XML")
    elif results is None:
        if declared.junit:
            ctx.expect("JUnit XML was written", observed=False, equals=True)
    elif results.only_retried and all(expectation.held for expectation in ctx.expectations):
        ctx.expect(_RETRIED, list(results.retried_names), equals=[])
        ctx.severity = P1
    elif (verdict := results.verdict).status is Status.NOT_RUN:
        raise NotExercisedError(verdict.reason)
    else:
        text = verdict.status if verdict.status is Status.OK else f"{verdict.status}: {verdict.reason}"
        failed = bool(results.failed)
        ctx.expect("verdict of the test results", str(text), equals=str(Status.OK), consequence=failed)


class _Watch:
    """Watches whether a command logs in: by its own role, or into its own database by a role that it created."""

    def __init__(self, ctx: CheckContext, role: str, database: str) -> None:
        self._ctx = ctx
        self._role = role
        self._database = database
        self._log = LoginLog(ctx.lab)
        self._queries = self._counted_queries()

    @property
    def pooler_logs(self) -> bool:
        return self._log.pooler_logs

    def logged_in(self) -> bool:
        """Return whether the command logged in. A pooler may have had a server connection for it before."""
        return self._eventually(lambda: bool(self._own(self._log.at_server()) or self._own(self._log.at_pooler())))

    def passed_the_pooler(self) -> bool:
        """Return whether the command logged in to the pooler and sent a query through it.

        Otherwise a suite that uses only the server's own address would count as working behind the pooler.
        """
        return self._eventually(self._has_passed)

    def _has_passed(self) -> bool:
        databases = {login.database for login in self._own(self._log.at_pooler())}
        now = self._counted_queries() if databases else {}
        pooler = self._ctx.topology.pooler
        several = pooler is not None and pooler.instances > 1  # the console shows one of the processes
        return any(several or now.get(name, 0) > self._queries.get(name, 0) for name in databases)

    def _own(self, logins: Iterable[Login]) -> list[Login]:
        return [login for login in logins if login.role == self._role or login.database == self._database]

    def _counted_queries(self) -> dict[str, int]:
        """Return how many queries passed the pooler, by database; nothing without a console to ask."""
        endpoint = self._ctx.lab.console()
        if endpoint is None:
            return {}
        return {row["database"]: int(row["total_query_count"]) for row in console(endpoint, "SHOW STATS")}

    def _eventually(self, seen: Callable[[], bool]) -> bool:
        def probe() -> bool:
            if not seen():
                raise NotYet("no login")
            return True

        try:
            return poll(probe, what="a login of the command", deadline_s=_LOG_S, interval_s=0.05)
        except TimedOutError:
            return False


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


def _keep_files(ctx: CheckContext, declared: CommandDeclaration, root: Path, since: float) -> None:
    """Keep the JUnit files as evidence, up to a number of files and bytes."""
    left, left_out = _MOST_BYTES, 0
    with contextlib.suppress(ConfigError):
        for number, path in enumerate(find_junit(declared.junit or _DEFAULT_JUNIT, root, since)):
            try:
                data = path.read_bytes() if number < _MOST_FILES and path.stat().st_size <= left else None
            except OSError:
                data = None
            if data is None:
                left_out += 1
                continue
            left -= len(data)
            wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            text = data.decode("utf-16" if wide else "utf-8", errors="replace")
            name = re.sub(r"[^\w.-]+", "-", str(path.relative_to(root)))[-_LONGEST_NAME:].lstrip(".-")
            name = f"attempt-{ctx.attempt_number}-{name}" if ctx.attempt_number > 1 else name
            ctx.lab.keep_artifact(f"command.{declared.name}", name, text)
    if left_out:
        ctx.fact("JUnit files that are too many or too large to keep", left_out)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
