"""The publishing step: sealed parts go to their servers, and the pointers to them are set."""

from __future__ import annotations

from trainwright.artifacts import Published, SealedModel
from trainwright.contract import DeliverySettings, RunPlan
from trainwright.delivery import (
    ApiCredentials,
    Cdn,
    CdnCredentials,
    Destination,
    Fence,
    ResourceApi,
    fetch_cdn_credentials,
    publish,
)
from trainwright.errors import ConfigurationError
from trainwright_trainer.places import Places


def publish_model(sealed: SealedModel, plan: RunPlan, places: Places, fence: Fence) -> Published:
    """Deliver the sealed parts; a retry uploads the same ones and never seals again."""
    if plan.delivery is None:
        raise ConfigurationError("the plan has no delivery", hint="without one the run ends when verified")
    destination = connect_destination(plan.delivery, places)
    return publish(sealed, places.workspace, plan.model, destination, fence)


def connect_destination(delivery: DeliverySettings, places: Places) -> Destination:
    """Make the clients of both servers; the CDN's key pair comes from its folder, or else from the API."""
    if places.api_credentials is None:
        raise ConfigurationError(
            "no folder of API credentials is given",
            hint="name a Secret with AZAION_API_EMAIL and AZAION_API_PASSWORD in delivery.api.credentials",
        )
    api = ResourceApi(delivery.api.url, ApiCredentials.from_folder(places.api_credentials))
    if places.cdn_credentials is not None:
        credentials = CdnCredentials.from_folder(places.cdn_credentials, "uploader")
    else:
        credentials = fetch_cdn_credentials(api, delivery.folder, "uploader")
    return Destination(api, Cdn(credentials, bucket=delivery.bucket), delivery.folder)
