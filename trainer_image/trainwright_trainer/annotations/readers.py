"""Reading candidates: each once, in processes beside each other where there are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright_trainer.annotations.items import Rule, Rules
from trainwright_trainer.annotations.readings import ObjectStore, Reading, read_candidate
from trainwright_trainer.annotations.sources import Candidate
from trainwright_trainer.workers import Answer, carry_out, usable_cpus

_WORTH_PROCESSES = 400  # fewer candidates are read before the first process has started


@dataclass(frozen=True)
class _Reading:
    """The task of a worker: read one candidate."""

    rules: Rules
    objects: Path

    def carry_out(self, candidate: Candidate) -> Answer:
        return read_candidate(candidate, self.rules, ObjectStore(self.objects)).to_json()

    def tell_crash(self, candidate: Candidate, what: str) -> Answer:
        return Reading(candidate.name, Rule.CRASH, f"reading it ended the process: {what}").to_json()


def read_candidates(
    candidates: Iterable[Candidate], count: int, rules: Rules, objects: Path, *, processes: int | None = None
) -> Iterator[Reading]:
    """Yield a reading of every candidate, in their order; a few batches at a time are in memory."""
    if processes is None:
        processes = 0 if count < _WORTH_PROCESSES else usable_cpus()
    answers = carry_out(_Reading(rules, objects), candidates, processes=processes)
    return map(Reading.from_json, answers)
