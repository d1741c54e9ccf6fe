"""Specimens: a column of each type, with values that are easily changed on the way into a trail."""

from __future__ import annotations

from msgspec import Struct

#: the types that the columns need, besides those of the server
TYPES = """
CREATE TYPE public.mood AS ENUM ('sad', 'so so', 'it''s "fine"');
CREATE DOMAIN public.percent AS numeric(5, 2) CHECK (VALUE <= 100);
CREATE TYPE public.place AS (street text, floor numeric, since timestamptz);
"""
#: how two values are compared: as the type itself does, or where the type has no equality, by another form
_EQUAL, _TEXT = "{0} IS NOT DISTINCT FROM {1}", "{0}::text IS NOT DISTINCT FROM {1}::text"
#: JSON has no order of keys, no spaces and no scale of numbers; its arrays begin nowhere
_JSON, _ELEMENTS = (
    "{0}::jsonb IS NOT DISTINCT FROM {1}::jsonb",
    "to_jsonb({0}) IS NOT DISTINCT FROM to_jsonb({1})",
)


class Specimen(Struct, frozen=True):
    """A column of one type, and its values."""

    column: str
    type: str
    #: in the form in which the type is read with the server's own settings
    values: tuple[str, ...]
    #: whether two values are the same, in SQL
    same: str = _EQUAL


SPECIMENS = (
    Specimen("c_bool", "boolean", ("true", "false")),
    Specimen("c_smallint", "smallint", ("-32768", "32767")),
    Specimen("c_integer", "integer", ("-2147483648", "2147483647", "0")),
    # beyond 2^53 a float loses digits
    Specimen("c_bigint", "bigint", ("-9223372036854775808", "9223372036854775807", "9007199254740993")),
    Specimen(
        "c_numeric",
        "numeric",
        ("1.50", "-0.0000000000000000000000000000000000000001", "1234567890123456789012345678901234567890.5", "NaN"),
    ),
    Specimen("c_numeric_infinite", "numeric", ("Infinity", "-Infinity", "10000000000000000000000000000000000000000")),
    Specimen("c_numeric_scaled", "numeric(12, 2)", ("1.50", "2.00", "-1234567890.05")),
    Specimen("c_real", "real", ("1.1", "3.4028235e+38", "1e-45", "NaN", "-Infinity")),
    Specimen("c_double", "double precision", ("0.1", "1.7976931348623157e+308", "5e-324", "-0", "Infinity")),
    Specimen("c_double_digits", "double precision", ("0.30000000000000004", "NaN", "123456789.123456789")),
    Specimen("c_money", "money", ("12345.67", "-0.05", "-92233720368547758.08")),
    Specimen(
        "c_text",
        "text",
        (
            "",
            f" padded {'and longer than a short column ' * 3}\t ",
            "quotes \"' \\ $$ %s {} &<>",
            "\\u0000 \\x00 \\n",
            "line\r\nline",
            "NULL",
            "null",
        ),
    ),
    Specimen("c_text_long", "text", ("żx" * 1500, "żx" * 1499 + "zx")),
    Specimen("c_text_unicode", "text", ("żółć 漢字 😀 \u2028\u200b", "\x01\x1f\x7f", "e\u0301 \u202e rtl", "ﬁ")),
    Specimen("c_char", "char(5)", ("ab", "a b c", "")),
    Specimen("c_varchar", "varchar(10)", ("ab  ", "0123456789")),
    Specimen("c_name", "name", ("plain", 'Quoted "name"')),
    Specimen("c_bytea", "bytea", ("\\x00ff5c2722", "\\x", "\\x5c5c303030")),
    Specimen("c_date", "date", ("2026-02-01", "0044-03-15 BC", "infinity", "5874897-12-31")),
    Specimen("c_time", "time", ("23:59:59.999999", "24:00:00")),
    Specimen("c_timetz", "timetz", ("12:00:00.5-03:30", "00:00:00+14")),
    Specimen("c_timestamp", "timestamp", ("2026-02-01 03:04:05.000006", "0044-03-15 12:00:00 BC", "-infinity")),
    # the same local time in New York, before and after the end of summer time
    Specimen(
        "c_timestamptz",
        "timestamptz",
        ("2026-11-01 05:30:00+00", "2026-11-01 06:30:00.000006+00", "0044-03-15 12:00:00+00 BC", "infinity"),
    ),
    Specimen(
        "c_interval",
        "interval",
        ("1 year 2 mons -3 days +04:05:06.789", "-1 days -02:03:04", "-1 years -2 mons", "00:00:00"),
    ),
    Specimen("c_uuid", "uuid", ("00000000-0000-4000-8000-00000000abcd", "ffffffff-ffff-ffff-ffff-ffffffffffff")),
    Specimen(
        "c_json", "json", ('{"b": 1, "a": [1.50, null, "x"],  "b": 2}', "[]", '"text"', "9007199254740993"), same=_JSON
    ),
    Specimen("c_jsonb", "jsonb", ('{"a": {"": [1.50, null, true]}}', '"1"', "1", "{}", '"\\\\ \\" \\u20ac"')),
    Specimen("c_integers", "integer[]", ("{}", "{1,NULL,3}", "{{1,2},{3,4}}")),
    Specimen("c_integers_from_2", "integer[]", ("[2:3]={1,2}", "[0:1]={3,4}"), same=_ELEMENTS),
    Specimen("c_texts", "text[]", ('{"a,b","{}","\\"",NULL,"NULL",""}', '{" ","\\\\"}')),
    Specimen("c_intervals", "interval[]", ('{"-1 days -02:03:04","1 mon"}', "{}")),
    Specimen("c_times", "timestamptz[]", ('{"2026-11-01 05:30:00+00",infinity}', '{"2026-11-01 06:30:00+00"}')),
    Specimen("c_byteas", "bytea[]", ('{"\\\\x00ff","\\\\x5c"}', "{NULL}")),
    Specimen("c_int4range", "int4range", ("[1,10)", "empty", "(,5)")),
    Specimen("c_numrange", "numrange", ("(1.50,2.5]", "[0,)")),
    Specimen("c_daterange", "daterange", ("[2026-02-01,2026-03-04)", "(,2026-01-02)")),
    Specimen("c_tstzrange", "tstzrange", ('["2026-11-01 05:30:00+00","2026-12-03 06:30:00+00")', "empty")),
    Specimen("c_multirange", "datemultirange", ("{[2026-02-01,2026-03-04),[2027-01-02,)}", "{}")),
    Specimen("c_inet", "inet", ("192.168.1.5/24", "::1", "10.0.0.1")),
    Specimen("c_cidr", "cidr", ("10.0.0.0/8", "2001:db8::/32")),
    Specimen("c_macaddr", "macaddr", ("08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff")),
    Specimen("c_bit", "bit(8)", ("00000001", "10101010")),
    Specimen("c_varbit", "varbit", ("", "0001")),
    Specimen("c_xml", "xml", ('<a b="1">x &amp; y</a>', "<b/>"), same=_TEXT),
    Specimen("c_enum", "public.mood", ("sad", 'it\'s "fine"', "so so")),
    Specimen("c_domain", "public.percent", ("99.50", "0.00")),
    Specimen("c_composite", "public.place", ('("5, ""A"" St",1.50,"2026-11-01 05:30:00+00")', "(,,)", '("",0,)')),
    Specimen("c_composites", "public.place[]", ('{"(a,1,)","(\\"b c\\",,\\"2026-11-01 06:30:00+00\\")",NULL}', "{}")),
    Specimen("c_tsvector", "tsvector", ("'fat':2A 'it''s':3", "'a' 'b c'")),
    Specimen("c_tsquery", "tsquery", ("'fat' & !'cat'", "'a':* <-> 'b'")),
    Specimen("c_point", "point", ("(0.1,-2.5)", "(1e+300,5e-324)"), same=_TEXT),
    Specimen("c_box", "box", ("(2,3),(0.1,1)", "(0,0),(0,0)"), same=_TEXT),
    Specimen("c_pg_lsn", "pg_lsn", ("16/B374D848", "FFFFFFFF/FFFFFFFF")),
    Specimen("c_oid", "oid", ("0", "4294967295")),
    Specimen("c_jsonpath", "jsonpath", ('$."a"[*]?(@ > 1)', "strict $"), same=_TEXT),
)
#: settings of a client that change how values are written as text
SETTINGS = (
    "",
    "TimeZone = 'America/New_York'",
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'German, YMD'",
    "IntervalStyle = 'sql_standard'",
    "IntervalStyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "quote_all_identifiers = on",
)
