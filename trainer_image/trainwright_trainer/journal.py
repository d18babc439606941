"""The stage journal: which stages of a plan are done, so that a retry starts at the first that is not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from trainwright.contract import Contract, Digest, Stage
from trainwright.errors import ConfigurationError
from trainwright_trainer.files import digest_file, write_atomically

_LOG = logging.getLogger(__name__)
Artifact = TypeVar("Artifact", bound=Contract)


class JournalEntry(Contract):
    """A finished stage: what it was made from, what it made, and how long that took."""

    stage: Stage
    input_digest: Digest
    output: str
    files: dict[str, Digest]
    seconds: float


class _Pages(Contract):
    plan_digest: Digest
    entries: dict[Stage, JournalEntry] = Field(default={})


class Journal:
    """The journal of one plan in one workspace; every change is on disk before the next step begins."""

    def __init__(self, workspace: Path, plan_digest: str) -> None:
        self._workspace = workspace
        self._path = workspace / "journal.json"
        self._pages = self._open(plan_digest)

    def recall(self, stage: Stage, input_digest: str, kind: type[Artifact]) -> tuple[Artifact, float] | None:
        """Return what a stage made and its seconds, if it came from this input and is still whole."""
        entry = self._pages.entries.get(stage)
        if entry is None or entry.input_digest != input_digest:
            return None
        damaged = [name for name, digest in entry.files.items() if not self._is_whole(name, digest)]
        if damaged:
            _LOG.warning("stage %s is done again: %s missing or changed", stage, ", ".join(damaged))
            return None
        try:
            return kind.model_validate_json(entry.output), entry.seconds
        except ValidationError:
            _LOG.warning("stage %s is done again: its journal entry can't be read", stage)
            return None

    def record(
        self, stage: Stage, input_digest: str, output: Contract, *, files: Iterable[str], seconds: float
    ) -> None:
        """Write down that a stage is done; `files` are what it made, relative to the workspace."""
        entry = JournalEntry(
            stage=stage,
            input_digest=input_digest,
            output=output.model_dump_json(by_alias=True),
            files={name: digest_file(self._workspace / name) for name in files},
            seconds=round(seconds, 3),
        )
        self._pages = self._pages.model_copy(update={"entries": {**self._pages.entries, stage: entry}})
        write_atomically(self._path, self._pages.model_dump_json(by_alias=True, indent=1).encode())

    def seconds_of(self, stages: Sequence[Stage]) -> dict[Stage, float]:
        """Return how long the recorded ones of these stages took."""
        return {stage: self._pages.entries[stage].seconds for stage in stages if stage in self._pages.entries}

    def _open(self, plan_digest: str) -> _Pages:
        try:
            pages = _Pages.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Pages(plan_digest=plan_digest)
        except ValidationError:
            _LOG.warning("the journal can't be read: every stage is done again")
            return _Pages(plan_digest=plan_digest)
        if pages.plan_digest != plan_digest:
            raise ConfigurationError(
                f"the workspace {self._workspace} holds the work of another plan"
                f" ({pages.plan_digest[:19]}…, this one is {plan_digest[:19]}…)",
                hint="Use an empty workspace: a retry works with the very same plan only.",
            )
        return pages

    def _is_whole(self, name: str, digest: str) -> bool:
        path = self._workspace / name
        return path.is_file() and digest_file(path) == digest
