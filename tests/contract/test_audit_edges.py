"""Edge cases of the reference audit layer: rights, partitions, keys, client settings and failed work."""

from __future__ import annotations

import io
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from harness.audit.actor import Actor
from harness.audit.export import export
from harness.audit.installing import Redaction, attach, install, kept_before
from harness.audit.reading import Filter, as_of, count_matching, history, timeline
from harness.audit.retention import Policy, purge
from harness.audit.target_loading import reference_target
from harness.audit.telemetry import Event, Telemetry
from harness.audit.work import Action, WorkUndoneError, audited
from harness.database import Client, SqlError, connect, create_database, roll_back
from harness.engine.owner import Owner
from harness.lab.lab import Lab, stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine
ADA = Actor("user", "ada")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def lab(some_engine: Engine) -> Iterator[Lab]:
    lab = stand_up(some_engine, load_topologies()["direct"], Owner.me(new_run_id()), Redactor())
    yield lab
    lab.close()


@pytest.fixture
def database(lab: Lab) -> str:
    """Create an empty database for one test and return its name; the tests share a server."""
    name = f"edges_{next(_NUMBERS)}"
    with lab.connect_admin() as admin:
        create_database(admin, name, owner="harness_owner")
    return name


@pytest.fixture
def client(lab: Lab, database: str) -> Iterator[Client]:
    with connect(lab.owner(database)) as client:
        install(client)
        yield client


def now(client: Client) -> Any:
    return client.value("SELECT clock_timestamp()")


def images(client: Client) -> list[Any]:
    return [change.data_after for change in reference_target().changes(client)]


def problems(client: Client) -> dict[str, str | None]:
    return reference_target().coverage(client)


def test_a_null_array_does_not_drop_the_other_rules(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY, secret text)")
    client.run("SELECT threadline_attach('t', exclude => array['secret'], mask => NULL)")
    client.run("INSERT INTO t VALUES (1, 'raw')")
    assert images(client) == [{"id": 1}]
    with pytest.raises(SqlError) as caught:
        client.run("SELECT threadline_attach('t', mask => array['secret', NULL])")
    assert caught.value.sqlstate == "22023"


def test_rules_stay_until_they_are_removed(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY, secret text)")
    attach(client, ["t"], redaction=Redaction(mask=("secret",)))
    assert attach(client, ["t"]) == []
    client.run("SELECT threadline_attach('t', changed_from => true); INSERT INTO t VALUES (1, 'raw')")
    attach(client, ["t"], redaction=Redaction())
    client.run("INSERT INTO t VALUES (2, 'seen')")
    assert [image["secret"] for image in images(client)] == ["[REDACTED]", "seen"]


def test_default_privileges_grant_no_rights_on_the_trail(lab: Lab, database: str) -> None:
    with connect(lab.owner(database)) as client:
        client.run(
            "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO harness_app;"
            "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO harness_app"
        )
        install(client)
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
            assert client.value("SELECT has_table_privilege('harness_app', 'audit_changes', %s)", [right]) is False
        for function in (
            "threadline_purge_actions(timestamptz, int)",
            "threadline_capture()",
            "threadline_coverage(name)",
        ):
            assert client.value("SELECT has_function_privilege('harness_app', %s, 'EXECUTE')", [function]) is False
        client.run(
            "CREATE TABLE t (id int PRIMARY KEY); SELECT threadline_attach('t'); GRANT DELETE ON audit_changes TO harness_app"
        )
        assert problems(client)["public.t"] == "others than the owner may write to the audit tables"


def test_attaching_again_repairs_partitions(client: Client) -> None:
    client.run("CREATE TABLE p (id int PRIMARY KEY, s text) PARTITION BY RANGE (id)")
    client.run("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    attach(client, ["p"], redaction=Redaction(mask=("s",)))
    client.run("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); ALTER TABLE p1 DISABLE TRIGGER ALL")
    client.run("CREATE TABLE p3 (id int PRIMARY KEY, s text)")
    attach(client, ["p3"])
    client.run("ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)")
    assert [name for name, problem in problems(client).items() if problem] == ["public.p1", "public.p2", "public.p3"]
    attach(client, ["p"])
    assert set(problems(client).values()) == {None}
    client.run("INSERT INTO p1 VALUES (1, 'raw'); INSERT INTO p2 VALUES (11, 'raw'); INSERT INTO p3 VALUES (21, 'raw')")
    assert [image["s"] for image in images(client)] == ["[REDACTED]"] * 3


def test_a_write_or_rule_that_would_keep_a_redacted_value_is_refused(client: Client) -> None:
    client.run("CREATE TABLE k (id int PRIMARY KEY, email text NOT NULL)")
    attach(client, ["k"], redaction=Redaction(mask=("email",)))
    client.run("ALTER TABLE k DROP COLUMN id; ALTER TABLE k ADD PRIMARY KEY (email)")
    with pytest.raises(SqlError, match="is its key now") as caught:
        client.run("INSERT INTO k VALUES ('raw')")
    assert caught.value.sqlstate == "55000"
    client.run("CREATE TABLE parent (id int PRIMARY KEY, s text)")
    attach(client, ["parent"])
    client.run("CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)")
    with pytest.raises(SqlError, match="its parent"):
        attach(client, ["child"], redaction=Redaction(mask=("s",)))
    attach(client, ["parent"])
    attach(client, ["child"], redaction=Redaction(mask=("s",)))
    client.run("INSERT INTO child VALUES (1, 'raw'); UPDATE parent SET s = 'raw too'")
    assert "raw" not in str(images(client))


def test_backslashes_in_rules_do_not_break_coverage(client: Client) -> None:
    client.run('CREATE TABLE t ("a\\000b" int PRIMARY KEY, s text)')
    attach(client, ["t"], redaction=Redaction(mask=("s",), placeholder="\\000 \\x '"))
    client.run("INSERT INTO t VALUES (1, 'raw')")
    assert images(client) == [{"a\\000b": 1, "s": "\\000 \\x '"}]
    assert problems(client)["public.t"] is None
    assert attach(client, ["t"]) == []


def test_coverage_reports_a_trigger_that_fires_before_the_capture(client: Client) -> None:
    client.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        'CREATE TRIGGER " first" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()'
    )
    attach(client, ["t"])
    assert "sorts before" in (problems(client)["public.t"] or "")


def test_a_time_is_the_same_key_in_every_time_zone(client: Client) -> None:
    client.run("CREATE TABLE t (at timestamptz PRIMARY KEY, n numeric UNIQUE)")
    attach(client, ["t"])
    client.run("SET TimeZone = 'Asia/Kolkata'; INSERT INTO t VALUES ('2026-01-01 00:00:00.5+00', 1.50)")
    client.run("SET TimeZone = 'America/New_York'; DELETE FROM t")
    assert client.value("SHOW TimeZone") == "America/New_York"
    key = {"at": datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)}
    assert [change.op for change in history(client, "t", key)] == ["delete", "insert"]
    assert as_of(client, "t", key, now(client)).state == "deleted"


def test_a_key_that_was_read_finds_its_history(client: Client) -> None:
    client.run("CREATE TABLE t (n numeric, d date, PRIMARY KEY (n, d)); SELECT threadline_attach('t')")
    client.run("INSERT INTO t VALUES (1.50, '2026-01-02'), (10::numeric ^ 5000, '2026-01-02')")
    changes = timeline(client)
    assert [change.op for change in history(client, "t", changes[-1].table_pk)] == ["insert"]
    assert changes[-1].table_pk["n"] == Decimal("1.50")


def test_rows_that_swap_or_shift_keys_in_one_statement_are_distinguished(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text); SELECT threadline_attach('t')")
    client.run("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    client.run("UPDATE t SET id = 3 - id WHERE id < 3")

    def row(key: int) -> tuple[str, Any]:
        state = as_of(client, "t", {"id": key}, now(client))
        return state.state, (state.row or {}).get("v")

    assert (row(1), row(2)) == (("present", "two"), ("present", "one"))
    client.run("UPDATE t SET id = id + 1")
    assert (row(2), row(3), row(4)) == (("present", "two"), ("present", "one"), ("present", "three"))
    assert row(1) == ("moved", None)
    client.run("UPDATE t SET id = 9 WHERE id = 3")
    assert row(3) == ("moved", None)
    client.run("TRUNCATE t; INSERT INTO t VALUES (2, 'new'); UPDATE t SET id = 8")
    assert (row(2), row(8), row(4)) == (("moved", None), ("present", "new"), ("deleted", None))


def test_a_name_without_a_schema_means_public(client: Client) -> None:
    client.run(
        'CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE "a.b" (id int PRIMARY KEY)'
    )
    attach(client, ["s.t", "t", '"a.b"'])
    client.run('INSERT INTO s.t VALUES (1); INSERT INTO t VALUES (1); DELETE FROM s.t; INSERT INTO "a.b" VALUES (1)')
    assert as_of(client, "t", {"id": 1}, now(client)).state == "present"
    assert as_of(client, "s.t", {"id": 1}, now(client)).state == "deleted"
    assert count_matching(client, Filter(table="public.a.b")) == 1


def test_an_actor_with_extra_fields_is_found(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY); SELECT threadline_attach('t')")
    client.run(
        """SET threadline.actor_ref = '{"type": "user", "id": "ada", "name": "Ada"}'; INSERT INTO t VALUES (1)"""
    )
    assert count_matching(client, Filter(actor=ADA)) == 1


def test_client_settings_affect_neither_export_nor_purge(client: Client) -> None:
    client.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT threadline_attach('t'); INSERT INTO t VALUES (1, 'ü')"
    )
    client.run("SET DateStyle = 'German'; SET client_encoding = 'SQL_ASCII'")
    sink = io.StringIO(newline="")
    done = export(client, sink, "json", to=Telemetry())
    assert json.loads(sink.getvalue())["changes"][0]["data_after"] == {"id": 1, "v": "ü"}
    assert done.snapshot
    client.run("SET client_encoding = 'UTF8'")
    client.run("UPDATE audit_changes SET captured_at = captured_at - interval '90 days'")
    assert purge(client, Policy(enabled=True, keep_days=30), to=Telemetry()).deleted_changes == 1


def test_a_truncated_export_has_no_snapshot(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY); SELECT threadline_attach('t'); INSERT INTO t VALUES (1), (2)")
    assert export(client, io.StringIO(newline=""), "json", max_rows=1, to=Telemetry()).snapshot is None


def test_values_captured_before_a_rule_are_counted(client: Client) -> None:
    client.run("CREATE TABLE p (id int PRIMARY KEY, s text) PARTITION BY RANGE (id)")
    client.run("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    attach(client, ["p"], changed_from=True)
    client.run("INSERT INTO p VALUES (1, 'raw'), (2, NULL); UPDATE p SET s = '[REDACTED]' WHERE id = 1")
    rules = Redaction(mask=("s",))
    assert kept_before(client, "p1", rules) == kept_before(client, "p", rules) == {"s": 2}


def test_undone_work_emits_no_event(client: Client) -> None:
    client.run("CREATE TABLE t (id int PRIMARY KEY); SELECT threadline_attach('t')")
    to, events = Telemetry(), list[Event]()
    to.attach(events.append)
    action = Action(name="x")

    def undo_with(undo: Callable[[], object]) -> None:
        with audited(client, ADA, action=action, to=to):
            client.run("INSERT INTO t VALUES (1)")
            undo()

    def suppress_an_error() -> None:
        with audited(client, ADA, to=to):
            client.run("INSERT INTO t VALUES (2)")
            with pytest.raises(SqlError):
                client.run("SELECT 1 / 0")

    undo_with(roll_back)
    with pytest.raises(WorkUndoneError):
        suppress_an_error()
    with pytest.raises(KeyError):
        undo_with(lambda: dict[str, int]()["nothing"])
    assert events == []
    assert client.value("SELECT count(*) FROM t") == 0
    assert images(client) == []


def test_concurrent_installations_wait_for_each_other(lab: Lab, database: str, client: Client) -> None:
    def install_again(_number: int) -> list[str]:
        with connect(lab.owner(database)) as another:
            return install(another)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(install_again, range(9))) == [[]] * 9
    assert install(client) == []
