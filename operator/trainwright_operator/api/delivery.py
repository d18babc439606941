"""`spec.delivery`: how a model is sealed and where its two parts go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainwright import contract
from trainwright_operator.api.references import SecretReference
from trainwright_operator.api.section import ObjectName, Rule, Section, built_in_of, one_of

# No user or password in a URL, no plain HTTP off the machine: the token would be readable on the way. And no
# backslash: to some libraries the host ends there, to others it goes on.
SAFE_URL = r"^(https://[^\\s/@\\\\]+|http://(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?)(/[^\\s\\\\]*)?$"


class Api(Section):
    """The REST side: it keeps the small part and the pointer to the newest version."""

    url: Annotated[str, Field(min_length=9, max_length=512)] | None = Field(
        default=None,
        description="Address of the resource API. Plain http is accepted for a loopback address only.",
    )
    credentials: SecretReference | None = Field(
        default=None,
        description="The Secret with the account: keys AZAION_API_EMAIL and AZAION_API_PASSWORD, and ca.crt"
        " where the server's certificate is not publicly trusted.",
    )

    rules = (
        Rule(
            f"!has(self.url) || self.url.matches('{SAFE_URL}')",
            "spec.delivery.api.url must be an https:// address without user and password"
            " (http:// only for localhost, 127.0.0.0/8 and [::1])",
        ),
    )


class Cdn(Section):
    """The object store, reached through the S3 API: it keeps the big part."""

    credentials: SecretReference | None = Field(
        default=None,
        description="The Secret with the key cdn.yaml: host, region, uploader_access_key and"
        " uploader_access_secret; and ca.crt where the server's certificate is not publicly trusted."
        " Default: cdn.yaml is fetched from the API.",
    )


class Recipients(Section):
    """Who can open the model: public keys. Set exactly one of its fields."""

    secret_name: ObjectName | None = Field(
        default=None,
        description="Name of a Secret with one public key per entry, named by its key id; it needs the label"
        " trainwright.dev/use: recipients.",
    )
    config_map_name: ObjectName | None = Field(
        default=None,
        description="Name of a ConfigMap with one public key per entry, named by its key id; it needs the"
        " label trainwright.dev/use: recipients.",
    )

    rules = (
        Rule(
            one_of("secretName", "configMapName"),
            "spec.delivery.sealing.recipients must have exactly one of secretName, configMapName",
        ),
    )


class BundleRecipients(Recipients):
    """Who may train the model further: public keys. Set exactly one of its fields."""

    rules = (
        Rule(
            one_of("secretName", "configMapName"),
            "spec.delivery.bundle.recipients must have exactly one of secretName, configMapName",
        ),
    )


class BundleSecret(Section):
    """The Secret with the private key that opens training bundles."""

    secret_name: ObjectName = Field(
        description="Name of a Secret with the key bundle.key, the private key of a recipient of bundles. It"
        " needs the label trainwright.dev/use: bundle."
    )


class PublisherKeys(Recipients):
    """Who may have signed a parent: verify keys. Set exactly one of its fields."""

    secret_name: ObjectName | None = Field(
        default=None,
        description="Name of a Secret with one verify key per entry, named by its key id; it needs the label"
        " trainwright.dev/use: publishers.",
    )
    config_map_name: ObjectName | None = Field(
        default=None,
        description="Name of a ConfigMap with one verify key per entry, named by its key id; it needs the"
        " label trainwright.dev/use: publishers.",
    )

    rules = (
        Rule(
            one_of("secretName", "configMapName"),
            "spec.delivery.bundle.publishers must have exactly one of secretName, configMapName",
        ),
    )


class Bundle(Section):
    """Training bundles: what it takes to train a version further, sealed apart from the model itself.

    With recipients a version gets one; a run with spec.model.parent needs privateKey and publishers.
    """

    recipients: BundleRecipients | None = None
    private_key: BundleSecret | None = None
    publishers: PublisherKeys | None = None


class SmallPart(Section):
    """How much of a sealed model the small part holds: the larger of the two."""

    built_in = built_in_of(contract.SmallPartSettings)

    percent: int | None = Field(default=None, ge=0, le=90, description="Percent of the sealed model.")
    min_ki_b: int | None = Field(
        default=None, ge=1, le=1_048_576, alias="minKiB", description="At least so many KiB."
    )


class Sealing(Section):
    """How the model is encrypted and divided: neither part alone opens anything."""

    built_in = built_in_of(contract.SealingSettings)

    format: Literal["trainwright-v1"] | None = Field(default=None, description="Format of the sealed model.")
    recipients: Recipients | None = None
    signing_key: SecretReference | None = Field(
        default=None,
        description="The Secret with the publisher's Ed25519 private key under the key publisher.key."
        " Readers pin its public half.",
    )
    small_part: SmallPart | None = None


class Delivery(Section):
    """Where the finished model goes. Without it the run ends when the export is verified."""

    built_in = built_in_of(contract.DeliverySettings)

    folder: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        default=None, description="Folder of the resource API, and prefix in the bucket."
    )
    bucket: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = (
        Field(default=None, description="Bucket of the object store.")
    )
    api: Api | None = None
    cdn: Cdn | None = None
    sealing: Sealing | None = None
    bundle: Bundle | None = None
