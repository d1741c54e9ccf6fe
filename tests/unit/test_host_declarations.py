"""Environments, paths and commands in `harness.toml`: what is accepted, what is rejected, and placeholders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import config
from harness.cli.project_file import ProjectFile
from harness.errors import ConfigError, UsageError
from harness.host.declarations import Caller
from harness.host.environment import Environment, resolve
from harness.host.site import Values
from harness.host.validation import require_host_sound
from harness.redaction import MASK, Redactor

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "xK4-never-in-a-message"

ENVIRONMENT = """
[environments.staging]
dsn = "env:STAGING_URL"
direct = "env:STAGING_DIRECT"
base_url = "https://shop.example"
[[environments.staging.callers]]
actor = { type = "user", id = "ada" }
headers = { authorization = "Bearer env:TOKEN_OF_ADA" }
"""
PATH = """
[[paths]]
name = "new-post"
title = "POST /posts"
kind = "HTTP"
[[paths.steps]]
path = "/posts"
json = { slug = "{unique}" }
status = 201
keep = { post_id = "data.id" }
[paths.expect]
table = "public.posts"
operation = "insert"
where = { slug = "{unique}" }
"""
COMMAND = """
[[commands]]
name = "mix-test"
title = "the host's own tests"
command = ["mix", "test"]
"""
WHOLE = ENVIRONMENT + PATH + COMMAND
ABSENT = """
[[paths]]
name = "nightly"
title = "the nightly import"
kind = "job"
not_applicable = "no background job executor in this deployment"
"""


def read(folder: Path, text: str) -> ProjectFile:
    path = folder / "harness.toml"
    path.write_text(text, encoding="utf-8")
    file = config.load(path, ProjectFile)
    require_host_sound(file.environments, file.paths, file.commands, path)
    return file


def rejection(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert "harness.toml" in caught.value.where
    return caught.value


def changed(old: str, new: str, text: str = WHOLE) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_a_valid_declaration_is_accepted(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE + ABSENT)
    assert list(file.environments) == ["staging"]
    assert [path.name for path in file.paths] == ["new-post", "nightly"]


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"env:STAGING_URL"', f'"postgresql://shop:{SECRET}@db.example/shop"', id="dsn"),
        pytest.param('"env:STAGING_DIRECT"', f'"host=db.example password={SECRET}"', id="direct"),
        pytest.param('"https://shop.example"', f'"https://shop:{SECRET}@shop.example"', id="base-url"),
        pytest.param('"env:STAGING_URL"', f'"env:STAGING_URL {SECRET}"', id="next-to-a-name"),
    ],
)
def test_a_connection_string_must_be_the_name_of_a_variable(tmp_path: Path, old: str, new: str) -> None:
    error = rejection(tmp_path, changed(old, new))
    assert "environments" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("old", "new", "where", "key"),
    [
        pytest.param(
            'authorization = "Bearer env:TOKEN_OF_ADA"',
            f'authorization = "Bearer {SECRET}"',
            "environments.staging.callers.headers.authorization",
            "authorization",
            id="literal-authorization",
        ),
        pytest.param(
            'authorization = "Bearer env:TOKEN_OF_ADA"',
            f'cookie = "session={SECRET}"',
            "environments.staging.callers.headers.cookie",
            "cookie",
            id="literal-cookie",
        ),
        pytest.param(
            'authorization = "Bearer env:TOKEN_OF_ADA"',
            f'x-api-key = "{SECRET}"',
            "environments.staging.callers.headers.x-api-key",
            "x-api-key",
            id="api-key",
        ),
        pytest.param(
            'json = { slug = "{unique}" }',
            f'headers = {{ x-forwarded = "Bearer {SECRET}" }}\njson = {{ slug = "{{unique}}" }}',
            "paths.new-post.steps.headers.x-forwarded",
            "x-forwarded",
            id="bearer-token-in-a-step",
        ),
        pytest.param(
            'json = { slug = "{unique}" }',
            f'json = {{ slug = "{{unique}}", login = {{ password = "{SECRET}" }} }}',
            "paths.new-post.steps.json.login.password",
            "password",
            id="password-in-a-body",
        ),
        pytest.param(
            'json = { slug = "{unique}" }',
            f'form = {{ client_secret = "{SECRET}" }}',
            "paths.new-post.steps.form.client_secret",
            "client_secret",
            id="secret-in-a-form",
        ),
        pytest.param(
            'path = "/posts"',
            f'path = "/posts?token={SECRET}"',
            "paths.new-post.steps.path",
            "path",
            id="token-in-a-query",
        ),
        pytest.param(
            'json = { slug = "{unique}" }',
            f'json = {{ slug = "{{unique}}", source = "postgresql://u:{SECRET}@h/d" }}',
            "paths.new-post.steps.json.source",
            "source",
            id="url-with-a-password",
        ),
    ],
)
def test_a_secret_in_the_file_is_rejected_by_its_key(tmp_path: Path, old: str, new: str, where: str, key: str) -> None:
    error = rejection(tmp_path, changed(old, new))
    assert error.what == f"{where}: found a secret, expected the name of an environment variable"
    assert error.hint == f'{key} = "env:NAME", with the secret in the environment variable NAME'
    assert SECRET not in str(error)


def test_a_secret_in_the_arguments_of_a_job_is_rejected(tmp_path: Path) -> None:
    text = (
        PATH.replace('kind = "HTTP"', 'kind = "job"')
        + f'[paths.job]\nworker = "W"\nargs = {{ password = "{SECRET}" }}\n'
    )
    error = rejection(tmp_path, text)
    assert "paths.new-post.job.args.password: found a secret" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"Bearer env:TOKEN_OF_ADA"', f'"Bearer {SECRET} env:TOKEN_OF_ADA"', id="a-token-next-to-a-name"),
        pytest.param('"{unique}" }\nstatus', f'"{{unique}}", api_key = "{SECRET}" }}\nstatus', id="api-key-in-a-body"),
        pytest.param('"/posts"\njson', f'"/posts?access_token={SECRET}"\njson', id="access-token-in-a-query"),
        pytest.param(
            '["mix", "test"]', '["mix", "test", "ghp_0123456789abcdefghij-s3cret"]', id="a-token-with-a-known-prefix"
        ),
        pytest.param('["mix", "test"]', f'["mix", "test", "postgresql://shop:{SECRET}@db/shop"]', id="command"),
    ],
)
def test_a_secret_is_found_among_other_text(tmp_path: Path, old: str, new: str) -> None:
    error = rejection(tmp_path, changed(old, new))
    assert "found a secret" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            'json = { slug = "{unique}" }',
            'json = { slug = "{unique}", password = "{unique}" }',
            id="generated-password",
        ),
        pytest.param('keep = { post_id = "data.id" }', 'keep = { token = "data.token" }', id="kept-from-the-answer"),
        pytest.param("status = 201", 'headers = { authorization = "Bearer {actor.id}" }', id="filled-in"),
    ],
)
def test_a_placeholder_is_not_a_secret(tmp_path: Path, old: str, new: str) -> None:
    read(tmp_path, changed(old, new))


# --- paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason",
    [
        "not relevant",
        "Not relevant.",
        "n/a",
        "N/A for us",
        "None",
        "irrelevant here in this deployment",
        "we skip it",
    ],
)
def test_a_vague_reason_for_na_is_rejected(tmp_path: Path, reason: str) -> None:
    error = rejection(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == (
        f"paths: nightly: found {reason!r}, expected an objective reason of at least 4 words about the host"
    )
    assert error.hint == "for example: no background job executor in this deployment"


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("the worker is not yet adopted", "not yet"),
        ("todo: write the nightly import", "todo"),
        ("the import is pending a decision", "pending"),
        ("the import comes soon to staging", "soon"),
        ("the import is untested in staging", "untested"),
        ("Not   yet there in this deployment", "not yet"),
    ],
)
def test_unfinished_work_is_not_run_and_not_na(tmp_path: Path, reason: str, word: str) -> None:
    error = rejection(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == (f"paths: nightly: found {reason!r}: {word!r} is a reason for Not run, expected one for N/A")
    assert error.hint == "remove not_applicable: a path that was not exercised is Not run"


def test_a_reason_for_na_has_one_line(tmp_path: Path) -> None:
    reason = r"no background job executor\nin this deployment"
    error = rejection(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == "paths: nightly: found a reason of several lines, expected one line"


@pytest.mark.parametrize("reason", ["the nightly import runs in another product", "this deployment accepts no writes"])
def test_an_objective_reason_is_accepted(tmp_path: Path, reason: str) -> None:
    read(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))


@pytest.mark.parametrize(
    ("old", "new", "what", "hint"),
    [
        pytest.param(
            'where = { slug = "{unique}" }',
            'where = { slug = "always-the-same" }',
            "paths: new-post: nothing in `where` or `key` identifies the rows of one attempt",
            'send {unique} in the request, and compare it: where = { slug = "{unique}" }',
            id="no-unique",
        ),
        pytest.param(
            'where = { slug = "{unique}" }',
            "",
            "paths: new-post: nothing in `where` or `key` identifies the rows of one attempt",
            "{unique}",
            id="nothing-at-all",
        ),
        pytest.param(
            'operation = "insert"',
            'operation = "delete"',
            "paths: new-post: found `where` on a delete",
            'key = { id = "{post_id}" }',
            id="delete-with-where",
        ),
        pytest.param(
            'operation = "insert"',
            'operation = "insert"\nactor = { type = "robot", id = "1" }',
            "paths: new-post: invalid actor: found 'robot', needed one of user",
            "",
            id="actor",
        ),
        pytest.param(
            'kind = "HTTP"',
            'kind = "HTTP"\nenvironments = ["stagin"]',
            "paths: new-post: unknown environment 'stagin'",
            "did you mean staging?",
            id="unknown-environment",
        ),
        pytest.param(
            "[[paths.steps]]",
            '[paths.job]\nworker = "W"\n[[paths.steps]]',
            "paths: new-post: found a job or a command on a path of kind HTTP",
            "",
            id="http-with-a-job",
        ),
        pytest.param(
            "[[paths.steps]]",
            '[paths.fails]\nwhy = "it is taken"\n[[paths.steps]]',
            "paths: new-post: the failing variant has neither steps nor a job",
            "",
            id="empty-variant",
        ),
        pytest.param(
            "[[commands]]",
            PATH + "[[commands]]",
            "paths: found two entries with the name 'new-post'",
            "",
            id="two-paths-of-one-name",
        ),
        pytest.param(
            "[[commands]]",
            COMMAND + "[[commands]]",
            "commands: found two entries with the name 'mix-test'",
            "",
            id="two-commands-of-one-name",
        ),
    ],
)
def test_a_path_that_cannot_be_judged_is_rejected(tmp_path: Path, old: str, new: str, what: str, hint: str) -> None:
    error = rejection(tmp_path, changed(old, new))
    assert error.what.startswith(what)
    assert hint in error.hint


def test_a_path_has_exactly_one_subject(tmp_path: Path) -> None:
    job = PATH.replace('kind = "HTTP"', 'kind = "job"')
    nothing = job.replace(job[job.index("[[paths.steps]]") : job.index("[paths.expect]")], "")
    assert "found no step, job or command" in rejection(tmp_path, nothing).what
    both = job.replace("[[paths.steps]]", 'command = ["run-it"]\n[paths.job]\nworker = "W"\n[[paths.steps]]')
    assert "found a job and a command" in rejection(tmp_path, both).what
    unexpected = PATH[: PATH.index("[paths.expect]")]
    error = rejection(tmp_path, unexpected)
    assert (error.what, "not_applicable" in error.hint) == ("paths: new-post: missing [paths.expect]", True)


def test_a_kept_value_may_identify_the_rows(tmp_path: Path) -> None:
    read(tmp_path, changed('where = { slug = "{unique}" }', 'where = { id = "{post_id}" }'))


# --- environments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "what", "hint"),
    [
        pytest.param(
            'canary = "public.canary(note)"\nscratch_schema = "scratch"',
            "environments.staging: found canary and scratch_schema, expected one of them",
            "",
            id="canary-and-scratch",
        ),
        pytest.param(
            'compare_with = "prod"',
            "environments.staging.compare_with: unknown environment 'prod'",
            "choose one of: staging",
            id="compared-with-nothing",
        ),
        pytest.param(
            'compare_with = "staging"',
            "environments.staging.compare_with: found the environment itself, expected another one",
            "",
            id="compared-with-itself",
        ),
        pytest.param(
            'declared = { pool_moda = "transaction" }',
            "environments.staging.declared: unknown fact 'pool_moda'",
            "one of: pooler",
            id="unknown-fact",
        ),
        pytest.param(
            'declared = { version = "newest" }',
            "environments.staging.declared: version: invalid value 'newest', expected a number",
            "",
            id="invalid-version",
        ),
    ],
)
def test_a_contradictory_environment_is_rejected(tmp_path: Path, more: str, what: str, hint: str) -> None:
    error = rejection(tmp_path, changed('base_url = "https://shop.example"', more))
    assert error.what == what
    assert hint in error.hint


def test_production_has_one_source(tmp_path: Path) -> None:
    more = (
        '[environments.production]\ndsn = "env:PRODUCTION_URL"\n'
        '[environments.preview]\ndsn = "env:PREVIEW_URL"\ncompare_with = "production"\n'
        '[environments.preview.production]\ndeclared_by = "ada"\nfacts = { pooler = "yes" }\n'
    )
    error = rejection(tmp_path, more)
    assert error.what.startswith("environments.preview: found compare_with and production")


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ('{ type = "user" }', "needs an id"),
        ('{ type = "user", id = " " }', "needs an id"),
        ('{ id = "ada" }', "needed a map with a type"),
        ('{ type = "root", id = "0" }', "found 'root'"),
    ],
)
def test_a_caller_must_be_a_valid_actor(tmp_path: Path, actor: str, message: str) -> None:
    error = rejection(tmp_path, changed('{ type = "user", id = "ada" }', actor))
    assert error.what.startswith("environments.staging.callers: invalid actor:")
    assert message in error.what


def test_an_invalid_environment_name_is_reported_as_a_key(tmp_path: Path) -> None:
    error = rejection(tmp_path, '[environments.Staging]\ndsn = "env:STAGING_URL"\n')
    assert error.what.startswith("environments: invalid key: ")
    assert "^[a-z]" in error.what


def test_an_invalid_name_of_a_kept_value_is_reported_as_a_key(tmp_path: Path) -> None:
    error = rejection(tmp_path, changed('keep = { post_id = "data.id" }', 'keep = { "Post Id" = "data.id" }'))
    assert error.what.startswith("paths[0].steps[0].keep: invalid key: ")


# --- variables ----------------------------------------------------------------------------------------------

VARIABLES = {
    "STAGING_URL": f"postgresql://shop:{SECRET}-1@pool.internal.example:6432/shop",
    "STAGING_DIRECT": f"host=db.internal.example password={SECRET}-2 dbname=shop",
    "TOKEN_OF_ADA": f"{SECRET}-3",
}


def resolved(folder: Path, given: dict[str, str], text: str = WHOLE) -> tuple[Environment, Redactor]:
    redactor = Redactor()
    return resolve("staging", read(folder, text).environments["staging"], given, redactor), redactor


def test_variables_are_resolved_and_redacted(tmp_path: Path) -> None:
    environment, redact = resolved(tmp_path, VARIABLES)
    assert environment.dsn == VARIABLES["STAGING_URL"]
    assert environment.trail == VARIABLES["STAGING_DIRECT"]  # the direct connection, where `trail` is not declared
    assert environment.callers[0].headers == {"authorization": f"Bearer {SECRET}-3"}
    redacted = redact(f"{SECRET}-1 {SECRET}-2 {SECRET}-3 pool.internal.example db.internal.example")
    assert redacted == " ".join([MASK] * 5)
    assert SECRET not in repr(environment)


def test_every_missing_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, {"STAGING_DIRECT": VARIABLES["STAGING_DIRECT"], "TOKEN_OF_ADA": ""})
    assert caught.value.what == (
        "environment staging needs environment variables that are not set: STAGING_URL, TOKEN_OF_ADA"
    )
    assert caught.value.hint == "export STAGING_URL=…"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        f"{SECRET} and nothing else",
        f"postgresql://shop:{SECRET}@pool/shop?nothing=1",
        f"postgresql://shop:a@{SECRET}@pool/shop",
        f"postgresql://shop:{SECRET}/a@pool/shop",
        f"postgresql://shop:12/{SECRET}@pool/shop",
        f"postgresql://shop:%zz{SECRET}@pool/shop",
    ],
)
def test_an_invalid_connection_string_is_not_repeated(tmp_path: Path, dsn: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, VARIABLES | {"STAGING_URL": dsn})
    assert caught.value.where == "environments.staging.dsn"
    assert "invalid connection string" in caught.value.what
    assert SECRET not in str(caught.value)


BASE_URL_FROM_VARIABLE = changed('"https://shop.example"', '"env:STAGING_BASE_URL"')


def test_a_base_url_from_a_variable_is_redacted(tmp_path: Path) -> None:
    given = VARIABLES | {"STAGING_BASE_URL": "https://shop.internal.example:8443/api"}
    environment, redact = resolved(tmp_path, given, BASE_URL_FROM_VARIABLE)
    assert environment.base_url == given["STAGING_BASE_URL"]
    assert "shop.internal" not in redact("https://shop.internal.example:8443/other and shop.internal.example:8443")


@pytest.mark.parametrize("base_url", ["shop.internal.example", "https://", "/posts", "https://[shop.internal"])
def test_an_invalid_base_url_is_not_repeated(tmp_path: Path, base_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, VARIABLES | {"STAGING_BASE_URL": base_url}, BASE_URL_FROM_VARIABLE)
    assert caught.value.where == "environments.staging.base_url"
    assert "shop.internal" not in str(caught.value)


# --- placeholders -------------------------------------------------------------------------------------------

ADA = Caller(actor={"type": "user", "id": "ada"})
PLAIN = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PLAIN
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_a_value_without_placeholders_is_unchanged(tree: Any) -> None:
    filled = Values(ADA).fill(tree)
    assert filled == tree
    assert type(filled) is type(tree)


@given(PLAIN)
def test_a_text_without_braces_is_unchanged(text: str) -> None:
    assert Values(None).text(text) == text


@given(TREES)
def test_a_single_placeholder_keeps_the_type_of_its_value(value: Any) -> None:
    values = Values(ADA)
    values.keep("post_id", value)
    assert values.fill({"id": "{post_id}", "all": ["{post_id}"]}) == {"id": value, "all": [value]}
    assert type(values.fill("{post_id}")) is type(value)


@given(PLAIN, SCALARS, PLAIN)
def test_a_placeholder_within_text_becomes_text(before: str, value: Any, after: str) -> None:
    values = Values(ADA)
    values.keep("post_id", value)
    if before or after:
        assert values.fill(f"{before}{{post_id}}{after}") == f"{before}{value}{after}"


@given(st.text(max_size=40))
def test_any_text_is_filled_or_rejected(text: str) -> None:
    try:
        Values(ADA).fill(text)
    except ConfigError as error:
        assert "unknown placeholder" in error.what


def test_adjacent_placeholders_are_filled_separately() -> None:
    values = Values(ADA)
    assert values.fill("{actor.type}{actor.id}") == "userada"
    assert values.fill("{actor.id}/{unique}") == f"ada/{values.unique}"


def test_an_unknown_placeholder_is_rejected_without_showing_values() -> None:
    values = Values(ADA)
    values.keep("session", SECRET)
    with pytest.raises(ConfigError) as caught:
        values.fill("/posts/{postid}")
    assert caught.value.what.startswith("unknown placeholder {postid}, expected one of {unique}, {correlation}")
    assert "{session}" in caught.value.what
    assert SECRET not in str(caught.value)


def test_braces_without_a_name_are_text() -> None:
    assert Values(ADA).fill('{"a": 1} { } {') == '{"a": 1} { } {'


def test_two_attempts_have_different_unique_values() -> None:
    assert Values(ADA).unique != Values(ADA).unique
