"""The object store of a lab: signatures are checked, objects survive a stop, and nothing is left behind."""

from __future__ import annotations

import socket
import stat
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.engine import native_group
from harness.engine.docker_service import DockerService
from harness.engine.native_engine import NativeEngine
from harness.engine.native_folders import runs_in_memory
from harness.engine.native_service import NativeService
from harness.engine.owner import Owner
from harness.errors import EngineUnavailableError, ServiceFailedError
from harness.events import silent
from harness.ingest.s3 import S3, S3Error
from harness.lab import store as store_module
from harness.lab.lab import Lab, stand_up
from harness.lab.store import STORE
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.waiting import NotYet, poll
from harness.wire.s3_signature import Keys
from tests.conftest import ENGINES, require_engine
from tests.contract.services import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Engine
    from harness.lab.store import ObjectStore

pytestmark = pytest.mark.engine

BUCKET = "uploads"
KEYS_OF_NOBODY = Keys(access_key="a", secret_key="b")
KEYS = (
    "a b/c+d.txt",
    "grüße/日本.txt",
    "100%/q?x=1&y=#z",
    "~'()!*;:@=,$",
    "deep/er/and/deeper",
    "tab\tand\x01",
    "a+b%2Bc d",
)


@pytest.fixture(scope="module", params=ENGINES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab whose tests use its store. Nothing is left of it."""
    owner = Owner.me(new_run_id())
    opened = stand_up(require_engine(request.param), load_topologies()["direct"], owner, Redactor())
    try:
        assert opened.object_store().address.port
        yield opened
    finally:
        opened.close()
    assert leftovers(request.param, owner.run_id) == []
    with pytest.raises(ServiceFailedError, match="closing"):
        opened.start_service("store", STORE, lambda place: store_module._spec(place, KEYS_OF_NOBODY))


@pytest.fixture
def store(lab: Lab) -> ObjectStore:
    return lab.object_store()


@pytest.fixture
def client(store: ObjectStore) -> S3:
    made = S3(store.endpoint_url, store.access_key, store.secret_key, bucket=BUCKET)
    made.make_bucket()
    return made


def status_of(url: str, method: str = "GET", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "text/plain"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_kept_under_its_key(client: S3, key: str) -> None:
    body = key.encode() * 3
    client.put(key, body)
    assert client.get(key) == body
    assert key in client.keys(key[:3])
    client.delete(key)
    assert client.first_key(key) == ""


def test_a_presigned_address_uploads_and_downloads_one_object(client: S3) -> None:
    key = "presigned/ü b+c.txt"
    assert status_of(client.presign("PUT", key, 60), "PUT", b"by anybody") == 200
    assert client.get(key) == b"by anybody"
    assert status_of(client.presign("GET", key, 60)) == 200


def test_forged_and_foreign_addresses_are_refused(client: S3) -> None:
    client.put("mine", b"1")
    client.put("other", b"2")
    url = client.presign("GET", "mine", 60)
    forged = url[:-1] + ("0" if url[-1] != "0" else "1")
    refused = {
        "a forged signature": status_of(forged),
        "another key": status_of(url.replace("/mine?", "/other?")),
        "another method": status_of(url, "PUT", b"3"),
        "another period": status_of(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")),
        "no signature": status_of(url.partition("?")[0]),
        "a signature for uploads": status_of(client.presign("PUT", "mine", 60)),
    }
    assert {name: status for name, status in refused.items() if status not in {400, 403}} == {}
    assert client.get("mine") == b"1"


def test_an_expired_address_is_refused(client: S3) -> None:
    client.put("short", b"1")
    url = client.presign("GET", "short", 1)

    def expired() -> int:
        if (status := status_of(url)) == 200:
            raise NotYet("it is valid")
        return status

    assert poll(expired, what="the end of the address", deadline_s=20, interval_s=0.2) in {400, 403}


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_other_keys_are_refused(store: ObjectStore, wrong: str) -> None:
    login = {"access_key": store.access_key, "secret_key": store.secret_key} | {wrong: "SOMETHINGELSE"}
    with pytest.raises(S3Error) as caught:
        S3(store.endpoint_url, login["access_key"], login["secret_key"], bucket=BUCKET).keys()
    assert caught.value.status == 403


def test_a_stopped_store_refuses_connections_and_comes_back_with_its_objects(store: ObjectStore, client: S3) -> None:
    client.put("kept/object", b"1" * 100_000)
    store.stop()
    with pytest.raises(S3Error, match="does not answer"):
        client.get("kept/object")
    store.start()
    again = S3(store.endpoint_url, store.access_key, store.secret_key, bucket=BUCKET)
    assert again.get("kept/object") == b"1" * 100_000
    assert "kept/object" in again.keys("kept/")


def test_a_store_that_crashed_comes_back_with_its_objects(store: ObjectStore, client: S3) -> None:
    client.put("kept/in-a-crash", b"1")
    store.service.kill()
    assert not store.service.state().running
    store.start()
    assert S3(store.endpoint_url, store.access_key, store.secret_key, bucket=BUCKET).get("kept/in-a-crash") == b"1"


def test_one_store_is_started_for_all_threads(lab: Lab, store: ObjectStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(lab.object_store) for _ in range(8)]]
    assert {id(one) for one in found} == {id(store)}
    assert [name for name in lab.beside if name.startswith("store")] == ["store"]


def test_the_evidence_names_its_version(lab: Lab, store: ObjectStore) -> None:
    found = lab.evidence_beside["store"]
    assert (found.product, found.version) == ("rclone", STORE.version)
    assert found.origin
    assert store.version == f"rclone {STORE.version}"


def test_its_keys_are_in_no_log_evidence_or_process_list(lab: Lab, store: ObjectStore, client: S3) -> None:
    assert status_of(client.presign("GET", "missing", 60)) == 404
    with pytest.raises(S3Error):
        S3(store.endpoint_url, store.access_key, "wrong", bucket=BUCKET).keys()
    commands = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path))
    assert b"rclone" in commands
    shown = "\n".join((*lab.logs().values(), repr(lab.evidence_beside), repr(store), commands.decode(errors="replace")))
    assert store.secret_key not in shown
    assert store.access_key not in shown
    hidden = lab.redact(f"{store.access_key} and {store.secret_key}")
    assert store.secret_key not in hidden
    assert store.access_key not in hidden


def readable(path: Path) -> bool:
    """Whether a process is still there."""
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_objects_are_in_memory_where_the_data_of_the_server_is(lab: Lab, store: ObjectStore) -> None:
    if isinstance(store.service, DockerService):
        code, mounts = store.service.run(["sh", "-c", "cat /proc/mounts"], {})
        assert code == 0
        assert (" /srv/harness/memory tmpfs " in mounts) is (lab.memory_mib > 0)
    else:
        assert isinstance(store.service, NativeService)
        folder = store.service._folder
        assert (folder / "data").is_dir()
        assert folder.is_relative_to(runs_in_memory()) is (lab.memory_mib > 0)
        assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o600


@pytest.mark.parametrize("lab", ["docker"], indirect=True)
def test_a_full_store_refuses_an_object_and_goes_on(lab: Lab, store: ObjectStore, client: S3) -> None:
    if not lab.memory_mib:
        pytest.skip("the data is on disk, which has no limit of its own")
    assert isinstance(store.service, DockerService)
    client.put("large", bytes(2**20))
    other = "/srv/harness/memory/other"
    try:
        code, printed = store.service.run(["sh", "-c", f"cat /dev/zero > {other}"], {})
        assert code, "a file without an end fits into the memory"
        assert "No space left" in printed
        with pytest.raises(S3Error, match="PUT"):
            client.put("refused", bytes(2**20))
        assert "no space left on device" in store.logs()
        assert "refused" not in client.keys("")
        client.delete("large")
        client.put("small", b"1")
        assert client.get("small") == b"1"
    finally:
        store.service.run(["rm", "-f", other], {})


def test_a_port_that_is_in_use_is_replaced(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_REQUEST_S", 0.3)  # the other program accepts, and never answers
    free = native_group.free_port
    opened = stand_up(require_engine("native"), load_topologies()["direct"], owner, Redactor())
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            ports = iter([port])
            monkeypatch.setattr(native_group, "free_port", lambda: next(ports, None) or free())
            assert opened.object_store().address.port != port
        assert list(opened.beside) == ["store-2"]
    finally:
        opened.close()


def broken(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    spec = store_module._spec
    monkeypatch.setattr(store_module, "_spec", lambda *facts: replace(spec(*facts), script=script))


def test_a_store_that_never_answers_is_an_error_with_its_log(
    any_engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_READY_DEADLINE_S", 0.5)
    broken(monkeypatch, "echo 'not a store' >&2; exec sleep 60")
    opened = stand_up(any_engine, load_topologies()["direct"], owner, Redactor())
    try:
        with pytest.raises(ServiceFailedError, match=r"timed out after 0\.5 s waiting for the object store") as caught:
            opened.object_store()
        assert "not a store" in caught.value.detail
        with pytest.raises(ServiceFailedError) as again:  # and it is not started again
            opened.object_store()
        assert again.value is caught.value
        assert opened.beside == {}
        assert opened.evidence_beside == {}
    finally:
        opened.close()
    assert leftovers(any_engine.name, owner.run_id) == []


def test_a_store_that_ends_at_once_is_an_error_with_its_log(
    engine: Engine, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "echo 'no space left on device' >&2; exit 3")
    opened = stand_up(engine, load_topologies()["direct"], owner, Redactor())
    try:
        with pytest.raises(ServiceFailedError, match="ended while starting") as caught:
            opened.object_store()
        assert "no space left on device" in caught.value.detail
    finally:
        opened.close()
    assert leftovers(engine.name, owner.run_id) == []


def test_a_program_that_cannot_be_installed_is_named(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require_engine("native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    tmp_path.chmod(0o755)
    engine = NativeEngine()
    with pytest.raises(
        EngineUnavailableError, match=r"virtual environment for rclone 1\.75\.2 could not be filled"
    ) as caught:
        engine.prepare((STORE,), silent)
    assert "PIP_INDEX_URL" in caught.value.hint
    with pytest.raises(EngineUnavailableError):
        engine.origin(STORE)
    engine.close()
