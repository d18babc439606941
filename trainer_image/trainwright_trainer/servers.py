"""The servers of a delivery, as the trainer reaches them: the account and the uploader's key pair."""

from __future__ import annotations

from trainwright.contract import DeliverySettings
from trainwright.delivery import Cdn, CdnCredentials, Destination, ResourceApi, Source, fetch_cdn_credentials
from trainwright_trainer.places import Places


def connect_destination(delivery: DeliverySettings, places: Places) -> Destination:
    """Make the clients that models are delivered with."""
    source = connect_source(delivery, places)
    assert source.cdn_credentials is not None  # noqa: S101 - connect_source finds them
    return Destination(source.api, Cdn(source.cdn_credentials, bucket=delivery.bucket), delivery.folder)


def connect_source(delivery: DeliverySettings, places: Places) -> Source:
    """Make the same clients to read with: the uploader's pair may read back what was delivered.

    The pair comes from its folder, or else from the API.
    """
    api = ResourceApi(delivery.api.url, places.read_account())
    if places.cdn_credentials is not None:
        credentials = CdnCredentials.from_folder(places.cdn_credentials, "uploader")
    else:
        credentials = fetch_cdn_credentials(api, delivery.folder, "uploader")
    return Source(api, delivery.folder, credentials)
