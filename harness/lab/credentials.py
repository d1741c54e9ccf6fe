"""Random passwords, made for one run and told to servers as SCRAM verifiers only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from msgspec import Struct

#: the passwords are random and live as long as the run, so there is nothing to slow a guesser down for
_ITERATIONS = 256


class Role(Struct, frozen=True, kw_only=True):
    """A login. Its text never shows the password."""

    name: str
    password: str
    verifier: str

    def __repr__(self) -> str:
        return f"Role({self.name!r})"


class Roles(Struct, frozen=True, kw_only=True):
    """The logins of one lab."""

    #: the cluster's superuser: the harness's own chores
    admin: Role
    #: owns the databases and provisions them
    owner: Role
    #: what the application connects as, with least rights
    app: Role
    #: a superuser who comes through the pooler
    dba: Role
    #: the pooler's admin console
    console: Role

    def secrets(self) -> tuple[str, ...]:
        return tuple(each for role in self.all() for each in (role.password, role.verifier))

    def all(self) -> tuple[Role, ...]:
        return (self.admin, self.owner, self.app, self.dba, self.console)


def random_roles() -> Roles:
    return Roles(
        admin=_role("harness_admin"),
        owner=_role("harness_owner"),
        app=_role("harness_app"),
        dba=_role("harness_dba"),
        console=_role("harness_console"),
    )


def _role(name: str) -> Role:
    password = secrets.token_urlsafe(24)
    return Role(name=name, password=password, verifier=scram_verifier(password, secrets.token_bytes(16)))


def scram_verifier(password: str, salt: bytes, iterations: int = _ITERATIONS) -> str:
    """Return what PostgreSQL stores in pg_authid.rolpassword for an ASCII password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")

    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode("ascii")

    return f"SCRAM-SHA-256${iterations}:{text(salt)}${text(stored)}:{text(server)}"
