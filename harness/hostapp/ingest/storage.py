"""The object store: presigned addresses for clients, and downloads. Retries are the task of the queue."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from .content import Content, ContentReader, CorruptedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings

_PART = 64 * 1024
_CONNECT_S = 2
_READ_S = 5
_NOT_FOUND = 404


class StoreError(Exception):
    """The store did not answer, refused the request, or sent something else than the object."""


class MissingError(StoreError):
    """The object does not exist."""


class AbandonedError(Exception):
    """The download was ended, because its upload is no longer this worker's, or the worker stops."""


class Storage:
    """The bucket of the pipeline. May be used by several threads at a time."""

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.s3_bucket
        self._inside = _client(settings, settings.s3_endpoint)
        public = settings.public_endpoint
        self._outside = self._inside if public == settings.s3_endpoint else _client(settings, public)

    def presigned_put(self, key: str, *, content_type: str, valid_s: float) -> str:
        """Return an address that clients can upload a file to, with this content type only. Asks nobody."""
        parameters = {"Bucket": self._bucket, "Key": key, "ContentType": content_type}
        return str(self._outside.generate_presigned_url("put_object", Params=parameters, ExpiresIn=int(valid_s)))

    def exists(self, key: str) -> bool:
        """Return whether an object exists.

        :raises StoreError: when the store does not say.
        """
        try:
            self._inside.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _status(error) == _NOT_FOUND:
                return False
            raise StoreError(_described(error)) from error
        except BotoCoreError as error:
            raise StoreError(_described(error)) from error
        return True

    def download(self, key: str, *, content_type: str, abandoned: Callable[[], bool]) -> Content:
        """Read an object part by part.

        :param abandoned: returns whether to end the download; called before the request and before each part.
        :raises MissingError: when the object does not exist.
        :raises StoreError: when the object does not arrive whole and unchanged.
        :raises AbandonedError: when the download was ended.
        """
        reader = ContentReader(content_type)
        try:
            if abandoned():
                raise AbandonedError
            answer = self._inside.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body:
                for part in body.iter_chunks(_PART):
                    if abandoned():
                        raise AbandonedError
                    reader.add(part)
            return reader.finish(answer["ResponseMetadata"]["HTTPHeaders"])
        except ClientError as error:
            kind = MissingError if _status(error) == _NOT_FOUND else StoreError
            raise kind(_described(error)) from error
        except (BotoCoreError, CorruptedError, OSError) as error:
            raise StoreError(_described(error)) from error


def _client(settings: Settings, endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key,
        region_name=settings.aws_region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            # one request is one attempt
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=max(10, settings.concurrency),
            # whole objects are verified here, also those that were uploaded in parts
            response_checksum_validation="when_required",
            request_checksum_calculation="when_required",
        ),
    )


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _described(error: Exception) -> str:
    """Return a description of an error, without addresses or keys."""
    if isinstance(error, ClientError):
        return f"the store answers {_status(error)} {error.response.get('Error', {}).get('Code', '')}".rstrip()
    if isinstance(error, CorruptedError):
        return str(error)
    if isinstance(error, HTTPClientError):
        return f"the store does not answer: {type(error).__name__}"
    return f"the object did not arrive: {type(error).__name__}"
