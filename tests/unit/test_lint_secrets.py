from __future__ import annotations

from harness.lint.secrets import masked, shapes_in
from harness.redaction import MASK
from tests.growth import is_linear
from tests.tables import each_row

# concatenated, so that secret scanners do not report this file
SECRETS = [
    "access_token=" + "abcdefgh1234",
    "AWS_SECRET_ACCESS_KEY=" + "wJalr/K7MDENG",
    "SECRET_KEY_BASE=" + "abcdefgh1234",
    "DB_PASS=" + "abcdefgh1234",
    "DATABASE_PWD=" + "abcdefgh1234",
    'client_secret = "' + 'abcdefgh1234"',
    '{"access_token":"' + 'abcdefgh1234"}',
    r'"{\"access_token\": \"' + r'abcdefgh1234\"}"',
    "X-Api-Key: " + "abcdefgh1234",
    "Cookie: sid=" + "abcdefgh1234",
    "Set-Cookie: a=b; sid=" + "abcdefgh1234; Path=/",
    "curl -u user:" + "abcdefgh1234 https://db.example.org",
    "`curl --user user:" + "abcdefgh1234`",
    "postgres" + "://" + "u" * 100 + ":" + "abcdefgh1234" * 30 + "@db.example.org/shop",
]
INTERNAL = [
    "10.1.2.3",
    "reached at 172.20.3.4.",
    "ssh deploy@192.168.3.4",
    "db-primary.internal:5432",
    "pool.prod.corp",
    "api.default.svc:8080",
    "https://grafana.internal.",
]
HARMLESS = [
    "PWD=/some/folder1",
    "OLDPWD=/some/folder1",
    "DEPLOY_TOKEN=env:TOKEN_1",
    "password=$PGPASSWORD1",
    '"tokens": 1234567',
    "the token: a word1 and another",
    "max_prepared_statements = 0",
    "Cookie: a small file",
    "docker run -u 1000:1000 -u node:node image",
    "curl -u <name>:<password> https://example.org",
    "~/.local/share, config.local, docker-compose.local.yml and conn.private",
    "host.docker.internal:5432",
    "db.internal.example.org",
    "pg_hba.conf lets 10.0.0.0/8 in",
    "section 10.1.2.3, version 10.1.2.3, v10.1.2.3 and 10.1.2",
    "192.168.example.org",
    "172.15.0.1 and 192.169.1.1 are public",
    "http://example.org:80/x and https://example.org/@scope/package",
]


@each_row("text", SECRETS + INTERNAL)
def test_secrets_and_internal_addresses_are_found_and_masked(text: str) -> None:
    assert [shape.always for shape in shapes_in(f"| a | {text} |")] == [True]
    assert MASK in masked(text)
    assert "abcdefgh1234" not in masked(text)
    assert "wJalr" not in masked(text)


@each_row("text", HARMLESS)
def test_harmless_text_has_no_shape(text: str) -> None:
    assert list(shapes_in(text)) == []


def test_a_harmless_url_does_not_hide_a_password_after_it() -> None:
    assert [shape.name for shape in shapes_in("http://a:80/x,pooler" + "://ada:s3cretword@b")] == [
        "a URL with a password"
    ]


HOSTILE = (
    *(
        "a.",
        "a-",
        "x://",
        "x://a:",
        "x://a:80/",
        "://",
        ":",
        "@",
        "=",
        '"',
        "'",
        "`",
        "\\",
        "-",
        "_",
        " ",
        "1",
        "[",
        "<",
    ),
    *("{", "$", "%", "a", "password", "token", "--token", "token=", "token=[", "token=<", "pwd=", "cookie: a=", "-u ="),
    *("cookie:a=", "host=", "host=a ", "host=abcdef.", "password=", "postgres://", "postgres://[", "postgres://a/b,"),
    *("bearer ", "authorization: ", "eyJaaaaaa-", "eyJ", "AKIA", "-----BEGIN ", "-----BEGIN A ", "SCRAM-SHA-256$1"),
    *("a.internal", "a.internal:", "10.", "10.1.2.", "192.168.", "https://a@"),
)


@each_row("hostile", HOSTILE)
def test_hostile_lines_are_searched_in_linear_time(hostile: str) -> None:
    """With quadratic time, a long line would take hours."""
    line = hostile * (5_000 // len(hostile)) + " DB_PASS=" + "abcdefgh1234"
    assert any(shape.always for shape in shapes_in(line))
    assert "abcdefgh1234" not in masked(line)
    assert is_linear(lambda text: list(shapes_in(text)), hostile)
    assert is_linear(masked, hostile)
