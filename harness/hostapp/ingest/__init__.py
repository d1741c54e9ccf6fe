"""The reference ingest pipeline: an API that presigns uploads, a worker that indexes them, and the migrations of both.

An upload is a row of `ingest.uploads`, which is audited, and until it is finished also one of `ingest.work`: the queue,
with attempts and leases. A client uploads its file to the presigned address, past the API. The worker looks for files,
and only a file that is there, or that nobody can upload any more, costs an attempt.

The programs keep nothing in a database session and prepare nothing on the server, so each pool mode that knows
transactions is safe for them. `python -m hostapp.ingest` starts them, and their settings are in the environment.
"""
