-- Statements that read the trail. harness/audit/reading.py combines the conditions, which name their parameters.

-- name: changes
SELECT c.id::text, c.transaction_id::text, c.table_schema, c.table_name, c.table_pk::text, c.op, c.data_after::text,
       c.changed_fields, c.changed_from::text, c.captured_at, t.occurred_at, t.actor_ref::text, t.source, a.id::text,
       a.correlation_id
FROM public.audit_changes c
LEFT JOIN public.audit_transactions t ON t.id = c.transaction_id
LEFT JOIN public.audit_actions a ON a.id = t.action_id

-- name: count
SELECT count(*)
FROM public.audit_changes c
LEFT JOIN public.audit_transactions t ON t.id = c.transaction_id
LEFT JOIN public.audit_actions a ON a.id = t.action_id

-- name: where_table_name
c.table_name = %(table_name)s

-- name: where_table_schema
c.table_schema = %(table_schema)s

-- name: where_actor
t.actor_ref @> %(actor)s::jsonb

-- name: where_captured_from
c.captured_at >= %(captured_from)s

-- name: where_captured_to
c.captured_at <= %(captured_to)s

-- name: where_correlation_id
a.correlation_id = %(correlation_id)s

-- name: where_transaction_id
c.transaction_id = %(transaction_id)s

-- name: where_key
(c.table_pk = %(key)s::jsonb
 OR (c.op = 'update' AND %(key)s::jsonb = (SELECT jsonb_object_agg(k, coalesce(c.changed_from -> k, c.table_pk -> k))
                                           FROM jsonb_object_keys(c.table_pk) k)))

-- name: where_unseen_by_snapshot
NOT pg_visible_in_snapshot(t.txid::text::xid8, %(snapshot)s::pg_snapshot)

-- name: where_before_in_order
(c.captured_at, c.id) < (%(at)s, %(id)s)

-- name: newest_first
ORDER BY c.captured_at DESC, c.id DESC

-- name: transactions_of_actor
SELECT t.id::text, t.occurred_at, t.actor_ref, t.source, t.meta, t.action_id::text
FROM public.audit_transactions t
WHERE t.actor_ref @> %(actor)s::jsonb
ORDER BY t.occurred_at DESC, t.id DESC
LIMIT %(limit)s

-- name: snapshot
-- A standby does not know the primary's open transactions: everything since the oldest one is read again.
SELECT CASE WHEN pg_is_in_recovery()
            THEN pg_snapshot_xmin(pg_current_snapshot()) || ':' || pg_snapshot_xmin(pg_current_snapshot()) || ':'
            ELSE pg_current_snapshot()::text END, clock_timestamp()

-- name: kept_before
SELECT r.name, count(*) FROM unnest(%(columns)s::text[]) AS r (name)
JOIN pg_catalog.pg_class t
  ON t.oid = coalesce(pg_catalog.pg_partition_root(%(table)s::text::regclass), %(table)s::text::regclass)
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
JOIN public.audit_changes c ON c.table_schema = n.nspname AND c.table_name = t.relname
WHERE nullif(c.data_after -> r.name, 'null') <> pg_catalog.to_jsonb(%(placeholder)s::text)
   OR nullif(c.changed_from -> r.name, 'null') <> pg_catalog.to_jsonb(%(placeholder)s::text)
GROUP BY r.name

-- name: definitions
SELECT 'trigger ' || pg_catalog.quote_ident(t.tgname) || ' on ' || t.tgrelid::pg_catalog.regclass,
       pg_catalog.pg_get_triggerdef(t.oid) || ', fires ' || t.tgenabled::text
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT 'function ' || p.oid::pg_catalog.regprocedure, pg_catalog.md5(pg_catalog.pg_get_functiondef(p.oid))
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.prokind = 'f'
  AND (p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype OR p.proname LIKE 'threadline\_%%')
UNION ALL
SELECT 'key of ' || i.indrelid::pg_catalog.regclass, pg_catalog.pg_get_constraintdef(k.oid)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'p' AND k.conrelid = i.indrelid
WHERE EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = i.indrelid AND NOT t.tgisinternal)
ORDER BY 1
