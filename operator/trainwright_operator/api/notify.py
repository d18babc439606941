"""`spec.notify`: who is told what becomes of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainwright_operator.api.section import DataKey, ObjectName, Section

Told = Literal["Queued", "Running", "Suspended", "Succeeded", "Failed", "Cancelled"]


class SecretKey(Section):
    """One key of a Secret of the run's namespace that is meant for notifications."""

    secret_name: ObjectName = Field(
        description="Name of the Secret. It needs the label trainwright.dev/use: notify, so that the right"
        " to create runs is not the right to use any Secret."
    )
    key: DataKey = Field(description="Key of the Secret whose text is taken.")


class Notify(Section):
    """One address, and the phases it is told of."""

    url_from: SecretKey = Field(
        description="Where the address is: https://... gets a POST of JSON; mailtos://..., slack://... and"
        " the like, in the spelling of Apprise, reach e-mail, Slack and other services. It is a secret."
    )
    on: Annotated[tuple[Told, ...], Field(min_length=1, max_length=6)] = Field(
        description="The phases that are told of when the run enters them, each once per attempt."
    )
