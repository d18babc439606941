"""One bucket of an object store; the only module that knows S3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

from trainwright.errors import ConfigurationError, NetworkError, StepError

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
_MISSING = {"404", "NoSuchKey"}
# Without the right to list, S3 says 403 for a file that is not there.
_UNKNOWN = _MISSING | {"403", "AccessDenied"}
_REFUSALS = {
    "AccessDenied": "the key pair lacks a right below the prefix",
    "403": "the key pair is wrong, or lacks a right below the prefix",
    "InvalidAccessKeyId": "the access key is not known to the server",
    "SignatureDoesNotMatch": "the secret does not fit the access key",
    "NoSuchBucket": "make the bucket, or name another one",
}


class MissingError(StepError):
    """There is no such file."""


OnBytes = Callable[[int], None]
"""Called with the number of bytes of each piece that was moved; what it raises ends the transfer."""


@dataclass(frozen=True)
class BucketAddress:
    """Which bucket, where, and with which key pair."""

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    access_secret: str = field(repr=False)
    region: str = "us-east-1"
    ca: Path | None = None


@dataclass(frozen=True)
class StoredObject:
    """One file of the bucket."""

    key: str
    size: int
    modified: datetime


class Bucket:
    """One bucket, seen with one key pair."""

    title = "the object store"

    def __init__(self, address: BucketAddress) -> None:
        self.bucket = address.bucket
        self.endpoint = address.endpoint
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=address.endpoint,
            region_name=address.region,
            aws_access_key_id=address.access_key,
            aws_secret_access_key=address.access_secret,
            verify=str(address.ca) if address.ca else None,
            config=_CONFIG,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint!r}, {self.bucket!r})"

    def failure(self, message: str, code: str) -> StepError:
        """Return what a failed call raises; `code` is the server's, or empty where it did not answer."""
        if code in _MISSING:
            return MissingError(message)
        if code in _REFUSALS:
            return ConfigurationError(message, hint=_REFUSALS[code])
        return NetworkError(message, hint="check the address, the network and the server")

    def upload(self, path: Path, key: str, on_bytes: OnBytes | None = None) -> None:
        """Upload a file in pieces; when it fails, what was sent is thrown away on the server."""
        with self._explain(f"upload {key}"):
            self._client.upload_file(str(path), self.bucket, key, Config=_TRANSFERS, Callback=on_bytes)

    def upload_bytes(self, data: bytes, key: str) -> None:
        """Upload a small file in one piece: it is there as a whole, or not at all."""
        with self._explain(f"upload {key}"):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def read_bytes(self, key: str) -> bytes:
        """Return the content of a small file."""
        with self._explain(f"read {key}"):
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

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

    def hash(self, key: str, size: int, on_bytes: OnBytes | None = None) -> str:
        """Read a file of known size back from the server and return its `sha256:` digest."""
        digest = hashlib.sha256()
        for start in range(0, size, RANGE):
            end = min(start + RANGE, size)
            digest = self._hash_range(key, start, end, digest)
            if on_bytes is not None:
                on_bytes(end - start)
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
            message = f"{self.title} {self.endpoint}, bucket {self.bucket!r}, can't {action}: {reason}"
            raise self.failure(message, code) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
