"""`python -m hostapp FILE` serves; `python -m hostapp migrate FILE` prepares the database. Logs are JSON lines."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from .log_lines import described, log_as_json
from .settings import SettingsError, load_migration, load_settings

_LOG = logging.getLogger("hostapp.app")
_USAGE = 2


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code: 0 on a graceful end, 1 on failure, 2 for usage or settings."""
    log_as_json()
    try:
        match arguments:
            case ["migrate", file]:
                return _migrate(Path(file))
            case [file]:
                return _serve(Path(file))
            case _:
                _LOG.error("usage: python -m hostapp [migrate] FILE")
                return _USAGE
    except SettingsError as error:
        _LOG.error("%s", error)
        return _USAGE


def _serve(path: Path) -> int:
    settings = load_settings(path)
    # imported after the settings are read, so that an error in them is reported without loading the libraries
    from .serving import serve  # noqa: PLC0415

    return serve(settings)


def _migrate(path: Path) -> int:
    settings = load_migration(path)
    import psycopg  # noqa: PLC0415

    from .migration import migrate  # noqa: PLC0415

    try:
        migrate(settings)
    except psycopg.Error as error:
        _LOG.error("the database migration failed: %s", described(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
