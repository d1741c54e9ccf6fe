-- name: server_state
-- What a command may change of a server outside of its databases. One row for each thing: its name, the statements that
-- make it what it is now, and those that remove it. Roles that commands created are removed before.
WITH harness_role AS (
    SELECT * FROM pg_authid WHERE starts_with(rolname, 'harness_')
)
SELECT format('role %I', rolname), ARRAY[format('ALTER ROLE %I WITH %s CONNECTION LIMIT %s PASSWORD %s VALID UNTIL %L', rolname, concat_ws(
        ' ',
        CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
        CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
        CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
        CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END
    ), rolconnlimit, coalesce(quote_literal(rolpassword), 'NULL'), coalesce(rolvaliduntil::text, 'infinity'))], '{}'::text[]
FROM harness_role

UNION ALL
SELECT format('membership of %I in %I, granted by %I', member.rolname, granted.rolname, grantor.rolname),
    ARRAY[format('GRANT %I TO %I%s', granted.rolname, member.rolname, CASE WHEN admin_option THEN ' WITH ADMIN OPTION' ELSE '' END)],
    ARRAY[format('REVOKE %I FROM %I GRANTED BY %I CASCADE', granted.rolname, member.rolname, grantor.rolname)]
FROM pg_auth_members
JOIN harness_role AS member ON member.oid = pg_auth_members.member
JOIN pg_authid AS granted ON granted.oid = roleid
JOIN pg_authid AS grantor ON grantor.oid = pg_auth_members.grantor

UNION ALL
-- settings of one database belong to the check whose database it is, unless they are of a login of commands
SELECT format('settings of %s', scope), ARRAY(
        SELECT statement
        FROM unnest(setconfig) WITH ORDINALITY AS entry (pair, number)
        CROSS JOIN LATERAL (SELECT quote_ident(split_part(pair, '=', 1)), substr(pair, strpos(pair, '=') + 1)) AS of_pair (name, value)
        CROSS JOIN LATERAL (VALUES
            (1, format('SELECT set_config(%L, %L, false)', split_part(pair, '=', 1), value)),
            (2, format('ALTER %s SET %s FROM CURRENT', scope, name)),
            (3, format('RESET %s', name))
        ) AS step (part, statement)
        ORDER BY number, part
    ), ARRAY[format('ALTER %s RESET ALL', scope)]
FROM pg_db_role_setting
LEFT JOIN pg_authid ON pg_authid.oid = setrole
LEFT JOIN pg_database ON pg_database.oid = setdatabase
CROSS JOIN LATERAL (SELECT CASE
    WHEN setrole = 0 AND setdatabase <> 0 THEN format('DATABASE %I', datname)
    ELSE 'ROLE ' || coalesce(quote_ident(rolname), 'ALL') || coalesce(' IN DATABASE ' || quote_ident(datname), '')
END) AS known (scope)
WHERE (setdatabase = 0 AND (setrole = 0 OR starts_with(rolname, 'harness_')))
OR starts_with(rolname, 'harness_command_')
OR (setrole = 0 AND datname IN ('postgres', 'template1'))

UNION ALL
-- the harness itself lets a server log logins
SELECT format('ALTER SYSTEM SET %s', name), ARRAY[format('ALTER SYSTEM SET %s = %L', name, setting)], ARRAY[format('ALTER SYSTEM RESET %s', name)]
FROM pg_file_settings
WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name <> 'log_connections'
