-- Rights of the application on the trail.

-- name: table
-- The table of a qualified name. to_regclass would fail in a schema that the role may not use.
SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE ARRAY[nspname, relname]::text[] = parse_ident(%s);

-- name: rights
-- The rights of a role on a table and its partitions. The role can have them itself, as a role that it can become, as
-- the owner of the schema, who may drop the table, or through views, also nested ones, that write with the rights of
-- their owner (https://www.postgresql.org/docs/current/rules-privileges.html). A right on a single column counts, too.
-- The first parameter is the right to become a role, as pg_has_role names it.
WITH RECURSIVE given (become, trail) AS (VALUES (%s, %s::oid)),
wanted (name, bit) AS (VALUES ('INSERT', 8), ('UPDATE', 4), ('DELETE', 16), ('TRUNCATE', 0), ('TRIGGER', 0)),
me AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user),
become AS (SELECT oid, rolname FROM pg_catalog.pg_roles, given WHERE pg_has_role(current_user, oid, given.become)),
trail AS (
    SELECT oid, relnamespace, '' AS part FROM pg_catalog.pg_class, given WHERE oid = given.trail
    UNION
    SELECT inhrelid, child.relnamespace, ' in its child table ' || inhrelid::regclass::text
    FROM trail JOIN pg_catalog.pg_inherits ON inhparent = trail.oid JOIN pg_catalog.pg_class AS child ON child.oid = inhrelid
),
own AS (
    SELECT wanted.name, part, become.oid, become.rolname FROM wanted, become, trail
    WHERE has_schema_privilege(become.oid, relnamespace, 'USAGE')
      AND CASE WHEN wanted.name IN ('INSERT', 'UPDATE') THEN has_any_column_privilege(become.oid, trail.oid, wanted.name)
               ELSE has_table_privilege(become.oid, trail.oid, wanted.name) END
),
way (name, relation, is_view) AS (
    SELECT name, trail.oid, false FROM wanted, trail WHERE bit > 0
    UNION
    SELECT way.name, view.oid, true
    FROM way JOIN wanted USING (name)
    JOIN pg_catalog.pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = way.relation
    JOIN pg_catalog.pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
    JOIN pg_catalog.pg_class AS view ON view.oid = ev_class AND view.relkind = 'v' AND view.oid <> way.relation
    WHERE pg_relation_is_updatable(view.oid, false) & wanted.bit > 0
      AND has_table_privilege(view.relowner, way.relation, way.name)
      AND NOT coalesce(view.reloptions && '{security_invoker=true,security_invoker=on,security_invoker=1,security_invoker=yes}', false)
)
SELECT name, part || CASE WHEN oid = (SELECT oid FROM me) THEN '' ELSE ' as role ' || quote_ident(rolname) END FROM own
WHERE oid = (SELECT oid FROM me) OR name NOT IN (SELECT name FROM own WHERE oid = (SELECT oid FROM me))
UNION ALL
SELECT 'DROP', part || ' as owner of the schema'
FROM given, trail JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_has_role(current_user, nspowner, 'USAGE') OR pg_has_role(current_user, nspowner, given.become)
UNION ALL
SELECT DISTINCT way.name, ' through the view ' || relation::regclass::text
FROM become, way JOIN pg_catalog.pg_class ON pg_class.oid = way.relation
WHERE is_view AND has_schema_privilege(become.oid, relnamespace, 'USAGE')
  AND CASE WHEN way.name = 'DELETE' THEN has_table_privilege(become.oid, relation, 'DELETE')
           ELSE has_any_column_privilege(become.oid, relation, way.name) END
ORDER BY 1, 2;
