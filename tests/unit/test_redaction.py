"""Redaction: every secret is removed, and ordinary text stays."""

from __future__ import annotations

import json
import tomllib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.redaction import MASK, Redactor
from tests.growth import is_linear

CANARY = "s3cr3t-c4n4ry"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://app:{CANARY}@db.example/app",
        f"postgres://:{CANARY}@db",
        f"redis+tls://user:{CANARY}@cache:6379/0",
        f"host=db password={CANARY} user=app",
        f"host=db password='{CANARY}' user=app",
        f"PGPASSWORD={CANARY} psql",
        f'{{"password": "{CANARY}"}}',
        f"ALTER ROLE app PASSWORD '{CANARY}'",
        f"CREATE USER app WITH ENCRYPTED PASSWORD '{CANARY}' LOGIN",
        f"api_key: {CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"SCRAM-SHA-256$4096:{CANARY}$x:y",
    ],
)
def test_secrets_are_recognised_by_their_shape(text: str) -> None:
    redacted = Redactor()(text)
    assert CANARY not in redacted
    assert MASK in redacted


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user app",
        "https://www.pgbouncer.org/features.html",
        "a@b.example",
        "10:30:00",
        "token",
        "the secret of success",
        "SCRAM-SHA-256, to the pooler and through it",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert Redactor()(text) == text


secrets = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=6, max_size=30).filter(
    lambda text: text.strip() == text and MASK not in text and text not in MASK
)


@given(secrets, st.text(max_size=20), st.text(max_size=20))
def test_a_learned_secret_is_redacted_in_every_spelling(secret: str, before: str, after: str) -> None:
    redact = Redactor()
    redact.learn(secret)
    for spelling in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("'", "''")):
        redacted = redact(f"{before}{spelling}{after}")
        assert spelling not in redacted.replace(MASK, "\0")


@given(st.text(max_size=120))
def test_redacting_twice_changes_nothing(text: str) -> None:
    redact = Redactor()
    once = redact(text)
    assert redact(once) == once


def test_short_secrets_are_not_redacted_by_value() -> None:
    redact = Redactor()
    redact.learn("a", "")
    assert redact("a cat") == "a cat"


# --- names of secrets, before their values -----------------------------------------------------------------------

# concatenated, so that no scanner reports this file as a leak
NAMED = [
    "access_token=" + CANARY,
    "AWS_SECRET_ACCESS_KEY=wJalr/K7MDENG+" + CANARY,
    "DEPLOY_TOKEN=" + CANARY,
    "client_secret=" + CANARY,
    'left {"access_token":"' + CANARY + '"} right',
    r'left "{\"access_token\": \"' + CANARY + r'\", \"n\": 1}" right',
    "SECRET_KEY_BASE=" + CANARY,
    "DB_PASS=" + CANARY,
    "db_pass: " + CANARY,
    "DATABASE_PWD=" + CANARY,
    "Server=db;Uid=app;Pwd=" + CANARY + ";",
    "X-Api-Key: " + CANARY,
    "X-Auth-Token: " + CANARY,
    "accessToken=" + CANARY,
    "spring.datasource.password=" + CANARY,
    "private_key = '" + CANARY + "'",
    "passphrase: " + CANARY,
    "RELEASE_COOKIE=" + CANARY,
    "GET /posts?access_token=" + CANARY,
    '%{"password" => "' + CANARY + '"}',
    "Cookie: a=b; sid=" + CANARY + "; c=d",
    "Set-Cookie: sid=" + CANARY + "; Path=/; HttpOnly",
    '"set-cookie": "sid=' + CANARY + '; Path=/"',
    "curl -H 'Cookie: sid=" + CANARY + "' https://db.example",
    "curl -u user:" + CANARY + " https://db.example",
    "curl -s --user 'user:a " + CANARY + "' https://db.example",
    "curl -uuser:" + CANARY,
    '"Authorization": "Basic ' + CANARY + '"',
    "Token: Bearer " + CANARY,
    "bearer password: " + CANARY,
    "--password '" + CANARY + "' --verbose",
    "--db_password=a," + CANARY,
    "password='" + CANARY,
    "PASSWORD '" + CANARY,
    "postgres://app:a@" + CANARY + "@db.example/app",
]


@pytest.mark.parametrize("text", NAMED)
def test_values_after_names_of_secrets_are_redacted(text: str) -> None:
    redacted = Redactor()(text)
    assert CANARY not in redacted
    assert MASK in redacted
    assert Redactor()(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "PWD=/some/folder",
        "OLDPWD=/some/folder",
        "OLDPWD=",
        "PWD=\nHOME=/root",
        r"PWD=C:\some\folder",
        "pwd: ~/folder",
        "DEPLOY_TOKEN=\nPATH=/usr/bin",
        "password=***",
        "TOKEN=env:NAME",
        "password=$PGPASSWORD",
        "token: <token>",
        'password = "env:PASSWORD"',
        "PGPASSWORD=${DB_PASSWORD} psql",
        "--token $TOKEN --password <password>",
        "the token: a word",
        "max_prepared_statements = 0",
        "auth_query = SELECT usename, passwd FROM pg_shadow",
        "password_encryption = scram-sha-256",
        '{"tokens": 3, "token": null, "secret": {"id": 1}, "max_tokens": 12}',
        "cat: /run/secrets/db_password: No such file or directory",
        "test_a_secret: passed",
        "Cookie: a small file",
        "docker run -u 1000:1000 -u node:node image",
        "git push -u origin main",
        'curl -u "$NAME:$PASSWORD" https://db.example',
        "2 compass: north, 3 first_pass: done",
        "SET SESSION AUTHORIZATION: isolated from other clients",
    ],
)
def test_placeholders_and_ordinary_values_stay(text: str) -> None:
    assert Redactor()(text) == text


@pytest.mark.parametrize("name", ["password", "access_token", "clientSecret", "Set-Cookie"])
def test_redacted_documents_can_still_be_parsed(name: str) -> None:
    document = {name: f"sid={CANARY}", "before": [1, {"x": "y"}], "n": {"token": f'a"{CANARY}', "password": None}}
    redacted = Redactor()(json.dumps(document))
    assert CANARY not in redacted
    assert json.loads(redacted) == {**document, name: MASK, "n": {"token": MASK, "password": None}}
    assert tomllib.loads(Redactor()(f'x_token = "{CANARY}"\n')) == {"x_token": MASK}
    assert Redactor()(f"| a | password='{CANARY}' | b |") == f"| a | password='{MASK}' | b |"


@pytest.mark.parametrize("start", ["password='", 'token="', "PASSWORD '", r"\"token\": \"", "--password '"])
def test_a_value_without_a_closing_quote_ends_with_its_line(start: str) -> None:
    redacted = Redactor()(f'{start}{CANARY} and\nit\'s said \\"here\\" and "there"')
    assert CANARY not in redacted
    assert redacted.endswith('\nit\'s said \\"here\\" and "there"')


@pytest.mark.parametrize(
    "text",
    [
        "postgres://{user}:{password}@db.example/app",
        "password={password}",
        '{{"password": "{password}"}}',
        "--password {password} --verbose",
        "-u user:{password}",
        "Bearer {password}",
    ],
)
@pytest.mark.parametrize("length", [300, 5000])
def test_a_long_secret_is_redacted_completely(text: str, length: int) -> None:
    assert "7" not in Redactor()(text.format(user="u" * length, password="7" * length))


# --- hostile lines ---------------------------------------------------------------------------------------------------

LITERALS = (
    *(
        "://",
        ":",
        "@",
        "--",
        "-",
        "_",
        "=",
        '"',
        "'",
        "`",
        "\\",
        "/",
        ".",
        "?",
        "<",
        "[",
        "{",
        "$",
        "%",
        " ",
        "\t",
        "\n",
    ),
    *("1", "a", "password", "passwd", "token", "secret", "api-key", "cookie: ", "pwd", "host", "curl -u", "-u "),
    *("bearer", "basic ", "authorization: ", "eyJ", "AKIA", "ghp_", "glpat-", "xoxb-", "SCRAM-SHA-256$", "md5"),
    "-----BEGIN ",
)
HOSTILE = (
    *LITERALS,
    *(
        "a.",
        "a-",
        "a_",
        "x://",
        "x://a:",
        "a://b:c",
        "--token",
        "--token=",
        "token=",
        "token='",
        'token="',
        'token="\\"',
    ),
    *("token=\\'", "token:\n", "token: a ", "password '", "password ''", "password '''", "pwd=", "pwd=/", "cookie: a="),
    *("cookie: a='", "-u a:", "-u=", "-u '", "--user=", "-u a:a ", "bearer bearer ", "bearer a", "eyJaaaaaa-"),
    *(
        f"x://a:{'b' * 500} ",
        f"x://{':' * 500} ",
        f"token='{'a.' * 500}",
        f"--{'token' * 500} ",
        f"cookie: a={'=' * 500}",
    ),
    *("eyJaaaaaa.", "-----BEGIN A ", "authorization: basic ", "token[", "token=$", "token=<", "token={", "--a-token"),
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_redaction_takes_linear_time_for_hostile_lines(hostile: str) -> None:
    """A pattern with quadratic time needs hours for a long line."""
    redact = Redactor()
    assert CANARY not in redact(f"{hostile * (50_000 // len(hostile))}\npassword={CANARY}\n")
    assert is_linear(redact, hostile)


def test_what_was_redacted_before_a_secret_was_learned_is_redacted_again() -> None:
    redactor = Redactor()
    text = "the word is correct-horse-battery"
    assert redactor(text) == text
    redactor.learn("correct-horse-battery")
    assert "correct-horse" not in redactor(text)
