-- Capture: the identity of a transaction, the validation of an actor, the key of a row, and the two trigger functions.

-- Returns the identity of the running transaction as a UUID of version 8 (RFC 9562): its start time in microseconds,
-- then its 64-bit id. It is the same in all statements and savepoints of the transaction and needs no table lookup. It
-- never equals that of a transaction from another cluster, whatever was dumped and restored.
-- It is a single expression, so that the planner inlines it. It works on bytes, because text functions process each
-- character. The byte 0x80 after the first six holds the version; the high bit of the transaction's id is the variant.
CREATE OR REPLACE FUNCTION public.threadline_transaction_id() RETURNS uuid
LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.encode(pg_catalog.overlay(
               pg_catalog.substr(pg_catalog.timestamptz_send(pg_catalog.now()), 2)
                   || pg_catalog.int8send(pg_catalog.txid_current() | (1::bigint << 63)),
               pg_catalog.decode('80', 'hex'), 7, 0), 'hex')::uuid
$$;

-- Returns the problem with an actor; NULL for a valid actor. All of the six types but anonymous need an id.
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

-- Returns the primary key columns of a table, in the key's order; NULL without a primary key.
CREATE OR REPLACE FUNCTION public.threadline_key_columns(relation regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(a.attname::text ORDER BY k.position)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts
$$;

-- Returns the key of one row image: {"column": value, …} with JSON values, so that a number stays a number.
-- `arguments` are the trigger's. This is the general form, for composite keys, and for a key whose column was renamed
-- after the table was attached.
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

-- Returns an actor in its stored form: an anonymous actor has no id. An invalid actor raises an error, so that the
-- application's write fails instead of being attributed to nobody.
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

-- Fails the write if a value of the table would become JSON by somebody else's function: to_jsonb runs a type's own cast
-- to json, here with the rights of the trail's owner. A superuser's casts are trusted, such as those of extensions, and only
-- a superuser can make a cast of a built-in type: a table without other types needs no look.
CREATE OR REPLACE FUNCTION public.threadline_require_trusted_casts(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_cast text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_cast WHERE casttarget = 'json'::regtype AND castfunc >= 16384) THEN
        RETURN;
    END IF;
    WITH RECURSIVE part (type) AS (
        SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        UNION
        SELECT within.type
        FROM part p JOIN pg_type t ON t.oid = p.type
        CROSS JOIN LATERAL (
            SELECT t.typelem UNION ALL SELECT t.typbasetype
            UNION ALL SELECT a.atttypid FROM pg_attribute a
                      WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
        ) AS within (type)
        WHERE within.type <> 0
    )
    SELECT format('%s, by the function %s of the role %I', c.castsource::regtype, c.castfunc::regprocedure, r.rolname)
    INTO v_cast
    FROM part JOIN pg_cast c ON c.castsource = part.type AND c.casttarget = 'json'::regtype
    JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_roles r ON r.oid = f.proowner
    WHERE NOT r.rolsuper AND r.rolname <> current_user LIMIT 1;
    IF v_cast IS NOT NULL THEN
        RAISE EXCEPTION 'a row of % cannot be captured: a cast to json of its type %', relation, v_cast
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Drop the cast, or let the owner of the trail own the function.';
    END IF;
END
$$;

-- Captures all rows of a statement at once, from its transition tables. Fires after each statement.
-- TG_ARGV: 'changed_from' or '', then the key columns. (For threadline_capture_row also the redaction rules, as JSON.)
--
-- SECURITY DEFINER: the application needs no right on the audit tables, so it has none to abuse.
-- All names are qualified, so that neither a search_path nor a temporary table of the same name can divert a write.
-- The other settings replace the client's: with extra_float_digits below 1 a float loses digits, in another time zone a
-- time would be another key, and a negative interval or a range of dates has texts that another session reads as other
-- values.
--
-- PL/pgSQL prepares every expression again in every transaction. For one row, preparing costs about as much as
-- evaluating, so fewer expressions with fewer operators are faster here, even where an operator does more work.
CREATE OR REPLACE FUNCTION public.threadline_capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY'
SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
    v_transaction uuid := public.threadline_transaction_id();
    v_key         text := CASE WHEN TG_NARGS = 2 THEN TG_ARGV[1] END;  -- the key, when it is one column
    v_actor       jsonb;
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0 AND atttypid >= 16384) THEN
        PERFORM public.threadline_require_trusted_casts(TG_RELID);
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
        IF v_actor IS NOT NULL AND (v_actor @? 'strict $ ? (@.id > "!" && (@.type == "user" || @.type == "admin"
                || @.type == "service_account" || @.type == "job" || @.type == "system"))') IS NOT TRUE THEN
            v_actor := public.threadline_checked_actor(v_actor);  -- the rare and the wrong ones
        END IF;
        INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref)
        VALUES (v_transaction, txid_current(), clock_timestamp(), v_actor)
        ON CONFLICT (id) DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

-- Returns the redacted row image: without excluded columns, and with the placeholder in masked columns of any type.
-- A rule for a column that the row does not have fails the write: the column was renamed, and its value would be kept.
-- So does a generated column that repeats a redacted one and was added later.
CREATE OR REPLACE FUNCTION public.threadline_redacted(relation regclass, image jsonb, rules jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT image ?& ARRAY(SELECT jsonb_array_elements_text((rules -> 'exclude') || (rules -> 'mask') || (rules -> 'except'))) THEN
        RAISE EXCEPTION 'a row of % cannot be redacted: a column that a redaction rule names is gone', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'If the column was renamed or dropped, run threadline_attach again with rules for the columns there are now.';
    END IF;
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attgenerated <> '' AND NOT attisdropped)
        AND public.threadline_rules_problem(relation, rules) IS NOT NULL
    THEN
        RAISE EXCEPTION 'a row of % cannot be redacted: %', relation, public.threadline_rules_problem(relation, rules)
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run threadline_attach again with rules for it.';
    END IF;
    RETURN image - ARRAY(SELECT jsonb_array_elements_text(rules -> 'exclude'))
        || coalesce((SELECT jsonb_object_agg(m, rules -> 'placeholder') FROM jsonb_array_elements_text(rules -> 'mask') m), '{}');
END
$$;

-- Captures row by row. Partitioned tables and inheritance need this: statement triggers fire only on the table that the
-- statement names, while row triggers fire on the table that holds the row. Tables with other AFTER triggers need it:
-- otherwise a trigger's write to the same row would be captured before the statement that fired the trigger. Tables
-- with redaction rules use it, so that a single function decides what is kept. Rows of a partition are recorded under
-- the name of the root table.
CREATE OR REPLACE FUNCTION public.threadline_capture_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY'
SET IntervalStyle = 'postgres' SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
    v_transaction uuid := public.threadline_transaction_id();
    v_rules       jsonb := CASE WHEN TG_ARGV[0] LIKE '{%' THEN TG_ARGV[0]::jsonb END;
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
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0 AND atttypid >= 16384) THEN
        PERFORM public.threadline_require_trusted_casts(TG_RELID);
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
        FROM jsonb_each(v_after) f
        WHERE f.value::text IS DISTINCT FROM (v_before -> f.key)::text
          AND (v_rules IS NULL OR NOT ((v_rules -> 'exclude') || (v_rules -> 'except')) ? f.key);
        IF TG_ARGV[0] = 'changed_from' OR (v_rules -> 'changed_from') = 'true' THEN
            IF v_rules IS NOT NULL THEN  -- the raw values have been compared; from here on nothing is raw
                SELECT jsonb_object_agg(f.key, CASE WHEN v_rules -> 'mask' ? f.key THEN v_rules -> 'placeholder' ELSE f.value END)
                INTO v_from FROM jsonb_each(v_from) f;
                IF v_old_key <> v_key THEN
                    v_from := coalesce(v_from, '{}') || v_old_key;
                END IF;
            END IF;
        ELSE
            v_from := CASE WHEN v_old_key <> v_key THEN v_old_key END;
        END IF;
    END IF;
    IF v_rules IS NOT NULL THEN
        IF (v_rules -> 'exclude') || (v_rules -> 'mask') ?| ARRAY(SELECT jsonb_object_keys(v_key)) THEN
            RAISE EXCEPTION 'a row of % cannot be redacted: a column that is to be hidden is its key now', TG_RELID::regclass
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Run threadline_attach again with rules that leave the primary key out.';
        END IF;
        IF v_after IS NULL THEN
            PERFORM public.threadline_redacted(TG_RELID, v_before, v_rules);
        ELSE
            v_after := public.threadline_redacted(TG_RELID, v_after, v_rules);
        END IF;
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
    RETURN NULL;
END
$$;

-- Only the installer may create triggers with these functions: a trigger on a role's own table could forge audit rows.
REVOKE ALL ON FUNCTION public.threadline_capture(), public.threadline_capture_row() FROM PUBLIC;

-- Returns a digest of everything that decides how the trail captures: bodies, rights and settings of its functions.
CREATE OR REPLACE FUNCTION public.threadline_capture_code() RETURNS TABLE (function_name text, body_md5 text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.proname::text, md5(concat_ws('|', p.prosrc, p.prosecdef, p.proconfig, p.proowner = c.relowner))
    FROM pg_proc p
    JOIN pg_class c ON c.oid = 'public.audit_changes'::regclass
    WHERE p.pronamespace = 'public'::regnamespace
      AND p.proname IN ('threadline_capture', 'threadline_capture_row', 'threadline_transaction_id', 'threadline_row_key',
                        'threadline_key_columns', 'threadline_checked_actor', 'threadline_actor_problem', 'threadline_redacted',
                        'threadline_require_trusted_casts')
$$;
INSERT INTO public.audit_capture_code (function_name, body_md5)
SELECT function_name, body_md5 FROM public.threadline_capture_code()
ON CONFLICT (function_name) DO UPDATE SET body_md5 = EXCLUDED.body_md5;
