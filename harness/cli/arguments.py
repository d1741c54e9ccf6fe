"""Types of arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds_up_to(most: float) -> Callable[[str], float]:
    """Return the type of an option that takes a time in seconds."""

    def seconds(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"found {text!r}, needed seconds, more than 0 and at most {most:g}")
        return number

    return seconds
