"""Signatures of S3 requests, and the harness's own client: every key arrives as it was written."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.ingest.s3 import S3, S3Error, endpoint_parts, error_in
from harness.wire.s3_signature import Keys, path_of, presigned_query, query_of, signed_headers
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in a Single
# Chunk" and "Authenticating Requests: Using Query Parameters"
EXAMPLE = Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
AT = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"max-keys": "2", "prefix": "J"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_a_header_has_the_signature_of_the_published_example(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes, signature: str
) -> None:
    sent = signed_headers(EXAMPLE, method, HOST, path, query=query, headers=headers, body=body, now=AT)
    assert sent["authorization"].endswith(f",Signature={signature}")
    assert "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request," in sent["authorization"]


def test_a_presigned_url_has_the_signature_of_the_published_example() -> None:
    query = presigned_query(EXAMPLE, "GET", HOST, "/test.txt", valid_s=86400, now=AT)
    assert parse_qs(query)["X-Amz-Signature"] == ["aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"]


@pytest.mark.parametrize("valid_s", [0, -1, 604_801])
def test_a_presigned_url_is_valid_for_seven_days_at_most(valid_s: int) -> None:
    with pytest.raises(ValueError, match="1 to 604800 s"):
        presigned_query(EXAMPLE, "GET", HOST, "/test.txt", valid_s=valid_s)


def test_keys_do_not_print_the_secret() -> None:
    assert "wJalr" not in repr(EXAMPLE)
    assert "wJalr" not in repr(S3("http://127.0.0.1:1", EXAMPLE.access_key, EXAMPLE.secret_key, bucket="b"))


KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(KEY)
def test_every_key_is_one_path_and_can_be_read_back(key: str) -> None:
    path = path_of("bucket", key)
    assert path.isascii()
    assert not set(path) & set(" ?#+\r\n")
    assert unquote(path, errors="strict") == f"/bucket/{key}"
    assert urlsplit(f"http://store{path}").path == path


@given(st.dictionaries(KEY, KEY, min_size=1, max_size=5))
def test_every_query_can_be_read_back(query: dict[str, str]) -> None:
    found = parse_qs(query_of(query), keep_blank_values=True, separator="&")
    assert {name: values[0] for name, values in found.items()} == query


def test_a_query_is_sorted_by_its_names() -> None:
    assert query_of({"prefix-x": "1", "prefix": "2", "a": "="}) == "a=%3D&prefix=2&prefix-x=1"


@given(KEY, KEY)
def test_another_key_has_another_signature(key: str, other: str) -> None:
    def signature(of: str) -> str:
        return presigned_query(EXAMPLE, "GET", HOST, path_of("bucket", of), valid_s=60, now=AT)

    assert (signature(key) == signature(other)) == (key == other)


@pytest.mark.parametrize("changed", ["PUT", "host", "secret"])
def test_the_signature_covers_method_host_and_secret(changed: str) -> None:
    keys = Keys(access_key=EXAMPLE.access_key, secret_key="another") if changed == "secret" else EXAMPLE
    host = "other.example" if changed == "host" else HOST
    method = "PUT" if changed == "PUT" else "GET"
    before = presigned_query(EXAMPLE, "GET", HOST, "/b/k", valid_s=60, now=AT)
    assert presigned_query(keys, method, host, "/b/k", valid_s=60, now=AT) != before


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:9000", ("http", "127.0.0.1", 9000, "127.0.0.1:9000")),
        ("http://127.0.0.1:9000/", ("http", "127.0.0.1", 9000, "127.0.0.1:9000")),
        ("https://s3.example.org", ("https", "s3.example.org", 443, "s3.example.org")),
        ("https://s3.example.org:443", ("https", "s3.example.org", 443, "s3.example.org")),
        ("http://[::1]:9000", ("http", "::1", 9000, "[::1]:9000")),
    ],
)
def test_the_host_header_is_the_one_that_other_clients_send(url: str, parts: tuple[str, str, int, str]) -> None:
    assert endpoint_parts(url) == parts


@each_row(
    "url",
    [
        "",
        "s3.example.org",
        "ftp://s3.example.org",
        "https://ada:hunter2@s3.example.org",
        "https://s3.example.org/bucket",
        "https://s3.example.org?x=hunter2",
        "http://host:port",
        "http://[::1",
        "http://hunter2..example.org",
        f"http://{'hunter2' * 10}.org",
        "http://hunter2 example.org",
        "http://hunter2\0",
        "http://hunter2.ünder.org",
    ],
)
def test_another_form_of_address_is_rejected_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S3(url, "a", "b", bucket="c")
    assert "hunter2" not in str(caught.value)
    assert "expected http://HOST:PORT" in str(caught.value)


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """A server that gives the same kind of answer to each request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = do_HEAD = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def client(url: str) -> S3:
    return S3(url, "a", "hunter2", bucket="uploads", timeout_s=5)


def test_an_error_says_what_the_store_answered_and_where() -> None:
    document = b"<Error><Code>NoSuchKey</Code><Message>The key\n does not exist</Message></Error>"
    with answering(lambda _: (404, document)) as url, pytest.raises(S3Error) as caught:
        client(url).get("a b")
    error = caught.value
    assert (error.status, error.code) == (404, "NoSuchKey")
    assert str(error) == (
        f"{url}/uploads/a%20b: the object store answers GET with 404 NoSuchKey: The key does not exist"
    )


@given(st.binary(max_size=200))
def test_any_body_of_an_error_is_read(body: bytes) -> None:
    assert all(isinstance(part, str) for part in error_in(body))


_OF_ANOTHER_ENCODING = b'<?xml version="1.0" encoding="klingon"?><Error><Code>NoSuchKey</Code></Error>'


@pytest.mark.parametrize("body", [b"<html>", _OF_ANOTHER_ENCODING, _OF_ANOTHER_ENCODING.replace(b"klingon", b"utf-7")])
def test_another_answer_than_a_list_is_an_error(body: bytes) -> None:
    with answering(lambda _: (200, body)) as url, pytest.raises(S3Error, match="not a list of objects"):
        client(url).keys()
    assert error_in(body) == ("", "")


def test_a_list_is_read_to_its_last_page() -> None:
    def pages(request: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        query = parse_qs(urlsplit(request.path).query)
        page = int(query.get("continuation-token", ["0"])[0])
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{page + 1}</NextContinuationToken>"
        document = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Contents><Key>{query['prefix'][0]}{page}</Key></Contents>{more if page < 2 else ''}</ListBucketResult>"
        )
        return 200, document.encode()

    with answering(pages) as url:
        assert client(url).keys("x/") == ("x/0", "x/1", "x/2")
        assert client(url).first_key("x/") == "x/0"


def test_a_list_whose_pages_repeat_is_an_error() -> None:
    page = b"<R><IsTruncated>true</IsTruncated><NextContinuationToken>1</NextContinuationToken></R>"
    with answering(lambda _: (200, page)) as url, pytest.raises(S3Error, match="the list of objects never ends"):
        client(url).keys()


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ("<R><EncodingType>url</EncodingType><Contents><Key>a+b%2Bc%01</Key></Contents></R>", "a b+c\x01"),
        ("<R><Contents><Key>a+b%2Bc</Key></Contents></R>", "a+b%2Bc"),
    ],
)
def test_a_listed_key_is_decoded_where_the_store_encoded_it(document: str, key: str) -> None:
    with answering(lambda _: (200, document.encode())) as url:
        assert client(url).keys() == (key,)


def test_a_store_that_does_not_answer_is_named() -> None:
    with answering(lambda _: (200, b"")) as url:
        pass
    with pytest.raises(S3Error, match="does not answer GET") as caught:
        client(url).keys()
    assert caught.value.status == 0
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("code", ["BucketAlreadyOwnedByYou", "BucketAlreadyExists"])
def test_a_bucket_that_exists_is_made_once(code: str) -> None:
    with answering(lambda _: (409, f"<Error><Code>{code}</Code></Error>".encode())) as url:
        client(url).make_bucket()


def test_a_missing_object_needs_no_deletion() -> None:
    with answering(lambda _: (404, b"")) as url:
        client(url).delete("a")
