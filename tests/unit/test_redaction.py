from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.redaction import MASK, Redactor

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
def test_the_shapes_of_secrets_are_redacted(text: str) -> None:
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
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor()(text) == text


secrets = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=6, max_size=30).filter(
    lambda text: text.strip() == text and MASK not in text and text not in MASK
)


@given(secrets, st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_comes_through(secret: str, before: str, after: str) -> None:
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


def test_short_secrets_do_not_blank_out_ordinary_text() -> None:
    redact = Redactor()
    redact.learn("a", "")
    assert redact("a cat") == "a cat"
