"""Recognition: what signs, versions and measured durations prove, and what they do not prove."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model import Confidence, Finding
from harness.recognition.conclusions import add_conclusions
from harness.recognition.findings import Findings, Recognition
from harness.recognition.pace import CAP_S, FLOOR_S, Pace
from harness.recognition.security import SecurityFix, SecurityFixes, security_fixes
from harness.recognition.signs import ERRORS, NAMES, Signs
from harness.recognition.versions import (
    DIRECT_TLS,
    INTERVAL_STYLE,
    NEGOTIATION,
    OPTIONS,
    SEARCH_PATH,
    SQLSTATES,
    TRACKING,
    Bound,
    Feature,
    Versions,
    fits,
    narrowed,
)
from harness.versions import Range, exactly, numbers_of

REFUSED = "08P01 unsupported startup parameter: harness_unknown_parameter"
FEATURES = (OPTIONS, INTERVAL_STYLE, NEGOTIATION, DIRECT_TLS, SEARCH_PATH, TRACKING, SQLSTATES)


def concluded(signs: Signs, versions: Versions, *in_a_row: tuple[str, bool], tracked: bool = False) -> Recognition:
    """Return the findings that follow from signs and versions behind a pooler."""
    findings = Findings(str)
    findings.certain("pooler", "yes", "two pids differ")
    if tracked:
        findings.certain("prepared_statements", "tracked", "it ran after a move")
    add_conclusions(signs, versions, list(in_a_row), findings)
    return Recognition(findings=findings.completed("not tried"))


def finding(recognition: Recognition, fact: str) -> Finding:
    found = recognition.finding(fact)
    assert found
    return found


def pgbouncer() -> Signs:
    signs = Signs()
    signs.error(REFUSED)
    signs.error("08P01 not allowed")
    return signs


# --- products -------------------------------------------------------------------------------------


def test_one_phrase_makes_a_product_likely_and_a_second_one_makes_it_certain() -> None:
    signs = Signs()
    signs.error(REFUSED)
    signs.error(REFUSED.replace("harness", "another"))
    assert finding(concluded(signs, Versions()), "product").confidence is Confidence.LIKELY
    signs.error("08P01 not allowed")
    found = finding(concluded(signs, Versions()), "product")
    assert (found.value, found.confidence) == ("PgBouncer", Confidence.CERTAIN)


def test_odyssey_is_recognised_by_an_error_after_the_login_and_the_names_of_its_statements() -> None:
    signs = Signs()
    signs.error("08006 odyssey: ce075373e0d5a: failed to connect to remote server s6be0e31dde4e")
    found = finding(concluded(signs, Versions()), "product")
    assert (found.value, found.confidence) == ("Odyssey", Confidence.LIKELY)
    signs.name("odyssey_pstmt_0")
    assert concluded(signs, Versions()).is_certain("product")


@pytest.mark.parametrize(
    "text",
    [
        '3D000 database "harness_no_such_database" does not exist',
        '42704 unrecognized configuration parameter "harness_unknown_parameter"',
        '28P01 password authentication failed for user "app"',
        "53300 sorry, too many clients already",
        "",
    ],
)
def test_an_error_of_postgresql_is_a_sign_of_no_pooler(text: str) -> None:
    signs = Signs()
    signs.error(text)
    signs.name("s1")
    assert signs.products == []
    found = finding(concluded(signs, Versions()), "product")
    assert (found.value, found.confidence) == ("unknown pooler", Confidence.LIKELY)


@given(st.lists(st.sampled_from([*ERRORS, *NAMES]), max_size=1))
def test_no_single_sign_is_certain(shown: list[object]) -> None:
    texts = {
        r"\bunsupported startup parameter": REFUSED,
        r"^08P01 not allowed$": "08P01 not allowed",
        r"^08P01 no such database: ": "08P01 no such database: x",
        r"\bin statement pooling mode": "08P01 transaction blocks not allowed in statement pooling mode",
        r"\bodyssey: ": "08006 odyssey: c1: x",
        r"^PGBOUNCER_\d+$": "PGBOUNCER_1",
        r"^odyssey_pstmt_": "odyssey_pstmt_1",
    }
    assert {sign.pattern.pattern for sign in (*ERRORS, *NAMES)} == set(texts)
    signs = Signs()
    for sign in shown:
        text = texts[sign.pattern.pattern]  # type: ignore[attr-defined]
        for _ in range(3):
            signs.error(text)
            signs.name(text)
    assert not concluded(signs, Versions()).is_certain("product")
    assert bool(signs.products) is bool(shown)


def test_two_products_are_two_poolers_in_a_row() -> None:
    signs = pgbouncer()
    signs.answered("Pgpool-II", "SHOW pool_version", "4.6.0")
    assert finding(concluded(signs, Versions()), "poolers").confidence is Confidence.LIKELY
    signs.answered("Pgpool-II", "PGPOOL SHOW port", "9999")
    found = concluded(signs, Versions())
    assert (found.value("poolers"), found.is_certain("poolers")) == ("at least 2", True)
    assert found.value("product") == "PgBouncer and Pgpool-II"


# --- versions -------------------------------------------------------------------------------------


def test_bounds_are_narrowed_and_conflicting_bounds_give_no_range() -> None:
    assert (
        narrowed([Bound(True, (1, 20), ""), Bound(False, (1, 23), ""), Bound(True, (1, 21), "")]) == ">= 1.21, < 1.23"
    )
    assert narrowed([]) == ""
    assert narrowed([Bound(True, (1, 23), ""), Bound(False, (1, 20), "")]) == ""
    assert fits("1.20.0", [Bound(True, (1, 20), ""), Bound(False, (1, 21), "")])
    assert not fits("1.21.0", [Bound(False, (1, 21), "")])


def test_an_older_pooler_in_front_of_one_that_tracks_statements_is_two_poolers() -> None:
    versions = Versions()
    for feature in (NEGOTIATION, OPTIONS, INTERVAL_STYLE):
        versions.lacks(feature)
    found = concluded(pgbouncer(), versions, tracked=True)
    assert found.value("version") == "< 1.20"
    assert found.value("inner_version") == ">= 1.21"
    assert found.value("poolers") == "at least 2"


def test_an_older_pooler_behind_a_newer_one_is_two_poolers() -> None:
    versions = Versions()
    versions.has(NEGOTIATION)
    versions.lacks(SQLSTATES)
    found = concluded(pgbouncer(), versions, tracked=True)
    assert found.value("version") == ">= 1.23"
    assert found.value("inner_version") == "< 1.20"
    assert found.value("poolers") == "at least 2"


def test_an_announced_version_is_certain() -> None:
    versions = Versions()
    versions.has(NEGOTIATION)
    versions.announced([("server_version", "18.6"), ("pgbouncer.version", "1.26.1")])
    found = concluded(pgbouncer(), versions)
    assert (found.value("version"), found.is_certain("version")) == ("1.26.1", True)
    assert found.value("poolers") == "at least 1"
    assert found.finding("inner_version") is None


def test_an_announced_pool_mode_is_certain_unless_sessions_behave_otherwise() -> None:
    versions = Versions()
    versions.announced([("pgbouncer.version", "1.26.1"), ("pgbouncer.pool_mode", "session")])
    found = concluded(pgbouncer(), versions)
    assert (found.value("pool_mode"), found.is_certain("pool_mode")) == ("session", True)
    findings = Findings(str)
    findings.certain("pool_mode", "transaction", "two sessions were served by one server process")
    add_conclusions(pgbouncer(), versions, [], findings)
    assert findings.value("pool_mode") == "transaction"
    assert findings.value("poolers") == "at least 2"


def test_an_announced_pool_mode_of_one_of_two_poolers_is_not_the_mode_of_the_chain() -> None:
    versions = Versions()
    versions.announced(2 * [("pgbouncer.version", "1.26.1"), ("pgbouncer.pool_mode", "session")])
    assert concluded(pgbouncer(), versions).value("pool_mode") == ""


def test_a_version_that_is_announced_twice_is_two_poolers() -> None:
    versions = Versions()
    versions.announced([("pgbouncer.version", "1.26.0"), ("pgbouncer.version", "1.26.1")])
    found = concluded(pgbouncer(), versions)
    assert (found.value("version"), found.value("inner_version")) == ("1.26.1", "1.26.0")
    assert found.is_certain("poolers")


def test_an_announced_version_that_the_outermost_pooler_cannot_have_belongs_to_an_inner_one() -> None:
    versions = Versions()
    versions.has(NEGOTIATION)
    versions.lacks(SEARCH_PATH)
    versions.announced([("pgbouncer.version", "1.26.1")])
    found = concluded(pgbouncer(), versions)
    assert (found.value("version"), found.value("inner_version")) == (">= 1.23, < 1.26", "1.26.1")
    assert (found.value("poolers"), found.is_certain("poolers")) == ("at least 2", False)


@given(st.lists(st.tuples(st.sampled_from(FEATURES), st.booleans())), st.lists(st.sampled_from(["1.26.0", "1.26.1"])))
def test_a_version_is_never_empty_and_likely_and_never_a_conflict(
    seen: list[tuple[Feature, bool]], announced: list[str]
) -> None:
    versions = Versions()
    for feature, has in seen:
        (versions.has if has else versions.lacks)(feature)
    versions.announced([("pgbouncer.version", text) for text in announced])
    found = concluded(pgbouncer(), versions)
    version = finding(found, "version")
    assert bool(version.value) is (version.confidence is not Confidence.UNKNOWN)
    assert version.how
    lower, _, upper = version.value.partition(", ")
    if upper:
        assert numbers_of(lower) < numbers_of(upper)
    if found.value("poolers") == "at least 1":
        assert found.finding("inner_version") is None


def test_another_observation_of_two_poolers_is_reported_with_its_certainty() -> None:
    assert concluded(Signs(), Versions(), ("an idle session took a place", False)).value("poolers") == "at least 2"
    assert concluded(Signs(), Versions(), ("one", False), ("two", True)).is_certain("poolers")


# --- patience -------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100)), st.floats(0.01, 10))
def test_the_patience_follows_from_the_slowest_answer_within_limits(durations: list[float], least_s: float) -> None:
    pace = Pace()
    before = pace.patience_s(least_s)
    assert before == least_s
    for seconds in durations:
        pace.note(seconds)
        assert pace.patience_s(least_s) >= before
        before = pace.patience_s(least_s)
    assert least_s <= before <= max(CAP_S, least_s)
    # silence counts only after several times the slowest answer
    if durations and not pace.is_too_slow:
        assert pace.patience_s() >= 2 * max(durations)


def test_a_fast_chain_is_not_waited_for_longer_than_before() -> None:
    pace = Pace()
    pace.note(0.01)
    assert pace.patience_s() == FLOOR_S


# --- security fixes -------------------------------------------------------------------------------


def test_the_table_of_security_fixes_names_sources_and_is_ordered_by_date() -> None:
    table = security_fixes()
    for source in [row.source for row in table.fix] + [row.source for row in table.maintained]:
        assert source.startswith("https://")
    published = [row.published for row in table.fix]
    assert published == sorted(published, reverse=True)
    assert len({row.id for row in table.fix}) == len(table.fix)
    assert {row.product for row in table.maintained} <= {row.product for row in table.fix}


@pytest.mark.parametrize(
    ("version", "ids"),
    [
        ("1.26.1", set()),
        ("1.27.0", set()),
        ("1.26.0", {"CVE-2026-107348", "CVE-2026-107349", "CVE-2026-107350"}),
        ("1.25.2", {"CVE-2026-19888", "CVE-2026-6668", "CVE-2026-6669", "CVE-2026-107350", "CVE-2026-107349"}),
        ("1.24.1", {"CVE-2025-12819", "CVE-2026-6664", "CVE-2026-6665", "CVE-2026-6666", "CVE-2026-6667"}),
        ("1.24.0", {"CVE-2025-2291"}),
    ],
)
def test_a_version_lacks_the_fixes_that_were_published_above_it(version: str, ids: set[str]) -> None:
    missing = {row.id for row in security_fixes().above("PgBouncer", version)}
    assert ids <= missing
    assert bool(missing) is bool(ids)


def test_a_version_before_the_defect_does_not_lack_its_fix() -> None:
    table = security_fixes()
    assert "CVE-2026-107350" not in {row.id for row in table.above("PgBouncer", "1.16.1")}
    assert "CVE-2026-107350" in {row.id for row in table.above("PgBouncer", "1.17.0")}
    assert "CVE-2026-107349" not in {row.id for row in table.above("PgBouncer", "1.18.0")}
    assert table.above("Odyssey", "1.5.2") == ()


def test_a_version_of_a_distribution_has_a_maintainer_and_others_have_none() -> None:
    table = security_fixes()
    for version in ("1.18.0", "1.18.0-1+deb12u1"):
        maintainer = table.maintainer("PgBouncer", version)
        assert maintainer
        assert maintainer.by == "Debian 12"
    assert table.maintainer("PgBouncer", "1.26.0") is None


@given(st.tuples(st.just(1), st.integers(5, 30), st.integers(0, 3)))
def test_an_upgrade_to_the_named_version_leaves_no_known_defect_of_the_older_one(numbers: tuple[int, int, int]) -> None:
    table = security_fixes()
    version = ".".join(map(str, numbers))
    missing = table.above("PgBouncer", version)
    if missing:
        newest = max((row.fixed_in for row in missing), key=numbers_of)
        assert {row.id for row in missing}.isdisjoint(row.id for row in table.above("PgBouncer", newest))


def test_rows_that_contradict_themselves_are_refused() -> None:
    row = SecurityFix(
        product="p", id="CVE-1", fixed_in="1.2", since="1.2", published=date(2026, 1, 1), defect="d", source="https://x"
    )
    with pytest.raises(ValueError, match="not a range of versions"):
        SecurityFixes(as_of=date(2026, 1, 2), fix=(row,))
    later = SecurityFix(
        product="p", id="CVE-1", fixed_in="1.2", published=date(2026, 1, 3), defect="d", source="https://x"
    )
    with pytest.raises(ValueError, match="published after"):
        SecurityFixes(as_of=date(2026, 1, 2), fix=(later,))


def test_missing_fixes_are_likely_because_a_package_may_have_them() -> None:
    versions = Versions()
    versions.announced([("pgbouncer.version", "1.26.0")])
    found = finding(concluded(pgbouncer(), versions), "security_fixes")
    assert (found.value, found.confidence) == ("missing before 1.26.1", Confidence.LIKELY)
    assert "CVE-2026-107350" in found.how
    unknown = finding(concluded(pgbouncer(), Versions()), "security_fixes")
    assert (unknown.value, unknown.confidence) == ("", Confidence.UNKNOWN)


@pytest.mark.parametrize(
    ("has", "lacks", "value", "text"),
    [
        ((), (OPTIONS,), "missing before 1.26.0", "every PgBouncer < 1.20 is older than 8 published security fixes"),
        ((NEGOTIATION,), (DIRECT_TLS,), "missing before 1.26.1", "every PgBouncer >= 1.23, < 1.25 is older than"),
        ((NEGOTIATION,), (DIRECT_TLS,), "missing before 1.26.1", "Debian 13 maintains 1.24.1, and its package may"),
        ((NEGOTIATION,), (DIRECT_TLS,), "missing before 1.26.1", "CVE-2025-2291 depends on the exact version"),
        ((SEARCH_PATH,), (), "", "the exact version decides, and it is unknown: >= 1.26; fixes of CVE-2026-107350"),
        ((NEGOTIATION,), (), "", "the exact version decides, and it is unknown: >= 1.23"),
    ],
)
def test_a_range_of_versions_decides_about_the_fixes_that_all_of_them_lack(
    has: tuple[Feature, ...], lacks: tuple[Feature, ...], value: str, text: str
) -> None:
    versions = Versions()
    for feature in has:
        versions.has(feature)
    for feature in lacks:
        versions.lacks(feature)
    found = finding(concluded(pgbouncer(), versions), "security_fixes")
    assert found.value == value
    assert text in found.how
    assert found.confidence is (Confidence.LIKELY if value else Confidence.UNKNOWN)


numbers = st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 3))


@given(at_least=numbers | st.just(()), below=numbers | st.just(()), version=numbers, fixed=numbers, since=numbers)
def test_a_fix_that_a_range_decides_is_decided_alike_for_each_of_its_versions(
    at_least: tuple[int, ...],
    below: tuple[int, ...],
    version: tuple[int, ...],
    fixed: tuple[int, ...],
    since: tuple[int, ...],
) -> None:
    assume(since < fixed)
    row = SecurityFix(
        product="p",
        id="CVE-1",
        fixed_in=".".join(map(str, fixed)),
        since=".".join(map(str, since)) if any(since) else "",
        published=date(2026, 1, 1),
        defect="d",
        source="https://x",
    )
    text = ".".join(map(str, version))
    versions = Range(at_least=at_least, below=below)
    exact = row.is_missing(exactly(text))
    assert exact is (since <= version < fixed)
    if versions.contains(text):
        assert row.is_missing(versions) in {exact, None}


@pytest.mark.parametrize(("short", "long"), [("1.26", "1.26.0"), ("1", "1.0.0")])
def test_a_version_with_fewer_numbers_is_continued_with_zeros(short: str, long: str) -> None:
    assert exactly(short).contains(long)
    assert exactly(long).contains(short)
    assert Range(at_least=numbers_of(short)).is_from(long)
    assert Range(below=numbers_of(short)).is_before(long)


def test_one_pooler_is_said_to_look_like_two_alike() -> None:
    signs = pgbouncer()
    found = concluded(signs, Versions())
    assert found.value("poolers") == "at least 1"
    assert "; a second PgBouncer with the same features would look the same" in finding(found, "poolers").how
