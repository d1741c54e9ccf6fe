"""Passwords that a login may send, read before any connection is made.

A server that refuses a login may repeat in its message whatever it was sent. Therefore the redactor learns each
password that libpq or another driver could use: from connection strings on the command line and in environment
variables, from PGPASSWORD, and from libpq's password and service files.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: longer texts and files hold something else
_LONGEST = 1 << 20
_URL_LOGIN = re.compile(r"://(?P<user>[^\s/@:'\"<>]*):(?P<password>[^\s'\"<>]*)@")
_URL_PARAMETER = re.compile(r"(?i)[?&;](?:ssl)?(?:password|passwd|pwd|secret)=(?P<password>[^&#\s]+)")
#: as libpq, JDBC, ODBC and ADO write it
_KEYWORD = re.compile(r"(?i)\b(?:ssl)?(?:password|pwd)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|\"([^\"]*)\"|((?:[^\s\\]|\\.)+))")
#: a URL of libpq, where names may be percent-encoded, or the name of an option that holds a secret or names a file
_MAY_HOLD_SECRET = re.compile(r"://|pass|pwd|secret|key|token|servicefile")
#: the separator and the escapes of a password file (https://www.postgresql.org/docs/current/libpq-pgpass.html)
_PASSFILE_FIELD = re.compile(r"((?:[^:\\\n]|\\.)*)(?::|\Z)")
_PASSFILE_FIELDS = 5
#: of an option that holds a secret, see PQconninfoOption (https://www.postgresql.org/docs/current/libpq-connect.html)
_PASSWORD_FIELD = b"*"
_SECRET_OPTIONS = frozenset({b"scram_client_key", b"scram_server_key"})


def login_secrets(texts: Iterable[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the passwords that a login from here may send.

    A password that is the name of its own user is left out: it protects nothing, and the name occurs everywhere.

    :param texts: that may be connection strings, such as the arguments of this process.
    :param variables: the environment of this process: name to value.
    """
    found = [variables.get("PGPASSWORD", "")]
    home = Path(variables.get("HOME") or "/nonexistent")
    passfiles = [Path(variables.get("PGPASSFILE") or home / ".pgpass")]
    services = [
        Path(variables.get("PGSERVICEFILE") or home / ".pg_service.conf"),
        Path(variables.get("PGSYSCONFDIR") or "/etc/postgresql-common") / "pg_service.conf",
    ]
    texts = [text for text in (*texts, *variables.values()) if ("=" in text or "://" in text) and len(text) < _LONGEST]
    for text in texts:
        options = _options(text)
        services += [Path(options["servicefile"])] if options.get("servicefile") else []
        passfiles += [Path(options["passfile"])] if options.get("passfile") else []
        found += passwords_of(text)
    for service in services:
        declared = _read(service)
        for line in declared.splitlines():
            name, _, value = line.partition("=")
            passfiles += [Path(value.strip())] if name.strip() == "passfile" else []
        found += passwords_of(declared)
    for passfile in passfiles:
        found += _of_passfile(_read(passfile))
    return tuple(dict.fromkeys(filter(None, found)))


def passwords_of(text: str) -> tuple[str, ...]:
    """Return the passwords of a connection string, in any driver's spelling, also when libpq cannot parse it."""
    options = _options(text)
    found = [value for name, value in options.items() if name not in {"user", "passfile", "servicefile"}]
    for login in _URL_LOGIN.finditer(text):
        if login["password"] != login["user"]:
            found += [login["password"], unquote(login["password"])]
    for parameter in _URL_PARAMETER.finditer(text):
        found += [parameter[1], unquote(parameter[1]), unquote_plus(parameter[1])]
    if "://" not in text:
        for keyword in _KEYWORD.finditer(text):
            value = keyword[1] or keyword[2] or keyword[3] or ""
            found += [value, re.sub(r"\\(.)", r"\1", value), value.partition(";")[0]]
    return tuple(dict.fromkeys(secret for secret in found if secret and secret != options.get("user")))


def _options(text: str) -> dict[str, str]:
    """Return the secret options of a connection string of libpq, its user, and the files that it names."""
    if not _MAY_HOLD_SECRET.search(text):
        return {}
    from psycopg import Error, pq  # noqa: PLC0415 -- most commands connect to nothing, and most texts hold no login

    with contextlib.suppress(Error, ValueError):
        return {
            option.keyword.decode(): option.val.decode(errors="replace")
            for option in pq.Conninfo.parse(text.encode())
            if option.val
            and (
                option.dispchar == _PASSWORD_FIELD
                or option.keyword in {b"user", b"passfile", b"servicefile", *_SECRET_OPTIONS}
            )
        }
    return {}


def _of_passfile(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _PASSFILE_FIELD.findall(line)]
        if len(fields) >= _PASSFILE_FIELDS and fields[4] != fields[3]:
            yield fields[4]


def _read(path: Path) -> str:
    """Return the text of a file; "" if it cannot be read. Pipes are not read, because they may block for ever."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size < _LONGEST:
            return path.read_text(encoding="utf-8", errors="replace")
    return ""
