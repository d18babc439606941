"""The publishing step: sealed parts go to their servers, and the pointers to them are set."""

from __future__ import annotations

from trainwright.artifacts import Evaluation, Published, SealedModel
from trainwright.bucket import OnBytes
from trainwright.contract import BUNDLE_SUFFIX, ModelSettings, RunPlan
from trainwright.delivery import Fence, Publication, publish
from trainwright.errors import ConfigurationError
from trainwright_trainer.places import Places
from trainwright_trainer.servers import connect_destination


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
    if sealed.bundle is not None:  # first: whoever finds the version finds what it can be trained from
        publish(
            sealed.bundle,
            places.workspace,
            Publication(name_bundle(plan.model), promoted=False),
            destination,
            lambda _: fence(sealed.file_id),
            on_bytes,
        )
    publication = Publication(plan.model, promoted=evaluation.gate_passed)
    return publish(sealed, places.workspace, publication, destination, fence, on_bytes)


def name_bundle(model: ModelSettings) -> ModelSettings:
    """Return what a version's training bundle is published as: a version of its own that nothing promotes."""
    return model.model_copy(update={"version": model.version + BUNDLE_SUFFIX, "tag": None})
