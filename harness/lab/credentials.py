"""Random passwords for one run. Servers receive SCRAM verifiers only; Pgpool-II needs the passwords themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Literal, get_args

from msgspec import Struct

#: few, because a random password that lives as long as the run cannot be guessed
_ITERATIONS = 256
#: PostgreSQL's default, and the fewest that RFC 7677 allows: drivers of foreign suites refuse fewer, as scramp does
_COMMAND_ITERATIONS = 4096


#: the rights that a foreign command asks for: each has a login of its own
CommandRole = Literal["app", "owner", "createdb", "superuser"]
COMMAND_ROLES: tuple[CommandRole, ...] = get_args(CommandRole)


class Role(Struct, frozen=True, kw_only=True):
    """A login. Its `repr` never shows the password."""

    name: str
    password: str
    #: the SCRAM verifier of the password
    verifier: str

    def __repr__(self) -> str:
        return f"Role({self.name!r})"


class Roles(Struct, frozen=True, kw_only=True):
    """The logins of one lab."""

    #: the superuser of the server, for the harness's own work
    admin: Role
    #: owns the databases and provisions them
    owner: Role
    #: the role of the application, with the least rights
    app: Role
    #: a superuser that connects through the pooler
    dba: Role
    #: the login of the pooler's admin console
    console: Role
    #: looks up the verifiers of roles that a foreign command creates, for poolers that need them
    lookup: Role
    #: the logins of foreign commands
    commands: dict[CommandRole, Role]

    def secrets(self) -> tuple[str, ...]:
        """Return all passwords and verifiers, for the redactor."""
        return tuple(secret for role in self.all() for secret in (role.password, role.verifier))

    def all(self) -> tuple[Role, ...]:
        """Return all logins."""
        return (self.admin, self.owner, self.app, self.dba, self.console, self.lookup, *self.commands.values())


def random_roles() -> Roles:
    """Return logins with new random passwords."""
    return Roles(
        admin=_role("harness_admin"),
        owner=_role("harness_owner"),
        app=_role("harness_app"),
        dba=_role("harness_dba"),
        console=_role("harness_console"),
        lookup=_role("harness_lookup"),
        commands={name: _role(f"harness_command_{name}", _COMMAND_ITERATIONS) for name in COMMAND_ROLES},
    )


def _role(name: str, iterations: int = _ITERATIONS) -> Role:
    password = secrets.token_urlsafe(24)
    return Role(name=name, password=password, verifier=scram_verifier(password, secrets.token_bytes(16), iterations))


def scram_verifier(password: str, salt: bytes, iterations: int = _ITERATIONS) -> str:
    """Return what PostgreSQL stores in pg_authid.rolpassword for an ASCII password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")

    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode("ascii")

    return f"SCRAM-SHA-256${iterations}:{text(salt)}${text(stored)}:{text(server)}"
