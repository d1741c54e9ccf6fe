CREATE TABLE IF NOT EXISTS evidence (
    id             uuid PRIMARY KEY,
    project_id     text NOT NULL,
    filename       text NOT NULL,
    object_key     text NOT NULL,
    bucket         text,
    content_type   text,
    uploader       text,
    status         text NOT NULL DEFAULT 'uploaded_pending',
    checksum       text,
    extracted_text text,
    indexed_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS evidence_status ON evidence (status, created_at);
CREATE INDEX IF NOT EXISTS evidence_checksum ON evidence (checksum);
