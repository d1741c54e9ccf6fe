-- Revokes rights that default privileges may have granted on new tables and functions: only the capture may write.
DO $$
DECLARE
    v_right record;
BEGIN
    FOR v_right IN
        SELECT c.oid::regclass AS object, a.grantee::regrole AS grantee,
               pg_catalog.string_agg(DISTINCT a.privilege_type, ', ') AS rights
        FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE c.oid IN ('public.audit_actions'::regclass, 'public.audit_transactions'::regclass,
                        'public.audit_changes'::regclass, 'public.audit_capture_code'::regclass)
          AND a.grantee NOT IN (0, c.relowner)
          -- reading is given on purpose, but not before the table was there
          AND (a.privilege_type <> 'SELECT' OR pg_catalog.current_setting('threadline.is_new') = 'true')
        GROUP BY 1, 2
    LOOP
        EXECUTE pg_catalog.format('REVOKE %s ON %s FROM %s', v_right.rights, v_right.object, v_right.grantee);
    END LOOP;
    FOR v_right IN
        SELECT p.oid::regprocedure AS object, a.grantee::regrole AS grantee
        FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a
        WHERE p.pronamespace = 'public'::regnamespace AND a.grantee NOT IN (0, p.proowner)
          AND (p.proname LIKE 'threadline\_purge\_%' OR p.proname IN (
                   'threadline_capture', 'threadline_capture_row', 'threadline_cascade', 'threadline_keep_linked',
                   'threadline_capture_problem', 'threadline_coverage')
               OR p.proname = 'threadline_record_action' AND pg_catalog.current_setting('threadline.is_new') = 'true')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', v_right.object, v_right.grantee);
    END LOOP;
END
$$;
