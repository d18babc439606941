"""The publishing step: sealed parts go to their servers, and the pointers to them are set."""

from __future__ import annotations

from trainwright.artifacts import Evaluation, Published, SealedModel
from trainwright.bucket import OnBytes
from trainwright.contract import DeliverySettings, RunPlan
from trainwright.delivery import (
    Cdn,
    CdnCredentials,
    Destination,
    Fence,
    Publication,
    ResourceApi,
    fetch_cdn_credentials,
    publish,
)
from trainwright.errors import ConfigurationError
from trainwright_trainer.places import Places


def publish_model(  # noqa: PLR0913, PLR0917 - what is published, how, and who may stop it
    sealed: SealedModel,
    evaluation: Evaluation,
    plan: RunPlan,
    places: Places,
    fence: Fence,
    on_bytes: OnBytes | None = None,
) -> Published:
    """Deliver the sealed parts; a retry uploads the same ones and never seals again.

    A model that did not pass its gate is published as a version, but not as the newest of its name.
    """
    if plan.delivery is None:
        raise ConfigurationError("the plan has no delivery", hint="without one the run ends when verified")
    destination = connect_destination(plan.delivery, places)
    publication = Publication(plan.model, promoted=evaluation.gate_passed)
    return publish(sealed, places.workspace, publication, destination, fence, on_bytes)


def connect_destination(delivery: DeliverySettings, places: Places) -> Destination:
    """Make the clients of both servers; the CDN's key pair comes from its folder, or else from the API."""
    api = ResourceApi(delivery.api.url, places.read_account())
    if places.cdn_credentials is not None:
        credentials = CdnCredentials.from_folder(places.cdn_credentials, "uploader")
    else:
        credentials = fetch_cdn_credentials(api, delivery.folder, "uploader")
    return Destination(api, Cdn(credentials, bucket=delivery.bucket), delivery.folder)
