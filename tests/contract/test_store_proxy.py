"""The proxy in front of the store of a lab: signatures hold through it, and a presigned address belongs to its listener."""

from __future__ import annotations

from hashlib import sha256
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from harness.engine.owner import Owner
from harness.ingest.s3 import S3, S3Error
from harness.ingest.store_proxy import StoreProxy
from harness.ingest.store_requests import Fault
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.engine.protocol import Address, Engine
    from harness.lab.store import ObjectStore

pytestmark = pytest.mark.engine

BUCKET = "proxied"
KEY = "p/a key+ü.txt"
CONTENT = b"the content of a file"


@pytest.fixture(scope="module")
def store(some_engine: Engine) -> Iterator[ObjectStore]:
    lab = stand_up(some_engine, load_topologies()["direct"], Owner.me(new_run_id()), Redactor())
    try:
        yield lab.object_store()
    finally:
        lab.close()


def client(store: ObjectStore, address: Address, secret_key: str = "") -> S3:
    return S3(f"http://{address}", store.access_key, secret_key or store.secret_key, bucket=BUCKET, timeout_s=20.0)


def put(url: str, body: bytes) -> int:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", body)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_proxy_is_transparent_for_signatures_and_fails_on_demand(store: ObjectStore) -> None:
    with StoreProxy(lambda: store.address) as proxy:
        inside, outside = client(store, proxy.internal), client(store, proxy.public)
        inside.make_bucket()
        inside.put(KEY, CONTENT)
        assert inside.get(KEY) == CONTENT
        assert inside.keys("p/") == (KEY,)
        with pytest.raises(S3Error) as refused:
            client(store, proxy.internal, "another key").put(KEY, b"other")
        assert refused.value.status == 403

        # the signature covers the host, so an address is valid at its own listener only
        url = outside.presign("PUT", KEY, 60)
        assert put(url, b"new content") == 200
        assert put(url.replace(str(proxy.public), str(proxy.internal)), b"other") == 403
        assert put(f"{url[:-1]}{'0' if url[-1] != '0' else '1'}", b"other") == 403
        assert inside.get(KEY) == b"new content"

        proxy.fail(Fault("unavailable", "GET", KEY, first=1))
        proxy.fail(Fault("corrupt", "GET", KEY, first=1))
        with pytest.raises(S3Error) as unavailable:
            inside.get(KEY)
        assert (unavailable.value.status, unavailable.value.code) == (503, "SlowDown")
        assert inside.get(KEY) not in {CONTENT, b"new content"}
        assert inside.get(KEY) == b"new content"

        about = [seen for seen in proxy.requests() if seen.key == KEY and not seen.operation]
        assert [(seen.side, seen.method, seen.status) for seen in about] == [
            ("internal", "PUT", 200),
            ("internal", "GET", 200),
            ("internal", "PUT", 403),
            ("public", "PUT", 200),
            ("internal", "PUT", 403),
            ("public", "PUT", 403),
            *[("internal", "GET", status) for status in (200, 503, 200, 200)],
        ]
        assert about[3].sha256 == about[-1].sha256 == sha256(b"new content").hexdigest()
        assert {seen.ending for seen in about} == {"complete"}


def test_a_store_that_is_down_looks_like_it_through_the_proxy(store: ObjectStore) -> None:
    with StoreProxy(lambda: store.address) as proxy:
        inside = client(store, proxy.internal)
        inside.make_bucket()
        inside.put(KEY, CONTENT)
        store.stop()
        with pytest.raises(S3Error) as gone:
            inside.get(KEY)
        assert gone.value.status == 0
        store.start()
        assert inside.get(KEY) == CONTENT
        assert [seen.ending for seen in proxy.requests() if seen.method == "GET"] == ["no-store", "complete"]
