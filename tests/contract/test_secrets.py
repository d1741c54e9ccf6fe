"""A server that refuses a login and repeats what it was sent: no command prints the password, or writes it to a file."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from msgspec import Struct

from harness.suites import commands as commands_suite
from tests.conftest import require_engine
from tests.contract.command_line import harness, harness_here
from tests.contract.refusing_server import refusing_server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.refusing_server import RefusingServer

PLAIN, ODD, LINES = "s3cr3t-c4n4ry", "s3cr3t/p@ss:w0rd%  c4n4ry;'x", "s3cr3t-line-one\ns3cr3t-line-two"
ESCAPED = ODD.replace("\\", "\\\\").replace("'", "\\'")
PASSFILE_ODD = ODD.replace("\\", "\\\\").replace(":", "\\:")


class Way(Struct, frozen=True):
    """A way in which a password reaches a login. In its texts, PORT and HOME are replaced."""

    name: str
    dsn: str
    password: str = PLAIN
    variables: dict[str, str] = {}
    #: name below the home folder to text
    files: dict[str, str] = {}


LOGIN = "host=127.0.0.1 port=PORT user=app dbname=shop"
SERVICE = f"[shop]\nhost=127.0.0.1\nport=PORT\nuser=app\ndbname=shop\npassword={PLAIN}\n"
WAYS = (
    Way("keyword", f"{LOGIN} password={PLAIN}"),
    Way("quoted keyword", f"{LOGIN} password='{ESCAPED}'", ODD),
    Way("URL", f"postgresql://app:{PLAIN}@127.0.0.1:PORT/shop"),
    Way("percent-encoded URL", f"postgresql://app:{quote(ODD, safe='')}@127.0.0.1:PORT/shop", ODD),
    Way("lines in a URL", f"postgresql://app:{quote(LINES, safe='')}@127.0.0.1:PORT/shop", LINES),
    Way("parameter of a URL", f"postgresql://app@127.0.0.1:PORT/shop?password={quote(ODD, safe='')}", ODD),
    Way("PGPASSWORD", LOGIN, ODD, {"PGPASSWORD": ODD}),
    Way("PGPASSFILE", LOGIN, ODD, {"PGPASSFILE": "HOME/passwords"}, {"passwords": f"*:*:*:*:{PASSFILE_ODD}\n"}),
    Way(".pgpass", LOGIN, files={".pgpass": f"127.0.0.1:PORT:shop:app:{PLAIN}\n"}),
    Way("passfile", f"{LOGIN} passfile=HOME/passwords", files={"passwords": f"*:*:*:*:{PLAIN}\n"}),
    Way("PGSERVICEFILE", "service=shop", variables={"PGSERVICEFILE": "HOME/services"}, files={"services": SERVICE}),
    Way(".pg_service.conf", "", variables={"PGSERVICE": "shop"}, files={".pg_service.conf": SERVICE}),
    Way(
        "passfile of a service",
        "service=shop",
        files={
            ".pg_service.conf": re.sub("password=.*", "passfile=HOME/passwords", SERVICE),
            "passwords": f"*:*:*:*:{PLAIN}\n",
        },
    ),
)
ENVIRONMENT = '[environments.staging]\ndsn = "env:DATABASE_URL"\n'

ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@pytest.fixture
def server() -> Iterator[RefusingServer]:
    with refusing_server() as running:
        yield running


def variables_of(way: Way, server: RefusingServer, folder: Path) -> dict[str, str]:
    """Write the files of a way, and return its environment variables."""
    home = folder / "home"
    home.mkdir()

    def filled(text: str) -> str:
        return text.replace("PORT", str(server.port)).replace("HOME", str(home))

    for name, text in way.files.items():
        (home / name).write_text(filled(text), encoding="utf-8")
        (home / name).chmod(0o600)
    variables = {name: filled(text) for name, text in way.variables.items()}
    return variables | {"HOME": str(home), "DATABASE_URL": filled(way.dsn) or "dbname=shop"}


def assert_hidden(way: Way, done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """Neither the output nor a file that the command wrote holds the password, a line of it or a long word of it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.is_relative_to(folder / "reports")]
    parts = {way.password, *way.password.split(), *way.password.splitlines()}
    for place, text in [
        ("stdout", done.stdout),
        ("stderr", done.stderr),
        *((str(path.relative_to(folder)), path.read_text(encoding="utf-8", errors="replace")) for path in files),
    ]:
        assert not [part for part in parts if part in text or quote(part, safe="") in text], (place, text)


COMMANDS = (
    ("identify", "env:DATABASE_URL"),
    ("identify", "DSN", "--json"),
    ("audit", "coverage"),
    ("verify", "--environment", "staging", "--check", "environment.trail-closed"),
)
commands = pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))


@ways
@commands
def test_no_command_repeats_the_password(
    way: Way, arguments: tuple[str, ...], server: RefusingServer, tmp_path: Path
) -> None:
    assert_not_repeated(way, arguments, server, tmp_path, run=harness_here)


@pytest.mark.parametrize("arguments", [COMMANDS[0], COMMANDS[-1]], ids=lambda arguments: " ".join(arguments[:2]))
def test_no_process_repeats_the_password(arguments: tuple[str, ...], server: RefusingServer, tmp_path: Path) -> None:
    """Neither the start nor the end of the process prints it, nor a library that writes past Python's streams."""
    assert_not_repeated(WAYS[0], arguments, server, tmp_path, run=harness)


def assert_not_repeated(
    way: Way,
    arguments: tuple[str, ...],
    server: RefusingServer,
    folder: Path,
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    (folder / "harness.toml").write_text(ENVIRONMENT, encoding="utf-8")
    given = variables_of(way, server, folder)
    done = run(folder, *[given["DATABASE_URL"] if word == "DSN" else word for word in arguments], **given)
    assert done.returncode == 3, done.stderr
    assert server.received == {way.password}
    assert "the password" in done.stdout + done.stderr
    assert_hidden(way, done, folder)


def test_doctor_prints_no_password(tmp_path: Path) -> None:
    """An engine's address may hold one, as any variable may."""
    address = f"tcp://admin:{PLAIN}@127.0.0.1:9"
    done = harness_here(
        tmp_path, "doctor", DOCKER_HOST=address, DATABASE_URL=f"postgresql://app:{PLAIN}@127.0.0.1/shop"
    )
    assert "docker" in done.stdout
    assert_hidden(Way("", "", PLAIN), done, tmp_path)


HOSTILE = "\x1b]52;c;c2VjcmV0\x07\x1b]0;title\x07\x1b[2J\x9b2J\u202eevil\u2069"


@pytest.mark.parametrize(
    "arguments",
    [["identify"], ["identify", "--json"], ["audit", "coverage"], ["verify", "--environment", "staging"], ["report"]],
    ids=" ".join,
)
def test_a_server_cannot_control_the_terminal(arguments: list[str], server: RefusingServer, tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text(ENVIRONMENT, encoding="utf-8")
    url = f"postgresql://{quote(HOSTILE)}:{PLAIN}@127.0.0.1:{server.port}/shop"
    if arguments == ["report"]:
        harness_here(tmp_path, "verify", "--environment", "staging", DATABASE_URL=url)
    done = harness_here(tmp_path, *arguments, DATABASE_URL=url)
    controls = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2069]")
    assert "is wrong" in done.stdout + done.stderr or arguments == ["report"]
    assert not controls.search(done.stdout + done.stderr)
    rendered = [path for path in (tmp_path / "reports").glob("*.*") if path.is_file()]
    assert bool(rendered) == (arguments[0] in {"verify", "report"})
    for path in rendered:
        assert not controls.search(path.read_text(encoding="utf-8")), path


@pytest.mark.engine
def test_exec_streams_no_password_no_line_of_a_key_and_nothing_across_a_boundary(
    server: RefusingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's own logins are refused, each by a server that repeats the password; its output has all of them."""
    monkeypatch.setattr(commands_suite, "_LOG_S", 0.0)  # the command does not log in to the lab's server
    engine = require_engine("native")
    urls = {f"LOGIN_{number}": way for number, way in enumerate(WAYS) if not way.files and not way.variables}
    given = {name: way.dsn.replace("PORT", str(server.port)) for name, way in urls.items()}
    lines = [f"c4n4ry{number}MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" for number in range(3)]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])
    script = (
        "import os, psycopg\n"
        "key = os.environ['TLS_PRIVATE_KEY']\n"
        "print(key)\n"
        "print('x' * 65_530 + key.splitlines()[1] + 'y' * 200_000)\n"
        "print('end of the key', flush=True)\n"
        "for name in sorted(os.environ):\n"
        "    if name.startswith('LOGIN_'):\n"
        "        try:\n"
        "            psycopg.connect(os.environ[name])\n"
        "        except psycopg.Error as error:\n"
        "            print(error, flush=True)\n"
    )
    command = ["exec", "direct", "--engine", engine.name, "--", sys.executable, "-c", script]
    done = harness_here(tmp_path, *command, TLS_PRIVATE_KEY=key, **given)
    assert server.received == {way.password for way in urls.values()}, done
    assert done.stdout.count("is wrong") >= len(urls) - 1, done.stdout
    for way in urls.values():
        assert_hidden(way, done, tmp_path)
    assert "end of the key" in done.stdout
    written = [path.read_text() for path in (tmp_path / "reports").rglob("*") if path.is_file()]
    assert not any("c4n4ry" in text for text in (done.stdout, done.stderr, *written))
