"""Gathering: every annotation of a source is listed, and those that are not known yet are read, once each."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from trainwright_trainer.annotations.items import Rule, Rules
from trainwright_trainer.annotations.ledger import Ledger, key_of
from trainwright_trainer.annotations.readers import read_candidates
from trainwright_trainer.annotations.readings import ObjectStore, Reading
from trainwright_trainer.annotations.sources import Candidate, Source
from trainwright_trainer.watching import Watcher

_SECONDS_BETWEEN_STEPS = 0.1  # being told of each of 100,000 small images would take longer than to read them


class Pace:
    """Tells a watcher of progress within a part of the stage, no more often than it wants to hear of it."""

    def __init__(self, watcher: Watcher, start: float, end: float) -> None:
        self._watcher = watcher
        self._start = start
        self._span = end - start
        self._last = 0.0

    def advance(self, done: int, total: int) -> None:
        """So many of so many are done; raises `PreemptedError` once a stop was asked for."""
        now = time.monotonic()
        if done == total or now - self._last >= _SECONDS_BETWEEN_STEPS:
            self._last = now
            self._watcher.advance(self._start + self._span * min(done / max(total, 1), 1))


def digest_rules(rules: Rules) -> str:
    """Return what a reading depends on besides its files: what the rules are, and the code that has them."""
    parameters = {
        field.name: sorted(value) if isinstance(value := getattr(rules, field.name), frozenset) else value
        for field in fields(rules)
    }
    digest = hashlib.sha256(repr(parameters).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def gather_annotations(  # noqa: PLR0913, PLR0917 - the source, the rules, three places and who is told
    source: Source, rules: Rules, ledger: Ledger, store: ObjectStore, scratch: Path, pace: Pace
) -> None:
    """Bring every annotation of the source into the ledger, and no other; its image into the store."""
    ledger.want_nothing()
    spool = scratch / "candidates"
    rules_digest = digest_rules(rules)
    count = _list_unknown(source, rules_digest, ledger, store, spool, lambda done: pace.advance(0, done + 1))
    unknown = _load(spool, count)
    readings = read_candidates(unknown, count, rules, store.folder)
    for done, ((key, _), reading) in enumerate(
        zip(_load_keyed(spool, count), readings, strict=True), start=1
    ):
        ledger.record(key, reading)
        pace.advance(done, count)
    ledger.commit()
    spool.unlink()


def _list_unknown(  # noqa: PLR0913, PLR0917 - as above
    source: Source,
    rules_digest: str,
    ledger: Ledger,
    store: ObjectStore,
    spool: Path,
    step: Callable[[int], None],
) -> int:
    """Note every name of the source; write those to be read to a file, and return how many these are."""
    unknown = 0
    with spool.open("wb") as file:
        for done, candidate in enumerate(source.candidates(spool.parent)):
            step(done)
            key = key_of(candidate.name, candidate.stamp, rules_digest)
            if not ledger.want(_printable(candidate.name), key):
                _refuse_double(candidate.name, done, ledger)
            elif not candidate.stamp or not _is_known(key, ledger, store):
                unknown += 1
                pickle.dump((key, candidate), file)
    return unknown


def _is_known(key: bytes, ledger: Ledger, store: ObjectStore) -> bool:
    found = ledger.find_image(key)
    return found is not None and (not found[0] or store.has(*found))


def _refuse_double(name: str, number: int, ledger: Ledger) -> None:
    key = key_of(name, f"again {number}", "")
    ledger.want(f"{_printable(name)} (annotation {number})", key)
    ledger.record(key, Reading(name, Rule.NAME_TWICE, "another annotation has the same name"))


def _printable(name: str) -> str:
    """Return the name as it can be written down: file names need not be UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _load(spool: Path, count: int) -> Iterator[Candidate]:
    return (candidate for _, candidate in _load_keyed(spool, count))


def _load_keyed(spool: Path, count: int) -> Iterator[tuple[bytes, Candidate]]:
    with spool.open("rb") as file:
        for _ in range(count):
            yield pickle.load(file)  # noqa: S301 - written above
