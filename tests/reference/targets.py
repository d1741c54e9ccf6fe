"""Tables of docs/audit-targets.md that are made from the structs that read a target file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness import places
from harness.audit import placeholders
from harness.audit.target_file import (
    ABOUT_A_TABLE,
    NEEDS_STATEMENT,
    REDACTION_TEXTS,
    Recorded,
    TargetFile,
    TrailFeature,
)
from harness.report.escape import code
from tests.reference.comments import comments_of
from tests.reference.files import tables_of_keys
from tests.reference.markdown import prose, table

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = "docs/audit-targets.md"
_BLOCK = re.compile(
    r"^(?P<begin><!-- made from the code: (?P<name>[a-z]+) -->\n).*?^(?P<end><!-- end of (?P=name) -->)$",
    re.MULTILINE | re.DOTALL,
)


def document() -> str:
    """Return the document with its tables as the code has them now."""
    text = (places.PACKAGE.parent / DOCUMENT).read_text(encoding="utf-8")
    return _BLOCK.sub(lambda block: f"{block['begin']}\n{TABLES[block['name']]()}\n\n{block['end']}", text)


def _keys() -> str:
    return "\n\n".join(tables_of_keys(TargetFile, level=4))


def _placeholders() -> str:
    about = ", ".join(code(f"statements.{name}") for name in ABOUT_A_TABLE)
    every = "every statement, `switches`, and `declare` of `[actor]`"
    meanings = {
        "table": "the audited table, as a qualified SQL identifier",
        "schema": "its schema",
        "name": "its name without the schema",
        "role": "the application's role",
        "owner": "the role that owns the audited tables",
    }
    rows: list[tuple[str, str, str]] = [
        (code(f"{{{name}}}"), meanings[name], about if name in placeholders.TABLE_NAMES else every)
        for name in (*placeholders.TABLE_NAMES, *placeholders.ROLE_NAMES)
    ]
    rows += [
        (code("{name_literal}"), "any of these names as a text literal", "where the name can be used"),
        (
            f"{code('{audit_+name}')}, {code('{name+_log}')}",
            "fixed parts and one name, joined to one quoted identifier, and cut to 63 bytes",
            "where the name can be used; not with `{table}`",
        ),
        (
            code("{history}"),
            "the column of that name in the row of `statements.each`, as a quoted identifier",
            "`statements.changes`, if there is a statement `each`",
        ),
        (
            f"{code('{type}')}, {code('{id}')}",
            "the actor's type and id, as literals; NULL without an id",
            "`declare` of `[actor]`",
        ),
        (f"{code('{type}')}, {code('{id}')}", "the same as plain texts", "the values of `settings` of `[actor]`"),
    ]
    rows += [
        (
            ", ".join(code(f"{{{name}}}") for name in names),
            "two arrays of texts, and a text literal",
            code(f"statements.{key}"),
        )
        for key, names in REDACTION_TEXTS.items()
    ]
    return table(("Placeholder", "Stands for", "Where"), rows)


def _claims() -> str:
    obligations = comments_of(TrailFeature)
    rows = [
        (
            code(feature.value),
            feature.promise,
            prose(obligations[feature.name]),
            ", ".join(map(code, NEEDS_STATEMENT.get(feature, ()))),
        )
        for feature in TrailFeature
        if feature is not TrailFeature.LIBRARY
    ]
    return table(("Claim", "The trail claims", "It obliges to", "Needs"), rows)


def _properties() -> str:
    meanings = comments_of(Recorded)
    rows = [
        (code(property_.value), code(property_.check), prose(meanings[property_.name]))
        for property_ in Recorded
        if property_.check
    ]
    return table(("Property", "Shown by", "What a trail with it does"), rows)


#: what makes each table, by the name in the comment before it
TABLES: dict[str, Callable[[], str]] = {
    "keys": _keys,
    "placeholders": _placeholders,
    "claims": _claims,
    "properties": _properties,
}
