"""Write the reference, and print which documents changed."""

from __future__ import annotations

import sys

from harness import places
from tests.reference import documents


def main() -> None:
    for name, text in documents().items():
        path = places.PACKAGE.parent / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
