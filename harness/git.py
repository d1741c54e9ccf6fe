"""The environment in which every git of the harness runs: that of the folder, and of no other repository."""

from __future__ import annotations

import os

#: git sets these for its hooks, and a shell may export them: git would read another repository than that of the folder,
#: or another index, work tree or object store. `git rev-parse --local-env-vars` names most of them. Settings that
#: people pass by GIT_CONFIG_COUNT, such as safe.directory, stay.
REPOSITORY_VARIABLES = frozenset(
    (
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_PREFIX"),
        *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS"),
        *("GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_INTERNAL_SUPER_PREFIX", "GIT_ATTR_SOURCE"),
    )
)


def git_environment() -> dict[str, str]:
    """Return the environment of git: messages in English, no prompt, no network, and no write of its index."""
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    return environment | {
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
