"""Mistakes in the description of a pipeline that show while it runs: each is named with its key, and none is an Issue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.host.declarations import Step
from harness.host.http_response import HttpResponse
from harness.ingest.loading import load
from harness.job_engines.workers import WorkerExit
from harness.suites.ingest.asking import Reply
from harness.suites.ingest.description import (
    Misfit,
    error_of,
    kept,
    no_counter,
    other_id,
    other_key,
    other_request,
    unloadable,
)
from tests.tables import each_row
from tests.unit.test_ingest_loading import written

if TYPE_CHECKING:
    from pathlib import Path

_STEP = Step(
    path="/uploads", status=201, json={"name": "{filename}"}, keep={"id": "uploadId", "url": "url", "key": "data.key"}
)
_ANSWER = {"uploadId": 7, "url": "http://store/b/p/7/file", "data": {"key": "p/7/file"}}


def _exit(last: str = "", *, code: int | None = 1, ran_s: float = 0.3) -> WorkerExit:
    return WorkerExit(worker="A", exit_code=code, seconds=1.0, ran_s=ran_s, last_line=last)


@each_row(
    "last",
    [
        "ModuleNotFoundError: No module named 'shop'",
        "/venv/bin/python: No module named shop.api",
        "ImportError: cannot import name 'app' from 'shop'",
        "  SyntaxError: invalid syntax",
        "python: can't open file '/srv/worker.py': [Errno 2] No such file or directory",
        'ERROR:    Error loading ASGI app. Could not import module "shop.api".',
        "Error: Cannot find module '/srv/worker.js'",
        "sh: 1: nosuchprogram: not found",
        "bash: line 1: nosuchprogram: command not found",
        "/srv/bin/worker: 3: nosuchprogram: not found",
        "sh: nosuchprogram: not found",
        "Error: Could not find or load main class shop.Worker",
    ],
)
def test_a_program_that_lacks_what_it_is_made_of_cannot_be_loaded(last: str) -> None:
    assert unloadable([_exit(last)], lambda _: "") == ("A", last.strip())


def test_the_lines_before_the_end_of_a_program_say_why_it_cannot_be_loaded() -> None:
    said = "Error: Cannot find module 'pg'"
    trace = f"node:internal\n  throw err;\n{said}\nRequire stack:\n- /srv/worker.js"
    assert unloadable([_exit("- /srv/worker.js")], lambda _: trace) == ("A", said)
    # a worker that has worked met something else
    assert unloadable([_exit("lost its database", ran_s=60.0)], lambda _: trace) is None


def test_the_exit_code_of_a_shell_shows_a_missing_program() -> None:
    assert unloadable([_exit(code=127)], lambda _: "") == ("A", "exit code 127")


@pytest.mark.parametrize(
    "last",
    [
        "",
        'psycopg.errors.DuplicatePreparedStatement: prepared statement "_pg3_0" already exists',
        "KeyError: 'not found'",
        "download of p/7/file: not found",
        "botocore.errorfactory.NoSuchKey: An error occurred (NoSuchKey) when calling the GetObject operation",
        'FATAL: database "shop" does not exist',
        "unsupported startup parameter: options",
    ],
)
def test_a_program_that_fails_otherwise_is_a_faulty_one(last: str) -> None:
    assert unloadable([_exit(last)], lambda _: last) is None


@each_row(
    ("status", "key"),
    [
        (200, "presign.status"),
        (307, "presign.path"),
        (400, "presign.json"),
        (401, "callers"),
        (403, "callers"),
        (404, "presign.path"),
        (405, "presign.method"),
        (422, "presign.json"),
        (429, ""),
        (500, ""),
        (503, ""),
        (799, ""),
    ],
)
def test_an_api_that_expects_another_request_says_nothing_about_the_pipeline(status: int, key: str) -> None:
    found = other_request(_STEP, HttpResponse(status=status), str)
    assert (found.key if found else "") == key
    if found:
        assert f"the API answers {status} to POST /uploads" in found.problem


def test_the_answer_to_another_body_is_quoted_without_secrets() -> None:
    answer = HttpResponse(status=422, data={"error": "projectId is missing, secret"})
    found = other_request(Step(path="/", form={"a": "b"}), answer, lambda text: text.replace("secret", "***"))
    assert found == Misfit("presign.form", 'the API answers 422 to POST /: {"error":"projectId is missing, ***"}')
    assert other_request(_STEP, HttpResponse(status=0, failure="no response"), str) is None
    assert other_request(_STEP, HttpResponse(status=201), str) is None


def test_an_answer_has_what_is_kept_of_it() -> None:
    assert kept(_STEP, _ANSWER) == {"id": "7", "url": "http://store/b/p/7/file", "key": "p/7/file"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"uploadId": None}, "id: the value at 'uploadId' of the API's answer is null, expected a text"),
        ({"uploadId": ""}, "id: the value at 'uploadId' of the API's answer is empty, expected a text"),
        ({"uploadId": [1]}, "id: the value at 'uploadId' of the API's answer is a list, expected a text"),
        ({"data": {}}, "key: the API's answer has no value at 'data.key'; it has uploadId, url, data"),
        (
            {"url": "p/7/file"},
            "url: the value at 'url' of the API's answer is not an address; it has uploadId, url, data",
        ),
    ],
)
def test_a_path_that_is_kept_and_leads_nowhere_is_named(change: dict[str, Any], problem: str) -> None:
    assert kept(_STEP, _ANSWER | change) == Misfit("presign.keep", problem)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_any_answer_is_kept_or_named(data: Any) -> None:
    found = kept(_STEP, data)
    assert isinstance(found, Misfit) or set(found) == set(_STEP.keep)


def test_the_key_of_another_object_is_named_once_the_file_is_there() -> None:
    url = "http://store/b/p/7/file%20a?X-Amz-Signature=1"
    assert other_key(_STEP, "p/7/file a", url, {"p/7/file a"}, "b") is None
    found = other_key(_STEP, "7", url, {"p/7/file a"}, "b")
    assert found == Misfit(
        "presign.keep", "key: the value at 'data.key' is '7', but the address is for the object 'p/7/file a'"
    )
    # the store has not seen the upload: the judge says what became of it
    assert other_key(_STEP, "7", url, set(), "b") is None


def test_the_id_of_another_column_is_named() -> None:
    assert other_id(_STEP, "u7", "p/7", {"p/7": "u7"}) is None
    assert other_id(_STEP, "u7", "p/7", {}) is None
    found = other_id(_STEP, "u7", "p/7", {"p/7": "7"})
    assert found
    assert found.key == "sql.uploads"
    assert "'7' for the object 'p/7', but the API's answer has 'u7' at 'uploadId'" in found.problem


def test_a_counter_that_is_not_shown_is_named_with_a_close_one() -> None:
    text = '# HELP x\nuploads_indexed_total 1\nrequests{code="200"} 4\n'
    reply = Reply(status=200, text=text)
    assert no_counter("/metrics", "uploads_indexed_total", reply) is None
    found = no_counter("/metrics", "uploads_index_total", reply)
    assert found == Misfit(
        "indexed_counter", "GET /metrics shows no uploads_index_total: did you mean uploads_indexed_total?"
    )
    missing = no_counter("/metrics", "uploads_indexed_total", Reply(status=404))
    assert missing == Misfit("metrics", "the API answers 404 to GET /metrics")
    assert no_counter("/metrics", "uploads_indexed_total", Reply(status=500)) is None


def test_a_mistake_is_named_with_file_line_and_key(tmp_path: Path) -> None:
    pipeline = load(written(tmp_path))
    said = str(error_of(pipeline, Misfit("presign.keep", "a problem")))
    assert said == f"{tmp_path / 'shop.toml'}:15: presign.keep: a problem"
    shipped = replace(pipeline, own_file="")
    assert str(error_of(shipped, Misfit("presign.keep", "a problem"))) == "pipeline shop: presign.keep: a problem"
