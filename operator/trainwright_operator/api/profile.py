"""TrainingProfile and ClusterTrainingProfile: what a platform offers, and what a run may ask."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from trainwright_operator.api.compute import FORBIDDEN_VARIABLES, variable_rule
from trainwright_operator.api.deadlines import LONGEST_SECONDS
from trainwright_operator.api.delivery import Delivery
from trainwright_operator.api.run_settings import RunSettings
from trainwright_operator.api.run_status import Condition
from trainwright_operator.api.section import Observed, Quantity, Rule, Section, VersionName, opaque_map

Variable = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Host = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$"),
]
OpaqueObject = Annotated[dict[str, Any], opaque_map(64)]


class ProfileVersion(Section):
    """One version of a profile: an image that runs may ask for by name."""

    name: VersionName = Field(description="Name of the version, such as v1.")
    image: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="The trainer's image, best named by digest: registry.example/trainer@sha256:..."
    )
    default: bool | None = Field(
        default=None, description="Whether runs that name no version get this one. Default: false."
    )


class ProfileDefaults(RunSettings):
    """What runs of the profile get that do not say otherwise: the same fields as in a run."""


class ProfileLimits(Section):
    """The most a run of the profile may ask for. A run that exceeds one is not accepted, and told of all."""

    gpus: int | None = Field(default=None, ge=0, le=64, description="The most GPUs of a run.")
    memory: Quantity | None = Field(
        default=None, description="The most memory: a run needs a memory limit, and it is at most this."
    )
    cpu: Quantity | None = Field(
        default=None, description="The most CPUs: a run needs a cpu limit, and it is at most this."
    )
    epochs: int | None = Field(default=None, ge=1, le=100_000, description="The most epochs of a run.")
    active_seconds: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_SECONDS,
        description="The most seconds that the pods of a run may run in all its attempts together.",
    )
    endpoints: tuple[Host, ...] | None = Field(
        default=None,
        max_length=64,
        description="The hosts that runs may name: resources.example.com, *.example.com for all below it,"
        " with :PORT for that port only. An empty list allows none.",
    )


class ProfileEnvironment(Section):
    """Environment variables of the trainer: what runs may set, and what the platform sets."""

    allowed: tuple[Variable, ...] | None = Field(
        default=None,
        max_length=64,
        description="The variables that runs may set in compute.environment. Default: those named there.",
    )
    values: dict[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None,
        alias="set",
        max_length=64,
        description="Variables that every trainer of the profile gets; a run may override allowed ones.",
    )

    rules = (
        Rule(
            "!has(self.allowed) || " + variable_rule("allowed"),
            f"spec.environment.allowed must not have {FORBIDDEN_VARIABLES}: they decide what code is loaded",
        ),
        Rule(
            "!has(self.set) || self.set.all(key, key.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
            "spec.environment.set must have names of letters, digits and '_', the first no digit",
        ),
    )


class PodTemplate(Section):
    """A JSON merge patch of the trainer's pod. Lists are merged by name, or by mountPath; others replaced.

    What the operator guarantees of a pod can't be patched: its account, its security context, the trainer's
    command and its mounts.
    """

    metadata: OpaqueObject | None = Field(default=None, description="Patch of the pod's metadata.")
    spec: OpaqueObject | None = Field(default=None, description="Patch of the pod's spec.")


class ProfileSpec(Section):
    """Which image runs get, what they get by default, and what they may ask for."""

    versions: Annotated[
        tuple[ProfileVersion, ...],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(description="The versions runs may ask for; exactly one of them is the default.")
    defaults: ProfileDefaults | None = None
    limits: ProfileLimits | None = None
    environment: ProfileEnvironment | None = None
    pod_template: PodTemplate | None = None
    delivery: Delivery | None = None
    price_per_gpu_hour: float | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        alias="pricePerGPUHour",
        description="What an hour of one GPU costs, in the platform's currency. Default: the operator's"
        " setting of that name.",
    )

    rules = (
        Rule(
            "self.versions.exists_one(version, has(version.default) && version.default)",
            "spec.versions must have exactly one version with default: true",
        ),
    )


class ProfileStatus(Observed):
    """What the operator finds of the profile."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="The metadata.generation this status was computed for."
    )
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = Field(default=(), description="Ready: whether runs can be carried out with it as it is.")
    runs: int | None = Field(
        default=None, ge=0, description="Runs that use the profile and are not finished; seconds old."
    )


class _Profile(Section):
    """What both kinds of profiles are."""

    model_config = ConfigDict(extra="ignore")

    api_version: Literal["trainwright.dev/v1alpha1"] = "trainwright.dev/v1alpha1"
    spec: ProfileSpec
    status: ProfileStatus | None = None

    rules = (
        Rule("size(self.metadata.name) <= 63", "metadata.name of a profile must be at most 63 characters"),
    )


class TrainingProfile(_Profile):
    """What a platform offers to the runs of one namespace: images, defaults, and limits to what they ask."""

    kind: Literal["TrainingProfile"] = "TrainingProfile"


class ClusterTrainingProfile(_Profile):
    """What a platform offers to the runs of all namespaces: images, defaults, and limits to what they ask."""

    kind: Literal["ClusterTrainingProfile"] = "ClusterTrainingProfile"
