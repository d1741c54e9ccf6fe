"""Faults of PgBouncer that an operator injects on its console: PAUSE, KILL, DISABLE, RELOAD and RECONNECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.database import SqlError, connect
from harness.libpq import start
from harness.suites.resilience.injection import await_log, seen
from harness.waiting import NotYet

if TYPE_CHECKING:
    from harness.suites.resilience.injection import Injection


def pause(injection: Injection) -> str:
    """PAUSE the database; healing resumes it. In session mode, connected clients go on, and new ones wait."""
    paused = _pause_with(injection, "PAUSE")
    waiting = connect(injection.lab.chain(injection.ctx.database), connect_timeout_s=5)

    def close() -> str:
        waiting.close()
        return ""

    injection.on_heal(close)
    start(waiting, "SELECT 1")

    def waits() -> int:
        rows = [row for row in injection.console("SHOW POOLS") if row["database"] == injection.ctx.database]
        if not (clients := sum(int(row["cl_waiting"]) for row in rows)):
            raise NotYet("no client waits")
        return clients

    return f"{paused}, clients that wait for a server connection: {seen(waits, 'a client that waits')}"


def kill_and_resume(injection: Injection) -> str:
    """KILL the database: PgBouncer drops all its clients and server connections; healing resumes it."""
    return _pause_with(injection, "KILL")


def _pause_with(injection: Injection, command: str) -> str:
    database = injection.ctx.database
    injection.database_on_console()
    endpoint = injection.lab.console()
    if endpoint is None:
        raise NotExercisedError("the pooler has no console")
    # PAUSE returns once every server connection is released, which may never happen while clients keep them
    waiting = connect(endpoint, application_name="pooler-harness fault")

    def resume() -> str:
        waiting.close()
        if injection.database_on_console()["paused"] != "0":
            injection.console(f"RESUME {database}")
        return f"RESUME: {_console_state(injection, 'paused')}"

    injection.on_heal(resume)
    start(waiting, f"{command} {database}")
    _await_console(injection, "paused")
    return f"{command}: {_console_state(injection, 'paused')}"


def disable(injection: Injection) -> str:
    """DISABLE the database: PgBouncer refuses new clients; healing enables it."""
    database = injection.ctx.database
    injection.database_on_console()

    def enable() -> str:
        injection.console(f"ENABLE {database}")
        return f"ENABLE: {_console_state(injection, 'disabled')}"

    injection.on_heal(enable)
    injection.console(f"DISABLE {database}")
    _await_console(injection, "disabled")
    try:
        connect(injection.lab.chain(database), connect_timeout_s=5).close()
    except SqlError as error:
        return f"DISABLE: a new client is refused: {' '.join(str(error).split())}"
    raise NotExercisedError("the console says that the database is disabled, but a new client was accepted")


def reload_settings(injection: Injection) -> str:
    """RELOAD the configuration of the pooler."""
    pooler = injection.lab.outermost
    before = len(pooler.logs())
    injection.console("RELOAD")
    await_log(pooler, before, "RELOAD")
    return "RELOAD: the pooler has logged it"


def reconnect(injection: Injection) -> str:
    """RECONNECT the database: the pooler closes each server connection once it is released."""
    with injection.admin() as admin:
        before = injection.server_processes(admin)
        if not before:
            raise NotExercisedError("the application has no server connection that could be replaced")
        injection.console(f"RECONNECT {injection.ctx.database}")

        def closing() -> int:
            left = injection.server_processes(admin) & before
            marked = [
                row
                for row in injection.console("SHOW SERVERS")
                if row["database"] == injection.ctx.database and row.get("close_needed") == "1"
            ]
            if left == before and not marked:
                raise NotYet("no server connection is closed")
            return len(marked)

        marked = seen(closing, "the end of a server connection")
        closed = len(before - injection.server_processes(admin))
    return f"RECONNECT: server connections before: {len(before)}, closed: {closed}, closed once released: {marked}"


def _await_console(injection: Injection, column: str) -> None:
    def shown() -> None:
        if injection.database_on_console()[column] == "0":
            raise NotYet(_console_state(injection, column))

    seen(shown, f"{column} in SHOW DATABASES")


def _console_state(injection: Injection, column: str) -> str:
    return f"SHOW DATABASES says {column}={injection.database_on_console()[column]}"
