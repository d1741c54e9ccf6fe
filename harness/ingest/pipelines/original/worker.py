"""The worker: polls for uploads, and indexes them."""

import hashlib
import json
import logging
import os
import time

import psycopg
from storage import download

POLL_INTERVAL = float(os.environ.get("POLL_INTERVAL", "5"))
BATCH = 5
ATTEMPTS = 3

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("worker")

db = psycopg.connect(os.environ["DATABASE_URL"])


def claim():
    with db.transaction():
        rows = db.execute(
            "SELECT id, object_key, content_type FROM evidence WHERE status = 'uploaded_pending' "
            "ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED",
            [BATCH],
        ).fetchall()
        for upload, _, _ in rows:
            db.execute("UPDATE evidence SET status = 'processing' WHERE id = %s", [upload])
    return rows


def download_with_retries(key):
    for attempt in range(ATTEMPTS):
        try:
            return download(key)
        except Exception as error:
            log.warning("download of %s failed (attempt %d): %s", key, attempt + 1, error)
            last = error
            time.sleep(0.5 * 2**attempt)
    raise last


def extract_text(data, content_type):
    if content_type and content_type.startswith("text/"):
        return data.decode("utf-8", "replace").replace("\0", "")
    return None


def index(upload, key, content_type):
    data = download_with_retries(key)
    checksum = hashlib.sha256(data).hexdigest()
    # the same file was indexed before: no need to extract its text again
    known = db.execute(
        "SELECT extracted_text FROM evidence WHERE checksum = %s AND status = 'indexed' LIMIT 1", [checksum]
    ).fetchone()
    text = known[0] if known else extract_text(data, content_type)
    db.execute(
        "UPDATE evidence SET status = 'indexed', checksum = %s, extracted_text = %s, indexed_at = now() WHERE id = %s",
        [checksum, text, upload],
    )
    db.commit()
    print(json.dumps({"level": "info", "msg": "indexed", "uploadId": str(upload), "checksum": checksum}))


def main():
    log.info("worker started, polling every %s s", POLL_INTERVAL)
    while True:
        for upload, key, content_type in claim():
            try:
                index(upload, key, content_type)
            except psycopg.Error:
                raise
            except Exception:
                log.exception("indexing of %s failed", upload)
                db.execute("UPDATE evidence SET status = 'index_error' WHERE id = %s", [upload])
                db.commit()
        time.sleep(POLL_INTERVAL)


main()
