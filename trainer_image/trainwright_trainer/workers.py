"""Workers: processes beside each other that carry out one kind of task, so that decoding uses every CPU.

A process of its own per CPU, because decoding small images is mostly Python and a thread would wait for the
others. They are started as programs, not forked: this process has threads. Their input ending ends them, so
none outlives a builder that was killed. An image on which a decoder crashes ends its worker only: the batch
is done again one by one, and the culprit is told by the task.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import IO, Any, Protocol, TypeVar

_LENGTH = struct.Struct(">I")
_Item = TypeVar("_Item")
_Item_contra = TypeVar("_Item_contra", contravariant=True)
Answer = dict[str, Any]


class Task(Protocol[_Item_contra]):
    """What a worker does to each item; it is pickled, and answers are JSON: foreign images made them."""

    def carry_out(self, item: _Item_contra) -> Answer:
        """Return the answer; an `OSError` is the volume's fault, and ends all."""

    def tell_crash(self, item: _Item_contra, what: str) -> Answer:
        """Return the answer for an item that ended its worker."""


def carry_out(
    task: Task[_Item], items: Iterable[_Item], *, processes: int, batch: int = 32
) -> Iterator[Answer]:
    """Yield the answer for every item, in their order; a few batches at a time are in memory.

    Without processes it is done here.
    """
    if not processes:
        yield from map(task.carry_out, items)
        return
    iterator = iter(items)
    with _Crew(task, processes) as crew:
        pending: deque[Future[list[Answer]]] = deque()
        try:
            while items_of_batch := list(islice(iterator, batch)):
                pending.append(crew.submit(items_of_batch))
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


class _Crew:
    """As many workers as processes; a thread for each waits for what it does."""

    def __init__(self, task: Task[Any], processes: int) -> None:
        self._task = task
        self._start: Callable[[], _Worker] = lambda: _Worker(task)
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(processes):
            self._idle.put(None)  # started when first needed
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="worker")
        self._processes = processes

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self._processes):
            worker = self._idle.get()
            if worker is not None:
                worker.end()

    def submit(self, batch: Sequence[Any]) -> Future[list[Answer]]:
        return self._threads.submit(self._do, batch)

    def _do(self, batch: Sequence[Any]) -> list[Answer]:
        worker = self._idle.get()
        try:
            worker = worker or self._start()
            try:
                return worker.do(batch)
            except _WorkerGoneError as gone:
                worker.end()
                worker = None
                if len(batch) == 1:
                    return [self._task.tell_crash(batch[0], str(gone))]
        finally:
            self._idle.put(worker)
        return [answer for item in batch for answer in self._do([item])]


class _WorkerGoneError(Exception):
    """A worker ended before it answered."""


class _Worker:
    """One process that carries out a task."""

    def __init__(self, task: Task[Any]) -> None:
        # -P: a module that lies in the current folder is not imported in place of ours. As the package itself
        # imports this module, -m would warn of running it twice.
        command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(task)

    def do(self, batch: Sequence[Any]) -> list[Answer]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, see above
        try:
            self._send(list(batch))
        except BrokenPipeError:
            raise _WorkerGoneError(f"exit status {self._process.wait()}") from None
        reply = _receive(self._process.stdout)
        if reply is None:
            raise _WorkerGoneError(f"exit status {self._process.wait()}")
        answers = json.loads(reply)
        if isinstance(answers, dict):
            raise OSError(answers["errno"], answers["text"])
        return list(answers)

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


def serve() -> None:
    """Answer batches until the input ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    first = _receive(requests)
    if first is None:
        return
    task: Task[Any] = pickle.loads(first)  # noqa: S301 - from the process that started this one
    while (request := _receive(requests)) is not None:
        reply: list[Answer] | Answer
        try:
            reply = [task.carry_out(item) for item in pickle.loads(request)]  # noqa: S301
        except OSError as error:  # a full volume is no item's fault
            reply = {
                "errno": error.errno,
                "text": f"{error.strerror or error}: {error.filename or 'dataset'}",
            }
        _write(answers, json.dumps(reply).encode())
