"""The object store."""

import os

import boto3
from botocore.config import Config

BUCKET = os.environ["S3_BUCKET"]

s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["S3_ENDPOINT"],
    # three attempts, with a pause between them
    config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"mode": "standard"}),
)


def presign_put(key, content_type):
    return s3.generate_presigned_url(
        "put_object",
        Params={"Bucket": BUCKET, "Key": key, "ContentType": content_type},
        ExpiresIn=int(float(os.environ.get("URL_VALID_S", "900"))),
    )


def download(key):
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
