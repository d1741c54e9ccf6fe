#!/bin/sh
# A job engine in plain SQL: one table, SKIP LOCKED, and a lease. psql finds the pooler by PGHOST, PGPORT and the like.
set -eu

sql() { psql --no-psqlrc --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 --set VERBOSITY=verbose "$@"; }
effect() { sql --dbname "$EFFECTS_URL" "$@"; }

install() {
    sql <<'SQL'
CREATE TABLE IF NOT EXISTS jobs (key integer PRIMARY KEY, payload jsonb NOT NULL, state text NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0, due timestamptz NOT NULL DEFAULT now());
SQL
}

enqueue() { # FIRST LAST
    sql --set first="$1" --set last="$2" --set payload="$PAYLOAD" <<'SQL'
INSERT INTO jobs (key, payload) SELECT key, :'payload' FROM generate_series(:first, :last) key ON CONFLICT DO NOTHING;
SQL
    effect --command "SELECT job_phase(key, 'enqueued') FROM generate_series($1, $2) key" > /dev/null
}

cancel() { # KEY
    sql --command "UPDATE jobs SET state = 'cancelled' WHERE key = $1 AND state = 'waiting'"
}

# a job that runs is due again when its lease ends
claim() {
    sql --command "UPDATE jobs SET state = 'running', attempt = attempt + 1, due = now() + $LEASE_S * interval '1 s'
        WHERE key = (SELECT key FROM jobs WHERE state IN ('waiting', 'running') AND due <= now()
            ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING key, attempt, payload"
}

# only the attempt that holds the job may end it
finish() { # KEY ATTEMPT STATE
    sql --command "UPDATE jobs SET state = '$3', due = now() + interval '1 s'
        WHERE key = $1 AND attempt = $2 AND state = 'running'"
}

perform() { # KEY ATTEMPT PAYLOAD
    plan=$(effect --set key="$1" --set attempt="$2" --set payload="$3" --set worker="$WORKER" <<'SQL'
SELECT * FROM job_begin(:key, :'worker', NULL, :attempt, :'key', :'payload');
SQL
    )
    IFS='|' read -r seconds fails _ statements <<END
$plan
END
    if [ -n "$statements" ]; then sql --command "$statements" > /dev/null; fi
    sleep "$seconds"
    if [ "$fails" = f ]; then phase=done state=done
    elif [ "$2" -ge "$ATTEMPTS" ]; then phase=failed state=failed
    else phase=failed state=waiting
    fi
    effect --command "SELECT job_phase($1, '$phase', '$WORKER', NULL, $2, '$1')" > /dev/null
    finish "$1" "$2" "$state"
}

work() {
    while :; do
        claimed=$(claim)
        case $claimed in
            '') sleep "$POLL_S" ;;
            *) IFS='|' read -r key attempt payload <<END
$claimed
END
                perform "$key" "$attempt" "$payload" ;;
        esac
    done
}

in_transaction() { # KEY NEW
    for step in "$1 ROLLBACK" "$2 COMMIT"; do
        sql --set key="${step% *}" --set payload="$PAYLOAD" <<SQL
BEGIN;
INSERT INTO jobs (key, payload) VALUES (:key, :'payload');
${step#* };
SQL
    done
    effect --command "SELECT job_phase($2, 'enqueued')" > /dev/null
}

"$@"
