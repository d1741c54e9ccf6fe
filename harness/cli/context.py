"""What every command needs."""

from __future__ import annotations

from msgspec import Struct

from harness.cli.settings import Settings
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.redaction import Redactor


class Context(Struct, frozen=True):
    """What every command needs."""

    settings: Settings
    terminal: Terminal
    redactor: Redactor
    signals: Signals
