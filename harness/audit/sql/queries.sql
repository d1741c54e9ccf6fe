-- How the harness speaks to the reference audit layer.

-- name: attach
SELECT public.threadline_attach(%s::text::regclass)

-- name: attach_with_changed_from
SELECT public.threadline_attach(%s::text::regclass, changed_from => true)

-- name: detach
SELECT public.threadline_detach(%s::text::regclass)

-- name: grant
SELECT public.threadline_grant(%s::text::regrole)

-- name: changes
SELECT c.id, c.transaction_id, t.txid, c.table_schema, c.table_name, c.table_pk, c.op, c.data_after,
       c.changed_fields, c.changed_from, t.actor_ref, t.action_id
FROM public.audit_changes c
LEFT JOIN public.audit_transactions t ON t.id = c.transaction_id
ORDER BY c.captured_at, c.id

-- name: count_transactions
SELECT count(*) FROM public.audit_transactions

-- name: coverage
SELECT table_schema, table_name, problem FROM public.threadline_coverage()

-- name: capture_functions
SELECT p.proname::text, pg_catalog.pg_get_functiondef(p.oid)
FROM pg_catalog.pg_proc p
WHERE p.oid IN ('public.threadline_capture()'::regprocedure, 'public.threadline_capture_row()'::regprocedure)
ORDER BY p.proname
