"""The bounds of a proxy in front of a store: nothing that a store could read as others' objects passes."""

from __future__ import annotations

import posixpath
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ingest.store_bounds import Within
from tests.tables import each_row

HOST = "127.0.0.1:9000"
HOSTS = frozenset({HOST, "localhost:9000"})
IN = "/b/own/p"
WITHIN = Within("b", "own/p/")


def refused(method: str, target: str, *headers: tuple[str, str], host: str = HOST) -> tuple[str, bool] | None:
    """Return why a request is refused, and whether it would change something; None if it passes."""
    found = WITHIN.refusal(method, target, [("host", host), *headers], HOSTS)
    return (found.what, found.changes) if found else None


@each_row(
    ("method", "target"),
    [
        *((method, f"{IN}/a") for method in ("GET", "HEAD", "PUT", "DELETE")),
        ("GET", f"{IN}/a%20b/c+d?response-content-type=x&X-Amz-Signature=0"),
        ("PUT", f"{IN}/100%25/q%3Fx"),
        ("PUT", f"{IN}//a"),
        ("PUT", f"{IN}/..a/a..b/..."),
        ("POST", f"{IN}/a?uploads"),
        ("PUT", f"{IN}/a?partNumber=1&uploadId=x"),
        ("POST", f"{IN}/a?uploadId=x"),
        ("DELETE", f"{IN}/a?uploadId=x"),
        ("GET", f"{IN}/a?uploadId=x"),
        ("DELETE", f"{IN}/a?versionId=x"),
        ("GET", f"{IN}/a?x-id=GetObject"),
        ("HEAD", "/b"),
        ("HEAD", "/b/"),
        ("GET", "/b?location"),
        ("GET", "/b?list-type=2&prefix=own%2Fp%2F&max-keys=1"),
        ("GET", "/b/?prefix=own/p/x&marker=own/p/xy&delimiter=%2F"),
        ("GET", "/b?versions&prefix=own/p/"),
        ("GET", "/b?uploads&prefix=own/p/"),
        ("POST", "/b?delete"),
    ],
)
def test_a_request_below_the_prefix_passes(method: str, target: str) -> None:
    assert refused(method, target) is None
    assert refused(method, target, host="LOCALHOST:9000") is None


#: what is refused, by the reason and by whether it would change something of others
_REFUSED: dict[tuple[str, bool], tuple[str, ...]] = {
    ("is about a key outside of the prefix", True): (
        "PUT /b/other",
        "DELETE /b/own/p",
        "DELETE /b/own/p-of-others/keep",
        "PUT /b/own",
        "PUT /b//own/p/a",
        f"DELETE {IN}/../others",
        f"DELETE {IN}/%2e%2E/others",
        f"DELETE {IN}/%2E./..%2Fothers",
        f"DELETE {IN}/%252e%252e/others",
    ),
    ("is about a key outside of the prefix", False): (
        "GET /b/other",
        f"GET {IN}/..%5Cothers",
        f"PUT {IN}/%c0%ae%c0%ae/others",
        f"PUT {IN}/./a",
    ),
    ("is about another bucket", True): (
        "PUT /c/own/p/a",
        "PUT /b%2Fother/own/p/a",
        "DELETE /c",
    ),
    ("is about another bucket", False): ("GET /c",),
    ("is about all buckets", False): (
        "GET /",
        "GET /?x-id=ListBuckets",
    ),
    ("lists outside of the prefix", False): (
        "GET /b",
        "GET /b/",
        "GET /b?list-type=2&prefix=",
        "GET /b?list-type=2&prefix=own/",
        "GET /b?list-type=2&prefix=own/p",
        "GET /b?prefix=own/p/&prefix=",
        "GET /b?prefix=own/p/..%2F",
        "GET /b?versions",
        "GET /b?uploads",
        f"GET {IN}/a?uploads",
    ),
    ("reads settings of the bucket", False): (
        "GET /b?prefix=own/p/&Prefix=x",
        "GET /b?policy",
        "GET /b?acl",
    ),
    ("has the parameter versions, which is not about an object", False): (f"GET {IN}/a?versions",),
    ("has the parameter versioning, which is not about an object", False): (f"PUT {IN}/a?versioning",),
    ("has the parameter policy, which is not about an object", False): (f"PUT {IN}/a?policy",),
    ("has the parameter delete, which is not about an object", False): (f"POST {IN}/a?delete",),
    ("changes the bucket", True): (
        "DELETE /b",
        "PUT /b?policy",
        "PUT /b?lifecycle",
        "DELETE /b?lifecycle",
        "PUT /b?versioning",
        "POST /b?delete&uploads",
    ),
    ("creates the bucket, which exists", False): ("PUT /b",),
    ("uploads a form, whose key is not read", False): ("POST /b",),
    ("has an address that stores read in different ways", False): (
        "PUT //b/own/p/a",
        "PUT http://b.s3/own/p/a",
        "GET /b?list-type=2&prefix=own/p/;x",
        f"GET {IN}/a?versionId=1;versioning",
        "OPTIONS *",
    ),
}


@each_row(
    ("request_line", "refusal"), [(line, refusal) for refusal, lines in _REFUSED.items() for line in lines]
)
def test_a_request_that_leaves_the_prefix_is_refused(request_line: str, refusal: tuple[str, bool]) -> None:
    method, _, target = request_line.partition(" ")
    assert refused(method, target) == refusal


@pytest.mark.parametrize("host", ["b.s3.example.org", "others.localhost:9000", "127.0.0.1:9001", "127.0.0.1"])
def test_a_host_that_names_a_bucket_is_refused(host: str) -> None:
    found = refused("PUT", f"{IN}/a", host=host)
    assert found == ("is addressed to another host, whose first part a store may take for a bucket", False)


@each_row(
    ("source", "passes"),
    [
        ("/b/own/p/a", True),
        ("b/own/p/a?versionId=1", True),
        ("b/own%2Fp/a%20b", True),
        ("/b/other", False),
        ("/b/own/p/../other", False),
        ("b/own/p/%2e%2e/other", False),
        ("b/own/p/%252e%252e/other", False),
        ("b%2Fother%2Fown/p/a", False),
        ("c/own/p/a", False),
        ("", False),
        ("arn:aws:s3:us-east-1:1:accesspoint/b/object/own/p/a", False),
    ],
)
def test_the_source_of_a_copy_is_below_the_prefix(source: str, passes: bool) -> None:
    sound = ("x-amz-copy-source", "/b/own/p/a")
    expected = None if passes else ("copies from an object outside of the prefix", False)
    assert refused("PUT", f"{IN}/copy", ("x-amz-copy-source", source)) == expected
    assert refused("PUT", f"{IN}/copy?partNumber=1&uploadId=x", sound, ("x-amz-copy-source", source)) == expected
    assert refused("PUT", f"{IN}/copy?X-Amz-Copy-Source={quote(source, safe='')}") == expected
    expected = None if passes else ("renames an object outside of the prefix", True)
    assert refused("PUT", f"{IN}/a?renameObject", ("x-amz-rename-source", source)) == expected


def deletion(*keys: str, rest: str = "") -> bytes:
    objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
    return f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}{rest}</Delete>'.encode()


@pytest.mark.parametrize(
    "body",
    [
        deletion("own/p/a"),
        deletion("own/p/a", "own/p/b&amp;c", rest="<Quiet>true</Quiet>"),
        b'<?xml version="1.0" encoding="UTF-8"?>\n' + deletion("own/p/a"),
        b"<Delete><Object><Key>own/p/a</Key><VersionId>1</VersionId></Object></Delete>",
    ],
)
def test_deletions_below_the_prefix_pass(body: bytes) -> None:
    assert WITHIN.deletes_several("POST", "/b?delete")
    assert WITHIN.deletes_several("POST", "/b/?delete=&x-id=DeleteObjects")
    assert WITHIN.refusal_of_deletions(body) is None


@pytest.mark.parametrize(
    "body", [deletion("other"), deletion("own/p/a", "own/p/../other"), deletion("own/p/a", "own/p-of-others/keep")]
)
def test_deletions_outside_of_the_prefix_are_changes_of_others(body: bytes) -> None:
    found = WITHIN.refusal_of_deletions(body)
    assert found
    assert found.changes
    assert "keys outside of the prefix" in found.what


@each_row(
    "body",
    [
        b"",
        b"<Delete>",
        b"\xff\xfe",
        deletion("own/p/a").decode().encode("utf-16"),
        b'<?xml version="1.0" encoding="UTF-7"?>' + deletion("own/p/a"),
        b'<!DOCTYPE x [<!ENTITY k "other">]>' + deletion("&k;"),
        deletion("own/p/a<!-- -->"),
        deletion("own/p/<![CDATA[a]]>"),
        deletion("own/p/a<?x?>"),
        deletion("own/p/a", rest="<Key>other</Key>"),
        b"<Delete><Object><Key>own/p/a</Key><Key>other</Key></Object></Delete>",
        b"<Delete><Object><Key>own/p/a<Key>other</Key></Key></Object></Delete>",
        b"<Delete><Object><key>other</key></Object></Delete>",
        b"<Delete><Objects><Key>own/p/a</Key></Objects></Delete>",
        b"<Other><Object><Key>own/p/a</Key></Object></Other>",
        b"40;chunk-signature=0\r\n" + deletion("own/p/a"),
    ],
)
def test_a_list_of_deletions_that_stores_could_read_differently_is_refused(body: bytes) -> None:
    found = WITHIN.refusal_of_deletions(body)
    assert found
    assert (found.what, found.changes) == ("deletes objects, and its list of them cannot be read", False)


_PIECES = st.sampled_from(
    ["..", ".", "/", "%2e", "%2E%2e", "%2F", "%252F", "%255c", "\\", "a", "own", "p", "b", "%", "%25", "+"]
)


@given(st.lists(_PIECES, max_size=12).map("".join), st.sampled_from(["GET", "PUT", "DELETE"]))
def test_what_passes_stays_below_the_prefix_however_often_it_is_decoded(rest: str, method: str) -> None:
    target = f"/b/own/p/{rest}"
    if refused(method, target) is None:
        path = target
        for _ in range(4):
            path = unquote(path)
            assert posixpath.normpath(path.replace("\\", "/")).startswith("/b/own/p")
            assert "/../" not in f"{path}/"


@given(st.binary(max_size=60))
def test_any_body_of_deletions_is_decided(body: bytes) -> None:
    assert WITHIN.refusal_of_deletions(body)
