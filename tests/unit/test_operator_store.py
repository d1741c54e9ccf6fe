"""An operator's object store: used below its prefix only, empty before a run, and nothing of others is deleted."""

from __future__ import annotations

import http.client
import http.server
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from harness import config
from harness.checks.record import NotExercisedError
from harness.errors import ConfigError, HarnessError, ServiceFailedError, UsageError
from harness.ingest.operator_store import StoreDeclaration, operator_store
from harness.ingest.s3 import S3
from harness.redaction import Redactor
from harness.suites.ingest.store import CheckStore

if TYPE_CHECKING:
    from collections.abc import Iterator

DECLARED = {
    "endpoint": "env:S3_URL",
    "bucket": "staging-uploads",
    "prefix": "harness/",
    "access_key": "env:S3_ACCESS",
    "secret_key": "env:S3_SECRET",
}
SECRET = "a-secret-of-the-operator"


class Bucket:
    """A store that keeps objects in memory, notes each request, and refuses some."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.refused: set[tuple[str, str]] = set()
        #: the connection ends without an answer
        self.silent: set[tuple[str, str]] = set()
        self.url = ""
        #: whether it computes signatures with its own address, whatever the request says
        self.knows_its_address = False

    @property
    def variables(self) -> dict[str, str]:
        return {"S3_URL": self.url, "S3_ACCESS": "ACCESSKEYOFOPS", "S3_SECRET": SECRET}

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        key = unquote(parts.path).removeprefix("/staging-uploads").removeprefix("/")
        self.requests.append((method, key))
        if (method, key) in self.silent:
            return 0, b""
        if (method, key) in self.refused:
            return 403, b"<Error><Code>AccessDenied</Code></Error>"
        if method == "GET" and not key:
            prefix = parse_qs(parts.query)["prefix"][0]
            found = "".join(
                f"<Contents><Key>{name}</Key></Contents>" for name in self.objects if name.startswith(prefix)
            )
            return 200, f"<ListBucketResult>{found}</ListBucketResult>".encode()
        if method == "GET":
            return (200, self.objects[key]) if key in self.objects else (404, b"")
        if method == "PUT":
            self.objects[key] = body
        if method == "DELETE":
            self.objects.pop(key, None)
        return 200, b""


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = made.answer(self.command, self.path, body)
            if made.knows_its_address and self.headers["Host"] not in made.url:
                status, answer = 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


def declared(**changed: str) -> StoreDeclaration:
    return config.convert(DECLARED | changed, StoreDeclaration, where="harness.toml")


def run(bucket: Bucket, objects: dict[str, bytes], *written: str, fails: bool = False) -> None:
    """Use the store as a run that writes objects, and notes some of them as its own."""
    with operator_store(declared(), bucket.variables, Redactor()) as store:
        store.wrote(*written)
        bucket.objects |= objects
        if fails:
            raise ZeroDivisionError


def test_what_the_run_wrote_is_deleted_and_nothing_else_is_touched(bucket: Bucket) -> None:
    bucket.objects["harness-of-others/a"] = b"theirs"
    with operator_store(declared(), bucket.variables, Redactor()) as store:
        store.wrote("harness/a b", "harness/never-arrived")
        store.client.put("harness/a b", b"ours")
        assert store.address.port == int(bucket.url.rpartition(":")[2])
    assert bucket.objects == {"harness-of-others/a": b"theirs"}
    assert {key for method, key in bucket.requests if method == "DELETE"} == {"harness/a b", "harness/never-arrived"}


def test_a_prefix_that_is_not_empty_is_refused_before_anything_is_written(bucket: Bucket) -> None:
    bucket.objects["harness/theirs"] = b"theirs"
    with (
        pytest.raises(ConfigError, match="found the object 'harness/theirs', expected nothing below"),
        operator_store(declared(), bucket.variables, Redactor()),
    ):
        pytest.fail("the block must not run")
    assert {method for method, _ in bucket.requests} == {"GET"}
    assert bucket.objects == {"harness/theirs": b"theirs"}


def test_objects_of_others_that_came_during_the_run_stay_and_are_named(bucket: Bucket) -> None:
    objects = {"harness/ours": b"1", "harness/theirs": b"2"}
    with pytest.raises(ServiceFailedError, match="found 1 object below harness/ that the run did not write") as caught:
        run(bucket, objects, "harness/ours")
    assert bucket.objects == {"harness/theirs": b"2"}
    assert "harness/theirs" in caught.value.detail


def test_a_key_outside_the_prefix_is_refused(bucket: Bucket) -> None:
    bucket.objects["harness-of-others/a"] = b"theirs"
    with (
        pytest.raises(ServiceFailedError, match="does not begin with 'harness/'"),
        operator_store(declared(), bucket.variables, Redactor()) as store,
    ):
        store.wrote("harness-of-others/a")
    assert bucket.objects == {"harness-of-others/a": b"theirs"}


def test_an_error_of_the_run_is_not_masked_and_its_objects_are_deleted(bucket: Bucket) -> None:
    bucket.refused.add(("DELETE", "harness/kept"))
    with pytest.raises(ZeroDivisionError):
        run(bucket, {"harness/ours": b"1", "harness/kept": b"2"}, "harness/ours", "harness/kept", fails=True)
    assert bucket.objects == {"harness/kept": b"2"}


def test_an_object_that_cannot_be_deleted_is_named(bucket: Bucket) -> None:
    bucket.refused.add(("DELETE", "harness/kept"))
    with pytest.raises(ServiceFailedError, match="1 of 2 objects of the run could not be deleted") as caught:
        run(bucket, {"harness/kept": b"2"}, "harness/ours", "harness/kept")
    assert "harness/kept: the object store answers DELETE with 403 AccessDenied" in caught.value.detail


def test_a_store_that_is_silent_is_asked_to_delete_once(bucket: Bucket) -> None:
    bucket.silent.add(("DELETE", "harness/b"))
    keys = [f"harness/{name}" for name in "abcdef"]
    with pytest.raises(ServiceFailedError, match="5 of 6 objects of the run could not be deleted") as caught:
        run(bucket, dict.fromkeys(keys, b"1"), *keys)
    assert [key for method, key in bucket.requests if method == "DELETE"] == ["harness/a", "harness/b"]
    assert "harness/b: the object store does not answer DELETE" in caught.value.detail
    assert "4 further keys were not tried" in caught.value.detail


@pytest.mark.parametrize("missing", ["S3_URL", "S3_ACCESS", "S3_SECRET"])
def test_a_variable_that_is_not_set_is_named(bucket: Bucket, missing: str) -> None:
    variables = bucket.variables
    del variables[missing]
    with pytest.raises(UsageError, match=missing), operator_store(declared(), variables, Redactor()):
        pytest.fail("the block must not run")
    assert bucket.requests == []


def test_refused_keys_and_a_missing_store_are_errors_without_secrets(bucket: Bucket) -> None:
    bucket.refused.add(("GET", ""))
    redactor = Redactor()
    with (
        pytest.raises(ConfigError, match="403 AccessDenied") as caught,
        operator_store(declared(), bucket.variables, redactor),
    ):
        pytest.fail("the block must not run")
    assert SECRET not in str(caught.value)
    assert SECRET not in redactor(f"key {SECRET}")
    assert "ACCESSKEYOFOPS" not in redactor("key ACCESSKEYOFOPS")
    gone = bucket.variables | {"S3_URL": "http://127.0.0.1:1"}
    with pytest.raises(HarnessError, match="does not answer"), operator_store(declared(), gone, redactor):
        pytest.fail("the block must not run")


def test_an_invalid_address_in_a_variable_is_not_repeated() -> None:
    variables = {"S3_URL": f"https://ada:{SECRET}@s3.example.org", "S3_ACCESS": "A", "S3_SECRET": SECRET}
    with pytest.raises(ConfigError) as caught, operator_store(declared(), variables, Redactor()):
        pytest.fail("the block must not run")
    assert SECRET not in str(caught.value)
    assert "store.endpoint" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("secret_key", SECRET),
        ("access_key", "AKIA"),
        ("endpoint", "s3.example.org"),
        ("endpoint", "https://s3.example.org/bucket"),
        ("endpoint", "https://ada:pw@s3.example.org"),
        ("bucket", "Not_A_Bucket"),
        ("prefix", ""),
        ("prefix", "/"),
        ("prefix", "harness"),
        ("prefix", "/harness/"),
        ("region", ""),
    ],
)
def test_another_declaration_is_rejected(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        declared(**{key: value})


# --- the part of one check ---------------------------------------------------------------------------------------------


class Context:
    """The part of a check that its store needs."""

    def __init__(self) -> None:
        self.lab = Redactor()
        self.facts: dict[str, str] = {}
        self.left: list[str] = []

    def fact(self, name: str, value: str) -> None:
        self.facts[name] = value

    def left_behind(self, what: str) -> None:
        self.left.append(what)


@pytest.fixture
def context(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    return Context()


def through(store: CheckStore) -> S3:
    given = store.variables()
    return S3(given["S3_ENDPOINT"], given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], bucket=store.bucket)


def test_a_check_uses_a_folder_of_its_own_and_leaves_it_empty(bucket: Bucket, context: Any) -> None:
    bucket.objects["harness/of-another-check"] = b"theirs"
    with CheckStore(context, declared()) as store:
        assert store.prefix.startswith("harness/")
        through(store).put(f"{store.prefix}a", b"1")
        store.write_inside_proxy("elsewhere.txt")
        assert store.others_lost() == 0
        assert len(bucket.objects) == 4
    assert bucket.objects == {"harness/of-another-check": b"theirs"}
    assert context.left == []
    assert SECRET not in context.lab(f"key {SECRET}")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/staging-uploads/harness/of-another-check"),
        ("DELETE", "/staging-uploads/harness/of-another-check"),
        ("GET", "/staging-uploads/harness/of-another-check"),
        ("PUT", "/staging-uploads/FOLDER../of-another-check"),
        ("DELETE", "/staging-uploads/FOLDERa/%2E%2E/%2E%2E/of-another-check"),
        ("POST", "/staging-uploads?delete"),
        ("DELETE", "/staging-uploads"),
        ("PUT", "/other-bucket/FOLDERa"),
    ],
)
def test_a_pipeline_reaches_nothing_else_in_the_store(bucket: Bucket, context: Any, method: str, target: str) -> None:
    bucket.objects["harness/of-another-check"] = b"theirs"
    with CheckStore(context, declared()) as store:
        seen = len(bucket.requests)
        proxy = store.proxy.internal
        connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=10)
        connection.request(method, target.replace("FOLDER", store.prefix), b"x" if method == "PUT" else None)
        assert connection.getresponse().status == 403
        connection.close()
        assert bucket.requests[seen:] == []
    assert bucket.objects == {"harness/of-another-check": b"theirs"}


def test_a_store_that_knows_only_its_own_address_leaves_the_check_not_run(bucket: Bucket, context: Any) -> None:
    bucket.knows_its_address = True
    with pytest.raises(NotExercisedError, match=r"signed for the address of the proxy.*403 SignatureDoesNotMatch"):
        CheckStore(context, declared()).__enter__()
    assert bucket.objects == {}


def test_a_store_that_cannot_be_used_leaves_the_check_not_run(
    bucket: Bucket, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S3_ACCESS")
    with pytest.raises(NotExercisedError, match="S3_ACCESS"):
        CheckStore(context, declared()).__enter__()
    assert bucket.requests == []


def test_what_a_check_cannot_delete_is_a_fact_and_changes_no_verdict(bucket: Bucket, context: Any) -> None:
    with CheckStore(context, declared()) as store:
        bucket.refused.add(("DELETE", store.other_key))
    assert list(bucket.objects) == [store.other_key]
    assert "1 of 1 objects of the run could not be deleted" in context.left[0]
