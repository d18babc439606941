"""The whole stack: cluster, S3 server, resource API, operator; started in this order, stopped in reverse."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainwright_devstack.binaries import Say
from trainwright_devstack.certificates import Authority
from trainwright_devstack.clusters import Cluster, choose_cluster
from trainwright_devstack.installation import Options, install
from trainwright_devstack.kind import KindCluster
from trainwright_devstack.objectstore import BUCKET, ObjectStore
from trainwright_devstack.processes import Process, stop_below
from trainwright_devstack.rabbitmq import STOP_SECONDS as BROKER_STOP_SECONDS
from trainwright_devstack.rabbitmq import RabbitMq
from trainwright_devstack.resourceserver import ResourceServer
from trainwright_devstack.state import (
    STATE_FILE,
    AccountState,
    ClusterState,
    RabbitMqState,
    ResourceApiState,
    S3State,
    StackState,
)

LOCK_FILE = "lock"
BROKER = "rabbitmq"
STREAM = "azaion-annotations"
ANNOTATIONS = "annotations"
PARTS = ("control-plane", "node", "s3", "api", "pki", BROKER, ANNOTATIONS)
STOP_SECONDS = 60.0


class StackError(RuntimeError):
    """The stack can't be started or stopped as asked."""


@dataclass(frozen=True)
class StackOptions:
    """How the stack is to be: which cluster, and whether the operator is installed.

    `settings` is merged into the operator's settings file. A `cluster` given is used, and none is looked for.
    """

    kubeconfig: Path | None = None
    process_node: bool = False
    operator: bool = True
    settings: dict[str, Any] | None = None
    cluster: Cluster | None = None


class Devstack:
    """A stack in a folder, usable as a context manager; `state` tells where everything is.

    Everything is ended when this process is gone, however it went.
    """

    def __init__(self, folder: Path, options: StackOptions | None = None, say: Say | None = None) -> None:
        self.folder = folder.resolve()
        self.options = options or StackOptions()
        self._say: Say = say or (lambda _line: None)
        self._stops: list[Callable[[], None]] = []
        self._lock: int | None = None
        self._state: StackState | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def state(self) -> StackState:
        """Where everything is."""
        if self._state is None:
            raise StackError("the stack is not up")
        return self._state

    def start(self) -> Self:
        """Start everything and write the state."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _take_lock(self.folder)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything and remove the state; a stack that is down stays down."""
        while self._stops:
            self._stops.pop()()
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        self._state = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start(self) -> None:
        say = _with_times(self._say)
        for part in PARTS:  # what a crash left behind
            stop_below(self.folder / part)
            shutil.rmtree(self.folder / part, ignore_errors=True)
        cluster = self.options.cluster or choose_cluster(
            self.folder,
            say,
            kubeconfig=self.options.kubeconfig,
            process_node=self.options.process_node,
        )
        self._begin(cluster.stop, lambda: cluster.start(say))
        authority = Authority(self.folder / "pki").create()
        store = ObjectStore(self.folder / "s3", authority, cluster.host)
        self._begin(store.stop, store.start)
        checks = "versitygw" if store.checks_credentials else "moto: it accepts any credentials"
        say(f"S3 server ready: {store.url} ({checks})")
        server = ResourceServer(self.folder / "api", authority, cluster.host)
        self._begin(server.stop, lambda: server.start(store.cdn_yaml("uploader", "downloader")))
        say(f"resource API ready: {server.url}")
        if self.options.operator:
            settings = self.options.settings or {}
            options = Options(cluster.images, health_port=cluster.health_port, settings=settings)
            install(cluster.kubeconfig, options)
            say("operator ready")
        self._stops.append(lambda: _stop_broker(self.folder))  # `start_broker` may start one later
        self._state = self._describe(cluster, authority, store, server)
        self._state.write(self.folder)

    def _begin(self, stop: Callable[[], None], start: Callable[[], None]) -> None:
        # Registered first: a part that started only half has to be stopped, too.
        self._stops.append(stop)
        start()

    def _describe(
        self, cluster: Cluster, authority: Authority, store: ObjectStore, server: ResourceServer
    ) -> StackState:
        return StackState(
            supervisor=os.getpid(),
            authority=authority.certificate,
            cluster=ClusterState(
                description=cluster.description,
                kubeconfig=cluster.kubeconfig,
                kubectl=cluster.kubectl,
                operator=cluster.images.operator if self.options.operator else None,
                trainer_image=cluster.images.trainer,
                host=cluster.host,
            ),
            s3=S3State(
                endpoint=store.url,
                bucket=BUCKET,
                checks_credentials=store.checks_credentials,
                uploader_cdn_yaml=store.cdn_yaml("uploader"),
                downloader_cdn_yaml=store.cdn_yaml("downloader"),
            ),
            resource_api=ResourceApiState(
                url=server.url,
                publisher=AccountState(email=server.publisher.email, password=server.publisher.password),
                reader=AccountState(email=server.reader.email, password=server.reader.password),
            ),
        )


def start_broker(folder: Path, say: Say) -> tuple[StackState, RabbitMqState]:
    """Start RabbitMQ in the stack of a folder unless it has one; it ends with the stack."""
    folder = folder.resolve()
    state = StackState.read(folder)
    if state is None or not is_up(folder):
        raise StackError("no stack is up; start one with `trainwright-devstack up --detach`")
    if state.rabbit_mq:
        Process(folder / BROKER / "process").require_alive("RabbitMQ")
        return state, state.rabbit_mq
    broker = RabbitMq(folder / BROKER, Authority(folder / "pki"), state.cluster.host, owner=state.supervisor)
    broker.start()
    account = broker.account
    started = RabbitMqState(
        host=broker.host,
        port=broker.port,
        tls_port=broker.tls_port,
        stream=STREAM,
        user=account.user,
        password=account.password,
    )
    say(f"RabbitMQ ready: {started.host}:{started.port}")
    state = state.model_copy(update={"rabbit_mq": started})
    state.write(folder)
    return state, started


def _stop_broker(folder: Path) -> None:
    stop_below(folder / BROKER, grace=BROKER_STOP_SECONDS)


def is_up(folder: Path) -> bool:
    """Whether somebody looks after a stack in the folder."""
    try:
        with (folder / LOCK_FILE).open() as lock:
            # Shared: asking must not look like a stack to whoever starts one meanwhile.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def take_down(folder: Path) -> bool:
    """Stop the stack in a folder, whoever runs it and whatever became of him; return whether one ran."""
    state, ran = StackState.read(folder), is_up(folder)
    if ran and state:
        _ask_supervisor(folder, state.supervisor)
    left = stop_below(folder)
    if state and state.cluster.description.startswith("kind"):
        KindCluster(folder).stop()
    (folder / STATE_FILE).unlink(missing_ok=True)
    return ran or left > 0


def _ask_supervisor(folder: Path, supervisor: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_up(folder):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGKILL)
            return
        time.sleep(0.1)


def _take_lock(folder: Path) -> int:
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StackError(f"a stack is up in {folder}; stop it with `trainwright-devstack down`") from None
    return lock


def _with_times(say: Say) -> Say:
    begun = time.monotonic()
    return lambda line: say(f"{time.monotonic() - begun:6.1f} s  {line}")
