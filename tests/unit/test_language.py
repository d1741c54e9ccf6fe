"""Prose is plain technical English: it avoids the phrases of a short list.

The list applies to docstrings, comments, messages and loop variables of `harness/` and `noxfile.py`, to the report's
templates and to the Markdown documents. Text in backticks is exempt: it is code, or quotes a product.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from harness import places
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = places.PACKAGE.parent


class Phrase(Struct, frozen=True):
    """A phrase to avoid: its pattern in text without line breaks, an example, and what to write instead."""

    pattern: str
    example: str
    instead: str


PHRASES = (
    Phrase(
        r"\b(tell|tells|telling|told)\b",
        "the server is told its password",
        "report, show or receive; distinguish (tell apart)",
    ),
    Phrase(
        r"(?<!there )\b(is|are|was|were) no (?!(longer|later|more|less|better|worse|such|other|doubt)\b)\w+",
        "this is no list",
        "is not a …, is missing, is invalid",
    ),
    Phrase(
        r"\bthat there (is|are|was|were)\b", "it shows that there is a row", "the noun and its verb: the row exists"
    ),
    Phrase(r"\b(to|can|could|cannot|not) be had\b", "the image cannot be had", "available, unavailable"),
    Phrase(r"\b(amiss|troubles?)\b", "what is amiss", "wrong; error, failure"),
    Phrase(
        r"\b(take|takes|taking|taken|took) (a |an |the |its |your |all |declared |audited )*paths?\b",
        "it takes the declared paths",
        "run a path",
    ),
    Phrase(
        r"\b(topology|topologies|labs?|chains?) (\w+ ){0,2}(stand|stands|stood)\b(?! for)",
        "the topology did not stand",
        "is up, is running, started",
    ),
    Phrase(r"\b(came|come|comes|became|becomes) of\b", "what became of the row", "result, happens to"),
    Phrase(r"\bfor each in\b", "for each in rows", "the noun: row, check, topology"),
    Phrase(r"\bfor good\b(?! reason)", "a retry gives up for good", "finally, permanently"),
    Phrase(r"(?<![-.])\bbeside\b", "a pooler beside another", "next to, alongside, in addition to"),
)
COMPILED = [(re.compile(phrase.pattern, re.IGNORECASE), phrase.instead) for phrase in PHRASES]
CODE = re.compile(r"(`+)[^`\n]+\1")
#: a string of Python, in which `#` begins no comment, or a comment; much faster than the tokenizer of Python
STRING_OR_COMMENT = re.compile(
    r"""\'\'\'(?:[^\\']|\\.|'(?!''))*\'\'\'|\"\"\"(?:[^\\"]|\\.|"(?!""))*\"\"\""""
    r"""|'(?:[^\\'\n]|\\.)*'|"(?:[^\\"\n]|\\.)*"|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)


class Passage(Struct, frozen=True):
    """Consecutive prose, and the number of its first line."""

    line: int
    text: str

    def findings(self) -> Iterator[str]:
        """Yield `LINE: 'PHRASE'; write: ALTERNATIVE` for each phrase of the list, also across line breaks."""
        # code is masked by text of the same length, so that positions stay valid
        lines = [line.strip() for line in CODE.sub(lambda code: "_" * len(code[0]), self.text).split("\n")]
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        text = " ".join(lines)
        for pattern, instead in COMPILED:
            for match in pattern.finditer(text):
                yield f"{self.line + bisect_right(starts, match.start()) - 1}: {match[0]!r}; write: {instead}"


def python_passages(source: str) -> Iterator[Passage]:
    """Yield strings of more than one word (docstrings and messages), loops over `each`, and blocks of comments."""
    for node in nodes(ast.parse(source)):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and " " in (text := string(node)).strip():
            yield Passage(node.lineno, text)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            for name in ast.walk(node.target):
                if isinstance(name, ast.Name) and name.id == "each":
                    yield Passage(name.lineno, "for each in")
    yield from comment_blocks(source)


def string(node: ast.Constant | ast.JoinedStr) -> str:
    """Return the text of a string, with `_` for each value of an f-string; empty for other constants."""
    if isinstance(node, ast.JoinedStr):
        return "".join(string(part) if isinstance(part, ast.Constant) else "_" for part in node.values)
    return node.value if isinstance(node.value, str) else ""


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the constant parts of f-strings: they are parts of a longer text."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.JoinedStr):
            pending += [part for part in node.values if not isinstance(part, ast.Constant)]
            continue
        for value in vars(node).values():
            if isinstance(value, ast.AST):
                pending.append(value)
            elif isinstance(value, list):
                pending += [child for child in value if isinstance(child, ast.AST)]


def comment_blocks(source: str) -> Iterator[Passage]:
    """Yield the comments of adjacent lines as one passage."""
    first = line = 1
    end = 0
    block: list[str] = []
    for found in STRING_OR_COMMENT.finditer(source):
        if comment := found["comment"]:
            line += source.count("\n", end, found.start())
            end = found.start()
            if line != first + len(block):
                yield Passage(first, "\n".join(block))
                first, block = line, []
            block.append(comment.lstrip("#: "))
    yield Passage(first, "\n".join(block))


def findings(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    passages = python_passages(text) if path.suffix == ".py" else [Passage(1, text)]
    return [f"{path.relative_to(ROOT)}:{finding}" for passage in passages for finding in passage.findings()]


def rooms() -> dict[str, list[Path]]:
    """Return the files to check by room, so that every room has its own result."""
    files = {
        "documents": [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")],
        "templates": [*ROOT.glob("templates/*.j2")],
        "noxfile.py, harness": [ROOT / "noxfile.py", *ROOT.glob("harness/*.py")],
    }
    for folder in ROOT.glob("harness/*/"):
        files[f"harness/{folder.name}"] = [*folder.rglob("*.py"), *folder.rglob("*.md")]
    return {room: sorted(paths) for room, paths in sorted(files.items()) if paths}


@each_row("room", rooms())
def test_a_room_avoids_the_phrases(room: str) -> None:
    report = [finding for path in rooms()[room] for finding in findings(path)]
    if report:
        pytest.fail("\n".join(report), pytrace=False)


@each_row("phrase", PHRASES, ids=lambda phrase: phrase.example)
def test_a_phrase_is_found_across_lines_with_its_line_and_alternative(phrase: Phrase) -> None:
    lines = ["", "LIMIT = 1", "# A comment.", *(f"# {word}" for word in phrase.example.split())]
    (finding,) = [finding for passage in python_passages("\n".join(lines)) for finding in passage.findings()]
    number, _, rest = finding.partition(": ")
    first_word = lines[int(number) - 1].removeprefix("# ")
    assert rest.startswith(f"'{first_word}")
    assert rest.endswith(f"; write: {phrase.instead}")


@pytest.mark.parametrize(
    "source",
    [
        '"""Says nothing.\n\n    It is told\n    the rest."""',
        'LIMIT = 1\n\nraise ValueError(f"{LIMIT}: it is told")',
        'LIMIT = 1\n\ncheck("a.b", claim="the server " "is told its password")',
        "LIMIT = 1\n\n[each for each in rows]",
        "LIMIT = 1\n\nfor number, each in enumerate(rows):\n    pass",
    ],
)
def test_docstrings_messages_claims_and_loops_are_read(source: str) -> None:
    (finding,) = [finding for passage in python_passages(source) for finding in passage.findings()]
    assert finding.startswith("3: ")


@pytest.mark.parametrize(
    "text",
    [
        "There is no Docker engine here, and it is no longer needed.",
        "The server answers `no such database: told`, and ``--beside`` is an option.",
        "The option --beside REV, and {{ row.beside }} in a template.",
        "The chains of a lab stand for production.",
    ],
)
def test_plain_text_options_and_quotations_are_accepted(text: str) -> None:
    assert list(Passage(1, text).findings()) == []


def test_single_words_and_regular_expressions_are_not_prose() -> None:
    source = 'KEYS = ("told", "beside")\nPATTERN = rf"{KEYS}\\s+(?:work|trouble)"\n'
    assert [finding for passage in python_passages(source) for finding in passage.findings()] == []
