"""The migrations of the reference pipeline, which are made with Alembic: the declaration that ships with the harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.host.declarations import MigrationDeclaration
from harness.ingest.loading import REFERENCE, SHIPPED, find
from harness.suites.package_installation import install_packages

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: stands for the program that the packages of the pipeline were installed for
_PYTHON = "{python}"
_PROGRAM = (_PYTHON, str(SHIPPED / "reference.py"))
#: the API needs a store to start, and asks it nothing before the first upload
_STORE = ("S3_ENDPOINT=http://127.0.0.1:9", "S3_BUCKET=none", "AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none")

MIGRATIONS = MigrationDeclaration(
    name=REFERENCE,
    title="the reference pipeline, with Alembic",
    up=(*_PROGRAM, "migrate"),
    down=(*_PROGRAM, "migrate", "down"),
    # its way back keeps the schema with the ledger
    ledger=("ingest.migrations",),
    starts=("env", *_STORE, *_PROGRAM, "api"),
)


def installed(ctx: CheckContext) -> MigrationDeclaration:
    """Return the declaration with the Python of the pipeline, whose packages are installed once.

    :raises NotExercisedError: when they cannot be installed here.
    """
    found = install_packages(ctx, find(REFERENCE))

    def words(command: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(found.python) if word == _PYTHON else word for word in command)

    return replace(MIGRATIONS, **{key: words(getattr(MIGRATIONS, key)) for key in ("up", "down", "starts")})
