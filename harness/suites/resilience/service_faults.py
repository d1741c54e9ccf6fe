"""Faults of services: server processes that end, services that are restarted, killed or frozen, a full disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.errors import ServiceFailedError
from harness.suites.resilience.injection import RECOVERS, await_log, seen
from harness.waiting import NotYet

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.database import Client
    from harness.engine.protocol import Service
    from harness.suites.resilience.injection import Injection

#: ENOSPC as the C library words it in the server's log, whose locale is C.UTF-8
DISK_FULL = "No space left on device"


def terminate_connections(injection: Injection) -> str:
    """Terminate all server connections of the application."""
    with injection.admin() as admin:
        pids = injection.server_processes(admin)
        if not pids:
            raise NotExercisedError("the application has no server connection that could be terminated")
        admin.rows("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [list(pids)])
        _await_gone(injection, admin, pids)
    return f"server processes ended: {_listed(pids)}"


def kill_process(injection: Injection) -> str:
    """Kill one server process of the application; PostgreSQL then ends all others and recovers."""
    with injection.admin() as admin:
        pids = injection.server_processes(admin)
    if not pids:
        raise NotExercisedError("the application has no server connection whose process could be killed")
    pid, before = min(pids), len(injection.lab.postgres.logs())
    injection.on_heal(injection.await_server)
    injection.lab.postgres.signal_process(pid, "SIGKILL")
    await_log(injection.lab.postgres, before, RECOVERS)
    return f"process {pid} ended by SIGKILL, and PostgreSQL ended all others and recovers"


def _await_gone(injection: Injection, admin: Client, pids: set[int]) -> None:
    def gone() -> None:
        if left := injection.server_processes(admin) & pids:
            raise NotYet(f"processes {_listed(left)}")

    seen(gone, "the end of the server processes")


def _listed(pids: set[int]) -> str:
    return ", ".join(map(str, sorted(pids)))


def restart_server(signal: str) -> Callable[[Injection], str]:
    """Return the action that shuts PostgreSQL down; healing starts it again.

    :param signal: SIGINT for a fast shutdown, SIGQUIT for an immediate one, "" for a crash of all processes.
    """

    def act(injection: Injection) -> str:
        server = injection.lab.postgres
        injection.on_heal(injection.await_server)
        injection.on_heal(lambda: _started_again(server))
        return _ended(server, signal)

    return act


def restart_pooler(*, kill: bool) -> Callable[[Injection], str]:
    """Return the action that ends the pooler; healing starts it again."""

    def act(injection: Injection) -> str:
        pooler = injection.lab.outermost
        injection.on_heal(injection.await_chain)
        injection.on_heal(lambda: _started_again(pooler))
        if kill:
            return _ended(pooler, "")
        pooler.stop()
        return _state_of(pooler, running=False)

    return act


def _ended(service: Service, signal: str) -> str:
    if signal:
        service.stop(signal)
    else:
        service.kill()
    return _state_of(service, running=False)


def _started_again(service: Service) -> str:
    service.restart()
    return f"{service.name} started again"


def _state_of(service: Service, *, running: bool) -> str:
    state = service.state()
    if state.running is not running:
        raise NotExercisedError(f"{service.name} is {state.detail}")
    return f"{service.name} is {state.detail}"


def freeze(which: Callable[[Injection], Service]) -> Callable[[Injection], str]:
    """Return the action that freezes all processes of a service; healing thaws them."""

    def act(injection: Injection) -> str:
        service = which(injection)

        def thaw() -> str:
            with contextlib.suppress(ServiceFailedError):  # it was not frozen; its state shows that
                service.resume()
            if (detail := service.state().detail) != "running":
                raise ServiceFailedError(f"{service.name} is {detail}", where=service.name)
            return f"{service.name} runs"

        injection.on_heal(thaw)
        service.pause()
        detail = service.state().detail
        if detail == "running":
            raise NotExercisedError(f"{service.name} still runs")
        return f"{service.name} is {detail}"

    return act


def fill_disk(injection: Injection) -> str:
    """Move all tables of the check to a small file system that only this server uses, and fill it.

    Healing frees the space, and moves the tables back.
    """
    server, folder = injection.lab.postgres, injection.lab.postgres.spare_folder
    if not folder:
        raise NotExercisedError("the server has no file system of its own here, and a shared one is not filled")
    space = f"spare_{injection.ctx.database[-6:]}"

    def move_back() -> str:
        with injection.admin() as admin:
            _move_all(admin, space, "pg_default")
            admin.run(f"DROP TABLESPACE IF EXISTS {space}")
        _run_there(server, f"rm -rf {folder}/{space}")
        return "the tables are back on their disk"

    def free() -> str:
        _run_there(server, f"rm -f {folder}/filler")
        return "the space is free again"

    with injection.admin() as admin:
        _run_there(server, f"mkdir -m 700 {folder}/{space}")
        admin.run(f"CREATE TABLESPACE {space} LOCATION '{folder}/{space}'")
        injection.on_heal(move_back)
        _move_all(admin, "pg_default", space)
    before = len(server.logs())
    injection.on_heal(free)
    _run_there(server, f"cat /dev/zero > {folder}/filler 2> /dev/null; test -s {folder}/filler")
    await_log(server, before, DISK_FULL)
    return f"PostgreSQL logs: {DISK_FULL}, on a file system of its own"


def _move_all(admin: Client, source: str, target: str) -> None:
    """Move all tables and indexes of a database to another tablespace, while clients write to them."""
    # this session then notices a deadlock with a client first, and gives way
    admin.run("SET deadlock_timeout = '20ms'")
    admin.run("SET lock_timeout = '2s'")

    def move() -> None:
        for kind in ("TABLE", "INDEX"):
            admin.run(f"ALTER {kind} ALL IN TABLESPACE {source} SET TABLESPACE {target}")

    seen(move, f"the tables to be moved to {target}")


def _run_there(server: Service, script: str) -> None:
    code, output = server.run(["sh", "-c", script], {})
    if code != 0:
        raise ServiceFailedError(f"{script!r} failed: {output.strip()}", where=server.name)
