"""What tests read from a page of the report."""

from __future__ import annotations

import base64
import gzip
import re

import msgspec

from harness.report.page import PageData


def evidence_of(page: str) -> PageData:
    """Return what the script of a page reads."""
    (data,) = re.findall('<script type="text/plain" id="data">(.*?)</script>', page)
    return msgspec.json.decode(gzip.decompress(base64.b64decode(data)), type=PageData)
