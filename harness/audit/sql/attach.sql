-- Attach capture to a table, and detach it.

-- Returns a trigger's arguments (pg_trigger.tgargs: each ends with a zero byte).
CREATE OR REPLACE FUNCTION public.threadline_decoded(arguments bytea) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(convert_from(decode(replace(a.hex, ' ', ''), 'hex'), getdatabaseencoding()) ORDER BY a.position)
    FROM string_to_array(regexp_replace(encode(arguments, 'hex'), '(..)', '\1 ', 'g'), '00 ') AS s (parts)
    CROSS JOIN LATERAL unnest(s.parts) WITH ORDINALITY AS a (hex, position)
    WHERE a.position < cardinality(s.parts)
$$;

-- Returns the arguments of a table's capture triggers: options, then key columns. NULL without capture triggers, or
-- when their arguments differ.
CREATE OR REPLACE FUNCTION public.threadline_trigger_arguments(relation regclass) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(DISTINCT t.tgargs) = 1 THEN public.threadline_decoded(decode(min(encode(t.tgargs, 'hex')), 'hex')) END
    FROM pg_trigger t
    WHERE t.tgrelid = relation AND NOT t.tgisinternal
      AND t.tgfoid IN ('public.threadline_capture()'::regprocedure, 'public.threadline_capture_row()'::regprocedure)
$$;

-- Returns the redaction rules of a table: {"exclude": […], "mask": […], "except": […], "placeholder": "…",
-- "changed_from": true or false}; NULL without rules.
CREATE OR REPLACE FUNCTION public.threadline_rules(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (public.threadline_decoded(t.tgargs))[1]::jsonb
    FROM pg_trigger t
    WHERE t.tgrelid = relation AND NOT t.tgisinternal AND substr(t.tgargs, 1, 1) = '\x7b'
      AND t.tgfoid IN ('public.threadline_capture()'::regprocedure, 'public.threadline_capture_row()'::regprocedure)
    ORDER BY t.tgtype & 32, t.tgname
    LIMIT 1
$$;

-- Returns whether a table's rows must be captured row by row for reasons other than redaction.
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

-- Returns the problem with redaction rules for a table; NULL for valid rules.
CREATE OR REPLACE FUNCTION public.threadline_rules_problem(relation regclass, rules jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH rule AS (
        SELECT k.kind, c.name FROM (VALUES ('exclude'), ('mask'), ('except')) AS k (kind)
        CROSS JOIN LATERAL jsonb_array_elements_text(rules -> k.kind) AS c (name)
    ), hidden AS (
        SELECT name FROM rule WHERE kind IN ('exclude', 'mask')
    ), existing AS (
        SELECT a.attnum, a.attname::text AS name, a.attgenerated FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
    ), problem AS (
        SELECT 1 AS rank, 'both exclude and mask name ' || string_agg(quote_ident(name), ', ' ORDER BY name) AS text
        FROM (SELECT name FROM rule WHERE kind = 'exclude' INTERSECT SELECT name FROM rule WHERE kind = 'mask') b
        UNION ALL
        SELECT 2, 'there is no column ' || string_agg(DISTINCT quote_ident(name), ', ')
        FROM rule WHERE name NOT IN (SELECT name FROM existing)
        UNION ALL
        SELECT 3, 'the primary key cannot be redacted: ' || string_agg(quote_ident(name), ', ' ORDER BY name)
        FROM hidden WHERE name = ANY (public.threadline_key_columns(relation))
        UNION ALL
        -- pg_depend knows what a generated column reads; before PostgreSQL 15 by the column, since then by its expression
        SELECT 4, string_agg(DISTINCT format('column %I is computed from %I, and would keep what that hides', g.name, e.name), '; ')
        FROM hidden h
        JOIN existing e ON e.name = h.name
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.refobjsubid = e.attnum
        LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
        JOIN existing g ON g.attgenerated <> '' AND g.attnum = coalesce(
            f.adnum, CASE WHEN d.classid = 'pg_class'::regclass AND d.objid = relation THEN d.objsubid END)
        WHERE g.name NOT IN (SELECT name FROM hidden)
        UNION ALL
        SELECT 5, CASE WHEN rules ->> 'placeholder' = '' THEN 'the placeholder is empty'
                       WHEN length(rules ->> 'placeholder') > 200 THEN 'the placeholder has more than 200 characters'
                       WHEN rules ->> 'placeholder' ~ '[\x01-\x1f]' THEN 'the placeholder has control characters' END
    )
    SELECT p.text FROM problem p WHERE p.text IS NOT NULL ORDER BY p.rank LIMIT 1
$$;

-- Detaches capture from a table and its partitions.
CREATE OR REPLACE FUNCTION public.threadline_detach(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN SELECT * FROM public.threadline_detach_plan(relation) LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION public.threadline_detach_plan(relation regclass) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
    WHERE t.tgrelid IN (SELECT relation UNION SELECT i.relid FROM pg_partition_tree(relation) i)
      AND NOT t.tgisinternal AND t.tgparentid = 0
      AND t.tgfoid IN ('public.threadline_capture()'::regprocedure, 'public.threadline_capture_row()'::regprocedure)
    ORDER BY t.tgrelid, t.tgname
$$;

-- Returns the statements that threadline_attach would run; none when the table is already attached like that.
CREATE OR REPLACE FUNCTION public.threadline_attach_plan(
    relation regclass, changed_from boolean DEFAULT false, exclude text[] DEFAULT NULL, mask text[] DEFAULT NULL,
    except_columns text[] DEFAULT NULL, placeholder text DEFAULT '[REDACTED]'
) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys      text[] := public.threadline_key_columns(relation);
    v_class     pg_class%ROWTYPE;
    v_rules     jsonb;
    v_problem   text;
    v_given     text[];
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
    changed_from := coalesce(changed_from, false);
    IF exclude IS NULL AND mask IS NULL AND except_columns IS NULL THEN  -- to be put right again, not to be laid bare
        v_rules := public.threadline_rules(relation) || jsonb_build_object('changed_from', changed_from);
    ELSE
        v_rules := jsonb_build_object('changed_from', changed_from, 'exclude', to_jsonb(coalesce(exclude, '{}')),
                                      'mask', to_jsonb(coalesce(mask, '{}')), 'except', to_jsonb(coalesce(except_columns, '{}')),
                                      'placeholder', coalesce(placeholder, '[REDACTED]'));
        IF array_position(exclude || mask || except_columns, NULL) IS NOT NULL THEN
            RAISE EXCEPTION '% cannot be redacted like that: a column name is NULL', relation
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF cardinality(exclude || mask || except_columns) = 0 THEN
            v_rules := NULL;
        END IF;
    END IF;
    IF v_rules IS NOT NULL THEN
        SELECT p.problem INTO v_problem
        FROM (SELECT relation AS relid UNION SELECT i.relid FROM pg_partition_tree(relation) i) r
        CROSS JOIN LATERAL (SELECT public.threadline_rules_problem(r.relid, v_rules) AS problem) p
        WHERE p.problem IS NOT NULL LIMIT 1;
        IF v_problem IS NOT NULL THEN
            RAISE EXCEPTION '% cannot be redacted like that: %', relation, v_problem
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        FOR v_leaf IN
            SELECT DISTINCT t.tgrelid FROM pg_inherits i JOIN pg_trigger t ON t.tgrelid = i.inhparent
            WHERE i.inhrelid = relation AND t.tgtype & 28 <> 0 AND t.tgfoid = 'public.threadline_capture()'::regprocedure
        LOOP
            RAISE EXCEPTION '% cannot be redacted: a statement on its parent % would capture its rows as they are', relation, v_leaf
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Attach the parent again first.';
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgparentid <> 0
               AND t.tgfoid = 'public.threadline_capture_row()'::regprocedure) THEN
        RAISE NOTICE '% is captured through the table it is a partition of: %', relation, pg_partition_root(relation)::regclass
            USING HINT = 'Attach that one again if coverage finds something wrong here.';
        RETURN;
    END IF;
    v_given := array_prepend(CASE WHEN v_rules IS NOT NULL THEN v_rules::text WHEN changed_from THEN 'changed_from' ELSE '' END, v_keys);
    IF NOT EXISTS (
        SELECT FROM (SELECT relation AS relid UNION SELECT i.relid FROM pg_partition_tree(relation) i) r
        WHERE v_given IS DISTINCT FROM public.threadline_trigger_arguments(r.relid)
           OR public.threadline_capture_problem(r.relid) IS NOT NULL
    ) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM public.threadline_detach_plan(relation);
    SELECT string_agg(quote_literal(a), ', ' ORDER BY position) INTO v_arguments
    FROM unnest(v_given) WITH ORDINALITY AS g (a, position);
    -- Triggers fire in the order of their names: the exclamation mark puts the capture before others that may
    -- write to the same row.
    IF v_rules IS NOT NULL OR public.threadline_is_row_wise(relation) THEN
        RETURN NEXT format('CREATE TRIGGER "!threadline_audit_row" AFTER INSERT OR UPDATE OR DELETE ON %s '
                           'FOR EACH ROW EXECUTE FUNCTION public.threadline_capture_row(%s)', relation, v_arguments);
    ELSE
        RETURN NEXT format('CREATE TRIGGER "!threadline_audit_insert" AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
                           'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
        RETURN NEXT format('CREATE TRIGGER "!threadline_audit_update" AFTER UPDATE ON %s '
                           'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
                           'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
        RETURN NEXT format('CREATE TRIGGER "!threadline_audit_delete" AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
                           'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', relation, v_arguments);
    END IF;
    FOR v_leaf IN SELECT i.relid FROM pg_partition_tree(relation) i UNION SELECT relation LOOP
        RETURN NEXT format('CREATE TRIGGER "!threadline_audit_truncate" AFTER TRUNCATE ON %s '
                           'FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture(%s)', v_leaf, v_arguments);
    END LOOP;
END
$$;

-- Attaches capture to a table, or repairs it, and returns the number of statements that it ran. With changed_from, an
-- update also keeps prior values. Excluded columns are never kept. Masked columns are kept as the placeholder, which
-- replaces a JSON value completely. The except_columns are kept in the row image but never named as changed. Without
-- any of the three, the rules of an earlier call stay; empty arrays remove them.
CREATE OR REPLACE FUNCTION public.threadline_attach(
    relation regclass, changed_from boolean DEFAULT false, exclude text[] DEFAULT NULL, mask text[] DEFAULT NULL,
    except_columns text[] DEFAULT NULL, placeholder text DEFAULT '[REDACTED]'
) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_statement text;
    v_count     integer := 0;
BEGIN
    FOR v_statement IN
        SELECT * FROM public.threadline_attach_plan(relation, changed_from, exclude, mask, except_columns, placeholder)
    LOOP
        EXECUTE v_statement;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END
$$;
