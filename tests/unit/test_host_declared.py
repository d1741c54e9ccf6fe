from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import config
from harness.cli.settings import ProjectFile
from harness.errors import ConfigError, UsageError
from harness.host.declarations import Caller
from harness.host.environment import Environment, resolve
from harness.host.site import Values
from harness.host.validation import require_host_sound
from harness.redaction import MASK, Redactor

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "xK4-not-to-be-told"

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


def refusal(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert "harness.toml" in caught.value.where
    return caught.value


def changed(old: str, new: str, text: str = WHOLE) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_a_sound_declaration_is_taken_as_it_is(tmp_path: Path) -> None:
    file = read(tmp_path, WHOLE + ABSENT)
    assert list(file.environments) == ["staging"]
    assert [each.name for each in file.paths] == ["new-post", "nightly"]


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"env:STAGING_URL"', f'"postgresql://shop:{SECRET}@db.example/shop"', id="dsn"),
        pytest.param('"env:STAGING_DIRECT"', f'"host=db.example password={SECRET}"', id="direct"),
        pytest.param('"https://shop.example"', f'"https://shop:{SECRET}@shop.example"', id="base-url"),
        pytest.param('"env:STAGING_URL"', f'"env:STAGING_URL {SECRET}"', id="beside-a-name"),
    ],
)
def test_a_connection_string_is_the_name_of_a_variable(tmp_path: Path, old: str, new: str) -> None:
    error = refusal(tmp_path, changed(old, new))
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
def test_a_secret_in_the_file_is_refused_by_its_key(tmp_path: Path, old: str, new: str, where: str, key: str) -> None:
    error = refusal(tmp_path, changed(old, new))
    assert error.what == f"{where}: a secret is written in the file, and must not be"
    assert error.hint == f'{key} = "env:NAME", and the value in that environment variable'
    assert SECRET not in str(error)


def test_a_secret_that_a_job_is_given_is_refused(tmp_path: Path) -> None:
    text = (
        PATH.replace('kind = "HTTP"', 'kind = "job"')
        + f'[paths.job]\nworker = "W"\nargs = {{ password = "{SECRET}" }}\n'
    )
    error = refusal(tmp_path, text)
    assert "paths.new-post.job.args.password: a secret is written in the file" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            '"Bearer env:TOKEN_OF_ADA"', f'"Bearer {SECRET} env:TOKEN_OF_ADA"', id="a-token-beside-the-name-of-one"
        ),
        pytest.param('"{unique}" }\nstatus', f'"{{unique}}", api_key = "{SECRET}" }}\nstatus', id="api-key-in-a-body"),
        pytest.param('"/posts"\njson', f'"/posts?access_token={SECRET}"\njson', id="access-token-in-a-query"),
        pytest.param(
            '["mix", "test"]', '["mix", "test", "ghp_0123456789abcdefghij-s3cret"]', id="a-token-that-says-whose"
        ),
        pytest.param('["mix", "test"]', f'["mix", "test", "postgresql://shop:{SECRET}@db/shop"]', id="command"),
    ],
)
def test_a_secret_does_not_get_past_by_its_neighbours_or_its_spelling(tmp_path: Path, old: str, new: str) -> None:
    error = refusal(tmp_path, changed(old, new))
    assert "a secret is written in the file" in error.what
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            'json = { slug = "{unique}" }', 'json = { slug = "{unique}", password = "{unique}" }', id="made-up-password"
        ),
        pytest.param('keep = { post_id = "data.id" }', 'keep = { token = "data.token" }', id="kept-from-the-answer"),
        pytest.param("status = 201", 'headers = { authorization = "Bearer {actor.id}" }', id="filled-in"),
    ],
)
def test_what_is_made_up_or_answered_is_no_secret_of_the_file(tmp_path: Path, old: str, new: str) -> None:
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
def test_a_vague_reason_for_na_is_refused(tmp_path: Path, reason: str) -> None:
    error = refusal(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == (
        f"paths: nightly: found {reason!r}, needed an objective reason in one line, tied to what the host is"
    )
    assert error.hint == "such as: no background job executor in this deployment"


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
def test_what_is_still_to_be_done_is_not_run_and_not_na(tmp_path: Path, reason: str, word: str) -> None:
    error = refusal(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == f"paths: nightly: found {reason!r}: what is {word!r} is Not run, and not N/A"
    assert error.hint == "leave not_applicable out, and it is Not run until it is exercised"


def test_a_reason_for_na_is_one_line(tmp_path: Path) -> None:
    reason = r"no background job executor\nin this deployment"
    error = refusal(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))
    assert error.what == "paths: nightly: a reason for N/A is one line"


@pytest.mark.parametrize("reason", ["the nightly import runs in another product", "this deployment accepts no writes"])
def test_an_objective_reason_is_taken(tmp_path: Path, reason: str) -> None:
    read(tmp_path, changed("no background job executor in this deployment", reason, ABSENT))


@pytest.mark.parametrize(
    ("old", "new", "what", "hint"),
    [
        pytest.param(
            'where = { slug = "{unique}" }',
            'where = { slug = "always-the-same" }',
            "paths: new-post: nothing tells its rows from everybody else's",
            'let a value that the request writes hold {unique}, and name it: where = { slug = "{unique}" }',
            id="no-unique",
        ),
        pytest.param(
            'where = { slug = "{unique}" }',
            "",
            "paths: new-post: nothing tells its rows from everybody else's",
            "{unique}",
            id="nothing-at-all",
        ),
        pytest.param(
            'operation = "insert"',
            'operation = "delete"',
            "paths: new-post: a delete leaves no row to hold `where`",
            'key = { id = "{post_id}" }',
            id="delete-with-where",
        ),
        pytest.param(
            'operation = "insert"',
            'operation = "insert"\nactor = { type = "robot", id = "1" }',
            "paths: new-post: this is no actor: found 'robot', needed one of user",
            "",
            id="actor",
        ),
        pytest.param(
            'kind = "HTTP"',
            'kind = "HTTP"\nenvironments = ["stagin"]',
            "paths: new-post: there is no environment 'stagin'",
            "did you mean staging?",
            id="unknown-environment",
        ),
        pytest.param(
            "[[paths.steps]]",
            '[paths.job]\nworker = "W"\n[[paths.steps]]',
            "paths: new-post: a path of kind HTTP is taken by a request",
            "",
            id="http-with-a-job",
        ),
        pytest.param(
            "[[paths.steps]]",
            '[paths.fails]\nwhy = "it is taken"\n[[paths.steps]]',
            "paths: new-post: the variant that fails has neither steps nor a job",
            "",
            id="empty-variant",
        ),
        pytest.param(
            "[[commands]]",
            PATH + "[[commands]]",
            "paths: there are two called new-post",
            "",
            id="two-paths-of-one-name",
        ),
        pytest.param(
            "[[commands]]",
            COMMAND + "[[commands]]",
            "commands: there are two called mix-test",
            "",
            id="two-commands-of-one-name",
        ),
    ],
)
def test_a_path_that_could_not_be_judged_is_refused(tmp_path: Path, old: str, new: str, what: str, hint: str) -> None:
    error = refusal(tmp_path, changed(old, new))
    assert error.what.startswith(what)
    assert hint in error.hint


def test_a_path_is_taken_by_something_and_by_one_thing(tmp_path: Path) -> None:
    job = PATH.replace('kind = "HTTP"', 'kind = "job"')
    nothing = job.replace(job[job.index("[[paths.steps]]") : job.index("[paths.expect]")], "")
    assert "no step, no job and no command" in refusal(tmp_path, nothing).what
    both = job.replace("[[paths.steps]]", 'command = ["run-it"]\n[paths.job]\nworker = "W"\n[[paths.steps]]')
    assert "found a job and a command" in refusal(tmp_path, both).what
    unexpected = PATH[: PATH.index("[paths.expect]")]
    error = refusal(tmp_path, unexpected)
    assert (error.what, "[paths.expect]" in error.hint) == ("paths: new-post: nothing is expected of it", True)


def test_a_value_kept_from_an_answer_tells_rows_apart_too(tmp_path: Path) -> None:
    read(tmp_path, changed('where = { slug = "{unique}" }', 'where = { id = "{post_id}" }'))


# --- environments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "what", "hint"),
    [
        pytest.param(
            'canary = "public.canary(note)"\nscratch_schema = "scratch"',
            "environments.staging: found a canary table and a scratch schema; one of them is written to",
            "",
            id="canary-and-scratch",
        ),
        pytest.param(
            'compare_with = "prod"',
            "environments.staging.compare_with: there is no environment 'prod'",
            "known: staging",
            id="compared-with-nothing",
        ),
        pytest.param(
            'compare_with = "staging"',
            "environments.staging.compare_with: it is compared with itself",
            "",
            id="compared-with-itself",
        ),
        pytest.param(
            'declared = { pool_moda = "transaction" }',
            "environments.staging.declared: there is no fact 'pool_moda'",
            "one of: pooler",
            id="unknown-fact",
        ),
        pytest.param(
            'declared = { version = "newest" }',
            "environments.staging.declared: version: found 'newest', needed a number",
            "",
            id="no-version",
        ),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(tmp_path: Path, more: str, what: str, hint: str) -> None:
    error = refusal(tmp_path, changed('base_url = "https://shop.example"', more))
    assert error.what == what
    assert hint in error.hint


def test_production_is_said_by_one_of_two(tmp_path: Path) -> None:
    more = (
        '[environments.production]\ndsn = "env:PRODUCTION_URL"\n'
        '[environments.preview]\ndsn = "env:PREVIEW_URL"\ncompare_with = "production"\n'
        '[environments.preview.production]\ndeclared_by = "ada"\nfacts = { pooler = "yes" }\n'
    )
    error = refusal(tmp_path, more)
    assert error.what.startswith("environments.preview: found compare_with and production")


@pytest.mark.parametrize(
    ("actor", "told"),
    [
        ('{ type = "user" }', "needs an id"),
        ('{ type = "user", id = " " }', "needs an id"),
        ('{ id = "ada" }', "needed a map with a type"),
        ('{ type = "root", id = "0" }', "found 'root'"),
    ],
)
def test_a_caller_is_an_actor(tmp_path: Path, actor: str, told: str) -> None:
    error = refusal(tmp_path, changed('{ type = "user", id = "ada" }', actor))
    assert error.what.startswith("environments.staging.callers: this is no actor:")
    assert told in error.what


def test_the_name_of_an_environment_that_is_not_allowed_is_told_as_a_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, '[environments.Staging]\ndsn = "env:STAGING_URL"\n')
    assert error.what.startswith("environments: invalid key: ")
    assert "^[a-z]" in error.what


def test_the_name_of_a_kept_value_that_is_not_allowed_is_told_as_a_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, changed('keep = { post_id = "data.id" }', 'keep = { "Post Id" = "data.id" }'))
    assert error.what.startswith("paths[0].steps[0].keep: invalid key: ")


# --- variables ----------------------------------------------------------------------------------------------

GIVEN = {
    "STAGING_URL": f"postgresql://shop:{SECRET}-1@pool.internal.example:6432/shop",
    "STAGING_DIRECT": f"host=db.internal.example password={SECRET}-2 dbname=shop",
    "TOKEN_OF_ADA": f"{SECRET}-3",
}


def resolved(folder: Path, given: dict[str, str], text: str = WHOLE) -> tuple[Environment, Redactor]:
    redactor = Redactor()
    return resolve("staging", read(folder, text).environments["staging"], given, redactor), redactor


def test_what_variables_hold_is_looked_up_and_told_to_the_redactor(tmp_path: Path) -> None:
    environment, redact = resolved(tmp_path, GIVEN)
    assert environment.dsn == GIVEN["STAGING_URL"]
    assert environment.trail == GIVEN["STAGING_DIRECT"]  # past the pooler, where nothing else is named
    assert environment.callers[0].headers == {"authorization": f"Bearer {SECRET}-3"}
    told = redact(f"{SECRET}-1 {SECRET}-2 {SECRET}-3 pool.internal.example db.internal.example")
    assert told == " ".join([MASK] * 5)
    assert SECRET not in repr(environment)


def test_every_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, {"STAGING_DIRECT": GIVEN["STAGING_DIRECT"], "TOKEN_OF_ADA": ""})
    assert caught.value.what == (
        "the environment staging is named by environment variables that are not set: STAGING_URL, TOKEN_OF_ADA"
    )
    assert caught.value.hint == "export STAGING_URL=…"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("told", [f"{SECRET} and nothing else", f"postgresql://shop:{SECRET}@pool/shop?nothing=1"])
def test_what_is_no_connection_string_is_not_repeated(tmp_path: Path, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, GIVEN | {"STAGING_URL": told})
    assert caught.value.where == "environments.staging.dsn"
    assert "invalid connection string" in caught.value.what
    assert SECRET not in str(caught.value)


BASE_URL_BY_NAME = changed('"https://shop.example"', '"env:STAGING_BASE_URL"')


def test_a_base_url_that_is_hidden_stays_hidden(tmp_path: Path) -> None:
    given = GIVEN | {"STAGING_BASE_URL": "https://shop.internal.example:8443/api"}
    environment, redact = resolved(tmp_path, given, BASE_URL_BY_NAME)
    assert environment.base_url == given["STAGING_BASE_URL"]
    assert "shop.internal" not in redact("https://shop.internal.example:8443/other and shop.internal.example:8443")


@pytest.mark.parametrize("told", ["shop.internal.example", "https://", "/posts", "https://[shop.internal"])
def test_what_is_no_base_url_is_refused_without_being_repeated(tmp_path: Path, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, GIVEN | {"STAGING_BASE_URL": told}, BASE_URL_BY_NAME)
    assert caught.value.where == "environments.staging.base_url"
    assert "shop.internal" not in str(caught.value)


# --- what texts may name ------------------------------------------------------------------------------------

ADA = Caller(actor={"type": "user", "id": "ada"})
PLAIN = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PLAIN
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_what_names_nothing_stays_as_it_is(tree: Any) -> None:
    filled = Values(ADA).fill(tree)
    assert filled == tree
    assert type(filled) is type(tree)


@given(PLAIN)
def test_a_text_without_braces_is_filled_with_nothing(text: str) -> None:
    assert Values(None).text(text) == text


@given(TREES)
def test_a_text_that_is_nothing_but_a_name_keeps_the_type_of_its_value(value: Any) -> None:
    values = Values(ADA)
    values.keep("post_id", value)
    assert values.fill({"id": "{post_id}", "all": ["{post_id}"]}) == {"id": value, "all": [value]}
    assert type(values.fill("{post_id}")) is type(value)


@given(PLAIN, SCALARS, PLAIN)
def test_a_name_among_other_text_becomes_text(before: str, value: Any, after: str) -> None:
    values = Values(ADA)
    values.keep("post_id", value)
    if before or after:
        assert values.fill(f"{before}{{post_id}}{after}") == f"{before}{value}{after}"


@given(st.text(max_size=40))
def test_any_text_is_filled_or_refused_by_name(text: str) -> None:
    try:
        Values(ADA).fill(text)
    except ConfigError as error:
        assert "nothing is called that here" in error.what


def test_two_names_side_by_side_are_two_names() -> None:
    values = Values(ADA)
    assert values.fill("{actor.type}{actor.id}") == "userada"
    assert values.fill("{actor.id}/{unique}") == f"ada/{values.unique}"


def test_a_name_that_nothing_has_is_refused_and_no_value_is_told() -> None:
    values = Values(ADA)
    values.keep("session", SECRET)
    with pytest.raises(ConfigError) as caught:
        values.fill("/posts/{postid}")
    assert caught.value.what.startswith("{postid}: nothing is called that here; known: {unique}, {correlation}")
    assert "{session}" in caught.value.what
    assert SECRET not in str(caught.value)


def test_a_brace_that_encloses_no_name_is_text() -> None:
    assert Values(ADA).fill('{"a": 1} { } {') == '{"a": 1} { } {'


def test_two_times_a_path_is_taken_are_told_apart() -> None:
    assert Values(ADA).unique != Values(ADA).unique
