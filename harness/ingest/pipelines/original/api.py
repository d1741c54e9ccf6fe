"""The API: presigned uploads, and their state."""

import json
import logging
import os
import uuid
from pathlib import Path

import psycopg
import uvicorn
from psycopg.rows import dict_row
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from storage import presign_put

DATABASE_URL = os.environ.get("DATABASE_URL")
PREFIX = os.environ.get("S3_PREFIX", "")
FALLBACK = Path("uploads-fallback.jsonl")

# a development database may be empty
SCHEMA = """
CREATE TABLE IF NOT EXISTS evidence (
    id             uuid PRIMARY KEY,
    project_id     text NOT NULL,
    filename       text NOT NULL,
    object_key     text NOT NULL,
    content_type   text,
    uploader       text,
    status         text NOT NULL DEFAULT 'uploaded_pending',
    checksum       text,
    extracted_text text,
    indexed_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
)
"""

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
log = logging.getLogger("api")


def connect():
    return psycopg.connect(DATABASE_URL, row_factory=dict_row, connect_timeout=3)


def save(row):
    try:
        with connect() as db:
            db.execute(
                "INSERT INTO evidence (id, project_id, filename, object_key, content_type, uploader) "
                "VALUES (%(id)s, %(project_id)s, %(filename)s, %(object_key)s, %(content_type)s, %(uploader)s)",
                row,
            )
    except psycopg.Error as error:
        # the upload itself still works; the row is imported later
        log.warning("database not available, keeping the upload in %s: %s", FALLBACK, error)
        with FALLBACK.open("a") as file:
            file.write(json.dumps(row) + "\n")


async def create_upload(request):
    request_id = str(uuid.uuid4())
    body = await request.json()
    filename, project = body.get("filename"), body.get("projectId")
    if not filename or not project:
        return JSONResponse({"error": "filename and projectId are required"}, 400)
    upload = str(uuid.uuid4())
    content_type = body.get("contentType") or "application/octet-stream"
    key = f"{PREFIX}evidence/{project}/{upload}/{filename}"
    row = {
        "id": upload,
        "project_id": project,
        "filename": filename,
        "object_key": key,
        "content_type": content_type,
        "uploader": request.headers.get("x-user", "anonymous"),
    }
    save(row)
    print(json.dumps({"level": "info", "msg": "upload created", "uploadId": upload, "requestId": request_id}))
    answer = {"uploadId": upload, "url": presign_put(key, content_type), "objectKey": key}
    return JSONResponse(answer, 201, headers={"x-request-id": request_id})


def get_upload(request):
    with connect() as db:
        row = db.execute("SELECT * FROM evidence WHERE id = %s", [request.path_params["id"]]).fetchone()
    if row is None:
        return JSONResponse({"error": "not found"}, 404)
    return JSONResponse({"uploadId": str(row["id"]), "status": row["status"], "checksum": row["checksum"]})


def health(_request):
    return JSONResponse({"status": "ok"})


def ready(_request):
    database, last = True, None
    if DATABASE_URL:
        try:
            with connect() as db:
                last = db.execute("SELECT max(indexed_at) AS last FROM evidence").fetchone()["last"]
        except psycopg.Error:
            database = False
    return JSONResponse({"ready": database, "db": database, "lastIndexedAt": str(last) if last else None})


app = Starlette(
    routes=[
        Route("/uploads", create_upload, methods=["POST"]),
        Route("/uploads/{id}", get_upload),
        Route("/health", health),
        Route("/ready", ready),
    ]
)

if __name__ == "__main__":
    try:
        with connect() as db:
            db.execute(SCHEMA)
    except psycopg.Error as error:
        log.warning("database not available: %s", error)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "4000")))
