-- The effects of jobs, written past the pooler: what happened, whatever the engine believes. Its clock is the server's.
CREATE TABLE effects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    key integer NOT NULL,
    -- enqueued, begin, done, failed; waiting for a job that waits for an approval
    phase text NOT NULL,
    worker text NOT NULL DEFAULT '',
    pid integer,
    attempt integer,
    -- the engine's own id of the job
    job text NOT NULL DEFAULT '',
    -- what the job was given, as it arrived
    payload jsonb
);
CREATE INDEX ON effects (key);

-- What each job does; a key without a row does nothing, and succeeds.
CREATE TABLE plan (
    key integer PRIMARY KEY,
    seconds double precision NOT NULL DEFAULT 0,
    -- its first attempts fail, so many
    failures integer NOT NULL DEFAULT 0,
    -- whether it renews its lease while it runs
    heartbeat boolean NOT NULL DEFAULT false,
    -- run through the chain, in one transaction: %ACTOR%, %CORRELATION%, %JOB% and %KEY% come from the job
    sql text NOT NULL DEFAULT ''
);

-- A job begins. Returns what it does, and whether this attempt fails after it.
CREATE FUNCTION job_begin(
    key integer, worker text DEFAULT '', pid integer DEFAULT NULL, attempt integer DEFAULT NULL, job text DEFAULT '',
    payload jsonb DEFAULT NULL
) RETURNS TABLE (seconds double precision, fails boolean, heartbeat boolean, sql text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
    earlier integer := (SELECT count(*) FROM effects e WHERE e.key = job_begin.key AND e.phase = 'begin');
BEGIN
    INSERT INTO effects (key, phase, worker, pid, attempt, job, payload)
    VALUES (job_begin.key, 'begin', worker, pid, coalesce(attempt, earlier + 1), job, payload);
    RETURN QUERY
    SELECT coalesce(p.seconds, 0), earlier < coalesce(p.failures, 0), coalesce(p.heartbeat, false),
        replace(replace(replace(replace(coalesce(p.sql, ''),
            '%ACTOR%', replace(coalesce(payload ->> 'actor', ''), '''', '''''')),
            '%CORRELATION%', replace(coalesce(payload ->> 'correlation', ''), '''', '''''')),
            '%JOB%', replace(job, '''', '''''')),
            '%KEY%', job_begin.key::text)
    FROM (SELECT 1) AS one LEFT JOIN plan p ON p.key = job_begin.key;
END $body$;

-- Something else happened: done, failed, waiting, enqueued.
CREATE FUNCTION job_phase(
    key integer, phase text, worker text DEFAULT '', pid integer DEFAULT NULL, attempt integer DEFAULT NULL,
    job text DEFAULT ''
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
    INSERT INTO effects (key, phase, worker, pid, attempt, job) VALUES (key, phase, worker, pid, attempt, job)
$body$;
