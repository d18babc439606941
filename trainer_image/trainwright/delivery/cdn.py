"""The CDN, which keeps big parts; the only module that knows S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as S3ConnectionError

from trainwright.delivery.credentials import CdnCredentials
from trainwright.errors import PublishingError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
PIECE = MIB
RANGE = 32 * MIB  # read back in ranges, so that a broken connection costs one of them
ATTEMPTS = 5

_TRANSFERS = TransferConfig(multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4)
_CONFIG = Config(
    signature_version="s3v4",
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "max_attempts": ATTEMPTS},
    s3={"addressing_style": "path"},
    # We compare SHA-256 ourselves; servers older than S3's new checksums refuse its trailers.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_HINTS = {
    "AccessDenied": "the key pair of cdn.yaml lacks a right below the delivery folder's prefix",
    "403": "the key pair of cdn.yaml is wrong, or lacks a right below the delivery folder's prefix",
    "InvalidAccessKeyId": "the access key of cdn.yaml is not known to the server",
    "SignatureDoesNotMatch": "the access secret of cdn.yaml does not fit its key",
    "NoSuchBucket": "make the bucket, or name another one in the delivery settings",
    "404": "the file is not there: publish the model again",
    "NoSuchKey": "the file is not there: publish the model again",
}
_MISSING = {"404", "NoSuchKey"}
# Without the right to list, S3 says 403 for a file that is not there.
_UNKNOWN = _MISSING | {"403", "AccessDenied"}


@dataclass(frozen=True)
class StoredObject:
    """One file on the CDN."""

    key: str
    size: int
    modified: datetime


class Cdn:
    """One bucket, seen with one key pair."""

    def __init__(self, credentials: CdnCredentials, *, bucket: str) -> None:
        self.bucket = credentials.bucket or bucket
        self.endpoint = credentials.endpoint
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=credentials.endpoint,
            region_name=credentials.region,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.access_secret,
            verify=str(credentials.ca) if credentials.ca else None,
            config=_CONFIG,
        )

    def __repr__(self) -> str:
        return f"Cdn({self.endpoint!r}, {self.bucket!r})"

    def upload(self, path: Path, key: str) -> None:
        """Upload a file in pieces; when it fails, what was sent is thrown away on the server."""
        with self._explain(f"upload {key}"):
            self._client.upload_file(str(path), self.bucket, key, Config=_TRANSFERS)

    def download(self, key: str, path: Path) -> None:
        """Download a file by ranges."""
        with self._explain(f"download {key}"):
            self._client.download_file(self.bucket, key, str(path), Config=_TRANSFERS)

    def find_size(self, key: str) -> int | None:
        """Return a file's size, or nothing when it is not there or may not be looked at."""
        with self._explain(f"look for {key}"):
            try:
                return self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
            except ClientError as error:
                if _code(error) in _UNKNOWN:
                    return None
                raise

    def hash(self, key: str, size: int) -> str:
        """Read a file of known size back from the server and return its `sha256:` digest."""
        digest = hashlib.sha256()
        for start in range(0, size, RANGE):
            digest = self._hash_range(key, start, min(start + RANGE, size), digest)
        return "sha256:" + digest.hexdigest()

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the files whose keys start with the prefix."""
        with self._explain(f"list {prefix}*"):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["LastModified"])

    def read_clock(self, prefix: str) -> datetime:
        """Return the server's time: ages of files below the prefix are measured by its own clock."""
        with self._explain(f"list {prefix}*"):
            answer = self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1, Prefix=prefix)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else datetime.now(UTC)

    def delete(self, key: str) -> None:
        """Delete a file."""
        with self._explain(f"delete {key}"):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def abort_uploads(self, prefix: str, older_than: datetime) -> list[str]:
        """Throw away unfinished uploads that began before a time, and return their keys."""
        aborted = []
        with self._explain(f"list unfinished uploads of {prefix}*"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for upload in page.get("Uploads", []):
                    if upload["Key"].startswith(prefix) and upload["Initiated"] < older_than:
                        self._client.abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        aborted.append(upload["Key"])
        return aborted

    def _hash_range(self, key: str, start: int, end: int, before: hashlib._Hash) -> hashlib._Hash:
        """Return the hash after one range; a connection that breaks repeats that range only."""
        with self._explain(f"read {key} back"):
            for attempt in range(ATTEMPTS):
                digest = before.copy()
                try:
                    answer = self._client.get_object(
                        Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}"
                    )
                    for piece in answer["Body"].iter_chunks(PIECE):
                        digest.update(piece)
                except (S3ConnectionError, HTTPClientError, IncompleteReadError):
                    if attempt + 1 == ATTEMPTS:
                        raise
                else:
                    return digest
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _explain(self, action: str) -> Iterator[None]:
        """Turn the client's errors into ours, with a hint."""
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error) as error:
            root = error.__context__ if isinstance(error.__context__, ClientError) else error
            code = _code(root) if isinstance(root, ClientError) else ""
            reason = code or str(error)[:200]
            raise PublishingError(
                f"the CDN {self.endpoint}, bucket {self.bucket!r}, can't {action}: {reason}",
                hint=_HINTS.get(code, "check the address, the network and the server"),
            ) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
