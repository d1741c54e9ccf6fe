"""Faults of values: each changes the names or the values of a JSON object that a trail stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.mutants.trail_terms import ROW, STATEMENT, Trail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.mutants.variant import Variant

#: builds an object again; {{…}} are filled with the terms of a trail
_REBUILT = """IF {column} IS NOT NULL THEN
        {column} := (
            SELECT coalesce({{json}}_object_agg({name}, {value} ORDER BY e.n), '{{{{}}}}')
            FROM {{json}}_each({column}) WITH ORDINALITY AS e(key, value, n) WHERE {kept});
    END IF;"""
_TEXT = "e.value #>> '{{}}'"


def _if(kind: str, value: str) -> str:
    """Return the value for entries of a type of JSON, and the unchanged one for others."""
    return f"CASE WHEN {{json}}_typeof(e.value) = '{kind}' THEN to_{{json}}({value}) ELSE e.value END"


def _text(value: str) -> str:
    return _if("string", value.replace("$", _TEXT))


def _number(value: str, when: str = "true") -> str:
    text = f"({_TEXT})"
    value, when = value.replace("$", text), when.replace("$", text)
    changed = f"CASE WHEN {when} THEN to_{{json}}({value}) ELSE e.value END"
    return f"CASE WHEN {{json}}_typeof(e.value) = 'number' THEN {changed} ELSE e.value END"


class Rebuilt(Struct, frozen=True):
    """How the entries of an object change."""

    name: str
    #: a sentence without a full stop, where {what} is what the object is
    fault: str
    value: str = "e.value"
    key: str = "e.key"
    kept: str = "true"

    def of(self, trail: Trail, column: str, what: str, *, only: str = "") -> Variant:
        """Return the variant.

        :param column: the term of the object.
        :param what: what it is, in words, and in the name of the variant.
        :param only: the term of a condition.
        """
        rebuilt = _REBUILT.format(column=f"{{{column}}}", name=self.key, value=self.value, kept=self.kept)
        rebuilt = rebuilt.replace("{self}", f"{{{column}}}")
        if only:
            rebuilt = f"IF {{{only}}} THEN {rebuilt} END IF;"
        kind = "identity" if column == "key" else "values"
        return trail.before_store(
            f"{self.name}-in-{what.replace(' ', '-')}", kind, self.fault.format(what=what), rebuilt
        )


_LOWER = Rebuilt("lower-case", "Texts in {what} are in lower case", _text("lower($)"))
_CUT = Rebuilt("cut-texts", "Texts in {what} are cut to 1000 characters", _text("left($, 1000)"))
_AS_TEXTS = Rebuilt("numbers-as-texts", "Numbers in {what} are texts", _number("$"))
_ROUNDED_BIG = Rebuilt(
    "large-numbers-rounded",
    "Numbers of more than 15 digits in {what} are rounded",
    _number("$::float8", "length($) > 15"),
)
_LAST_MISSING = Rebuilt(
    "last-column-missing",
    "The last column is missing in {what}",
    kept="e.n < (SELECT count(*) FROM {json}_each({self}))",
)
_NAMES_LOWER = Rebuilt("names-in-lower-case", "Names of columns in {what} are in lower case", key="lower(e.key)")

#: each is tried on one trail in images, and on the other in prior values
_ALTERNATING = (
    _LOWER,
    Rebuilt(
        "ascii-only",
        "Other characters than ASCII in {what} are question marks",
        _text("regexp_replace($, '[^\\x01-\\x7f]', '?', 'g')"),
    ),
    Rebuilt("no-line-breaks", "Line breaks and tabs in {what} are blanks", _text("translate($, E'\\n\\r\\t', '   ')")),
    Rebuilt("trimmed", "Blanks around texts in {what} are lost", _text("btrim($)")),
    _CUT,
    Rebuilt("html", "Texts in {what} are escaped for HTML", _text("replace(replace($, '&', '&amp;'), '<', '&lt;')")),
    Rebuilt("backslashes", "Backslashes in {what} are doubled", _text("replace($, '\\', '\\\\')")),
    Rebuilt("quotes", "Single quotes in {what} are doubled", _text("replace($, '''', '''''')")),
    Rebuilt(
        "empty-texts-null",
        "Empty texts in {what} are null",
        "CASE WHEN e.value::text = '\"\"' THEN 'null' ELSE e.value END",
    ),
    _AS_TEXTS,
    Rebuilt(
        "two-decimals",
        "Numbers in {what} are rounded to two decimals",
        _number("round($::numeric, 2)", "scale($::numeric) > 2"),
    ),
    Rebuilt("sign-lost", "Negative numbers in {what} lose their sign", _number("abs($::numeric)", "$ LIKE '-%'")),
    _ROUNDED_BIG,
    Rebuilt("booleans-as-numbers", "Booleans in {what} are 0 and 1", _if("boolean", f"({_TEXT})::boolean::int")),
    Rebuilt("nulls-as-texts", "Nulls in {what} are empty texts", _if("null", "''::text")),
    Rebuilt("nulls-missing", "Columns that are null are missing in {what}", kept="{json}_typeof(e.value) <> 'null'"),
    Rebuilt("objects-as-texts", "JSON objects in {what} are texts", _if("object", _TEXT)),
    Rebuilt(
        "first-element",
        "Arrays in {what} have their first element only",
        "CASE WHEN {json}_typeof(e.value) = 'array' THEN {json}_build_array(e.value -> 0) ELSE e.value END",
    ),
    _LAST_MISSING,
    _NAMES_LOWER,
    Rebuilt("names-cut", "Names of columns in {what} are cut to 31 characters", key="left(e.key, 31)"),
    Rebuilt(
        "names-in-ascii",
        "Names of columns in {what} have underscores for other characters than letters and digits",
        key="regexp_replace(e.key, '[^A-Za-z0-9_]', '_', 'g')",
    ),
    Rebuilt(
        "seconds",
        "Times in {what} are cut to seconds",
        _text("regexp_replace($, '^(\\d{{4}}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d)[.]\\d+', '\\1')"),
    ),
    Rebuilt(
        "infinity-null",
        "Infinite values in {what} are null",
        "CASE WHEN lower(e.value #>> '{{}}') IN ('infinity', '-infinity', 'nan') THEN 'null' ELSE e.value END",
    ),
)


def value_faults() -> Iterator[Variant]:
    """Yield faults of images, prior values and keys."""
    for number, rebuilt in enumerate(_ALTERNATING):
        first, second = (ROW, STATEMENT) if number % 2 else (STATEMENT, ROW)
        yield rebuilt.of(first, "image", "images")
        yield rebuilt.of(second, "prior", "prior values")
    yield _LOWER.of(ROW, "image", "images of updates", only="update")
    yield _CUT.of(STATEMENT, "image", "images of updates", only="update")
    yield _AS_TEXTS.of(ROW, "image", "images of inserts", only="insert")
    yield _NAMES_LOWER.of(STATEMENT, "image", "images of updates", only="update")
    yield _LOWER.of(ROW, "key", "keys")
    yield _AS_TEXTS.of(STATEMENT, "key", "keys")
    yield _ROUNDED_BIG.of(ROW, "key", "keys")
    yield _LAST_MISSING.of(ROW, "key", "keys")
    yield _NAMES_LOWER.of(STATEMENT, "key", "keys")
    yield Rebuilt("cut-to-32", "Texts in {what} are cut to 32 characters", _text("left($, 32)")).of(
        STATEMENT, "key", "keys"
    )
    wide = Rebuilt("first-32-columns", "A row has at most 32 columns in {what}", kept="e.n <= 32")
    yield wide.of(ROW, "image", "images")
    later = Rebuilt(
        "columns-of-the-attachment",
        "A column that is added after the attachment is missing in {what}",
        kept="e.key = ANY (TG_ARGV[2]::text[])",
    )
    yield later.of(ROW, "image", "images")
