"""`[preflight]` in `harness.toml`, and the rows that it gives."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from harness.model import Status

_Folder = Annotated[str, Meta(pattern=r"^[^\r\n\x00]*$", max_length=300)]


class PreflightDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[preflight]` in `harness.toml`: the library and its consumer. Folders are relative to the project's folder."""

    #: folder of the library
    project: _Folder = "."
    #: folder of a project whose lock file resolves the library; "" without one
    consumer: _Folder = ""
    #: name of the library in README and lock file; by default, the name in the manifest
    package: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""


class GateResult(Struct, frozen=True, kw_only=True):
    """The result of one gate: a row of the table."""

    #: the gate, as the statement that must be true
    item: str
    status: Status
    #: file and line that show it, or a command
    evidence: str
    notes: str
