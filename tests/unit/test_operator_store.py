"""An operator's object store: used in a folder of the check only, and nothing of others is read or changed."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from harness import config
from harness.checks.record import NotExercisedError
from harness.cli.main import main
from harness.engine.owner import Owner
from harness.errors import ConfigError, ServiceFailedError, UsageError
from harness.ingest.operator_store import OperatorStore, StoreDeclaration, reap_store
from harness.ingest.s3 import S3
from harness.ingest.store_requests import Fault
from harness.redaction import Redactor
from harness.suites.ingest.store import CheckStore
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Address

DECLARED = {
    "endpoint": "env:S3_URL",
    "bucket": "staging-uploads",
    "prefix": "harness/",
    "access_key": "env:S3_ACCESS",
    "secret_key": "env:S3_SECRET",
}
SECRET = "a-secret-of-the-operator"
DELETION = b"<Delete><Object><Key>harness/of-others</Key></Object></Delete>"


class Bucket:
    """A store that keeps objects in memory, notes each request, and refuses some."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        #: status and code, by the method; LIST for a list
        self.refused: dict[str, tuple[int, str]] = {}
        #: methods whose connection ends without an answer
        self.silent: set[str] = set()
        #: in parts, by their ids
        self.uploads: dict[str, str] = {}
        self.url = ""
        #: whether it computes signatures with its own address, whatever the request says
        self.knows_its_address = False

    @property
    def variables(self) -> dict[str, str]:
        return {"S3_URL": self.url, "S3_ACCESS": "ACCESSKEYOFOPS", "S3_SECRET": SECRET}

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        key = unquote(parts.path).removeprefix("/staging-uploads").removeprefix("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        self.requests.append((method, key))
        self.bodies.append(body)
        if method in self.silent:
            return 0, b""
        if error := self.refused.get(method if key else "LIST"):
            status, code = error
            return status, f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode()
        if method == "GET" and not key:
            return 200, (self.list_of_uploads() if "uploads" in query else self.list_of(query["prefix"][0])).encode()
        if method == "GET":
            return (200, self.objects[key]) if key in self.objects else (404, b"")
        if method == "PUT":
            self.objects[key] = body
        elif method == "DELETE" and "uploadId" in query:
            self.uploads.pop(query["uploadId"][0])
        elif method == "DELETE":
            self.objects.pop(key, None)
        return 200, b""

    def list_of(self, prefix: str) -> str:
        found = (
            f'<Contents><Key>{name}</Key><ETag>"{len(body)}"</ETag></Contents>'
            for name, body in self.objects.items()
            if name.startswith(prefix)
        )
        return f"<ListBucketResult>{''.join(found)}</ListBucketResult>"

    def list_of_uploads(self) -> str:
        found = (
            f"<Upload><Key>{name}</Key><UploadId>{number}</UploadId></Upload>" for number, name in self.uploads.items()
        )
        return f"<ListMultipartUploadsResult>{''.join(found)}</ListMultipartUploadsResult>"


@contextlib.contextmanager
def serving(made: Bucket, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve a store, and return its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        server_version, sys_version = "TestStore/2", ""

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

        do_GET = do_PUT = do_POST = do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that does not trust the certificate is no error of a test."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    with serving(made) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made


def ask(
    address: Address, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request(method, target, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def served_with_tls(bucket: Bucket, folder: Path) -> Iterator[tuple[int, Path]]:
    """Serve a store with a certificate of its own; the block gets its port, and the certificate."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(bucket, context) as port:
        yield port, certificate


def declared(**changed: str) -> StoreDeclaration:
    return config.convert(DECLARED | changed, StoreDeclaration, where="harness.toml")


def opened(bucket: Bucket, **changed: str) -> OperatorStore:
    return OperatorStore(declared(**changed), bucket.variables, Redactor())


def test_the_rights_are_tried_in_a_folder_of_the_check_and_nothing_is_left(bucket: Bucket) -> None:
    bucket.objects["harness/theirs"] = b"theirs"
    store = opened(bucket)
    store.require_usable()
    assert store.folder.startswith("harness/harness-check-")
    assert {key for _, key in bucket.requests} == {"", f"{store.folder}probe.txt"}
    assert bucket.objects == {"harness/theirs": b"theirs"}
    assert store.said == "env:S3_URL, bucket staging-uploads, prefix harness/, the header Server says TestStore/2"
    assert store.address.port == int(bucket.url.rpartition(":")[2])
    assert SECRET not in repr(store)


def test_only_the_folder_of_the_check_is_deleted_with_its_uploads_in_parts(bucket: Bucket) -> None:
    store = opened(bucket)
    theirs = {"harness/theirs": b"1", f"{store.folder[:-1]}-of-others": b"2"}
    bucket.objects = theirs | {f"{store.folder}a b": b"3", f"{store.folder}deep/er": b"4"}
    bucket.uploads = {"7": f"{store.folder}big", "8": "harness/theirs"}
    store.clean()
    assert bucket.objects == theirs
    assert bucket.uploads == {"8": "harness/theirs"}


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_store_without_a_list_of_uploads_is_cleaned(bucket: Bucket, status: int) -> None:
    store = opened(bucket)
    bucket.objects[f"{store.folder}a"] = b"1"
    answer = bucket.answer
    bucket.answer = lambda method, target, body: (  # type: ignore[method-assign]
        (status, b"") if "uploads=" in target else answer(method, target, body)
    )
    store.clean()
    assert bucket.objects == {}


def test_what_cannot_be_deleted_is_named(bucket: Bucket) -> None:
    store = opened(bucket)
    bucket.objects = {f"{store.folder}{name}": b"1" for name in "ab"}
    bucket.refused["DELETE"] = 403, "AccessDenied"
    with pytest.raises(ServiceFailedError, match=r"2 objects below harness/.* could not be deleted: .*/a: .*403 Acc"):
        store.clean()


def test_a_store_that_is_silent_is_asked_to_delete_once(bucket: Bucket) -> None:
    store = opened(bucket)
    bucket.objects = {f"{store.folder}{name}": b"1" for name in "abcdef"}
    bucket.silent.add("DELETE")
    with pytest.raises(
        ServiceFailedError, match=f"objects below {store.folder} may be left: .* does not answer DELETE"
    ):
        store.clean()
    assert [method for method, _ in bucket.requests].count("DELETE") == 1


def test_a_census_says_whose_the_objects_are(bucket: Bucket) -> None:
    store = opened(bucket)
    assert store.census() == "nothing"
    me = Owner.me("")
    gone = store.folder.replace(f"-{me.pid}-{me.started}-", f"-{me.pid}-1-")
    elsewhere = "harness/harness-check-00000000-1-1-00/a"
    bucket.objects = dict.fromkeys(("harness/x", "harness/y", f"{gone}a", f"{store.folder}a", elsewhere), b"1")
    before = store.census()
    assert (
        "1 left by runs that have ended (harness reap deletes them), 1 of other runs, which may still be running, 2 of others"
        in before
    )
    assert "2 of others, digest of those of others " in before
    assert before.endswith("the first one harness/x")
    bucket.objects["harness/y"] = b"changed"
    assert store.census() != before


def test_reap_deletes_the_folders_of_processes_that_are_gone_only(bucket: Bucket) -> None:
    mine, me = opened(bucket).folder, Owner.me("")
    gone = mine.replace(f"-{me.pid}-{me.started}-", f"-{me.pid}-1-")
    kept = dict.fromkeys((f"{mine}a", "harness/x", "harness/harness-check-00000000-1-1-00/a"), b"1")
    bucket.objects = kept | {f"{gone}a": b"1", f"{gone}b/c": b"2"}
    removed = reap_store(declared(), bucket.variables, Redactor())
    assert removed == [f"2 objects below {gone} of staging-uploads"]
    assert bucket.objects == kept
    assert reap_store(declared(), bucket.variables, Redactor()) == []


def test_reap_needs_the_variables_and_goes_on_without_them(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("harness.toml").write_text("[store]\n" + "".join(f'{name} = "{text}"\n' for name, text in DECLARED.items()))
    monkeypatch.setattr("harness.cli.machine.NativeEngine.reap", lambda _: [])
    monkeypatch.setattr("harness.cli.machine.reap_login_files", list)
    monkeypatch.setattr("harness.cli.machine.reap_scratch_folders", list)
    assert main(["reap", "--engine", "native"]) == 0
    assert "skipped the store of [store]: " in capsys.readouterr().err
    mine, me = opened(bucket).folder, Owner.me("")
    gone = mine.replace(f"-{me.pid}-{me.started}-", f"-{me.pid}-1-")
    bucket.objects[f"{gone}a"] = b"1"
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    assert main(["reap", "--engine", "native"]) == 0
    assert capsys.readouterr().out == f"removed 1 object below {gone} of staging-uploads\n"
    assert bucket.objects == {}


@pytest.mark.parametrize("missing", ["S3_URL", "S3_ACCESS", "S3_SECRET"])
def test_a_variable_that_is_not_set_is_named(bucket: Bucket, missing: str) -> None:
    variables = bucket.variables
    del variables[missing]
    with pytest.raises(UsageError, match=missing):
        OperatorStore(declared(), variables, Redactor())
    assert bucket.requests == []


@pytest.mark.parametrize(
    ("method", "status", "code", "said"),
    [
        ("LIST", 403, "InvalidAccessKeyId", "the object store does not know access_key"),
        ("LIST", 403, "SignatureDoesNotMatch", "secret_key does not belong to access_key"),
        ("LIST", 404, "NoSuchBucket", "the bucket does not exist"),
        ("LIST", 404, "", "the bucket does not exist, or no object store is at the endpoint"),
        ("LIST", 301, "PermanentRedirect", "the bucket is in another region, or at another endpoint"),
        ("LIST", 307, "", "another endpoint or region is needed"),
        ("LIST", 400, "AuthorizationHeaderMalformed", "the bucket is in another region than"),
        ("LIST", 403, "SecondLevelDomainForbidden", "the object store wants the bucket in the host name"),
        ("LIST", 403, "AccessDenied", "the keys lack the right to list there"),
        ("PUT", 403, "AccessDenied", "the keys lack the right to write there"),
        ("GET", 403, "AccessDenied", "the keys lack the right to read there"),
        ("DELETE", 403, "AccessDenied", "the keys lack the right to delete there"),
        ("PUT", 507, "", "the object store is full"),
        ("PUT", 507, "XMinioStorageFull", "the object store is full"),
        ("PUT", 403, "QuotaExceeded", "the object store is full"),
        ("PUT", 500, "InternalError", "the object store fails, or is full: the object store answers PUT with 500"),
        ("PUT", 599, "", "the object store fails, or is full: the object store answers PUT with 599"),
        ("PUT", 418, "", "the object store answers PUT with 418"),
    ],
)
def test_each_refusal_is_one_clear_sentence_without_secrets(
    bucket: Bucket, method: str, status: int, code: str, said: str
) -> None:
    bucket.refused[method] = status, code
    with pytest.raises(ServiceFailedError) as caught:
        opened(bucket).require_usable()
    assert said in caught.value.what
    assert str(status) in caught.value.what
    assert "\n" not in caught.value.what
    assert SECRET not in str(caught.value)


def test_secrets_are_known_before_the_store_is_reached(bucket: Bucket) -> None:
    redactor = Redactor()
    OperatorStore(declared(), bucket.variables, redactor)
    said = redactor(f"{SECRET} ACCESSKEYOFOPS {bucket.url}")
    assert SECRET not in said
    assert "ACCESSKEYOFOPS" not in said
    assert bucket.url not in said
    assert bucket.requests == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "the object store does not answer GET: .*refused"),
        ("http://store.invalid", "the host of the object store is unknown"),
    ],
)
def test_a_store_that_is_not_there_is_named(bucket: Bucket, url: str, said: str) -> None:
    with pytest.raises(ServiceFailedError, match=said):
        OperatorStore(declared(), bucket.variables | {"S3_URL": url}, Redactor()).require_usable()


def test_an_endpoint_with_tls_needs_a_store_with_tls_and_a_trusted_certificate(
    bucket: Bucket, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {"S3_URL": bucket.url.replace("http:", "https:")}
    with pytest.raises(ServiceFailedError, match="no TLS connection to the object store"):
        OperatorStore(declared(), bucket.variables | url, Redactor()).require_usable()
    with served_with_tls(bucket, tmp_path) as (port, certificate):
        url = {"S3_URL": f"https://localhost:{port}"}
        with pytest.raises(ServiceFailedError, match="the certificate of the object store is not trusted here: self"):
            OperatorStore(declared(), bucket.variables | url, Redactor()).require_usable()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setenv("S3_URL", url["S3_URL"])
        with CheckStore(context, declared()) as store:
            through(store).put(f"{store.prefix}a", b"1")
            assert bucket.objects[f"{store.prefix}a"] == b"1"
    assert bucket.objects == {}


@pytest.mark.parametrize(
    ("name", "changed", "problem"),
    [
        ("S3_ACCESS", "hunter2\n", "access_key: the variable of access_key begins or ends with a blank or a line break"),
        ("S3_SECRET", "\thunter2", "secret_key: the variable of secret_key begins or ends with a blank or a line break"),
        ("S3_ACCESS", "hunter2\r\nX: y", "access_key: the variable of access_key has a character that no header can hold"),
        ("S3_ACCESS", "hunter2☃", "access_key: the variable of access_key has a character that no header can hold"),
    ],
)
def test_a_key_that_no_request_can_hold_is_named_and_not_repeated(
    bucket: Bucket, name: str, changed: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"store.{problem}") as caught:
        OperatorStore(declared(), bucket.variables | {name: changed}, Redactor())
    assert "hunter2" not in str(caught.value)
    OperatorStore(declared(), bucket.variables | {"S3_SECRET": "a pass phrase ☃"}, Redactor())


def test_an_invalid_address_in_a_variable_is_not_repeated() -> None:
    variables = {"S3_URL": f"https://ada:{SECRET}@s3.example.org", "S3_ACCESS": "A", "S3_SECRET": SECRET}
    with pytest.raises(ConfigError) as caught:
        OperatorStore(declared(), variables, Redactor())
    assert SECRET not in str(caught.value)
    assert "store.endpoint" in str(caught.value)


def test_an_endpoint_that_begins_with_the_bucket_is_refused(bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match="the endpoint begins with the bucket"):
        opened(bucket, endpoint="https://staging-uploads.s3.example.org")


@each_row(
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
        ("prefix", "../harness/"),
        ("prefix", "harness/../"),
        ("prefix", "harness//"),
        ("prefix", "./"),
        ("prefix", "a/./b/"),
        ("prefix", "a\\b/"),
        ("prefix", "harness/\n"),
        ("region", ""),
    ],
)
def test_another_declaration_is_rejected(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        declared(**{key: value})


# --- the part of one check --------------------------------------------------------------------------------------------


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
    bucket.objects["harness/of-others"] = b"theirs"
    with CheckStore(context, declared()) as store:
        assert store.prefix.startswith("harness/")
        assert store.prefix.startswith(store.other_key.partition("-of-others/")[0])
        through(store).put(f"{store.prefix}a", b"1")
        store.write_inside_proxy("elsewhere.txt")
        assert store.others_lost() == 0
        assert len(bucket.objects) == 3
    assert bucket.objects == {"harness/of-others": b"theirs"}
    assert context.left == []
    assert context.facts["store"].endswith(
        "bucket staging-uploads, prefix harness/, the header Server says TestStore/2"
    )
    assert context.facts["below the prefix before"] == context.facts["below the prefix after"]
    assert "1 of others" in context.facts["below the prefix after"]
    assert not {SECRET, "ACCESSKEYOFOPS"} & set(" ".join(context.facts.values()).split())
    assert SECRET not in context.lab(f"key {SECRET}")


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "refused", "changes"),
    [
        ("PUT", "/B/harness/of-others", {}, b"x", "is about a key outside of the prefix", True),
        ("DELETE", "/B/harness/of-others", {}, b"", "is about a key outside of the prefix", True),
        ("GET", "/B/harness/of-others", {}, b"", "is about a key outside of the prefix", False),
        ("DELETE", "/B/PREFIXa/%2E%2E/%2E%2E/%2e%2e/of-others", {}, b"", "is about a key outside of the prefix", True),
        ("GET", "/B?list-type=2", {}, b"", "lists outside of the prefix", False),
        ("PUT", "/B/PREFIXa", {"x-amz-copy-source": "/B/harness/of-others"}, b"", "copies from an object", False),
        ("POST", "/B?delete", {}, DELETION, "deletes 1 of 1 keys outside of the prefix", True),
        ("POST", "/B?delete", {}, b"<x", "deletes objects, and its list of them cannot be read", False),
        ("DELETE", "/B", {}, b"", "changes the bucket", True),
        ("PUT", "/B?policy", {}, b"{}", "changes the bucket", True),
        ("PUT", "/other-bucket/PREFIXa", {}, b"x", "is about another bucket", True),
        ("PUT", "/B/PREFIXa", {"Host": "other.s3.example.org"}, b"x", "is addressed to another host", False),
    ],
)
def test_a_pipeline_reaches_nothing_else_in_the_store(
    bucket: Bucket,
    context: Any,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    refused: str,
    changes: bool,
) -> None:
    bucket.objects["harness/of-others"] = b"theirs"
    with CheckStore(context, declared()) as store:
        store.proxy.fail(Fault("unavailable", "GET", first=1))
        seen = len(bucket.requests)
        target = target.replace("PREFIX", store.prefix).replace("/B", "/staging-uploads")
        status, answer = ask(store.proxy.internal, method, target, headers, body)
        assert status == 403
        assert b"<Code>AccessDenied</Code>" in answer
        assert bucket.requests[seen:] == []
        request = store.proxy.requests()[-1]
        assert request.refused.startswith(refused)
        assert (request.changes_others, request.fault, request.status) == (changes, "", 403)
        # a refused request takes no fault from the next one
        assert ask(store.proxy.internal, "GET", f"/staging-uploads/{store.prefix}a")[0] == 503
    assert bucket.objects == {"harness/of-others": b"theirs"}


def test_a_pipeline_deletes_several_objects_of_its_own(bucket: Bucket, context: Any) -> None:
    with CheckStore(context, declared()) as store:
        body = DELETION.replace(b"harness/of-others", f"{store.prefix}a".encode())
        assert ask(store.proxy.internal, "POST", "/staging-uploads?delete", {}, body)[0] == 200
        assert bucket.bodies[-1] == body
        assert store.proxy.requests()[-1].refused == ""


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


def test_a_mistake_in_the_declaration_is_named_with_its_key(
    bucket: Bucket, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_URL", "http://a..b")
    said = "the object store cannot be used: harness.toml, store.endpoint: invalid address of an object store"
    with pytest.raises(NotExercisedError, match=said):
        CheckStore(context, declared()).__enter__()


def test_keys_that_may_write_and_not_delete_leave_one_object_that_is_named(bucket: Bucket, context: Any) -> None:
    bucket.refused["DELETE"] = 403, "AccessDenied"
    with pytest.raises(NotExercisedError, match="the keys lack the right to delete there"):
        CheckStore(context, declared()).__enter__()
    assert len(bucket.objects) == 1
    assert "1 object below harness/harness-check-" in context.left[0]


@pytest.mark.parametrize("ends", ["DELETE", "GET"])
def test_what_a_check_cannot_delete_is_a_fact_and_changes_no_verdict(bucket: Bucket, context: Any, ends: str) -> None:
    with CheckStore(context, declared()) as store:
        bucket.silent.add(ends)
    assert list(bucket.objects) == [store.other_key]
    assert "may be left: the object store does not answer" in context.left[0]
