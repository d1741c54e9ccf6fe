"""`python -m hostapp.ingest migrate [down] | api | worker`. Settings are in the environment, logs are JSON lines."""

from __future__ import annotations

import logging
import sys

from . import log_lines
from .settings import SettingsError, load_settings

_LOG = logging.getLogger("ingest.main")
_USAGE = 2


def main(arguments: list[str]) -> int:
    """Run a program of the pipeline and return its exit code: 0 on a graceful end, 1 on failure, 2 for usage."""
    program = arguments[0] if arguments else "ingest"
    log_lines.start(program)
    # each program imports the libraries that it needs, after its settings were read
    try:
        match arguments:
            case ["api"]:
                settings = load_settings()
                from .serving import serve  # noqa: PLC0415

                return serve(settings)
            case ["worker"]:
                settings = load_settings()
                from .worker import work  # noqa: PLC0415

                return work(settings)
            case ["migrate"] | ["migrate", "down"]:
                from .migrating import migrate  # noqa: PLC0415

                return migrate(down=len(arguments) > 1)
    except SettingsError as error:
        _LOG.error("%s", error)
        return _USAGE
    _LOG.error("usage: python -m hostapp.ingest migrate [down] | api | worker")
    return _USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
