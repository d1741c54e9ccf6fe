"""Files of the repository that documents show whole. A comment before the code block names the file."""

from __future__ import annotations

import re

from harness import places

#: the documents that show files
DOCUMENTS = ("docs/job-engines.md",)
_LANGUAGES = {".cjs": "js", ".py": "python", ".sh": "sh", ".toml": "toml"}
_BLOCK = re.compile(r"^<!-- the whole file (?P<path>\S+) -->\n(?:```\w+\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
_ROOT = places.PACKAGE.parent


def document(name: str) -> str:
    """Return a document with the files that it shows, as they are now.

    :param name: its path in the repository.
    """
    return _BLOCK.sub(_shown, (_ROOT / name).read_text(encoding="utf-8"))


def _shown(block: re.Match[str]) -> str:
    path = _ROOT / block["path"]
    return (
        f"<!-- the whole file {block['path']} -->\n"
        f"```{_LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"
    )
