-- The statements that give one service a role and a database of its own: $1 is the name of both, $2 the password.
-- They come one a row, in order, for the caller to run one by one: CREATE DATABASE allows no transaction around it.
-- Running them again changes nothing but the password.
--
-- Nobody but its own role may connect to a service's database. Extensions are left to the migrations of the service.
WITH service AS (SELECT $1::text AS name, $2::text AS password)
SELECT statement
FROM service, LATERAL (
    VALUES
        (1, CASE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
            THEN format('CREATE ROLE %I LOGIN', name) END),
        (2, format('ALTER ROLE %I WITH LOGIN PASSWORD %L', name, password)),
        -- An administrator who is no superuser may give a database to a role only as its member.
        (3, CASE WHEN NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
            THEN format('GRANT %I TO CURRENT_USER', name) END),
        -- Plans frozen while tables are still empty are bad ones for ever after.
        (4, format('ALTER ROLE %I SET plan_cache_mode = %L', name, 'force_custom_plan')),
        -- Rows lie in memory or on a disk without a head: they are looked up by key, however small the table.
        (5, format('ALTER ROLE %I SET random_page_cost = %L', name, '1.1')),
        (6, format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', name, '60s')),
        (7, format('ALTER ROLE %I SET lock_timeout = %L', name, '10s')),
        (8, format('ALTER ROLE %I SET statement_timeout = %L', name, '60s')),
        (9, CASE WHEN NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
            THEN format('CREATE DATABASE %I OWNER %I', name, name) END),
        (10, format('REVOKE ALL ON DATABASE %I FROM PUBLIC', name)),
        (11, format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', name, name))
) AS step (place, statement)
WHERE statement IS NOT NULL
ORDER BY place
