"""`config.yaml`: what the variables say, in one file to read, compare and keep; without any password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from trainwright.errors import ConfigurationError
from trainwright_trainer.files import write_atomically
from trainwright_trainer.standalone.variables import VARIABLES, ServerSettings

_HEAD = """\
# Written by `trainwright-trainer config render` from the variables of .env and the environment: change those.
# Passwords are not in it: `passwordFrom` says which variable has one.
"""


def render_config(settings: ServerSettings) -> str:
    """Return the text of `config.yaml`; the same settings give the same text."""
    known = settings.model_dump(mode="json", by_alias=True)
    shown: dict[str, dict[str, Any]] = {}
    for variable in VARIABLES:
        topic = known[variable.topic]
        if topic is None:  # there is no stream
            continue
        section = shown.setdefault(variable.topic, {})
        if variable.is_secret:
            section["passwordFrom"] = variable.name
        else:
            section[variable.field] = topic[variable.field]
    return _HEAD + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=1000)


def write_config(text: str, path: Path) -> None:
    """Write the file in one go, for its owner alone: who has which account is nobody else's business."""
    try:
        write_atomically(path, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be written: {error.strerror}", hint="Choose another file with --output."
        ) from None
