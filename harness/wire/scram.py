"""The client side of SCRAM-SHA-256, without channel binding (RFC 5802, RFC 7677)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

#: PostgreSQL's default is 4096; more iterations could take longer than the client's deadline
_MOST_ITERATIONS = 200_000
#: "n,,": no channel binding, no other identity
_HEADER = "n,,"


class ScramError(ValueError):
    """The server's message is malformed, or does not prove that the server knows the password."""


class Scram:
    """One exchange: :meth:`first`, then :meth:`answer`, then :meth:`verify`."""

    def __init__(self, password: str, nonce: str = "") -> None:
        """Begin an exchange; the nonce is random, except in tests."""
        self._password = _prepared(password).encode("utf-8", "surrogateescape")
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
        self._server_signature = b""
        self.verified = False

    @property
    def _bare(self) -> str:
        # the user is empty, as in libpq, because PostgreSQL uses the one of the startup message
        return f"n=,r={self._nonce}"

    def first(self) -> bytes:
        """Return the client's first message."""
        return f"{_HEADER}{self._bare}".encode()

    def answer(self, server_first: bytes) -> bytes:
        """Return the client's final message.

        :raises ScramError: when the server's first message is malformed or has another client's nonce.
        """
        fields = _fields(server_first)
        nonce = fields.get("r", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server's nonce does not continue the client's")
        try:
            salt = base64.b64decode(fields.get("s", ""), validate=True)
            iterations = int(fields.get("i", ""))
        except (binascii.Error, ValueError):
            raise ScramError("the server's message has an invalid salt or number of iterations") from None
        if not 1 <= iterations <= _MOST_ITERATIONS:
            raise ScramError(f"the server asks for {iterations} iterations, expected 1 to {_MOST_ITERATIONS}")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c={base64.b64encode(_HEADER.encode()).decode()},r={nonce}"
        signed = f"{self._bare},{server_first.decode('utf-8', 'replace')},{without_proof}".encode()
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(left ^ right for left, right in zip(client_key, signature, strict=True))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check the server's proof that it knows the password.

        :raises ScramError: when the proof is wrong or missing.
        """
        claimed = _fields(server_final).get("v", "")
        expected = base64.b64encode(self._server_signature).decode()
        if not self._server_signature or not hmac.compare_digest(claimed.encode(), expected.encode()):
            raise ScramError("the server did not prove that it knows the password")
        self.verified = True


def _fields(message: bytes) -> dict[str, str]:
    return {part[:1]: part[2:] for part in message.decode("utf-8", "replace").split(",")}


def _prepared(password: str) -> str:
    """Return a password after SASLprep (RFC 4013). Prohibited characters are kept, as PostgreSQL does."""
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(letter) else letter for letter in password if not stringprep.in_table_b1(letter)
    )
    return unicodedata.normalize("NFKC", mapped)
