"""The database that `audit …` works in: its connection string, and errors that name it."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.audit.reading import FilterError
from harness.audit.retention import RetentionError
from harness.cli import options
from harness.database import SqlError, connect_to, describe
from harness.errors import ConfigError, DatabaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.database import Client

#: undefined function, undefined table
_UNDEFINED = frozenset({"42883", "42P01"})

dsn_variable = options.option(
    "--dsn-variable",
    default="DATABASE_URL",
    metavar="NAME",
    section="Database",
    help="environment variable with the connection string of the owner of the trail (default: DATABASE_URL); not "
    "through a pooler that rejects DDL",
)

dry_run_option = options.option(
    "--dry-run", is_flag=True, section="Database", help="print what would change, change nothing"
)


@contextmanager
def connected(variable: str) -> Iterator[Client]:
    """Connect as the owner of the trail, and turn errors of the block into errors for users.

    :param variable: name of the environment variable with the connection string.
    :raises UsageError: when the variable is not set, or the trail rejects an argument.
    :raises DatabaseError: when the server rejects the connection or a statement.
    """
    dsn = os.environ.get(variable)
    if not dsn:
        raise UsageError(
            f"the environment variable {variable} is not set",
            hint=f"{variable}='host=… dbname=… user=…', and the password in PGPASSWORD or a passfile",
        )
    try:
        client = connect_to(dsn)
    except ConfigError as error:
        error.where = f"${variable}"
        raise
    except SqlError as error:
        raise DatabaseError(f"cannot connect: {describe(error)}", where=f"${variable}") from None
    with client:
        try:
            yield client
        except SqlError as error:
            not_installed = error.sqlstate in _UNDEFINED and re.search("threadline_|audit_", str(error))
            hint = "install the audit layer: harness audit install" if not_installed else error.diag.message_hint or ""
            raise DatabaseError(describe(error), where=f"database {client.info.dbname}", hint=hint) from None
        except (FilterError, RetentionError, ValueError) as error:
            raise UsageError(str(error)) from None


def print_lines(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
