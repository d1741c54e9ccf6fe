-- The reference audit layer: tables, capture, coverage. Safe to run again; loses nothing.
--
-- Table, column and setting names are those of Threadline 0.2, so that a tool for one reads the other.
-- Where that contract and safety collide, the columns stay and the choice is explained in
-- harness/audit/README.md.

-- Semantic events: what the application meant to do.
CREATE TABLE IF NOT EXISTS public.audit_actions (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text NOT NULL,
    actor_ref      jsonb NOT NULL,
    status         text NOT NULL CHECK (status IN ('ok', 'error')),
    verb           text,
    category       text,
    reason         text,
    comment        text,
    correlation_id text,
    request_id     text,
    job_id         text,
    inserted_at    timestamptz NOT NULL DEFAULT now()
);

-- One row per captured database transaction. `action_id` is an audit_actions.id; a trigger keeps a linked
-- action from being deleted, where a foreign key would cost every transaction. `id` is the transaction's identity: see
-- threadline_transaction_id. `txid` has no index: the id says the same, and more.
CREATE TABLE IF NOT EXISTS public.audit_transactions (
    id          uuid PRIMARY KEY,
    txid        bigint NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    source      text,
    meta        jsonb,
    actor_ref   jsonb,
    action_id   uuid
);

-- One row per changed row. No foreign key and no CHECK: they cost a third of the capture, and only the
-- capture functions below can write here. The cascade of a deletion is a trigger of its own. The key leads
-- with the transaction, whose ids grow with time: one index that is appended to serves for two.
CREATE TABLE IF NOT EXISTS public.audit_changes (
    id             uuid NOT NULL DEFAULT gen_random_uuid(),
    transaction_id uuid NOT NULL,
    table_schema   text NOT NULL,
    table_name     text NOT NULL,
    table_pk       jsonb NOT NULL,
    op             text NOT NULL,
    data_after     jsonb,
    changed_fields text[],
    changed_from   jsonb,
    captured_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction_id, id)
);

-- What the capture functions looked like when they were installed; coverage compares.
CREATE TABLE IF NOT EXISTS public.audit_capture_code (
    function_name text PRIMARY KEY,
    body_md5      text NOT NULL
);

-- CREATE INDEX IF NOT EXISTS would lock a live table before it looks, and every writer would queue behind it.
DO $$
DECLARE
    v_index record;
BEGIN
    FOR v_index IN SELECT * FROM (VALUES
        ('audit_actions_actor_ref_idx', 'audit_actions USING gin (actor_ref)'),
        ('audit_actions_inserted_at_idx', 'audit_actions (inserted_at)'),
        ('audit_actions_name_idx', 'audit_actions (name)'),
        ('audit_changes_captured_at_idx', 'audit_changes (captured_at)')
    ) AS wanted (name, definition) LOOP
        IF pg_catalog.to_regclass('public.' || v_index.name) IS NULL THEN
            EXECUTE pg_catalog.format('CREATE INDEX %I ON public.%s', v_index.name, v_index.definition);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON public.audit_actions, public.audit_transactions, public.audit_changes, public.audit_capture_code
    FROM PUBLIC;

-- Returns the identity of the running transaction as a UUID of version 8 (RFC 9562): when it began, in
-- microseconds, then its 64-bit id. The same in all its statements and savepoints without a look-up, and
-- never that of a transaction from another cluster, whatever was dumped and restored.
-- A single expression, so that the planner inlines it.
CREATE OR REPLACE FUNCTION public.threadline_transaction_id() RETURNS uuid
LANGUAGE sql STABLE AS $$
    SELECT (pg_catalog.overlay(
                pg_catalog.lpad(pg_catalog.to_hex((pg_catalog.date_part('epoch', pg_catalog.now()) * 1000000)::bigint), 15, '0'),
                '8', 13, 0)
            || pg_catalog.to_hex(pg_catalog.txid_current() | (1::bigint << 63)))::uuid
$$;

-- Returns what is wrong with an actor, NULL when nothing is. Six types; all but anonymous need an id.
CREATE OR REPLACE FUNCTION public.threadline_actor_problem(actor jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN pg_catalog.jsonb_typeof(actor) IS DISTINCT FROM 'object' THEN 'it is not a JSON object'
        WHEN pg_catalog.jsonb_typeof(actor -> 'type') IS DISTINCT FROM 'string' THEN 'it has no type'
        WHEN actor ->> 'type' NOT IN ('user', 'admin', 'service_account', 'job', 'system', 'anonymous')
            THEN 'its type is none of user, admin, service_account, job, system, anonymous'
        WHEN actor ->> 'type' = 'anonymous' THEN NULL
        WHEN pg_catalog.jsonb_typeof(actor -> 'id') IS DISTINCT FROM 'string' THEN 'its id is missing or not a text'
        WHEN pg_catalog.btrim(actor ->> 'id', E' \t\r\n') = '' THEN 'its id is blank'
    END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conname = 'audit_actions_actor_ref_check'
                   AND conrelid = 'public.audit_actions'::regclass) THEN
        ALTER TABLE public.audit_actions ADD CONSTRAINT audit_actions_actor_ref_check
            CHECK (public.threadline_actor_problem(actor_ref) IS NULL);
    END IF;
END
$$;

-- Returns the primary key columns of a table, in the key's order; NULL when it has none.
CREATE OR REPLACE FUNCTION public.threadline_key_columns(relation regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(a.attname::text ORDER BY k.position)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts
$$;

-- Returns the key of one row image: {"column": value, …} with JSON values, so that a number is a number.
-- Takes the trigger's arguments. The general way, for composite keys, and for a key that was renamed
-- since the table was attached.
CREATE OR REPLACE FUNCTION public.threadline_row_key(relation regclass, image jsonb, arguments text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys text[] := arguments[1:];
BEGIN
    IF NOT image ?& v_keys THEN
        v_keys := public.threadline_key_columns(relation);
        IF v_keys IS NULL OR NOT image ?& v_keys THEN
            RAISE EXCEPTION 'a row of % cannot be identified: its primary key is gone', relation
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Give the table a primary key and run threadline_attach again, or threadline_detach.';
        END IF;
    END IF;
    RETURN (SELECT jsonb_object_agg(k, image -> k) FROM unnest(v_keys) AS k);
END
$$;

-- Returns an actor as it is stored: an anonymous one has no id. Refuses what is no actor: the application's
-- own write fails, rather than be attributed to nobody.
CREATE OR REPLACE FUNCTION public.threadline_checked_actor(actor jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF actor IS NOT NULL AND public.threadline_actor_problem(actor) IS NOT NULL THEN
        RAISE EXCEPTION 'the setting threadline.actor_ref is no actor: %', public.threadline_actor_problem(actor)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Set it in the transaction, before the first write: '
                         'SELECT set_config(''threadline.actor_ref'', ''{"type": "user", "id": "42"}'', true)';
    END IF;
    RETURN CASE WHEN actor ->> 'type' = 'anonymous' THEN actor - 'id' ELSE actor END;
END
$$;

-- Captures a statement's rows in one go, from its transition tables. Fires after each statement.
-- TG_ARGV: 'changed_from' or '', then the key columns.
--
-- SECURITY DEFINER: the application needs no right on the audit tables, so it has none to abuse.
-- All names are qualified, so that neither a search_path nor a temp table of the same name leads astray.
CREATE OR REPLACE FUNCTION public.threadline_capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_transaction uuid := public.threadline_transaction_id();
    v_key         text := CASE WHEN TG_NARGS = 2 THEN TG_ARGV[1] END;  -- the key, when it is one column
    v_actor       jsonb;
    v_digits      text;  -- the client's own extra_float_digits, where ours must replace it
BEGIN
    IF current_setting('extra_float_digits') NOT IN ('1', '2', '3') THEN  -- below 1 a float loses digits
        v_digits := current_setting('extra_float_digits');
        PERFORM set_config('extra_float_digits', '1', true);
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.audit_changes
            (transaction_id, table_schema, table_name, table_pk, op, data_after, captured_at)
        SELECT v_transaction, TG_TABLE_SCHEMA, TG_TABLE_NAME,
               CASE WHEN r.image ? v_key THEN jsonb_build_object(v_key, r.image -> v_key)
                    ELSE public.threadline_row_key(TG_RELID, r.image, TG_ARGV) END,
               'insert', r.image, clock_timestamp()
        FROM (SELECT to_jsonb(n.*) AS image FROM new_rows n OFFSET 0) r;
    ELSIF TG_OP = 'UPDATE' THEN
        -- Both transition tables hold a statement's rows in the same order; the key may have changed. Sorted
        -- and not joined: a join would be planned once, for the rows of the session's first statement.
        INSERT INTO public.audit_changes
            (transaction_id, table_schema, table_name, table_pk, op, data_after, changed_fields, changed_from, captured_at)
        SELECT v_transaction, TG_TABLE_SCHEMA, TG_TABLE_NAME, p.new_key, 'update', p.new_image, d.fields,
               CASE WHEN TG_ARGV[0] = 'changed_from' THEN d.before WHEN p.old_key <> p.new_key THEN p.old_key END,
               clock_timestamp()
        FROM (
            SELECT b.old_image, b.new_image,
                   public.threadline_row_key(TG_RELID, b.old_image, TG_ARGV) AS old_key,
                   public.threadline_row_key(TG_RELID, b.new_image, TG_ARGV) AS new_key
            FROM (
                SELECT e.side, e.image AS old_image, lead(e.image) OVER (ORDER BY e.ordinal, e.side) AS new_image
                FROM (
                    SELECT row_number() OVER () AS ordinal, 1 AS side, to_jsonb(n.*) AS image FROM old_rows n
                    UNION ALL
                    SELECT row_number() OVER (), 2, to_jsonb(n.*) FROM new_rows n
                ) e
            ) b
            WHERE b.side = 1
            OFFSET 0
        ) p
        CROSS JOIN LATERAL (
            SELECT array_agg(f.key ORDER BY f.key COLLATE "C") AS fields,
                   jsonb_object_agg(f.key, p.old_image -> f.key) AS before
            FROM jsonb_each(p.new_image) f
            WHERE f.value::text IS DISTINCT FROM (p.old_image -> f.key)::text
        ) d;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.audit_changes
            (transaction_id, table_schema, table_name, table_pk, op, captured_at)
        SELECT v_transaction, TG_TABLE_SCHEMA, TG_TABLE_NAME,
               public.threadline_row_key(TG_RELID, to_jsonb(n.*), TG_ARGV), 'delete', clock_timestamp()
        FROM old_rows n;
    ELSE
        INSERT INTO public.audit_changes
            (transaction_id, table_schema, table_name, table_pk, op, captured_at)
        VALUES (v_transaction, TG_TABLE_SCHEMA, TG_TABLE_NAME, 'null', 'truncate', clock_timestamp());
    END IF;
    IF FOUND THEN
        -- The residue of a local setting is '', not NULL: no actor.
        v_actor := nullif(current_setting('threadline.actor_ref', true), '')::jsonb;
        IF v_actor IS NOT NULL AND (v_actor ->> 'type' IN ('user', 'admin', 'service_account', 'job', 'system')
                                    AND jsonb_typeof(v_actor -> 'id') = 'string' AND v_actor ->> 'id' > '!' COLLATE "C") IS NOT TRUE THEN
            v_actor := public.threadline_checked_actor(v_actor);  -- the rare and the wrong ones
        END IF;
        INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref)
        VALUES (v_transaction, txid_current(), clock_timestamp(), v_actor)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    IF v_digits IS NOT NULL THEN
        PERFORM set_config('extra_float_digits', v_digits, true);
    END IF;
    RETURN NULL;
END
$$;

-- Captures row by row, for partitioned tables and inheritance: there a statement's triggers fire only on
-- the table it names, while a row's fire wherever the row is. And for tables with other AFTER triggers: one
-- that writes to the same row would else be captured before the statement that fired it. Rows of a partition
-- go under its root's name.
CREATE OR REPLACE FUNCTION public.threadline_capture_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_transaction uuid := public.threadline_transaction_id();
    v_root        oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    v_schema      text := TG_TABLE_SCHEMA;
    v_table       text := TG_TABLE_NAME;
    v_before      jsonb;
    v_after       jsonb;
    v_old_key     jsonb;
    v_key         jsonb;
    v_fields      text[];
    v_from        jsonb;
    v_actor       jsonb;
    v_digits      text;  -- the client's own extra_float_digits, where ours must replace it
BEGIN
    IF current_setting('extra_float_digits') NOT IN ('1', '2', '3') THEN  -- below 1 a float loses digits
        v_digits := current_setting('extra_float_digits');
        PERFORM set_config('extra_float_digits', '1', true);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        v_before := to_jsonb(OLD);
        v_old_key := public.threadline_row_key(TG_RELID, v_before, TG_ARGV);
        v_key := v_old_key;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        v_after := to_jsonb(NEW);
        v_key := public.threadline_row_key(TG_RELID, v_after, TG_ARGV);
    END IF;
    IF v_root <> TG_RELID THEN
        SELECT n.nspname, c.relname INTO v_schema, v_table
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = v_root;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(f.key ORDER BY f.key COLLATE "C"), jsonb_object_agg(f.key, v_before -> f.key)
        INTO v_fields, v_from
        FROM jsonb_each(v_after) f WHERE f.value::text IS DISTINCT FROM (v_before -> f.key)::text;
        v_from := CASE WHEN TG_ARGV[0] = 'changed_from' THEN v_from WHEN v_old_key <> v_key THEN v_old_key END;
    END IF;
    INSERT INTO public.audit_changes
        (transaction_id, table_schema, table_name, table_pk, op, data_after, changed_fields, changed_from, captured_at)
    VALUES (v_transaction, v_schema, v_table, v_key, lower(TG_OP), v_after, v_fields, v_from, clock_timestamp());
    v_actor := nullif(current_setting('threadline.actor_ref', true), '')::jsonb;
    IF v_actor IS NOT NULL THEN
        v_actor := public.threadline_checked_actor(v_actor);
    END IF;
    INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref)
    VALUES (v_transaction, txid_current(), clock_timestamp(), v_actor)
    ON CONFLICT (id) DO NOTHING;
    IF v_digits IS NOT NULL THEN
        PERFORM set_config('extra_float_digits', v_digits, true);
    END IF;
    RETURN NULL;
END
$$;

-- Nobody but the installer may put these functions on a table: a trigger on a table of one's own would
-- write audit rows that never happened.
REVOKE ALL ON FUNCTION public.threadline_capture(), public.threadline_capture_row() FROM PUBLIC;

-- Returns what decides how the trail captures: bodies, rights and settings of the functions it runs.
CREATE OR REPLACE FUNCTION public.threadline_capture_code() RETURNS TABLE (function_name text, body_md5 text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.proname::text, md5(concat_ws('|', p.prosrc, p.prosecdef, p.proconfig, p.proowner = c.relowner))
    FROM pg_proc p
    JOIN pg_class c ON c.oid = 'public.audit_changes'::regclass
    WHERE p.pronamespace = 'public'::regnamespace
      AND p.proname IN ('threadline_capture', 'threadline_capture_row', 'threadline_transaction_id', 'threadline_row_key',
                        'threadline_key_columns', 'threadline_checked_actor', 'threadline_actor_problem')
$$;
INSERT INTO public.audit_capture_code (function_name, body_md5)
SELECT function_name, body_md5 FROM public.threadline_capture_code()
ON CONFLICT (function_name) DO UPDATE SET body_md5 = EXCLUDED.body_md5;

-- Deletes the changes of deleted transactions, a statement at a time, as a foreign key would a row at a time.
CREATE OR REPLACE FUNCTION public.threadline_cascade() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.audit_changes c USING gone g WHERE c.transaction_id = g.id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_cascade() FROM PUBLIC;

-- Refuses to delete an action that transactions are linked to: their correlation would be lost silently.
CREATE OR REPLACE FUNCTION public.threadline_keep_linked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g JOIN public.audit_transactions t ON t.action_id = g.id) THEN
        RAISE EXCEPTION 'an action that transactions are linked to cannot be deleted'
            USING ERRCODE = 'foreign_key_violation', HINT = 'Delete the transactions first.';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_keep_linked() FROM PUBLIC;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.audit_transactions'::regclass
                   AND tgname = 'audit_transactions_cascade') THEN
        CREATE TRIGGER audit_transactions_cascade AFTER DELETE ON public.audit_transactions
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_cascade();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.audit_actions'::regclass
                   AND tgname = 'audit_actions_keep_linked') THEN
        CREATE TRIGGER audit_actions_keep_linked AFTER DELETE ON public.audit_actions
            REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_keep_linked();
    END IF;
END
$$;

-- Says whether a table's rows must be captured one by one.
CREATE OR REPLACE FUNCTION public.threadline_is_row_wise(relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relkind = 'p'
        OR EXISTS (SELECT FROM pg_inherits i WHERE relation IN (i.inhrelid, i.inhparent))
        -- pg_trigger.tgtype: 2 before, 64 instead of; TRUNCATE (32) has no rows to be late for
        OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal
                   AND t.tgtype & 66 = 0 AND t.tgtype & 28 <> 0
                   AND t.tgfoid NOT IN ('public.threadline_capture()'::regprocedure,
                                        'public.threadline_capture_row()'::regprocedure))
    FROM pg_class c WHERE c.oid = relation
$$;

-- Takes capture off a table and its partitions.
CREATE OR REPLACE FUNCTION public.threadline_detach(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_trigger record;
BEGIN
    FOR v_trigger IN
        SELECT t.tgrelid::regclass AS relation, t.tgname FROM pg_trigger t
        WHERE t.tgrelid IN (SELECT relation UNION SELECT i.relid FROM pg_partition_tree(relation) i)
          AND NOT t.tgisinternal AND t.tgparentid = 0
          AND t.tgfoid IN ('public.threadline_capture()'::regprocedure, 'public.threadline_capture_row()'::regprocedure)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_trigger.relation);
    END LOOP;
END
$$;

-- Puts capture on a table, or puts it right again. Triggers fire in the order of their names: the exclamation
-- mark puts the capture before others that may write to the same row. With changed_from, an update also keeps prior values.
CREATE OR REPLACE FUNCTION public.threadline_attach(relation regclass, changed_from boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys      text[] := public.threadline_key_columns(relation);
    v_class     pg_class%ROWTYPE;
    v_arguments text;
    v_leaf      regclass;
BEGIN
    SELECT * INTO v_class FROM pg_class WHERE oid = relation;
    IF v_class.relkind NOT IN ('r', 'p') OR v_class.relpersistence = 't' THEN
        RAISE EXCEPTION '% cannot be audited: only ordinary and partitioned tables can', relation
            USING ERRCODE = 'wrong_object_type';
    END IF;
    IF relation IN ('public.audit_actions'::regclass, 'public.audit_transactions'::regclass,
                    'public.audit_changes'::regclass, 'public.audit_capture_code'::regclass) THEN
        RAISE EXCEPTION '% is part of the audit trail and cannot be audited', relation
            USING ERRCODE = 'wrong_object_type';
    END IF;
    IF v_keys IS NULL THEN
        RAISE EXCEPTION '% cannot be audited: it has no primary key, so its rows could not be told apart', relation
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Give it a primary key.';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgparentid <> 0
               AND t.tgfoid = 'public.threadline_capture_row()'::regprocedure) THEN
        RAISE NOTICE '% is captured already, through the table it is a partition of', relation;
        RETURN;
    END IF;
    PERFORM public.threadline_detach(relation);
    SELECT string_agg(quote_literal(a), ', ')
    INTO v_arguments
    FROM unnest(array_prepend(CASE WHEN changed_from THEN 'changed_from' ELSE '' END, v_keys)) a;
    IF public.threadline_is_row_wise(relation) THEN
        EXECUTE format('CREATE TRIGGER "!threadline_audit_row" AFTER INSERT OR UPDATE OR DELETE ON %s '
                       'FOR EACH ROW EXECUTE FUNCTION public.threadline_capture_row(%s)', relation, v_arguments);
    ELSE
        EXECUTE format('CREATE TRIGGER "!threadline_audit_insert" AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
        EXECUTE format('CREATE TRIGGER "!threadline_audit_update" AFTER UPDATE ON %s '
                       'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
        EXECUTE format('CREATE TRIGGER "!threadline_audit_delete" AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
    END IF;
    FOR v_leaf IN SELECT i.relid FROM pg_partition_tree(relation) i UNION SELECT relation LOOP
        EXECUTE format('CREATE TRIGGER "!threadline_audit_truncate" AFTER TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', v_leaf, v_arguments);
    END LOOP;
END
$$;

-- Returns why a table's changes are not all captured; NULL when they are. Asks the catalog by identity:
-- this relation, these functions with the body that was installed, enabled, unconditional, with this key.
CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys     text[] := public.threadline_key_columns(relation);
    v_row_wise boolean := public.threadline_is_row_wise(relation);
    v_function oid := CASE WHEN v_row_wise THEN 'public.threadline_capture_row()'::regprocedure
                           ELSE 'public.threadline_capture()'::regprocedure END;
    v_missing  text;
    v_off      text;
    v_twice    text;
    v_otherwise boolean;
    v_keys_off boolean;
BEGIN
    -- pg_trigger.tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate, 64 instead of
    WITH needed (position, operation, bit, function) AS (
        VALUES (1, 'INSERT', 4, v_function), (2, 'UPDATE', 16, v_function), (3, 'DELETE', 8, v_function),
               (4, 'TRUNCATE', 32, 'public.threadline_capture()'::regprocedure::oid)
    ), found AS (
        SELECT n.position, n.operation, t.tgname, t.tgenabled,
               array_remove(string_to_array(encode(t.tgargs, 'escape'), '\000'), NULL) AS arguments,
               (SELECT count(*) FROM pg_trigger every
                WHERE every.tgrelid = relation AND NOT every.tgisinternal AND every.tgtype & n.bit <> 0
                  AND every.tgfoid IN ('public.threadline_capture()'::regprocedure,
                                       'public.threadline_capture_row()'::regprocedure)) AS captures
        FROM needed n
        LEFT JOIN pg_trigger t ON t.tgrelid = relation AND NOT t.tgisinternal AND t.tgfoid = n.function
            AND t.tgtype & n.bit <> 0 AND t.tgtype & 66 = 0 AND t.tgqual IS NULL AND t.tgattr = ''::int2vector
    )
    SELECT string_agg(f.operation, ', ' ORDER BY f.position) FILTER (WHERE f.tgname IS NULL),
           string_agg(f.operation, ', ' ORDER BY f.position) FILTER (WHERE f.tgenabled NOT IN ('O', 'A')),
           string_agg(DISTINCT f.operation, ', ') FILTER (WHERE f.captures > 1),
           bool_or(f.tgname IS NULL AND f.captures > 0),
           bool_or(f.tgname IS NOT NULL AND f.operation <> 'TRUNCATE'
                   AND f.arguments[2:cardinality(v_keys) + 1] IS DISTINCT FROM
                       (SELECT array_agg(encode(convert_to(k.name, getdatabaseencoding()), 'escape') ORDER BY k.position)
                        FROM unnest(v_keys) WITH ORDINALITY AS k (name, position)))
    INTO v_missing, v_off, v_twice, v_otherwise, v_keys_off
    FROM found f;
    RETURN CASE
        WHEN v_otherwise AND v_row_wise THEN 'its rows must be captured one by one now: attach it again'
        WHEN v_missing IS NOT NULL THEN 'no capture trigger for ' || v_missing
        WHEN v_off IS NOT NULL THEN 'the capture trigger is disabled for ' || v_off
        WHEN v_twice IS NOT NULL THEN 'captured more than once for ' || v_twice
        WHEN v_keys IS NULL THEN 'it has no primary key'
        WHEN v_keys_off THEN 'its primary key changed since it was attached'
        WHEN EXISTS (SELECT function_name, body_md5 FROM public.audit_capture_code
                     EXCEPT SELECT function_name, body_md5 FROM public.threadline_capture_code())
            THEN 'the capture function is not the one that was installed'
        WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid IN ('public.audit_changes'::regclass, 'public.audit_transactions'::regclass)
                     AND (c.relrowsecurity OR c.relhasrules OR EXISTS (
                         SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                         AND t.tgfoid <> 'public.threadline_cascade()'::regprocedure)))
            THEN 'rules, triggers or policies on the audit tables decide what is kept'
    END;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_capture_problem(regclass) FROM PUBLIC;

-- Lists every table that could be audited, with what is wrong; the audit tables themselves are not listed.
CREATE OR REPLACE FUNCTION public.threadline_coverage(only_schema name DEFAULT NULL)
RETURNS TABLE (relation regclass, table_schema name, table_name name, covered boolean, problem text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass, n.nspname, c.relname, p.problem IS NULL, p.problem
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (SELECT public.threadline_capture_problem(c.oid) AS problem) p
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND (only_schema IS NULL OR n.nspname = only_schema)
      AND NOT (n.nspname = 'public' AND c.relname IN
               ('audit_actions', 'audit_transactions', 'audit_changes', 'audit_capture_code'))
    ORDER BY n.nspname, c.relname
$$;

REVOKE ALL ON FUNCTION public.threadline_coverage(name) FROM PUBLIC;

-- Records what the application meant to do, and links it to the running transaction's changes.
-- Without an actor argument the transaction's actor is used; without a setting the argument is the transaction's
-- actor, too. The first action of a transaction is the one it is linked to.
CREATE OR REPLACE FUNCTION public.threadline_record_action(
    name text, actor_ref jsonb DEFAULT NULL, status text DEFAULT 'ok', verb text DEFAULT NULL,
    category text DEFAULT NULL, reason text DEFAULT NULL, comment text DEFAULT NULL,
    correlation_id text DEFAULT NULL, request_id text DEFAULT NULL, job_id text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_setting jsonb := nullif(current_setting('threadline.actor_ref', true), '')::jsonb;
    v_actor   jsonb := coalesce($2, v_setting);
    v_action  uuid;
BEGIN
    IF v_actor IS NULL THEN
        RAISE EXCEPTION 'an action needs an actor, and neither the argument nor the setting gives one'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_actor := public.threadline_checked_actor(v_actor);
    v_setting := public.threadline_checked_actor(v_setting);
    INSERT INTO public.audit_actions
        (name, actor_ref, status, verb, category, reason, comment, correlation_id, request_id, job_id)
    VALUES ($1, v_actor, $3, $4, $5, $6, $7, $8, $9, $10)
    RETURNING id INTO v_action;
    INSERT INTO public.audit_transactions AS t (id, txid, occurred_at, actor_ref, action_id)
    VALUES (public.threadline_transaction_id(), txid_current(), clock_timestamp(), coalesce(v_setting, v_actor), v_action)
    ON CONFLICT (id) DO UPDATE SET action_id = coalesce(t.action_id, EXCLUDED.action_id);
    RETURN v_action;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_record_action(text, jsonb, text, text, text, text, text, text, text, text)
    FROM PUBLIC;

-- Lets an application role record actions, and read the trail if it may: that holds images of every audited
-- table, also of those the role cannot read. Writing is the capture's alone.
CREATE OR REPLACE FUNCTION public.threadline_grant(application regrole, reading boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF reading THEN
        EXECUTE format('GRANT SELECT ON public.audit_actions, public.audit_transactions, public.audit_changes TO %s',
                       application);
    END IF;
    EXECUTE format('GRANT EXECUTE ON FUNCTION public.threadline_record_action'
                   '(text, jsonb, text, text, text, text, text, text, text, text) TO %s', application);
END
$$;
