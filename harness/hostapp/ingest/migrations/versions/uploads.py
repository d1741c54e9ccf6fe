"""Uploads: one row for each file, with its state and what was found in it."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE ingest.uploads (
            id             uuid PRIMARY KEY,
            project        text NOT NULL,
            filename       text NOT NULL,
            content_type   text NOT NULL,
            bucket         text NOT NULL,
            object_key     text NOT NULL UNIQUE,
            uploader       text NOT NULL,
            correlation_id text NOT NULL,
            status         text NOT NULL DEFAULT 'uploaded_pending'
                           CHECK (status IN ('uploaded_pending', 'indexed', 'index_error')),
            checksum       text CHECK (checksum ~ '^[0-9a-f]{64}$'),
            size_bytes     bigint,
            extracted_text text,
            error          text,
            attempts       integer NOT NULL DEFAULT 0,
            worker         text,
            url_expires_at timestamptz NOT NULL,
            created_at     timestamptz NOT NULL DEFAULT now(),
            indexed_at     timestamptz,
            CHECK (status <> 'indexed' OR (checksum IS NOT NULL AND indexed_at IS NOT NULL)),
            CHECK (status <> 'index_error' OR error IS NOT NULL)
        )
    """)
    op.execute("CREATE INDEX uploads_indexed_at ON ingest.uploads (indexed_at) WHERE status = 'indexed'")


def downgrade() -> None:
    op.execute("DROP TABLE ingest.uploads")
