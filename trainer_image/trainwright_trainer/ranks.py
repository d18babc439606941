"""Training on several devices: one process for each, a rank, and what they tell the one that started them.

Hooks stay in the process that started the ranks, with all that it has: checkpoints, reports, the request to
stop. Rank 0 tells it what happens, and waits where a hook must be done first. Nothing is lost by killing a
rank: all that a training leaves is whole at every moment, as after a SIGKILL.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from trainwright.errors import HostOutOfMemoryError, PreemptedError, SharedMemoryError, StepError
from trainwright_trainer import yolo, yolo_training
from trainwright_trainer.failures import to_step_error, with_hint
from trainwright_trainer.workers import usable_cpus
from trainwright_trainer.yolo_training import SavedEpoch, TrainingHooks, TrainingJob

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_LOG = logging.getLogger(__name__)
_LOCAL = "127.0.0.1"
_SIGNALS_SECONDS = 3.0  # for so long a failure may be the consequence of another rank's death
_MEANING: dict[int, type[StepError]] = {
    signal.SIGBUS: SharedMemoryError,
    signal.SIGKILL: HostOutOfMemoryError,
    signal.SIGTERM: PreemptedError,  # sent to the whole group of processes
}


@dataclass(frozen=True)
class _Record:
    """A record of a rank's log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class _Called:
    """A hook that rank 0 calls; it goes on when that is done."""

    hook: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Rank:
    number: int
    device: str
    process: SpawnProcess
    connection: Connection


def train(job: TrainingJob, hooks: TrainingHooks, settings: Path) -> None:
    """Train with a process for each device; what a hook raises ends all of them."""
    store = open_rendezvous()
    ranks = []
    try:
        for number, device in enumerate(job.devices):
            ranks.append(_start(number, device, job, settings, store.port))
        _listen(ranks, hooks)
    finally:
        for rank in ranks:
            rank.process.kill()
        for rank in ranks:
            rank.process.join()
            rank.connection.close()


def open_rendezvous() -> TCPStore:
    """Open the place where ranks find each other; nobody from outside this machine reaches it.

    A port that is found now and taken later could be another's by then, so ours is taken here.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415 - it takes seconds

    with socket.create_server((_LOCAL, 0)) as server:
        port = server.getsockname()[1]
        # By itself it would listen on every interface; it closes what it is given.
        return TCPStore(
            _LOCAL, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach()
        )


def _start(number: int, device: str, job: TrainingJob, settings: Path, port: int) -> _Rank:
    context = multiprocessing.get_context("spawn")  # threads and an initialised GPU do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(number, job, settings, port, theirs), name=f"rank-{number}")
    process.start()
    theirs.close()
    return _Rank(number, device, process, ours)


def _listen(ranks: Sequence[_Rank], hooks: TrainingHooks) -> None:
    """Carry out what the ranks ask for, until all of them have ended well or one has not."""
    running = {rank.connection: rank for rank in ranks}
    while running:
        for connection in wait(list(running)):
            rank = running[connection]  # type: ignore[index]
            try:
                told = rank.connection.recv()
            except (EOFError, OSError):  # the latter where it ended with something of ours unread
                del running[rank.connection]
                rank.process.join()
                if rank.process.exitcode:
                    raise _explain(rank) from None
                continue
            match told:
                case _Record():
                    logging.getLogger(told.logger).log(told.level, "%s", told.text)
                case _Called():
                    getattr(hooks, told.hook)(*told.arguments)
                    with suppress(OSError):  # it was killed meanwhile: the next look at it tells how
                        rank.connection.send(None)
                case StepError():
                    raise _find_cause(ranks) or told


def _find_cause(ranks: Sequence[_Rank]) -> StepError | None:
    """Return the error of a rank that was killed: what the others then tell is only its consequence."""
    wait([rank.process.sentinel for rank in ranks], _SIGNALS_SECONDS)
    return next((_explain(rank) for rank in ranks if -(rank.process.exitcode or 0) in _MEANING), None)


def _explain(rank: _Rank) -> StepError:
    code = rank.process.exitcode or 0
    what = f"the training process of device {rank.device}"
    if code >= 0:
        return StepError(f"{what} ended with code {code}", hint="The end of the log says why.")
    number = signal.Signals(-code)
    kind = _MEANING.get(number)
    return (
        with_hint(kind, f"{what} was ended by {number.name}")
        if kind
        else StepError(f"{what} was ended by {number.name}", hint="The end of the log may say why.")
    )


# --- in the process of a rank ------------------------------------------------------------------------------


class _Voice:
    """What a rank tells; threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._telling = Lock()

    def tell(self, message: _Record | StepError) -> None:
        with self._telling:
            self._connection.send(message)

    def call(self, hook: str, *arguments: Any) -> None:
        with self._telling:
            self._connection.send(_Called(hook, arguments))
            self._connection.recv()


class _SendRecords(logging.Handler):
    def __init__(self, voice: _Voice, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter())
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self._voice.tell(_Record(record.name, record.levelno, self.format(record)))


class _RemoteHooks:
    """The hooks of the process that started this one."""

    def __init__(self, voice: _Voice) -> None:
        self._call = voice.call

    def on_batch_size(self, batch_size: int) -> None:
        self._call("on_batch_size", batch_size)

    def on_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        self._call("on_batch", epoch, epochs, batch, batches)

    def on_validation_batch(self) -> None:
        self._call("on_validation_batch")

    def on_saved(self, saved: SavedEpoch) -> None:
        self._call("on_saved", saved)


def _work(number: int, job: TrainingJob, settings: Path, port: int, connection: Connection) -> None:
    """Be one rank."""
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent decides
    _name_rank(number, len(job.devices), port, on_processors=job.devices[0] == "cpu")
    voice = _Voice(connection)
    logging.basicConfig(
        handlers=[_SendRecords(voice, logging.WARNING if number else logging.INFO)], level=logging.INFO
    )
    try:
        yolo.prepare(settings / f"rank-{number}")  # each has its own settings file to write
        yolo_training.train(job, _RemoteHooks(voice))
    except Exception as error:
        failure = to_step_error(error)
        if failure is not error:
            _LOG.exception("rank %d failed", number)
        with suppress(OSError):
            voice.tell(failure)
    else:
        _leave_group()


def _name_rank(number: int, ranks: int, port: int, *, on_processors: bool) -> None:
    """Set what torch and Ultralytics read; Ultralytics does when it is first imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(usable_cpus() // ranks, 1)))
    os.environ.update(
        RANK=str(number),
        LOCAL_RANK=str(number),
        WORLD_SIZE=str(ranks),
        MASTER_ADDR=_LOCAL,
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # the store is there: rank 0 is not to open one
        TORCHELASTIC_RESTART_COUNT="0",
    )
    if on_processors:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _leave_group() -> None:
    from torch import distributed  # noqa: PLC0415

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
