"""The reference host: the parts that need no server."""

from __future__ import annotations

import io
import json
import logging
import random
import stat
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine import pip_access
from harness.engine.builds import tar_of
from harness.engine.protocol import Wanted
from harness.engine.recipes import files_beside
from harness.engine.virtual_environments import EnvironmentBuilder, virtual_environment
from harness.errors import ConfigError, EngineUnavailableError
from harness.events import silent
from harness.hostapp import backoff, correlation, validation
from harness.hostapp.connection_strings import problem_of
from harness.hostapp.counters import Counters
from harness.hostapp.log_lines import JsonLines, context_of, described
from harness.hostapp.settings import Actor, SettingsError, load_migration, load_settings
from harness.lab.topologies import load_topologies, load_topology
from harness.model import Notifier
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "version": "test",
    "host": "127.0.0.1",
    "port": 8000,
    "dsn": "postgresql://app:hunter2hunter2@localhost/app",
    "notifier": "poll",
    "prepare_threshold": None,
    "tokens": {"token-of-ada": {"type": "user", "id": "ada"}},
}


# --- retries -------------------------------------------------------------------------------------


@given(attempt=st.integers(-3, 5000), base_s=st.integers(1, 60), cap_s=st.integers(1, 3600), seed=st.integers())
def test_a_delay_is_between_half_the_longest_delay_and_the_longest_delay(
    attempt: int, base_s: int, cap_s: int, seed: int
) -> None:
    longest = backoff.longest_delay(attempt, base_s=base_s, cap_s=cap_s)
    waited = backoff.delay(attempt, base_s=base_s, cap_s=cap_s, chance=random.Random(seed))  # noqa: S311 -- chance, not a secret
    assert 1 <= longest <= cap_s
    assert longest / 2 <= waited <= longest


@given(attempt=st.integers(1, 100), base_s=st.integers(1, 60), cap_s=st.integers(1, 3600))
def test_the_longest_delay_doubles_up_to_the_cap(attempt: int, base_s: int, cap_s: int) -> None:
    this, following = (backoff.longest_delay(number, base_s=base_s, cap_s=cap_s) for number in (attempt, attempt + 1))
    assert following == min(this * 2, cap_s)


def test_delays_vary() -> None:
    chance = random.Random(7)  # noqa: S311 -- chance, not a secret
    assert len({backoff.delay(5, base_s=2, cap_s=60, chance=chance) for _ in range(50)}) > 5


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", ["a", "corr-1", "two words", "x" * 256, "{}~!"])
def test_an_acceptable_id_is_kept(given_id: str) -> None:
    assert correlation.given_or_fresh(given_id) == given_id
    assert correlation.given_or_fresh(f"  {given_id}\t") == given_id


@each_row("given_id", [None, "", "  ", "x" * 257, "tab\there", "new\nline", "é", "\x7f", "\x00"])
def test_any_other_id_is_replaced_by_a_new_one(given_id: str | None) -> None:
    fresh, other = correlation.given_or_fresh(given_id), correlation.given_or_fresh(given_id)
    assert correlation.is_acceptable(fresh)
    assert fresh not in {given_id, other}


@given(st.text(max_size=300))
def test_every_id_has_1_to_256_printable_ascii_characters(text: str) -> None:
    kept = correlation.given_or_fresh(text)
    assert 1 <= len(kept.encode()) <= 256
    assert kept.isascii()
    assert kept.isprintable()
    assert kept.strip() == kept


# --- request bodies --------------------------------------------------------------------------------


def test_a_valid_post_is_read() -> None:
    post = validation.post_from({"post": {"title": "A title", "slug": "a-title", "more": 1}})
    assert (post.title, post.slug) == ("A title", "a-title")


@each_row("document", [None, [], "post", 1, {}, {"post": None}, {"post": []}, {"post": "text"}])
def test_a_post_must_be_an_object(document: object) -> None:
    with pytest.raises(validation.InvalidError) as caught:
        validation.post_from(document)
    assert caught.value.errors == {"post": ["must be an object"]}


@each_row(
    ("value", "message"),
    [
        (None, "can't be blank"),
        ("", "can't be blank"),
        (" \n", "can't be blank"),
        (1, "must be text"),
        (True, "must be text"),
        ([], "must be text"),
        ({}, "must be text"),
        ("x" * 201, "should be at most 200 characters"),
        ("a\0b", "has characters that cannot be stored"),
        ("\ud800", "has characters that cannot be stored"),
    ],
)
def test_each_invalid_field_is_reported(value: object, message: str) -> None:
    for name, other in (("title", "slug"), ("slug", "title")):
        with pytest.raises(validation.InvalidError) as caught:
            validation.post_from({"post": {name: value, other: "fine"}})
        assert caught.value.errors == {name: [message]}
    with pytest.raises(validation.InvalidError):
        validation.title_from({"title": value})
    with pytest.raises(validation.InvalidError) as caught:
        validation.post_from({"post": {}})
    assert set(caught.value.errors) == {"title", "slug"}


@given(st.text(max_size=400))
def test_a_valid_title_can_be_stored(text: str) -> None:
    try:
        title = validation.title_from({"title": text})
    except validation.InvalidError:
        return
    assert title == text
    assert "\0" not in title.encode().decode()
    assert 0 < len(title) <= validation.LONGEST


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"a": Infinity}', b"1" * 5000])
def test_invalid_json_is_rejected(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is from the json module
        validation.decoded(body)


# --- actors and settings ---------------------------------------------------------------------------


def test_actors_have_the_format_of_the_trail() -> None:
    assert json.loads(Actor(type="user", id="ada").as_json()) == {"type": "user", "id": "ada"}
    assert json.loads(Actor(type="anonymous").as_json()) == {"type": "anonymous"}


@pytest.mark.parametrize(
    "ref", [{}, {"type": "user"}, {"type": "user", "id": " "}, {"type": "robot", "id": "r"}, {"type": "user", "id": 1}]
)
def test_an_invalid_actor_is_rejected(ref: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(ref, Actor)


def test_settings_are_read_and_show_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    path.write_text(json.dumps(SETTINGS))
    settings = load_settings(path)
    assert settings.prepare_threshold is None
    assert settings.tokens["token-of-ada"].id == "ada"
    assert "hunter2" not in repr(settings)
    assert "token-of-ada" not in repr(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notifier": "shout"}, "notifier"),
        ({"notifier": "direct"}, "direct_dsn"),
        ({"direct_dsn": "postgresql://x:hunter2hunter2@y/z"}, "direct_dsn"),
        ({"port": "8000"}, "port"),
        ({"extra": 1}, "extra"),
        ({"pool_size": 1}, "pool_size"),
        ({"tokens": {"token-of-ada": {"type": "user"}}}, "id"),
    ],
)
def test_invalid_settings_are_reported_without_values(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "serve.json"
    path.write_text(json.dumps(SETTINGS | change))
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


INVALID_STRINGS = (
    "hunter2hunter2 and nothing else",
    "postgresql://app:hunter2hunter2@localhost/app?nothing=1",
    "postgresql://app:a@hunter2hunter2@localhost/app",
    "postgresql://app:hunter2hunter2/a@localhost/app",
    "postgresql://app:12/hunter2hunter2@localhost/app",
    "postgresql://app:%zzhunter2hunter2@localhost/app",
)


@pytest.mark.parametrize("string", INVALID_STRINGS)
def test_an_invalid_connection_string_is_reported_without_it(tmp_path: Path, string: str) -> None:
    path = tmp_path / "settings.json"
    for settings, load in (
        (SETTINGS | {"dsn": string}, load_settings),
        (SETTINGS | {"notifier": "direct", "direct_dsn": string}, load_settings),
        ({"dsn": string, "application_role": "app"}, load_migration),
    ):
        path.write_text(json.dumps(settings))
        with pytest.raises(
            SettingsError, match=r"settings\.json: invalid connection string in (direct_)?dsn: "
        ) as caught:
            load(path)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "string",
    [
        "postgresql://app:hunter2@localhost/app",
        "postgresql://app:hunter2@one:5432,two:5433/app",
        "host=/tmp user=app@tenant dbname=a@b password='hunter2 @/'",
        "postgresql://app:%40%2F%3A@[::1]:5432/app",
        "service=shop",
        "",
    ],
)
def test_valid_connection_strings_are_accepted(string: str) -> None:
    assert not problem_of(string)


def test_a_missing_settings_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_migration(tmp_path / "migrate.json")


# --- log lines -------------------------------------------------------------------------------------


def logged(emit: object) -> list[dict[str, object]]:
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("hostapp.http.test")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        assert callable(emit)
        emit(logger)
    finally:
        logger.removeHandler(handler)
    return [json.loads(line) for line in buffer.getvalue().splitlines()]


@given(st.text(max_size=100))
def test_every_log_line_is_a_json_object_with_four_keys(text: str) -> None:
    lines = logged(lambda logger: logger.warning("%s", text))
    assert len(lines) == 1
    [line] = lines
    assert line["msg"] == text
    assert line["level"] == "warning"
    assert line["ctx"] == "http"
    assert "correlation_id" not in line
    at = datetime.fromisoformat(str(line["ts"]))
    assert at.utcoffset() is not None


def test_a_log_line_has_the_current_ids_and_its_own_fields() -> None:
    tokens = [correlation.correlation_id.set("corr-1"), correlation.request_id.set("req-1")]
    try:
        [line] = logged(lambda logger: logger.info("x", extra={"fields": {"status": 200}}))
    finally:
        correlation.correlation_id.reset(tokens[0])
        correlation.request_id.reset(tokens[1])
    assert (line["correlation_id"], line["request_id"], line["status"]) == ("corr-1", "req-1", 200)


def test_an_error_is_logged_with_its_frames_and_without_source_lines() -> None:
    def fail(logger: logging.Logger) -> None:
        try:
            [1].index(2)
        except ValueError:
            logger.exception("it failed")

    [line] = logged(fail)
    assert str(line["error"]).startswith("ValueError: ")
    assert "[1].index(" not in json.dumps(line)
    assert "test_hostapp.py" in json.dumps(line["frames"])


def test_values_that_postgresql_quotes_are_left_out() -> None:
    class Diagnosis:
        message_primary = "null value in column"

    class ViolationError(Exception):
        sqlstate = "23502"
        diag = Diagnosis()

    assert (
        described(ViolationError("DETAIL: Failing row contains (secret)"))
        == "ViolationError 23502: null value in column"
    )


@each_row(
    ("name", "context"),
    [
        ("uvicorn.error", "http"),
        ("oban", "oban"),
        ("oban._stager", "oban"),
        ("psycopg.pool", "database"),
        ("hostapp.job", "job"),
        ("hostapp", "app"),
        ("asyncio", "app"),
        ("obanish", "app"),
    ],
)
def test_a_logger_belongs_to_a_part_of_the_application(name: str, context: str) -> None:
    assert context_of(name) == context


# --- counters --------------------------------------------------------------------------------------


def test_counters_have_the_prometheus_text_format() -> None:
    counters = Counters()
    counters.count_request("POST", "/api/posts", 201)
    counters.count_request("POST", "/api/posts", 201)
    counters.count_job("completed")
    counters.count_write("http")
    text = counters.exposition('one "two"\n', {"pool_size": 4, "pool_available": 3})
    assert 'hostapp_requests_total{method="POST",route="/api/posts",status="201"} 2\n' in text
    assert 'hostapp_jobs_total{outcome="completed"} 1\n' in text
    assert 'hostapp_audited_writes_total{path="http"} 1\n' in text
    assert 'hostapp_audited_writes_total{path="job"} 0\n' in text
    assert "hostapp_pool_size 4\n" in text
    assert "hostapp_pool_requests_waiting 0\n" in text
    assert r'version="one \"two\"\n"' in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


# --- deployment --------------------------------------------------------------------------------------


def test_every_topology_chooses_a_notifier() -> None:
    chosen = {name: topology.host.notifier for name, topology in load_topologies().items()}
    assert None not in chosen.values()
    assert {chosen[name] for name in ("direct", "session", "pgpool", "pgagroal")} == {Notifier.LISTEN}
    assert chosen["transaction"] is Notifier.POLL
    assert chosen["transaction-legacy"] is Notifier.DIRECT


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_listen_behind_a_transaction_pool_is_rejected(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mine.toml"
    declared = (
        f'summary = "mine"\n[postgres]\nversion = "17"\n[pooler]\nproduct = "pgbouncer"\nversion = "1.24"\n'
        f'pool_mode = "{mode}"\ndefault_pool_size = 4\n'
    )
    path.write_text(declared)
    assert load_topology(path).notifier is Notifier.POLL
    path.write_text(declared + '[host]\nnotifier = "listen"\n')
    with pytest.raises(ConfigError, match=f"LISTEN does not survive the pool mode {mode}") as caught:
        load_topology(path)
    assert "direct" in caught.value.hint


def test_pip_in_the_image_gets_the_indexes_of_this_machine_and_no_local_folders(tmp_path: Path) -> None:
    configuration = (
        "global.index-url='https://first.example/simple'\ninstall.index-url='https://second.example/simple'\n"
        "global.extra-index-url='file:///opt/index https://third.example/simple'\n:env:.timeout='9'\nnonsense\n"
    )
    configured = pip_access.parsed(configuration, {"PIP_FIND_LINKS": "/opt/wheels", "PIP_PROXY": "http://proxy:3128"})
    text = pip_access._pip_conf(configured, trusts_bundle=True)
    assert "index-url = https://second.example/simple\n" in text
    assert "extra-index-url = https://third.example/simple\n" in text
    assert "proxy = http://proxy:3128\n" in text
    assert "cert = /build/ca-bundle.pem\n" in text
    assert "first" not in text
    assert "/opt" not in text
    assert "cert" not in pip_access._pip_conf({}, trusts_bundle=False)


def test_the_certificate_bundle_of_pip_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).write_text(f"-- {name} --")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other"))
    assert pip_access._bundle(str(tmp_path / "mine")) == "-- mine --"
    assert pip_access._bundle("") == "-- other --"
    assert pip_access._bundle(str(tmp_path / "gone")) == "-- other --"


def test_the_requirements_are_part_of_the_image() -> None:
    assert set(files_beside("hostapp")) == {"requirements.txt"}
    assert files_beside("postgres") == {}


def test_files_in_folders_are_copied_with_their_folders() -> None:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(tar_of({"top": "1", "folder/name": "2"}))) as archive:
        kinds = {entry.name: (entry.isdir(), stat.S_IMODE(entry.mode)) for entry in archive}
    assert kinds == {"folder": (True, 0o755), "top": (False, 0o644), "folder/name": (False, 0o644)}


def test_a_machine_without_a_suitable_python_gets_an_installation_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho /usr/bin/python3 3 11 2\n")
    old.chmod(0o755)
    monkeypatch.setenv("HARNESS_PYTHON", str(old))
    with pytest.raises(EngineUnavailableError, match=r"needs Python 3\.12 or newer") as caught:
        virtual_environment(Wanted(product="hostapp", version="3.13"), tmp_path, {}, silent, EnvironmentBuilder())
    assert "3.11.2" in caught.value.what
    assert "apt-get install" in caught.value.hint
