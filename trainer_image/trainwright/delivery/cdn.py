"""The CDN, which keeps big parts: a bucket whose failures are those of a delivery."""

from __future__ import annotations

from trainwright.bucket import Bucket, BucketAddress
from trainwright.delivery.credentials import CdnCredentials
from trainwright.errors import PublishingError, StepError

_HINTS = {
    "AccessDenied": "the key pair of cdn.yaml lacks a right below the delivery folder's prefix",
    "403": "the key pair of cdn.yaml is wrong, or lacks a right below the delivery folder's prefix",
    "InvalidAccessKeyId": "the access key of cdn.yaml is not known to the server",
    "SignatureDoesNotMatch": "the access secret of cdn.yaml does not fit its key",
    "NoSuchBucket": "make the bucket, or name another one in the delivery settings",
    "404": "the file is not there: publish the model again",
    "NoSuchKey": "the file is not there: publish the model again",
}


class Cdn(Bucket):
    """One bucket of the CDN, seen with one key pair."""

    title = "the CDN"

    def __init__(self, credentials: CdnCredentials, *, bucket: str) -> None:
        super().__init__(
            BucketAddress(
                endpoint=credentials.endpoint,
                bucket=credentials.bucket or bucket,
                access_key=credentials.access_key,
                access_secret=credentials.access_secret,
                region=credentials.region,
                ca=credentials.ca,
            )
        )

    def failure(self, message: str, code: str) -> StepError:
        """Return what a failed call raises."""
        hint = _HINTS.get(code, "check the address, the network and the server")
        return PublishingError(message, hint=hint)
