"""The reference pipeline: the parts that need no server. Its packages are not installed for these tests."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
import sys
import threading
import tomllib
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.hostapp import correlation
from harness.hostapp.ingest import content, log_lines
from harness.hostapp.ingest.backoff import delay, delay_range
from harness.hostapp.ingest.content import Content, ContentReader, CorruptedError
from harness.hostapp.ingest.leases import Leases
from harness.hostapp.ingest.log_lines import JsonLines
from harness.hostapp.ingest.metrics import Metrics
from harness.hostapp.ingest.settings import Actor, Settings, SettingsError, database_url, load_settings
from harness.hostapp.ingest.validation import InvalidError, upload_request_from
from harness.hostapp.ingest.work_queue import Claimed, WorkQueue, is_transient
from harness.ingest.pipeline_file import Pipeline
from tests.tables import each_row

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "harness/ingest/pipelines"
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://app:hunter2hunter2@localhost/app",
    "S3_ENDPOINT": "http://127.0.0.1:9000",
    "S3_BUCKET": "uploads",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
}
INVALID_URLS = (
    "postgresql://app:hunter2@[::1/app",
    "postgresql://app:hunter2%zz@localhost/app",
    "postgres//app:hunter2@localhost/app",
    "host=localhost password='hunter2",
)


# --- delays --------------------------------------------------------------------------------------

SECONDS = st.floats(0.01, 60)


@given(failures=st.integers(-3, 5000), shortest_s=SECONDS, longest_s=SECONDS, seed=st.integers())
def test_a_delay_is_positive_and_never_longer_than_the_cap(
    failures: int, shortest_s: float, longest_s: float, seed: int
) -> None:
    chosen = delay(failures, shortest_s=shortest_s, longest_s=longest_s, chance=random.Random(seed))  # noqa: S311 -- chance, not a secret
    low, high = delay_range(failures, shortest_s=shortest_s, longest_s=longest_s)
    assert 0 < low <= chosen <= high <= longest_s


@given(failures=st.integers(1, 20), shortest_s=SECONDS, longest_s=SECONDS)
def test_the_longest_delay_is_shorter_than_the_next_one_until_the_cap(
    failures: int, shortest_s: float, longest_s: float
) -> None:
    high = delay_range(failures, shortest_s=shortest_s, longest_s=longest_s)[1]
    low, next_high = delay_range(failures + 1, shortest_s=shortest_s, longest_s=longest_s)
    assert high < low or next_high == pytest.approx(longest_s)


@given(failures=st.integers(1, 50), shortest_s=SECONDS, longest_s=SECONDS)
def test_uploads_that_fail_together_are_retried_at_different_times(
    failures: int, shortest_s: float, longest_s: float
) -> None:
    low, high = delay_range(failures, shortest_s=shortest_s, longest_s=longest_s)
    assert high == pytest.approx(low * 1.5)


def test_the_first_delay_is_at_least_the_shortest() -> None:
    assert delay_range(1, shortest_s=0.2, longest_s=2.0) == pytest.approx((0.2, 0.3))


# --- contents ------------------------------------------------------------------------------------


def read(
    data: bytes, content_type: str = "text/plain", *, size: int = 7, headers: dict[str, str] | None = None
) -> Content:
    reader = ContentReader(content_type)
    for begin in range(0, len(data), size):
        reader.add(data[begin : begin + size])
    return reader.finish(headers or {})


@given(data=st.binary(max_size=500), size=st.integers(1, 100))
def test_the_checksum_is_that_of_the_file_however_it_arrives(data: bytes, size: int) -> None:
    found = read(data, size=size, headers={"content-length": str(len(data))})
    assert (found.sha256, found.size) == (hashlib.sha256(data).hexdigest(), len(data))


@given(data=st.binary(min_size=1, max_size=200), position=st.integers(0, 199), seed=st.integers(1, 255))
def test_a_changed_byte_is_noticed_by_each_checksum_of_the_store(data: bytes, position: int, seed: int) -> None:
    place = position % len(data)
    changed = data[:place] + bytes([data[place] ^ seed]) + data[place + 1 :]
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
    for headers in ({"etag": f'"{md5}"'}, {"x-amz-checksum-sha256": sha256}):
        assert read(data, headers=headers).size == len(data)
        with pytest.raises(CorruptedError):
            read(changed, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"etag": f'"{"0" * 32}-2"'},
        {"etag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "aws:kms"},
        {"etag": '"of-another-store"'},
        {"x-amz-checksum-sha256": "Zm9v-2"},
        {},
    ],
)
def test_what_is_not_a_digest_of_the_file_is_not_compared_with_it(headers: dict[str, str]) -> None:
    assert read(b"whole", headers=headers).size == 5


def test_a_file_that_ends_early_is_corrupt() -> None:
    with pytest.raises(CorruptedError, match="5 bytes arrived, expected 6"):
        read(b"whole", headers={"content-length": "6"})


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (b"caf\xc3\xa9", "text/plain", "café"),
        (b"caf\xe9", "text/plain; charset=latin-1", "café"),
        (b"caf\xe9", "text/csv; charset=unheard-of", "caf\ufffd"),
        (b"a\0b", "TEXT/PLAIN", "ab"),
        (b"%PDF", "application/pdf", None),
        (b"", "text/plain", ""),
    ],
)
def test_text_is_extracted_from_text(data: bytes, content_type: str, text: str | None) -> None:
    assert read(data, content_type).text == text


def test_the_text_is_bounded_and_ends_with_a_whole_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MOST_TEXT", 4)
    found = read("aéé".encode())
    assert (found.text, found.size) == ("aé", 5)


@given(data=st.binary(max_size=200), charset=st.sampled_from(["utf-8", "utf-16", "latin-1", "hex", "zip"]))
def test_any_text_can_be_stored(data: bytes, charset: str) -> None:
    text = read(data, f"text/plain; charset={charset}").text
    assert text is not None
    assert "\0" not in text
    assert text.encode().decode() == text


# --- requests ------------------------------------------------------------------------------------


def test_a_request_without_a_content_type_is_for_bytes() -> None:
    found = upload_request_from({"filename": "Übersicht 1.txt", "projectId": "p-1"})
    assert (found.filename, found.project, found.content_type) == (
        "Übersicht 1.txt",
        "p-1",
        "application/octet-stream",
    )


@each_row(
    ("changes", "fields"),
    [
        ({"filename": None}, {"filename"}),
        ({"projectId": ""}, {"projectId"}),
        ({"filename": "", "projectId": None}, {"filename", "projectId"}),
        ({"filename": "../secret"}, {"filename"}),
        ({"filename": ".."}, {"filename"}),
        ({"filename": "a\nb"}, {"filename"}),
        ({"filename": "\ud800"}, {"filename"}),
        ({"filename": "x" * 201}, {"filename"}),
        ({"filename": 7}, {"filename"}),
        ({"projectId": "a/b"}, {"projectId"}),
        ({"projectId": ["p"]}, {"projectId"}),
        ({"contentType": "text"}, {"contentType"}),
        ({"contentType": "text/plain\r\nX-Other: 1"}, {"contentType"}),
    ],
)
def test_each_invalid_field_is_named(changes: dict[str, Any], fields: set[str]) -> None:
    with pytest.raises(InvalidError) as refused:
        upload_request_from({"filename": "f.txt", "projectId": "p", "contentType": "text/plain"} | changes)
    assert set(refused.value.errors) == fields


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(document=JSON | st.fixed_dictionaries({"filename": JSON, "projectId": JSON, "contentType": JSON}))
def test_any_document_is_valid_or_refused(document: Any) -> None:
    try:
        found = upload_request_from(document)
    except InvalidError as refused:
        assert refused.errors
    else:
        assert not set(found.filename) & set("/\\\0\n")


# --- settings ------------------------------------------------------------------------------------


def test_the_settings_are_variables_of_the_environment() -> None:
    found = load_settings(ENVIRONMENT | {"ATTEMPTS": "7", "LEASE_S": "2.5", "INGEST_TOKENS": "a=user:ada, b=admin:bob"})
    assert (found.attempts, found.lease_s, found.port) == (7, 2.5, 4000)
    assert found.public_endpoint == found.s3_endpoint
    assert found.actors == {"a": Actor(type="user", id="ada"), "b": Actor(type="admin", id="bob")}
    assert "hunter2" not in repr(found)


@each_row(
    ("changes", "message"),
    [
        ({"S3_BUCKET": "", "DATABASE_URL": ""}, "missing variables of the environment: DATABASE_URL, S3_BUCKET"),
        ({"ATTEMPTS": "many"}, r"\$\.attempts"),
        ({"LEASE_S": "-1"}, r"\$\.lease_s"),
        ({"SHORTEST_DELAY_S": "3", "LONGEST_DELAY_S": "2"}, "LONGEST_DELAY_S is less than SHORTEST_DELAY_S"),
        ({"INGEST_TOKENS": "hunter2"}, "INGEST_TOKENS, entry 1"),
        # a caller without a token would be this user
        ({"INGEST_TOKENS": "=user:ada"}, "INGEST_TOKENS, entry 1: expected a token of its own"),
        ({"INGEST_TOKENS": "  =user:ada"}, "INGEST_TOKENS, entry 1: expected a token of its own"),
        (
            {"INGEST_TOKENS": "hunter2=user:ada,hunter2=user:bob"},
            "INGEST_TOKENS, entry 2: expected a token of its own",
        ),
        *(
            ({"DATABASE_URL": url}, "invalid connection string in DATABASE_URL: libpq cannot parse it")
            for url in INVALID_URLS
        ),
    ],
)
def test_invalid_settings_are_named_without_their_values(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        load_settings(ENVIRONMENT | changes)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", INVALID_URLS)
def test_a_migration_quotes_no_invalid_connection_string(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError) as refused:
        database_url()
    assert str(refused.value) == "invalid connection string in DATABASE_URL: libpq cannot parse it"
    assert refused.value.__context__ is None


# --- what it prints ------------------------------------------------------------------------------


def test_a_log_line_is_one_json_object_with_time_level_and_context() -> None:
    record = logging.LogRecord("ingest.worker", logging.WARNING, "f", 1, "line\nline %s", ("é",), None)
    record.fields = {"upload_id": "u-1"}
    token = correlation.correlation_id.set("c-1")
    try:
        text = JsonLines("worker").format(record)
    finally:
        correlation.correlation_id.reset(token)
    line = json.loads(text)
    assert "\n" not in text
    assert datetime.fromisoformat(line["ts"]).tzinfo
    assert (line["level"], line["msg"]) == ("warning", "line\nline é")
    assert line["ctx"] == {
        "program": "worker",
        "logger": "ingest.worker",
        "correlation_id": "c-1",
        "upload_id": "u-1",
    }


def test_a_log_line_has_no_value_that_is_no_json() -> None:
    class Secret:
        def __str__(self) -> str:
            return "hunter2"

    record = logging.LogRecord("ingest.worker", logging.ERROR, "f", 1, "x", (), None)
    record.fields = {"given": Secret()}
    assert json.loads(JsonLines("worker").format(record))["ctx"]["given"] == "Secret"


def test_errors_that_python_ignores_are_log_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_lines.start("worker")
        sys.unraisablehook(SimpleNamespace(exc_value=ValueError("lost")))
        root.handlers[0].flush()
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level = before
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["msg"], line["ctx"]["error"]) == ("error", "exception ignored", "ValueError: lost")


def test_the_counter_of_indexed_uploads_is_the_number_in_the_database() -> None:
    metrics = Metrics()
    metrics.count_request("POST", "/uploads", 201)
    lines = metrics.exposition({"indexed": 7, "processing": 2}).splitlines()
    assert "ingest_uploads_indexed_total 7" in lines
    assert "ingest_uploads_failed_total 0" in lines
    assert 'ingest_uploads_open{status="processing"} 2' in lines
    assert 'ingest_requests_total{method="POST",route="/uploads",status="201"} 1' in lines


# --- leases --------------------------------------------------------------------------------------


def upload(name: str = "u", *, claim: int = 1) -> Claimed:
    return Claimed(
        id=name, claim=claim, attempts=0, looks=0, key=name, content_type="", correlation="c", is_expired=False
    )


class Renewing(WorkQueue):
    """A queue whose answers to renewals are given."""

    def __init__(self, *renewed: str) -> None:
        self.renewed = set(renewed)
        self.asked: dict[str, int] = {}

    def renew(self, claims: Any) -> set[str]:
        self.asked = dict(claims)
        return self.renewed


def test_a_claim_whose_lease_was_not_renewed_in_time_is_given_up_without_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("harness.hostapp.ingest.leases.time.monotonic", lambda: now)
    leases = Leases(Renewing("u"), lease_s=3)
    leases.hold(upload(), since=100.0)
    assert leases.is_held(upload())
    now = 102.5
    leases.renew()
    now = 105.4
    assert leases.is_held(upload())
    now = 105.5
    assert not leases.is_held(upload())


def test_a_claim_that_another_worker_has_is_given_up() -> None:
    queue = Renewing("kept")
    leases = Leases(queue, lease_s=60)
    kept, lost = upload("kept", claim=2), upload("lost", claim=3)
    far = 1e12
    leases.hold(kept, since=far)
    leases.hold(lost, since=far)
    leases.renew()
    assert queue.asked == {"kept": 2, "lost": 3}
    assert not leases.is_held(lost)
    # it is still known, so that this worker does not claim it again meanwhile
    assert leases.held == [kept, lost]
    leases.drop(lost)
    assert leases.held == [kept]


def test_an_answer_about_an_earlier_claim_says_nothing_about_the_next_one() -> None:
    class Slow(Renewing):
        def renew(self, claims: Any) -> set[str]:
            leases.drop(upload())
            leases.hold(upload(claim=2), since=1e12)
            return super().renew(claims)

    leases = Leases(Slow(), lease_s=60)
    leases.hold(upload(), since=0)
    leases.renew()
    assert leases.is_held(upload(claim=2))


@each_row(
    ("error", "transient"),
    [
        (psycopg.errors.DiskFull(), True),
        (psycopg.errors.ReadOnlySqlTransaction(), True),
        (psycopg.errors.IdleInTransactionSessionTimeout(), True),
        (psycopg.errors.InFailedSqlTransaction(), False),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.QueryCanceled(), True),
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.TooManyConnections(), True),
        (psycopg.OperationalError("connection failed"), True),
        (psycopg.errors.CheckViolation(), False),
        (psycopg.errors.InsufficientPrivilege(), False),
        (psycopg.DataError("of the driver"), False),
    ],
)
def test_a_result_is_written_again_only_where_it_may_succeed(error: psycopg.Error, *, transient: bool) -> None:
    assert is_transient(error) is transient


# --- the shipped pipelines -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference", "original"])
def test_a_shipped_pipeline_installs_what_the_extra_installs(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pipeline = msgspec.toml.decode((PIPELINES / f"{name}.toml").read_bytes(), type=Pipeline)
    assert list(pipeline.packages.python) == extras["ingest"]


def test_the_reference_promises_what_its_programs_do_by_default() -> None:
    promised = msgspec.toml.decode((PIPELINES / "reference.toml").read_bytes(), type=Pipeline).settings
    given = {
        name.upper(): str(getattr(promised, name)) for name in Settings.__struct_fields__ if hasattr(promised, name)
    }
    assert given.keys() == {"ATTEMPTS", "SHORTEST_DELAY_S", "LONGEST_DELAY_S", "LEASE_S", "POLL_S", "URL_VALID_S"}
    assert load_settings(ENVIRONMENT | given).attempts == promised.attempts
