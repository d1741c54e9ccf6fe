"""YAML with line numbers. Nothing is constructed from it: tags have no effect, and anchors are not expanded twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

#: the parser is recursive and reads about 0.2 MB in a second
LARGEST = 400_000


class Node(Struct, frozen=True):
    """A node of a YAML document. Everything that it lacks is an empty node."""

    raw: Any = None

    @property
    def line(self) -> int:
        return 0 if self.raw is None else int(self.raw.start_mark.line) + 1

    @property
    def exists(self) -> bool:
        return self.raw is not None

    @property
    def text(self) -> str:
        """The scalar as it is written; "" for other nodes."""
        return str(self.raw.value) if isinstance(self.raw, yaml.ScalarNode) else ""

    @property
    def first_line(self) -> int:
        """The line of the first line of the text: below the mark of a block scalar."""
        return self.line + (isinstance(self.raw, yaml.ScalarNode) and self.raw.style in {"|", ">"})

    @property
    def is_list(self) -> bool:
        return isinstance(self.raw, yaml.SequenceNode)

    @property
    def is_reference(self) -> bool:
        """Whether GitLab replaces it by what it names."""
        return self.is_list and self.raw.tag == "!reference"

    @property
    def is_table(self) -> bool:
        return isinstance(self.raw, yaml.MappingNode)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Return the keys and values of a mapping, including those of merge keys (`<<`) that no key replaces."""
        if not isinstance(self.raw, yaml.MappingNode):
            return
        own = [(key.value, value) for key, value in self.raw.value if isinstance(key, yaml.ScalarNode)]
        names = {key for key, _ in own}
        for key, value in own:
            if key != "<<":
                yield key, Node(value)
                continue
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in merged:
                if source is not self.raw and isinstance(source, yaml.MappingNode):
                    yield from (
                        (inner.value, Node(found))
                        for inner, found in source.value
                        if isinstance(inner, yaml.ScalarNode) and inner.value not in names and inner.value != "<<"
                    )

    def __getitem__(self, key: str) -> Node:
        return next((value for name, value in self.items() if name == key), Node())

    def entries(self) -> list[Node]:
        """Return the entries of a list; a single node is a list of itself."""
        if isinstance(self.raw, yaml.SequenceNode):
            return [Node(entry) for entry in self.raw.value]
        return [self] if self.exists else []

    def words(self) -> list[str]:
        """Return the scalars of a list, or the keys of a mapping."""
        if self.is_table:
            return [key for key, _ in self.items()]
        return [entry.text for entry in self.entries()]

    def flat(self) -> list[Node]:
        """Return the scalars of a list of lists, as GitLab reads scripts; at most three levels."""
        return [
            scalar
            for first in self.entries()
            for second in first.entries()
            for scalar in second.entries()
            if scalar.text
        ]

    def all_text(self) -> str:
        """Return all scalars below, each node once."""
        texts: list[str] = []
        stack, seen = [self.raw], set()
        while stack:
            raw = stack.pop()
            if raw is None or id(raw) in seen:
                continue
            seen.add(id(raw))
            if isinstance(raw, yaml.ScalarNode):
                texts.append(str(raw.value))
            elif isinstance(raw, yaml.MappingNode):
                stack += [node for pair in raw.value for node in pair]
            else:
                stack += raw.value
        return "\n".join(texts)


def read_yaml(text: str) -> Node | str:
    """Return the root of a document, or the reason why it cannot be read."""
    if len(text) > LARGEST:
        return f"it has {len(text):,} characters, expected at most {LARGEST:,}"
    try:
        return Node(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        at = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"invalid YAML{at}: {error.problem or error.context or 'not readable'}"
    except yaml.YAMLError as error:
        return f"invalid YAML: {str(error).splitlines()[0]}"
    except (RecursionError, ValueError):
        return "invalid YAML: nested too deep, or with an invalid value"
