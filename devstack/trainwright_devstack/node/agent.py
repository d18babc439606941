"""The node: it registers itself, says that it lives, and has a worker for each of its pods."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright_devstack.api import Api, ApiError, Unreachable, describe
from trainwright_devstack.node.container import Container
from trainwright_devstack.node.pod import PodSettings, PodWorker
from trainwright_devstack.node.registration import register, renew_lease, report_ready
from trainwright_devstack.node.watching import ListWatch
from trainwright_devstack.processes import stop_below

Object = dict[str, Any]
LOG = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 4.0
STATUS_EVERY_HEARTBEATS = 15


@dataclass(frozen=True)
class NodeSettings:
    """What makes this node this node; `port` is that of its logs."""

    name: str
    folder: Path
    port: int
    owner: int
    backoff_seconds: float = 1.0

    @property
    def pods_folder(self) -> Path:
        """Where the pods' volumes, logs and processes are kept."""
        return self.folder / "pods"


class NodeAgent:
    """Runs the pods that are bound to the node; a second start finds what the first one left."""

    def __init__(self, api: Api, settings: NodeSettings) -> None:
        self._api, self._settings = api, settings
        self._pod_settings = PodSettings(settings.pods_folder, settings.owner, settings.backoff_seconds)
        self._workers: dict[str, PodWorker] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watch = ListWatch(
            api,
            "/api/v1/pods",
            {"fieldSelector": f"spec.nodeName={settings.name}"},
            self._replace,
            self._change,
        )
        self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Register and begin to run pods."""
        self._settings.pods_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        register(self._api, self._settings.name, self._settings.port)
        self._watch.start()
        self._heartbeat.start()

    def stop(self) -> None:
        """End all containers and leave the pods' objects as they are."""
        self._stop.set()
        self._watch.stop()
        with self._lock:
            for worker in self._workers.values():
                worker.leave()
        stop_below(self._settings.pods_folder, grace=2.0)

    def find_container(self, namespace: str, pod: str, name: str) -> Container | None:
        """Return a container of a pod of this node."""
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            if (worker.namespace, worker.name) == (namespace, pod):
                return worker.container(name)
        return None

    def _beat(self) -> None:
        beats = 0
        while not self._stop.wait(HEARTBEAT_SECONDS if beats else 0):
            try:
                renew_lease(self._api, self._settings.name)
                if beats % STATUS_EVERY_HEARTBEATS == 0:
                    report_ready(self._api, self._settings.name, self._settings.port)
            except ApiError as error:
                LOG.warning("heartbeat: %s", describe(error))
            except Unreachable as error:
                LOG.warning("heartbeat: %s", error)
            beats += 1

    def _replace(self, pods: list[Object]) -> None:
        """Take the full list: what is not in it is gone, in memory and on disk."""
        for pod in pods:
            self._take(pod)
        uids = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self._workers if uid not in uids]:
            self._forget(uid)
        for folder in self._settings.pods_folder.iterdir():
            if folder.name not in uids:
                stop_below(folder, grace=0.0)
                shutil.rmtree(folder, ignore_errors=True)

    def _change(self, kind: str, pod: Object) -> None:
        if kind == "DELETED":
            self._forget(pod["metadata"]["uid"])
        else:
            self._take(pod)

    def _take(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker is None and not self._stop.is_set():
                worker = self._workers[uid] = PodWorker(pod, self._api, self._pod_settings)
                worker.start()
            elif worker is not None:
                worker.update(pod)

    def _forget(self, uid: str) -> None:
        with self._lock:
            worker = self._workers.pop(uid, None)
        if worker is not None:
            # In a thread of its own: ending one pod must not keep the others waiting.
            threading.Thread(target=worker.remove, name=f"remove-{worker.name}", daemon=True).start()
