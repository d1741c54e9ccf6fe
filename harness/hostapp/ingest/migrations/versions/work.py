"""Work: the queue of uploads that are not finished, apart from them, so that a lease changes no audited row."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE ingest.work (
            upload_id   uuid PRIMARY KEY REFERENCES ingest.uploads (id) ON DELETE CASCADE,
            due_at      timestamptz NOT NULL DEFAULT now(),
            looks       integer NOT NULL DEFAULT 0,
            attempts    integer NOT NULL DEFAULT 0,
            claims      integer NOT NULL DEFAULT 0,
            processing  boolean NOT NULL DEFAULT false,
            worker      text,
            lease_until timestamptz
        )
    """)
    op.execute("CREATE INDEX work_due_at ON ingest.work (due_at)")
    op.execute("""
        CREATE VIEW ingest.upload_states AS
        SELECT u.id, u.project, u.filename, u.content_type, u.object_key, u.uploader, u.correlation_id,
               CASE WHEN w.processing THEN 'processing' ELSE u.status END AS status,
               u.checksum, u.size_bytes, u.extracted_text, u.error, u.created_at, u.indexed_at,
               coalesce(w.attempts, u.attempts) AS attempts, coalesce(w.worker, u.worker) AS worker
        FROM ingest.uploads u LEFT JOIN ingest.work w ON w.upload_id = u.id
    """)


def downgrade() -> None:
    op.execute("DROP VIEW ingest.upload_states")
    op.execute("DROP TABLE ingest.work")
