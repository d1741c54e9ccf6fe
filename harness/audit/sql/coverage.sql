-- Coverage: the captured tables, and the problems of the others.

-- Returns the reason why not all changes of a table are captured; NULL when they are. It compares identities in the
-- catalog, not names: this relation, and the installed functions, enabled, unconditional, with this key.
CREATE OR REPLACE FUNCTION public.threadline_capture_problem(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys     text[] := public.threadline_key_columns(relation);
    v_rules    jsonb := public.threadline_rules(relation);
    v_row_wise boolean := v_rules IS NOT NULL OR public.threadline_is_row_wise(relation);
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
               public.threadline_decoded(t.tgargs) AS arguments,
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
                   AND f.arguments[2:] IS DISTINCT FROM v_keys)
    INTO v_missing, v_off, v_twice, v_otherwise, v_keys_off
    FROM found f;
    RETURN CASE
        WHEN v_otherwise AND v_row_wise THEN 'its rows must be captured one by one now: attach it again'
        WHEN v_missing IS NOT NULL THEN 'no capture trigger for ' || v_missing
        WHEN v_off IS NOT NULL THEN 'the capture trigger is disabled for ' || v_off
        WHEN v_twice IS NOT NULL THEN 'captured more than once for ' || v_twice
        WHEN v_keys IS NULL THEN 'it has no primary key'
        WHEN v_keys_off THEN 'its primary key changed since it was attached'
        WHEN public.threadline_trigger_arguments(relation) IS NULL THEN 'its capture triggers differ in their options: attach it again'
        WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgtype & 67 = 1
                     AND t.tgname < '!threadline_audit_row' COLLATE "C"
                     AND t.tgfoid <> 'public.threadline_capture_row()'::regprocedure)
            THEN 'a trigger whose name sorts before the capture''s fires before it: rename it'
        WHEN v_rules IS NOT NULL AND public.threadline_rules_problem(relation, v_rules) IS NOT NULL
            THEN 'its redaction is not whole: ' || public.threadline_rules_problem(relation, v_rules)
        WHEN EXISTS (SELECT function_name, body_md5 FROM public.audit_capture_code
                     EXCEPT SELECT function_name, body_md5 FROM public.threadline_capture_code())
            THEN 'the capture function is not the one that was installed'
        WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid IN ('public.audit_changes'::regclass, 'public.audit_transactions'::regclass)
                     AND (c.relrowsecurity OR c.relhasrules OR EXISTS (
                         SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                         AND t.tgfoid <> 'public.threadline_cascade()'::regprocedure)))
            THEN 'rules, triggers or policies on the audit tables decide what is kept'
        WHEN EXISTS (SELECT FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
                     WHERE c.oid IN ('public.audit_changes'::regclass, 'public.audit_transactions'::regclass)
                     AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT')
            THEN 'others than the owner may write to the audit tables'
    END;
END
$$;
REVOKE ALL ON FUNCTION public.threadline_capture_problem(regclass) FROM PUBLIC;

-- Lists every table that could be audited, with its problem. The audit tables themselves are not listed.
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
