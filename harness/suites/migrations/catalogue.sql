-- name: catalogue
-- One row for each property of each object: kind, schema, the table that the object belongs to, name, property, value.
WITH space AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
), of_extension AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relation AS (
    SELECT class.*, nspname, format('%I.%I', nspname, relname) AS named
    FROM pg_class AS class JOIN space ON space.oid = relnamespace
    WHERE NOT EXISTS (SELECT FROM of_extension WHERE classid = 'pg_class'::regclass AND objid = class.oid)
), in_tables AS (
    SELECT * FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
), granted AS (
    -- grants without their order; a default that is written out equals the default
    SELECT 'relation' AS what, oid, (
        SELECT string_agg(entry::text, ', ' ORDER BY entry::text)
        FROM unnest(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))) AS entry
    ) AS rights FROM relation
    UNION ALL
    SELECT 'space', oid, (
        SELECT string_agg(entry::text, ', ' ORDER BY entry::text)
        FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) AS entry
    ) FROM space
    UNION ALL
    SELECT 'function', pg_proc.oid, (
        SELECT string_agg(entry::text, ', ' ORDER BY entry::text)
        FROM unnest(coalesce(proacl, acldefault('f', proowner))) AS entry
    ) FROM pg_proc JOIN space ON space.oid = pronamespace
    UNION ALL
    SELECT 'type', pg_type.oid, (
        SELECT string_agg(entry::text, ', ' ORDER BY entry::text)
        FROM unnest(coalesce(typacl, acldefault('T', typowner))) AS entry
    ) FROM pg_type JOIN space ON space.oid = typnamespace
)
SELECT 'schema', nspname, '', format('%I', nspname), property, value
FROM space
CROSS JOIN LATERAL (VALUES
    ('owner', pg_get_userbyid(nspowner)::text),
    ('grants', (SELECT rights FROM granted WHERE what = 'space' AND granted.oid = space.oid))
) AS has (property, value)

UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
    nspname, named, named, property, value
FROM in_tables
CROSS JOIN LATERAL (VALUES
    ('owner', pg_get_userbyid(relowner)::text),
    ('grants', (SELECT rights FROM granted WHERE what = 'relation' AND granted.oid = in_tables.oid)),
    ('persistence', relpersistence::text),
    ('options', (SELECT string_agg(entry, ', ' ORDER BY entry) FROM unnest(reloptions) AS entry)),
    ('access method', (SELECT amname::text FROM pg_am WHERE pg_am.oid = relam)),
    ('tablespace', (SELECT spcname::text FROM pg_tablespace WHERE pg_tablespace.oid = reltablespace)),
    ('row security', relrowsecurity::text),
    ('row security of the owner', relforcerowsecurity::text),
    ('replica identity', relreplident::text),
    ('partition key', CASE relkind WHEN 'p' THEN pg_get_partkeydef(in_tables.oid) END),
    ('partition', pg_get_expr(relpartbound, in_tables.oid)),
    ('inherits from', (
        SELECT string_agg(parent.oid::regclass::text, ', ' ORDER BY inhseqno)
        FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent WHERE inhrelid = in_tables.oid
    )),
    ('order of columns', (
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = in_tables.oid AND attnum > 0 AND NOT attisdropped
    )),
    ('definition', CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(in_tables.oid) END)
) AS has (property, value)

UNION ALL
SELECT 'column', nspname, named, format('%s.%I', named, attname), property, value
FROM in_tables
JOIN pg_attribute ON attrelid = in_tables.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
CROSS JOIN LATERAL (VALUES
    ('type', format_type(atttypid, atttypmod)),
    ('not null', attnotnull::text),
    (CASE attgenerated WHEN '' THEN 'default' ELSE 'generated as' END, pg_get_expr(adbin, adrelid)),
    ('identity', attidentity::text),
    ('collation', (
        SELECT collname::text FROM pg_collation JOIN pg_type ON pg_type.oid = atttypid
        WHERE pg_collation.oid = attcollation AND attcollation <> typcollation
    )),
    ('grants', (SELECT string_agg(entry::text, ', ' ORDER BY entry::text) FROM unnest(attacl) AS entry))
) AS has (property, value)

UNION ALL
SELECT 'sequence', nspname, coalesce(owner.owned_by, ''), named, property, value
FROM relation
JOIN pg_sequence ON seqrelid = relation.oid
LEFT JOIN LATERAL (
    SELECT format('%I.%I', space.nspname, class.relname) AS owned_by, format('%I.%I.%I', space.nspname, class.relname, attname) AS col
    FROM pg_depend
    JOIN pg_class AS class ON class.oid = refobjid
    JOIN space ON space.oid = class.relnamespace
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE classid = 'pg_class'::regclass AND objid = relation.oid AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
    LIMIT 1
) AS owner ON true
CROSS JOIN LATERAL (VALUES
    ('owner', pg_get_userbyid(relowner)::text),
    ('grants', (SELECT rights FROM granted WHERE what = 'relation' AND granted.oid = relation.oid)),
    ('type', format_type(seqtypid, NULL)),
    ('start', seqstart::text),
    ('increment', seqincrement::text),
    ('minimum', seqmin::text),
    ('maximum', seqmax::text),
    ('cache', seqcache::text),
    ('cycles', seqcycle::text),
    ('owned by', owner.col)
) AS has (property, value)

UNION ALL
SELECT 'index', relation.nspname, owner.named, relation.named, property, value
FROM relation
JOIN pg_index ON indexrelid = relation.oid
JOIN in_tables AS owner ON owner.oid = indrelid
CROSS JOIN LATERAL (VALUES
    ('definition', pg_get_indexdef(indexrelid)),
    ('valid', indisvalid::text),
    ('clustered', indisclustered::text),
    ('replica identity', indisreplident::text),
    ('options', (SELECT string_agg(entry, ', ' ORDER BY entry) FROM unnest(relation.reloptions) AS entry))
) AS has (property, value)

UNION ALL
SELECT 'constraint', owner.nspname, owner.named, format('%s.%I', owner.named, conname), property, value
FROM pg_constraint
JOIN in_tables AS owner ON owner.oid = conrelid
CROSS JOIN LATERAL (VALUES
    ('definition', pg_get_constraintdef(pg_constraint.oid)),
    ('validated', convalidated::text)
) AS has (property, value)
WHERE contype <> 't'

UNION ALL
SELECT 'trigger', owner.nspname, owner.named, format('%s.%I', owner.named, tgname), property, value
FROM pg_trigger
JOIN in_tables AS owner ON owner.oid = tgrelid
CROSS JOIN LATERAL (VALUES
    ('definition', pg_get_triggerdef(pg_trigger.oid)),
    ('enabled', tgenabled::text)
) AS has (property, value)
WHERE NOT tgisinternal

UNION ALL
SELECT 'rule', owner.nspname, owner.named, format('%s.%I', owner.named, rulename), property, value
FROM pg_rewrite
JOIN in_tables AS owner ON owner.oid = ev_class
CROSS JOIN LATERAL (VALUES
    ('definition', pg_get_ruledef(pg_rewrite.oid)),
    ('enabled', ev_enabled::text)
) AS has (property, value)
WHERE rulename <> '_RETURN'

UNION ALL
SELECT 'policy', owner.nspname, owner.named, format('%s.%I', owner.named, polname), property, value
FROM pg_policy
JOIN in_tables AS owner ON owner.oid = polrelid
CROSS JOIN LATERAL (VALUES
    ('command', polcmd::text),
    ('permissive', polpermissive::text),
    ('roles', (
        SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role)::text END, ', ' ORDER BY role)
        FROM unnest(polroles) AS role
    )),
    ('using', pg_get_expr(polqual, polrelid)),
    ('with check', pg_get_expr(polwithcheck, polrelid))
) AS has (property, value)

UNION ALL
SELECT 'statistics', nspname, owner.named, format('%I.%I', space_of_it.nspname, stxname), 'definition', pg_get_statisticsobjdef(pg_statistic_ext.oid)
FROM pg_statistic_ext
JOIN space AS space_of_it ON space_of_it.oid = stxnamespace
JOIN (SELECT oid, named FROM in_tables) AS owner ON owner.oid = stxrelid

UNION ALL
SELECT CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END, nspname, '',
    format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(pg_proc.oid)), property, value
FROM pg_proc
JOIN space ON space.oid = pronamespace
CROSS JOIN LATERAL (VALUES
    ('definition', CASE WHEN prokind <> 'a' THEN pg_get_functiondef(pg_proc.oid) ELSE pg_get_function_result(pg_proc.oid) END),
    ('owner', pg_get_userbyid(proowner)::text),
    ('grants', (SELECT rights FROM granted WHERE what = 'function' AND granted.oid = pg_proc.oid))
) AS has (property, value)
WHERE NOT EXISTS (SELECT FROM of_extension WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid)

UNION ALL
SELECT CASE typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type' ELSE 'range' END,
    nspname, '', format('%I.%I', nspname, typname), property, value
FROM pg_type
JOIN space ON space.oid = typnamespace
CROSS JOIN LATERAL (VALUES
    ('owner', pg_get_userbyid(typowner)::text),
    ('grants', (SELECT rights FROM granted WHERE what = 'type' AND granted.oid = pg_type.oid)),
    ('labels', (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = pg_type.oid)),
    ('base type', CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod) END),
    ('not null', CASE typtype WHEN 'd' THEN typnotnull::text END),
    ('default', typdefault),
    ('subtype', (SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = pg_type.oid)),
    ('constraints', (
        SELECT string_agg(format('%I %s', conname, pg_get_constraintdef(pg_constraint.oid)), '; ' ORDER BY conname)
        FROM pg_constraint WHERE contypid = pg_type.oid
    )),
    ('attributes', (
        SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = typrelid AND typtype = 'c' AND attnum > 0 AND NOT attisdropped
    ))
) AS has (property, value)
WHERE (typtype IN ('e', 'd', 'r') OR (typtype = 'c' AND (SELECT relkind FROM pg_class WHERE pg_class.oid = typrelid) = 'c'))
AND NOT EXISTS (SELECT FROM of_extension WHERE classid = 'pg_type'::regclass AND objid = pg_type.oid)

UNION ALL
SELECT 'extension', '', '', quote_ident(extname), property, value
FROM pg_extension
CROSS JOIN LATERAL (VALUES ('version', extversion), ('schema', extnamespace::regnamespace::text)) AS has (property, value)

UNION ALL
SELECT 'event trigger', '', '', quote_ident(evtname), property, value
FROM pg_event_trigger
CROSS JOIN LATERAL (VALUES
    ('event', evtevent::text),
    ('function', evtfoid::regprocedure::text),
    ('enabled', evtenabled::text),
    ('tags', (SELECT string_agg(tag, ', ' ORDER BY tag) FROM unnest(evttags) AS tag))
) AS has (property, value)

UNION ALL
SELECT 'default privileges', coalesce(nspname, ''), '',
    format('of %I for %s%s', pg_get_userbyid(defaclrole), defaclobjtype, coalesce(format(' in %I', nspname), '')), 'grants',
    (SELECT string_agg(entry::text, ', ' ORDER BY entry::text) FROM unnest(defaclacl) AS entry)
FROM pg_default_acl LEFT JOIN space ON space.oid = defaclnamespace

UNION ALL
SELECT 'settings', '', '', format('of %s', CASE setrole WHEN 0 THEN 'the database' ELSE quote_ident(pg_get_userbyid(setrole)) END),
    'values', (SELECT string_agg(entry, ', ' ORDER BY entry) FROM unnest(setconfig) AS entry)
FROM pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1, 4, 5

-- name: left_locks
-- Advisory locks of sessions in this database, without the gate of the harness.
SELECT format('%s %s of %s, which is %s', locktype, CASE objsubid WHEN 1 THEN ((classid::bigint << 32) | objid::bigint)::text
        ELSE format('(%s, %s)', classid, objid) END,
    coalesce(nullif(application_name, ''), 'a session'), coalesce(state, 'gone'))
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND NOT (classid = @gate@ AND objsubid = 2)

-- name: session_locks
-- Advisory locks of sessions that are in no transaction: locks of a transaction would have ended with it.
SELECT locktype
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND state = 'idle'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND NOT (classid = @gate@ AND objsubid = 2)

-- name: waiting
-- Sessions that wait at the gate, those that wait for a lock of another one, and of these those that wait until an older
-- transaction ends, as CREATE INDEX CONCURRENTLY does.
SELECT count(*) FILTER (WHERE is_gate), count(*) FILTER (WHERE NOT is_gate), count(*) FILTER (WHERE locktype = 'virtualxid')
FROM pg_locks
CROSS JOIN LATERAL (SELECT coalesce(locktype = 'advisory' AND classid = @gate@ AND objsubid = 2, false)) AS known (is_gate)
WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())

-- name: waits_for_idle
-- A session that waits for a lock of a session that does nothing, and is in no transaction. The gate is not meant.
SELECT format('%s waits for an advisory lock of the server connection %s, which is idle', waiting.pid, holder.pid)
FROM pg_stat_activity AS waiting
JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid) ON true
JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock' AND waiting.wait_event = 'advisory'
AND holder.state = 'idle' AND holder.application_name <> 'pooler-harness admin'
ORDER BY 1 LIMIT 1

-- name: gate
-- Each DDL statement waits for the turn that the harness gives. Of two that go on together the second is a moment later:
-- otherwise two CREATE TABLE IF NOT EXISTS collide, and the run that fails shows nothing about the statements after it.
CREATE SCHEMA harness_gate;
CREATE SEQUENCE harness_gate.turn;
CREATE SEQUENCE harness_gate.steps;
SELECT nextval('harness_gate.turn');
GRANT USAGE ON SCHEMA harness_gate TO PUBLIC;
GRANT USAGE, SELECT ON SEQUENCE harness_gate.turn, harness_gate.steps TO PUBLIC;
CREATE FUNCTION harness_gate.pass() RETURNS event_trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $gate$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(@gate@, last_value::integer) FROM harness_gate.turn;
    PERFORM pg_catalog.pg_sleep(0.1 * (pg_catalog.nextval('harness_gate.steps') % 2));
END
$gate$;
CREATE EVENT TRIGGER harness_gate ON ddl_command_start EXECUTE FUNCTION harness_gate.pass();

-- name: next_turn
SELECT nextval('harness_gate.turn');

-- name: no_gate
DROP EVENT TRIGGER harness_gate;
DROP SCHEMA harness_gate CASCADE;
