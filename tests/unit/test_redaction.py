"""Redaction: every secret is removed, and ordinary text stays."""

from __future__ import annotations

import itertools
import json
import tomllib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import redaction
from harness.redaction import MASK, ORDINARY, RedactedStream, Redactor
from tests.growth import is_linear
from tests.tables import each_row

CANARY = "s3cr3t-c4n4ry"


@each_row(
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


secrets = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=6, max_size=30).filter(
    lambda text: text.strip() == text and MASK not in text and text not in MASK and text not in ORDINARY
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


@pytest.mark.parametrize(("secret", "redacted"), [("abcde", "an abcde cat"), ("abcdef", f"an {MASK} cat")])
def test_secrets_of_fewer_than_six_characters_are_not_redacted_by_value(secret: str, redacted: str) -> None:
    redact = Redactor()
    redact.learn("a", "", secret)
    assert redact(f"an {secret} cat") == redacted


@pytest.mark.parametrize(
    ("secret", "spelling"),
    [
        ("it's 5/7 é", "it's 5/7 é"),
        ("it's 5/7 é", "it%27s%205%2F7%20%C3%A9"),  # of a URL
        ("it's 5/7 é", "it%27s+5%2F7+%C3%A9"),  # of a form
        ("it's 5/7 é", "it''s 5/7 é"),  # an SQL literal
        ('é"quote"é', r"\u00e9\"quote\"\u00e9"),  # JSON
        ('é"quote"é', r"é\"quote\"é"),  # JSON in UTF-8
        ('\tit\'s "5"\n', r"\tit\'s " + r'"5"\n'),  # repr
    ],
)
def test_each_spelling_of_a_learned_secret_is_redacted_completely(secret: str, spelling: str) -> None:
    redact = Redactor()
    redact.learn(secret)
    assert redact(f"<{spelling}>") == f"<{MASK}>"


def test_a_secret_that_begins_like_another_is_redacted_completely() -> None:
    redact = Redactor()
    redact.learn("horse-1", "horse-123", "horse-12")
    assert redact("horse-12 horse-123 horse-1") == f"{MASK} {MASK} {MASK}"


def test_secrets_are_learned_in_addition_to_earlier_ones() -> None:
    redact = Redactor()
    redact.learn("horse-1")
    assert redact("horse-1 cat-22") == f"{MASK} cat-22"
    redact.learn("cat-22")
    assert redact("horse-1 cat-22") == f"{MASK} {MASK}"


@pytest.mark.parametrize(("length", "kept"), [(2000, 1), (2001, 0)])
def test_only_texts_of_at_most_2000_characters_are_kept_in_memory(length: int, kept: int) -> None:
    """Evidence repeats short texts, which are redacted once; a long text is a log."""
    redact = Redactor()
    assert redact("x" * length) == redact("x" * length) == "x" * length
    assert redact._redacted.cache_info()[0::3] == (kept, kept)  # hits, and texts


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
    "apikey=" + CANARY,
    "admin_pass=" + CANARY,
    "smtp.pass=" + CANARY,
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


@each_row("text", NAMED)
def test_values_after_names_of_secrets_are_redacted(text: str) -> None:
    redacted = Redactor()(text)
    assert CANARY not in redacted
    assert MASK in redacted
    assert Redactor()(redacted) == redacted


@each_row(
    ("text", "redacted"),
    [
        # without a name or quotes, the whole value
        (f"verifier SCRAM-SHA-256$4096:{CANARY}$x:y then", f"verifier {MASK} then"),
        (f"hash md5{'0a' * 16}, then", f"hash {MASK}, then"),
        # the name and the quotes stay
        (f"password={CANARY}, then", f"password={MASK}, then"),
        (f"password='{CANARY} 2' then", f"password='{MASK}' then"),
        (f"password='{CANARY} 2 then", f"password='{MASK}"),
        (f"PASSWORD '{CANARY} 2 then\nnext", f"PASSWORD '{MASK}\nnext"),
        (rf'"{{\"token\": \"{CANARY}\", \"n\": 1}}"', rf'"{{\"token\": \"{MASK}\", \"n\": 1}}"'),
        # the user goes with the password; the rest of the address stays
        (f"at postgres://app:{CANARY}@db.example:5432/app then", f"at postgres://{MASK}@db.example:5432/app then"),
        ("at http://db.example:5432/app then", "at http://db.example:5432/app then"),
    ],
)
def test_exactly_the_value_is_replaced(text: str, redacted: str) -> None:
    assert Redactor()(text) == redacted


# concatenated, for the same reason
ISSUED = {
    "an AWS access key": "AKIA" + "A7" * 8,
    "an AWS access key of a session": "ASIA" + "A7" * 8,
    **{f"a GitHub token gh{kind}": f"gh{kind}_" + "a7" * 10 for kind in "pousr"},
    "a fine-grained GitHub token": "github_" + "pat_" + "a7" * 10,
    "a GitLab token": "glpat-" + "a7" * 8,
    "a Slack token": "xoxb-" + "a7" * 4,
    "a Slack webhook": "hooks.slack.com/" + "services/" + "a7" * 6,
    "a Stripe key": "sk_" + "live_" + "a7" * 6,
    "a restricted Stripe key": "rk_" + "test_" + "a7" * 6,
    "a Google API key": "AIza" + "a7" * 15,
    "a JSON web token": "eyJ" + "a7" * 3 + ".eyJ" + "a7" * 2 + "." + "a7" * 4,
    "a JSON web token without a signature": "eyJ" + "a7" * 3 + ".eyJ" + "a7" * 2,
}


@each_row("token", ISSUED.values(), ids=ISSUED)
def test_a_token_is_recognised_by_the_prefix_of_its_issuer_without_a_name(token: str) -> None:
    assert Redactor()(f"got {token}, then") == f"got {MASK}, then"


@each_row(
    "stand_in",
    [
        *("[redacted]", "[FILTERED]", "[masked]", "[hidden]", "<the password>", "$1", "$PASSWORD", "${password}"),
        *("{{ password }}", "{password}", "%PASSWORD%", "*", "***", "xxx", "…", "...", "env:PASSWORD"),
        *("null", "none", "nil", "undefined", "true", "false", "passed", "failed", "skipped", "ok"),
    ],
)
def test_a_placeholder_of_a_secret_stays_and_shows_that_none_was_printed(stand_in: str) -> None:
    assert Redactor()(f"password={stand_in}, then") == f"password={stand_in}, then"


@each_row("start", ["$1", "$PASSWORD", "*", "***", "xxx", "…", "...", "null", "nil", "true", "ok"])
def test_a_secret_that_begins_like_a_placeholder_is_redacted_completely(start: str) -> None:
    assert Redactor()(f"password={start}{CANARY}, then") == f"password={MASK}, then"


@each_row(
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


@each_row("hostile", HOSTILE)
def test_redaction_takes_linear_time_for_hostile_lines(hostile: str) -> None:
    """A pattern with quadratic time needs hours for a long line."""
    redact = Redactor()
    assert CANARY not in redact(f"{hostile * (5_000 // len(hostile))}\npassword={CANARY}\n")
    assert is_linear(redact, hostile)


def test_what_was_redacted_before_a_secret_was_learned_is_redacted_again() -> None:
    redactor = Redactor()
    text = "the word is correct-horse-battery"
    assert redactor(text) == text
    redactor.learn("correct-horse-battery")
    assert "correct-horse" not in redactor(text)


def test_a_url_that_was_taken_for_a_path_keeps_no_password() -> None:
    """`Path("postgresql://u:p@h/x")` has one slash."""
    assert Redactor()("postgresql:/app:sekrit@host/x: no such file") == "postgresql:/[redacted]@host/x: no such file"


@pytest.mark.parametrize("mark", list(",;)]}|"))
def test_punctuation_inside_an_unquoted_secret_does_not_end_it(mark: str) -> None:
    redacted = Redactor()(f"before PGPASSWORD=abc{mark}{CANARY}{mark}xyz after")
    assert redacted == f"before PGPASSWORD={MASK} after"


@each_row(
    ("text", "redacted"),
    [
        ("password=abc,user=x", f"password={MASK},user=x"),
        ("password=abc, user x", f"password={MASK}, user x"),
        ("(password=abc) x", f"(password={MASK}) x"),
        ("{password: abc}, {b: 1}", f"{{password: {MASK}}}, {{b: 1}}"),
        ("{token:abc},{user:x}", f"{{token:{MASK}}},{{user:x}}"),
        ("| password=abc | b |", f"| password={MASK} | b |"),
        ("token=abc;path=/x", f"token={MASK};path=/x"),
        ("secret=abc,'b'", f"secret={MASK},'b'"),
    ],
)
def test_punctuation_after_an_unquoted_secret_stays(text: str, redacted: str) -> None:
    assert Redactor()(text) == redacted


@each_row("word", sorted(ORDINARY))
def test_a_password_that_is_a_word_of_the_evidence_does_not_remove_that_word(word: str) -> None:
    redact = Redactor()
    redact.learn(word)
    assert redact(f"the {word} is up") == f"the {word} is up"
    assert redact(f"PGPASSWORD={word}-1") == f"PGPASSWORD={MASK}"


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----"


def test_each_line_of_a_long_secret_is_redacted() -> None:
    redact = Redactor()
    redact.learn(PEM + "\n")
    first, second = PEM.splitlines()[1:3]
    assert redact(f"key: {second}, {first}") == f"key: {MASK}, {MASK}"
    assert redact(f"<{PEM}>") == f"<{MASK}>"
    assert redact("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


_STREAMED = [
    *(PEM.splitlines(keepends=True)),
    *(
        "password",
        "password=",
        "PGPASSWORD",
        "token:",
        '"secret"',
        "Authorization",
        "Bearer",
        "cookie",
        "postgresql://u:",
    ),
    *(CANARY, "two words", "abc,def", "'quoted'", "@host", "--api-key", "x.y", "=", ":", "=>", "E", '\\"', '"', "'"),
    *("\n", "\n", "\n", " ", " ", "\r\n", "\t", ";", "é", "eyJhbGciOi.eyJzdWIiOiIx.c2ln"),
]


@given(st.lists(st.sampled_from(_STREAMED), max_size=25).map("".join), st.lists(st.integers(0, 200), max_size=12))
def test_a_streamed_text_is_redacted_like_the_whole_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    redact = Redactor()
    redact.learn(PEM, CANARY, "two words\nabc,def")
    written: list[str] = []
    stream = RedactedStream(redact, written.append)
    positions = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(positions):
        stream(text[start:end])
    stream.close()
    assert "".join(written) == redact(text)


@pytest.mark.parametrize("line", ["1 passed", "Failures:", "key = value", '{"a": 1}', "the password is wrong", "E"])
def test_a_line_without_a_secret_is_written_when_it_ends(line: str) -> None:
    written: list[str] = []
    RedactedStream(Redactor(), written.append)(line + "\n")
    assert written == [line + "\n"]


@pytest.mark.parametrize("with_blanks", [True, False])
@pytest.mark.parametrize("before_cut", [0, 1, 20, 10_000])
def test_a_secret_across_the_cut_of_a_long_line_is_redacted(before_cut: int, with_blanks: bool) -> None:
    redact = Redactor()
    redact.learn(PEM.replace("\n", ""))
    filler = "word " * 60_000 if with_blanks else "x" * 300_000
    secret = PEM.replace("\n", "")
    at = 262_144 + redact.longest - before_cut - 4096
    text = filler[:at] + secret + filler[:70_000]
    written: list[str] = []
    stream = RedactedStream(redact, written.append)
    for start in range(0, len(text), 65_536):
        stream(text[start : start + 65_536])
    held_at_most = max(map(len, written))
    stream.close()
    assert len(written) > 1
    assert held_at_most < 400_000
    assert "".join(written) == redact(text)


@each_row("length", range(len(CANARY)))
def test_the_beginning_of_a_secret_is_redacted_where_a_text_was_cut(length: int) -> None:
    """Long values are cut before they are stored."""
    redact = Redactor()
    redact.learn(CANARY)
    cut = f"the value {CANARY[:length]}…"
    assert redact(cut) == (f"the value {MASK}…" if length >= 6 else cut)


_FRAGMENTS = (
    *(
        "a",
        "B",
        "7",
        " ",
        "\n",
        "=",
        ":",
        "'",
        '"',
        "\\",
        "-",
        "_",
        "/",
        "@",
        "$",
        "=>",
        "://",
        "--",
        " -u ",
        " --user ",
    ),
    *("pass", "PASSWORD", "passwd", "Pwd", "secret", "Token", "API-Key", "access_key", "DB_PASS", "ſecret", "toKen"),
    *(
        "cookie",
        "Set-Cookie: ",
        "name=",
        "Authorization: ",
        "Bearer ",
        "basic ",
        "curl ",
        "root:abcdefgh",
        "abcdefgh" * 4,
    ),
    *("SCRAM-SHA-256$", "md5", "0123456789abcdef" * 2, "AKIA" + "A1" * 8, "ghp_", "glpat-", "xoxb-", "sk_live_"),
    *("rk_test_", "AIza", "eyJhbGciOi", ".eyJzdWIi", "hooks.slack.com/services/"),
)


@given(st.lists(st.sampled_from(_FRAGMENTS), max_size=30).map("".join))
def test_a_shape_is_searched_for_in_every_text_that_may_hold_it(text: str) -> None:
    redacted = text
    for _, pattern in redaction._SHAPES:
        redacted = redaction._compiled(pattern).sub(redaction._without_value, redacted)
    assert Redactor()(text) == redacted
