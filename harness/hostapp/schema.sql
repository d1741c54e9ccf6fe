-- The application's own table. Safe to run again. Oban creates its own tables before this.

CREATE TABLE IF NOT EXISTS public.posts (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title       text NOT NULL,
    slug        text NOT NULL CONSTRAINT posts_slug_key UNIQUE,
    inserted_at timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
