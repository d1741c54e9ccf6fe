-- The application's own tables. Safe to run again. Oban creates its own tables before this.

CREATE TABLE IF NOT EXISTS public.posts (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title       text NOT NULL,
    slug        text NOT NULL CONSTRAINT posts_slug_key UNIQUE,
    inserted_at timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Queues that somebody paused. A pause survives a restart of the job runner.
CREATE TABLE IF NOT EXISTS public.hostapp_pauses (
    queue     text PRIMARY KEY,
    actor     jsonb NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now()
);
