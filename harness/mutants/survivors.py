"""The faulty variants that no check notices, each with the reason; docs/limits.md names them."""

from __future__ import annotations

#: by the full name of a variant: why no check notices it, in one sentence without a full stop
SURVIVORS: dict[str, str] = {
    "statement-jsonb/changed-by-equality": "equal numbers count as unchanged: values are compared as types compare",
    "row-json/json-normalized": "a JSON document may lose its spaces, its order of keys and duplicate keys",
}
