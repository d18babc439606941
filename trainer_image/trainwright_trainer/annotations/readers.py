"""Readers: processes beside each other that read candidates, so that decoding uses every CPU.

A process of its own per CPU, because decoding small images is mostly Python and a thread would wait for the
others. They are started as programs, not forked: this process has threads. Their input ending ends them, so
none outlives a builder that was killed. An image on which a decoder crashes ends its reader only: the batch
is read again one by one, and the culprit is unfit.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from trainwright_trainer.annotations.items import Rule, Rules
from trainwright_trainer.annotations.readings import ObjectStore, Reading, read_candidate
from trainwright_trainer.annotations.sources import Candidate

_BATCH = 32
_WORTH_PROCESSES = 400  # fewer candidates are read before the first process has started
_LENGTH = struct.Struct(">I")


def read_candidates(
    candidates: Iterable[Candidate], count: int, rules: Rules, objects: Path, *, processes: int | None = None
) -> Iterator[Reading]:
    """Yield a reading of every candidate, in their order; a few batches at a time are in memory."""
    if processes is None:
        processes = 0 if count < _WORTH_PROCESSES else usable_cpus()
    if not processes:
        store = ObjectStore(objects)
        yield from (read_candidate(candidate, rules, store) for candidate in candidates)
        return
    batches = _in_batches(candidates)
    with _Readers(processes, rules, objects) as readers:
        pending: deque[Future[list[Reading]]] = deque()
        try:
            for batch in batches:
                pending.append(readers.submit(batch))
                if len(pending) > 2 * processes:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _in_batches(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    iterator = iter(candidates)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


class _Readers:
    """As many readers as processes; a thread for each waits for what it reads."""

    def __init__(self, processes: int, rules: Rules, objects: Path) -> None:
        self._rules = rules
        self._objects = objects
        self._idle: SimpleQueue[_Reader | None] = SimpleQueue()
        for _ in range(processes):
            self._idle.put(None)  # started when first needed
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="reader")
        self._processes = processes

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self._processes):
            reader = self._idle.get()
            if reader is not None:
                reader.end()

    def submit(self, batch: Sequence[Candidate]) -> Future[list[Reading]]:
        return self._threads.submit(self._read, batch)

    def _read(self, batch: Sequence[Candidate]) -> list[Reading]:
        reader = self._idle.get()
        try:
            reader = reader or _Reader(self._rules, self._objects)
            try:
                return reader.read(batch)
            except _ReaderGoneError as gone:
                reader.end()
                reader = None
                if len(batch) == 1:
                    return [Reading(batch[0].name, Rule.CRASH, f"reading it ended the process: {gone}")]
        finally:
            self._idle.put(reader)
        return [reading for candidate in batch for reading in self._read([candidate])]


class _ReaderGoneError(Exception):
    """A reader ended before it answered."""


class _Reader:
    """One process that reads."""

    def __init__(self, rules: Rules, objects: Path) -> None:
        # -P: a module that lies in the current folder is not imported in place of ours.
        command = [sys.executable, "-P", "-m", "trainwright_trainer.annotations.readers"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send((rules, objects))

    def read(self, batch: Sequence[Candidate]) -> list[Reading]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, see above
        try:
            self._send(list(batch))
        except BrokenPipeError:
            raise _ReaderGoneError(f"exit status {self._process.wait()}") from None
        answer = _receive(self._process.stdout)
        if answer is None:
            raise _ReaderGoneError(f"exit status {self._process.wait()}")
        readings = json.loads(answer)
        if isinstance(readings, dict):
            raise OSError(readings["errno"], readings["text"])
        return [Reading.from_json(fields) for fields in readings]

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe, see above
        _write(self._process.stdin, pickle.dumps(value))


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Return the next message, or None at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def _serve() -> None:
    """Answer batches until the input ends; answers are JSON, as decoders of foreign images made them."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    first = _receive(requests)
    if first is None:
        return
    rules, objects = pickle.loads(first)  # noqa: S301 - from the process that started this one
    store = ObjectStore(objects)
    while (request := _receive(requests)) is not None:
        batch = pickle.loads(request)  # noqa: S301
        answer: object
        try:
            answer = [read_candidate(candidate, rules, store).to_json() for candidate in batch]
        except OSError as error:  # a full volume is no annotation's fault
            answer = {
                "errno": error.errno,
                "text": f"{error.strerror or error}: {error.filename or 'dataset'}",
            }
        _write(answers, json.dumps(answer).encode())


if __name__ == "__main__":
    _serve()
