"""How the parts of a model are named, and the pointer that says which parts are its newest."""

from __future__ import annotations

import re

from pydantic import ConfigDict, Field, ValidationError

from trainwright.artifacts import SealedModel
from trainwright.contract import Contract, ModelSettings, PartReport
from trainwright.errors import PublishingError

FORMAT = "trainwright-v1"

_BIG_NAME = re.compile(r"(?P<model>[a-z0-9-]+)\.(?P<version>[a-z0-9.-]+)\.(?P<file_id>[0-9a-f]{32})\.big")


class Pointer(Contract):
    """What `{model}.json` and `{model}.{version or tag}.json` hold: where and what the parts are."""

    # A newer publisher may say more than this reader knows; what it must know is in `format`.
    model_config = ConfigDict(extra="ignore")

    format: str = Field(default=FORMAT, pattern=r"^[a-z0-9-]{1,63}$")
    model: str
    version: str
    tag: str | None = None
    file_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    bucket: str
    small: PartReport
    big: PartReport

    @classmethod
    def from_text(cls, text: str, *, name: str) -> Pointer:
        """Read a pointer; what breaks the form is named."""
        try:
            pointer = cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'text'}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            )
            raise PublishingError(
                f"{name} is not a pointer to a sealed model: {problems}",
                hint="publish the model again, or use a newer reader",
            ) from None
        if pointer.format != FORMAT:
            raise PublishingError(
                f"{name} leads to a model in the format {pointer.format!r}; known here: {FORMAT!r}",
                hint="use a newer reader",
            )
        return pointer


def name_pointer(model: str, version: str | None = None) -> str:
    """Return the pointer's file name: of a model's newest version, or of one version or tag."""
    return f"{model}.json" if version is None else f"{model}.{version}.json"


def name_parts(model: ModelSettings) -> str:
    """Return the beginning of both parts' names."""
    return f"{model.name}.{model.version}"


def split_big_name(name: str) -> tuple[str, str, str] | None:
    """Return model, version and file id of a big part's name, or nothing for another file."""
    found = _BIG_NAME.fullmatch(name)
    return (found["model"], found["version"], found["file_id"]) if found else None


def build_pointer(sealed: SealedModel, model: ModelSettings, bucket: str) -> Pointer:
    """Return the pointer to a sealed model."""
    return Pointer(
        model=model.name,
        version=model.version,
        tag=model.tag,
        file_id=sealed.file_id,
        bucket=bucket,
        small=sealed.small,
        big=sealed.big,
    )
