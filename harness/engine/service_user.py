"""The user that runs native servers: the user of the harness, or an unprivileged one when that is root."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import TYPE_CHECKING

from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def unprivileged_user() -> pwd.struct_passwd:
    """Return the user for servers. PostgreSQL and PgBouncer both refuse to run as root.

    :raises EngineUnavailableError: when the harness runs as root, and neither postgres nor nobody exists.
    """
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EngineUnavailableError(
        "servers refuse to run as root, and neither the user postgres nor nobody exists",
        hint="run the harness as another user, or use --engine docker",
    )


def as_user(user: pwd.struct_passwd) -> dict[str, object]:
    """Return subprocess's options that run a program as a user; empty when that is already this process's user."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def give(path: Path, user: pwd.struct_passwd) -> None:
    """Make a user the owner of a path, when the harness runs as root."""
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)
