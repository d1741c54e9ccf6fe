"""The user that native servers run as."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import TYPE_CHECKING

from harness.errors import EngineUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def unprivileged_user() -> pwd.struct_passwd:
    """Return who servers run as: PostgreSQL and PgBouncer both refuse root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EngineUnavailableError("servers refuse to run as root, and there is no user postgres or nobody")


def as_user(user: pwd.struct_passwd) -> dict[str, object]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def give(path: Path, user: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)
