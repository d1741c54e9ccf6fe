-- The objects of the layer in this database, each with a text that differs when the object differs.
SELECT CASE c.relkind WHEN 'i' THEN 'index ' ELSE 'table ' END || c.relname,
       pg_catalog.concat_ws('|', c.relowner, c.relacl::text, (
           SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                                                             a.attnotnull), ',' ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0))
FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'i') AND c.relname LIKE 'audit\_%'
UNION ALL
SELECT 'function ' || p.oid::pg_catalog.regprocedure,
       pg_catalog.md5(pg_catalog.concat_ws('|', pg_catalog.pg_get_functiondef(p.oid), p.proacl::text, p.proowner))
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'public'::pg_catalog.regnamespace AND p.prokind = 'f' AND p.proname LIKE 'threadline\_%'
UNION ALL
SELECT 'trigger ' || t.tgname || ' on ' || c.relname, pg_catalog.pg_get_triggerdef(t.oid) || t.tgenabled::text
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname LIKE 'audit\_%' AND NOT t.tgisinternal
UNION ALL
SELECT 'constraint ' || k.conname || ' on ' || c.relname, pg_catalog.pg_get_constraintdef(k.oid)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname LIKE 'audit\_%'
