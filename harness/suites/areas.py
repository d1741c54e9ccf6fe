"""Areas that several suites name: where to look first when a check fails."""

from __future__ import annotations

CAPTURE_TRIGGER = "capture trigger"
REDACTION_RULES = "redaction rules"
ACTOR_SETTING = "actor setting"
