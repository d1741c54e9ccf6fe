-- The application's own table, and what its role may do. Safe to run again. Oban's tables are made before this, by Oban.

CREATE TABLE IF NOT EXISTS public.posts (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title       text NOT NULL,
    slug        text NOT NULL CONSTRAINT posts_slug_key UNIQUE,
    inserted_at timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
