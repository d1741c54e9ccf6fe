"""The contract of all engines."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.database import SqlError, connect
from harness.engine import docker_storage
from harness.engine.docker_engine import DockerEngine
from harness.engine.native_engine import NativeEngine
from harness.engine.owner import Owner, process_started
from harness.engine.storage import StoragePolicy
from harness.errors import ServiceFailedError
from harness.events import silent
from harness.store import new_run_id
from harness.waiting import NotYet, poll
from tests.conftest import ENGINES, require_engine
from tests.contract.services import POSTGRES, admin_endpoint, connect_admin, leftovers, specify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Engine, Group, Service
    from harness.lab.credentials import Roles

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return require_engine(request.param)


@pytest.fixture
def group(engine: Engine, owner: Owner) -> Iterator[Group]:
    group = engine.open_group(owner, "contract")
    yield group
    group.close()


@pytest.fixture(scope="module")
def started(engine: Engine) -> Iterator[tuple[Service, Roles]]:
    """Start a service of the engine. The tests share it, and each leaves it running."""
    group = engine.open_group(Owner.me(new_run_id()), "contract")
    try:
        yield started_in(group)
    finally:
        group.close()


def started_in(group: Group) -> tuple[Service, Roles]:
    """Start a service in a group, and return it when it answers."""
    spec, roles = specify(group)
    service = group.start(spec)
    connect_admin(service, roles).close()
    return service, roles


def test_a_started_service_runs_answers_and_logs(started: tuple[Service, Roles]) -> None:
    service, roles = started
    assert service.state().running
    assert ip_address(service.endpoint().host).is_private  # on loopback, or the container's own address
    assert "database system is ready to accept connections" in service.logs()
    with connect_admin(service, roles) as client:
        assert client.value("SELECT current_setting('password_encryption')") == "scram-sha-256"
        # every stored password is a SCRAM verifier, and none is plain text
        kept = client.rows("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
        assert all(secret.startswith("SCRAM-SHA-256$") for (secret,) in kept)


def test_no_password_is_in_the_service_or_its_log(started: tuple[Service, Roles]) -> None:
    service, roles = started
    for role in roles.all():
        assert role.password not in service.logs()
    with pytest.raises(SqlError, match="authentication failed"):
        connect(replace(admin_endpoint(service, roles), password="wrong"))


def test_stop_shuts_the_server_down_cleanly_and_a_restart_keeps_its_logins(started: tuple[Service, Roles]) -> None:
    service, roles = started
    service.stop()
    assert not service.state().running
    assert "database system is shut down" in service.logs()
    service.restart()
    with connect_admin(service, roles) as client:
        assert client.value("SELECT 1") == 1


def test_kill_ends_the_server_like_a_crash_and_restart_recovers_the_data(started: tuple[Service, Roles]) -> None:
    service, roles = started
    with connect_admin(service, roles) as client:
        client.run("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        client.run("CHECKPOINT")  # commits are asynchronous here
    service.kill()
    assert not service.state().running
    service.restart()
    with connect_admin(service, roles) as client:
        assert client.value("SELECT n FROM kept") == 1
    assert "not properly shut down" in service.logs()


def test_a_paused_service_keeps_connections_and_does_not_answer(started: tuple[Service, Roles]) -> None:
    service, roles = started
    with connect_admin(service, roles) as client:
        service.pause()
        try:
            with pytest.raises(SqlError):
                connect(admin_endpoint(service, roles), connect_timeout_s=2)
        finally:
            service.resume()
        assert client.value("SELECT 1") == 1


@pytest.mark.parametrize("policy", [StoragePolicy.MEMORY, StoragePolicy.DISK])
@pytest.mark.parametrize("name", ENGINES)
def test_data_is_in_the_requested_storage_and_outlives_its_server(
    name: str, policy: StoragePolicy, owner: Owner
) -> None:
    require_engine(name)
    engine: Engine = DockerEngine(storage=policy) if name == "docker" else NativeEngine(policy)
    engine.prepare((POSTGRES,), silent)
    group = engine.open_group(owner, "contract")
    try:
        spec, roles = specify(group)
        service = group.start(spec)
        with connect_admin(service, roles) as client:
            client.run("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1); CHECKPOINT")
            # the server's working directory is its data directory
            client.run("CREATE TEMP TABLE file_system (kind text); COPY file_system FROM PROGRAM 'stat -f -c %T .'")
            kind = client.value("SELECT kind FROM file_system")
        assert (kind == "tmpfs") is (policy is StoragePolicy.MEMORY)
        assert group.storage.in_memory is (policy is StoragePolicy.MEMORY)
        for end in (service.restart, service.stop, service.kill):
            end()
            if not service.state().running:
                service.restart()
            with connect_admin(service, roles) as client:
                assert client.value("SELECT n FROM kept") == 1
    finally:
        group.close()
        engine.close()


def test_memory_that_docker_refuses_is_replaced_by_disk_unless_it_is_demanded(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine("docker")
    monkeypatch.setattr(docker_storage, "_MEMORY_OPTIONS", "no-such-option={mib}")
    for policy in (StoragePolicy.AUTO, StoragePolicy.MEMORY):
        engine = DockerEngine(storage=policy)
        engine.prepare((POSTGRES,), silent)
        group = engine.open_group(owner, "contract")
        try:
            spec, roles = specify(group)
            if policy is StoragePolicy.MEMORY:
                with pytest.raises(ServiceFailedError, match="cannot be kept in memory") as raised:
                    group.start(spec)
                assert raised.value.hint == "--storage disk"
            else:
                connect_admin(group.start(spec), roles).close()
                assert not group.storage.in_memory
                assert "no-such-option" in group.storage.note
        finally:
            group.close()
            engine.close()


@pytest.mark.parametrize("change", ["none", "paused"])
def test_removal_ends_the_service_and_no_other_and_may_be_repeated(
    engine: Engine, group: Group, started: tuple[Service, Roles], change: str
) -> None:
    service, roles = started_in(group)
    endpoint = admin_endpoint(service, roles)
    assert service.endpoint() != started[0].endpoint()
    if change == "paused":
        service.pause()
        assert service.state().detail != "running"
    group.close()
    assert not service.state().running
    with pytest.raises(SqlError):
        connect(endpoint, connect_timeout_s=2)
    assert started[0].state().running
    group.close()
    service.remove()


def test_a_signal_ends_one_process_of_the_server_and_no_other(started: tuple[Service, Roles]) -> None:
    service, roles = started
    with connect_admin(service, roles) as client:
        with pytest.raises(ServiceFailedError):
            service.signal_process(2**22 + 1, "SIGKILL")  # no process has this pid
        with connect_admin(service, roles) as other:
            service.signal_process(other.server_pid(), "SIGTERM")
            with pytest.raises(SqlError, match="terminating connection"):
                other.value("SELECT 1")
        assert client.value("SELECT 1") == 1


def test_a_process_of_another_program_is_never_signalled(started: tuple[Service, Roles]) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(ServiceFailedError):
            started[0].signal_process(process.pid, "SIGKILL")
        assert process.poll() is None
        process.kill()


def test_a_durable_server_may_have_a_small_file_system_of_its_own(engine: Engine, owner: Owner) -> None:
    group = engine.open_group(owner, "contract", durable=True)
    try:
        service, _ = started_in(group)
        assert bool(service.spare_folder) is (engine.name == "docker")
        if folder := service.spare_folder:
            code, output = service.run(["sh", "-c", f"cat /dev/zero > {folder}/filler"], {})
            assert code != 0
            assert "No space left on device" in output
    finally:
        group.close()


def test_a_small_file_system_that_docker_refuses_is_missing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = require_engine("docker")
    monkeypatch.setattr(docker_storage, "_SPARE_OPTIONS", "no-such-option=1")
    group = docker.open_group(owner, "contract", durable=True)
    try:
        assert started_in(group)[0].spare_folder == ""
    finally:
        group.close()


def test_the_log_of_a_service_that_does_not_start_is_kept(group: Group) -> None:
    spec, _ = specify(group)
    broken = replace(spec, script="echo 'first line' >&2; echo 'the reason' >&2; exit 7")
    try:
        service = group.start(broken)
    except ServiceFailedError as error:
        assert "the reason" in error.detail
        assert "7" in error.what
        return

    def ended() -> None:
        if service.state().running:
            raise NotYet("it is still running")

    poll(ended, what="the service to end", deadline_s=10)
    assert "7" in service.state().detail
    assert "first line\nthe reason" in service.logs()


@pytest.mark.parametrize("change", ["none", "paused", "stopped"])
def test_reaping_removes_the_services_of_a_dead_owner_only(
    engine: Engine, started: tuple[Service, Roles], change: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead = replace(Owner.me(new_run_id()), pid=process.pid, started=process_started(process.pid) or 0)
        group = engine.open_group(dead, "contract")
        left, _ = started_in(group)
        if change == "paused":
            left.pause()
        engine.reap()
        assert left.state().running  # its owner is running
        if change == "stopped":
            left.stop()
        process.communicate(b"\n")

    def reaped() -> None:
        """Reap; another harness on this machine may be reaping the same service."""
        engine.reap()
        running, still = left.state().running, leftovers(engine.name, dead.run_id)
        if running or still:
            raise NotYet(f"its owner is gone; running: {running}; there are {still}")

    poll(reaped, what="the service of a dead owner to be removed", deadline_s=20)
    assert started[0].state().running
    connect_admin(*started).close()
    group.close()


def test_an_owner_on_another_host_is_never_gone(owner: Owner) -> None:
    assert not replace(owner, host="another/host", pid=1, started=1).is_gone()
    assert not owner.is_gone()
    assert replace(owner, started=owner.started + 1).is_gone()  # the pid was given to another process
    assert replace(owner, pid=2**22 + os.getpid()).is_gone()
