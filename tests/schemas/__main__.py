"""Write docs/schemas/report.schema.json again from the code."""

from __future__ import annotations

import json

from harness import places
from harness.report.json_report import schema

if __name__ == "__main__":
    path = places.PACKAGE.parent / "docs" / "schemas" / "report.schema.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
