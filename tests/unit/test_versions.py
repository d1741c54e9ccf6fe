"""A product's own text gives its version, however the product prints it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.versions import numbers_of, version_in
from tests.tables import each_row


@each_row(
    ("text", "version", "numbers"),
    [
        ("PgBouncer 1.26.1", "1.26.1", (1, 26, 1)),
        ("PgBouncer 1.24.1\nlibevent 2.1.12-stable\nadns: evdns2", "1.24.1", (1, 24, 1)),
        ("v=8.0.2", "8.0.2", (8, 0, 2)),
        ("version=8.0.2", "8.0.2", (8, 0, 2)),
        ("v8.0.2", "8.0.2", (8, 0, 2)),
        ("8.0.2-rc1", "8.0.2-rc1", (8, 0, 2)),
        ("1.18.0-1+deb12u1", "1.18.0-1+deb12u1", (1, 18, 0)),
        ("pgpool-II version 4.7.3 (tamiboshi),\n  compiled", "4.7.3", (4, 7, 3)),
        ("4.6.0 (chirikoboshi)", "4.6.0", (4, 6, 0)),
        ("odyssey 1.5.2 release +pam -ldap +systemd -prom\ncompiled by gcc-16.2.0, 64-bit", "1.5.2", (1, 5, 2)),
        ("postgres (PostgreSQL) 17.12 (Debian 17.12-1.pgdg13+1)", "17.12", (17, 12)),
        ("postgres (PostgreSQL) 18beta1", "18beta1", (18,)),
        ("postgres (PostgreSQL) 19devel", "19devel", (19,)),
        ("PostgreSQL 18", "18", (18,)),
        ("pgagroal 2.1.0", "2.1.0", (2, 1, 0)),
        ("Python 3.13.5", "3.13.5", (3, 13, 5)),
        ("libfoo2 without a number of its own", "", ()),
        ("", "", ()),
    ],
)
def test_a_version_is_found(text: str, version: str, numbers: tuple[int, ...]) -> None:
    assert version_in(text) == version
    assert numbers_of(text) == numbers


@given(
    st.lists(st.integers(0, 999), min_size=2, max_size=4),
    st.sampled_from(["", "v", "v=", "V", "version=", "PgBouncer ", "x version ", "("]),
    st.sampled_from(["", " (name)", "\n2.0", ",", ")", "; x"]),
)
def test_the_first_dotted_version_is_found_whatever_surrounds_it(numbers: list[int], before: str, after: str) -> None:
    version = ".".join(str(number) for number in numbers)
    assert version_in(f"{before}{version}{after}") == version
    assert numbers_of(f"{before}{version}{after}") == tuple(numbers)


@given(st.text())
def test_any_text_gives_a_version_or_none(text: str) -> None:
    version = version_in(text)
    assert version in text
    assert (numbers_of(text) != ()) == (version != "")
