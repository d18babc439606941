"""The variables of `.env.example`: read, and all that is missing or wrong with them told at once."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator

from trainwright.contract import Contract, OnnxSettings, TrainingSettings
from trainwright.delivery.endpoints import check_endpoint
from trainwright.errors import ConfigurationError

OUTPUTS = ("datasets", "models", "unfinished")
"""The folders below the root that are written to; no tree of annotations may be one of them, or in one."""

_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|it|this)|replace[-_ ]?me|fix[-_ ]?me|to[-_ ]?do|tbd|placeholder|example"
    r"|your[-_ ].*|<.*>|x{3,}|\*+|\.{3}|…",
    re.IGNORECASE,
)
# Names that nobody can own (RFC 2606): an address there is one that was never filled in.
_RESERVED_HOST = re.compile(r"(^|\.)(example(\.(com|net|org))?|invalid)$", re.IGNORECASE)
_HINT = "Set them in .env, which only you may read (chmod 600 .env), or in the environment, which wins."


class Account(Contract):
    """The resource API and the account there."""

    url: str
    email: str
    password: SecretStr

    @field_validator("url")
    @classmethod
    def _is_encrypted(cls, url: str) -> str:
        try:
            return check_endpoint(url, what="the resource API")
        except ConfigurationError as error:
            raise ValueError(f"{error} ({error.hint})") from None


class Stream(Contract):
    """The stream that annotations come from, where there is one."""

    host: str
    port: int = Field(ge=1, le=65535)
    user: str
    password: SecretStr
    queue: str


class Folders(Contract):
    """The root, and below it the three trees of annotations, which are only ever read."""

    root: Path
    data: str
    seed: str
    deleted: str

    @field_validator("root")
    @classmethod
    def _is_absolute(cls, root: Path) -> Path:
        if not root.is_absolute():
            raise ValueError("the root has to be an absolute path")
        return root

    @field_validator("data", "seed", "deleted")
    @classmethod
    def _is_below(cls, tree: str) -> str:
        parts = PurePosixPath(tree).parts
        if not parts or PurePosixPath(tree).is_absolute() or ".." in parts:
            raise ValueError("this has to be a folder below the root, and relative to it")
        if parts[0] in OUTPUTS:
            raise ValueError(f"{', '.join(OUTPUTS)} are for what is made here: choose another folder")
        return tree


class StreamSettings(Contract):
    """What the variables say of the stream, and of the trees that it is read into."""

    annotation_stream: Stream
    folders: Folders


class ServerSettings(Contract):
    """What the variables say, by topic."""

    api: Account
    annotation_stream: Stream | None = None
    folders: Folders
    training: TrainingSettings
    onnx: OnnxSettings


_Settings = TypeVar("_Settings", bound=Contract)


@dataclass(frozen=True)
class Variable:
    """One variable, and which setting it is; one without a default is required."""

    name: str
    topic: str
    field: str
    default: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether its value must never be shown."""
        return self.field == "password"


STREAM = "annotationStream"
VARIABLES = (
    Variable("AZAION_API_URL", "api", "url"),
    Variable("AZAION_API_EMAIL", "api", "email"),
    Variable("AZAION_API_PASSWORD", "api", "password"),
    Variable("RABBITMQ_HOST", STREAM, "host", "127.0.0.1"),
    Variable("RABBITMQ_PORT", STREAM, "port", "5552"),
    Variable("RABBITMQ_USER", STREAM, "user"),
    Variable("RABBITMQ_PASSWORD", STREAM, "password"),
    Variable("RABBITMQ_QUEUE_NAME", STREAM, "queue", "azaion-annotations"),
    Variable("AZAION_ROOT_DIR", "folders", "root", "/azaion"),
    Variable("AZAION_DATA_DIR", "folders", "data", "data"),
    Variable("AZAION_DATA_SEED_DIR", "folders", "seed", "data-seed"),
    Variable("AZAION_DATA_DELETED_DIR", "folders", "deleted", "data_deleted"),
    Variable("TRAINING_MODEL", "training", "baseModel", "yolo26m.pt"),
    Variable("TRAINING_EPOCHS", "training", "epochs", "120"),
    Variable("TRAINING_BATCH_SIZE", "training", "batchSize", "11"),
    Variable("TRAINING_IMGSZ", "training", "imageSize", "1280"),
    Variable("TRAINING_SAVE_PERIOD", "training", "savePeriod", "1"),
    Variable("TRAINING_WORKERS", "training", "workers", "24"),
    Variable("EXPORT_ONNX_IMGSZ", "onnx", "imageSize", "1280"),
)
_BY_SETTING = {(variable.topic, variable.field): variable for variable in VARIABLES}


def read_settings(env_file: Path, environment: Mapping[str, str]) -> ServerSettings:
    """Return what file and environment say; without the file the environment alone has to do.

    Raise one `ConfigurationError` that names every variable that is missing or wrong.
    """
    values = _read_values(env_file, environment)
    # A server without a stream says nothing of one; half of what it takes is a mistake.
    has_stream = any(values.get(variable.name) for variable in VARIABLES if variable.topic == STREAM)
    used = [variable for variable in VARIABLES if has_stream or variable.topic != STREAM]
    return _read(ServerSettings, used, values)


def read_stream_settings(env_file: Path, environment: Mapping[str, str]) -> StreamSettings:
    """Return what they say of the stream and the trees; the same errors, and of nothing else."""
    used = [variable for variable in VARIABLES if variable.topic in {STREAM, "folders"}]
    return _read(StreamSettings, used, _read_values(env_file, environment))


def _read_values(env_file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    values = {**_read_file(env_file), **environment}
    return {name: text.strip() for name, text in values.items()}


def _read(kind: type[_Settings], used: list[Variable], values: Mapping[str, str]) -> _Settings:
    problems = [_describe_absence(variable, values) for variable in used if _is_absent(variable, values)]
    present = [variable for variable in used if not _is_absent(variable, values)]
    settings, wrong = _validate(kind, present, values)
    if settings is None or problems:
        listed = "; ".join([*problems, *wrong])
        raise ConfigurationError(f"the server's settings are incomplete: {listed}", hint=_HINT)
    return settings


def _read_file(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigurationError(
                    f"{path} is refused: others may read or change it (its mode is {mode:03o})",
                    hint=f"It holds passwords: chmod 600 {path}",
                )
            return dict(_parse(file, path))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"{path} can't be read: {reason}") from None


def _parse(file: TextIO, path: Path) -> Iterator[tuple[str, str]]:
    bindings = list(parse_stream(file))
    # A line's text may be a password: only its number is told.
    broken = [str(binding.original.line) for binding in bindings if binding.error]
    if broken:
        raise ConfigurationError(
            f"{path} has lines that are not NAME=value: {', '.join(broken)}",
            hint="Put values with spaces, quotes or '#' into single quotes.",
        )
    return ((binding.key, binding.value or "") for binding in bindings if binding.key)


def _is_absent(variable: Variable, values: Mapping[str, str]) -> bool:
    value = values.get(variable.name, "")
    return _is_placeholder(variable, value) if value else not variable.default


def _is_placeholder(variable: Variable, value: str) -> bool:
    if _PLACEHOLDER.fullmatch(value):
        return True
    host = ""
    if variable.field == "url":
        host = urlsplit(value).hostname or ""
    elif variable.field in {"email", "host"}:
        host = value.rpartition("@")[2]
    return bool(_RESERVED_HOST.search(host))


def _describe_absence(variable: Variable, values: Mapping[str, str]) -> str:
    return f"{variable.name} is missing" + (" (it has a placeholder)" if values.get(variable.name) else "")


def _validate(
    kind: type[_Settings], present: list[Variable], values: Mapping[str, str]
) -> tuple[_Settings | None, list[str]]:
    """Return the settings, or a sentence for each value that can't be one; of what is absent others tell."""
    body: dict[str, dict[str, Any]] = {}
    for variable in present:
        value = values.get(variable.name) or variable.default
        body.setdefault(variable.topic, {})[variable.field] = value
    try:
        return kind.model_validate(body), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    return None, [sentence for item in found if (sentence := _describe_mistake(item, present))]


def _describe_mistake(item: Mapping[str, Any], present: list[Variable]) -> str:
    setting = tuple(str(part) for part in item["loc"])
    variable = _BY_SETTING.get((setting[0], setting[-1]))
    if variable not in present:
        return ""
    # A URL may carry a password too.
    shown = "" if variable.field in {"password", "url"} else f" is {item['input']!r}"
    return f"{variable.name}{shown}: {item['msg']}"
