"""The life of one pod: again and again, look at the object and at what runs, and do what is missing."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trainwright_devstack.api import STRATEGIC_MERGE_PATCH, Api, ApiError, Unreachable, describe, namespaced
from trainwright_devstack.node.container import Container
from trainwright_devstack.node.environment import MissingReference
from trainwright_devstack.node.launching import launch
from trainwright_devstack.node.podstatus import ContainerView, PodView, status
from trainwright_devstack.node.refusals import refusals
from trainwright_devstack.node.volumes import UnusableVolume, Volumes

Object = dict[str, Any]
LOG = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
RETRY_SECONDS = 1.0
DEFAULT_GRACE_SECONDS = 30


@dataclass(frozen=True)
class PodSettings:
    """What all pods of a node share."""

    folder: Path
    owner: int
    backoff_seconds: float = 1.0


class PodWorker:
    """Runs one pod in a thread of its own until the pod is finished or gone."""

    def __init__(self, pod: Object, api: Api, settings: PodSettings) -> None:
        self.uid = str(pod["metadata"]["uid"])
        self.folder = settings.folder / self.uid
        self._api = api
        self._pod = pod
        self._settings = settings
        self._volumes = Volumes(pod, self.folder / "volumes", api)
        self._wake, self._leave = threading.Event(), threading.Event()
        self._waiting: dict[str, tuple[str, str]] = {}
        self._failure: tuple[str, str] | None = None
        self._reported: Object | None = None
        self._cache: dict[str, Container] = {}
        self._volumes_ready = False
        self._known = self.folder.exists()
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.name}", daemon=True)

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self._pod["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self._pod["metadata"]["name"])

    def start(self) -> None:
        """Begin to look after the pod."""
        self._thread.start()

    def update(self, pod: Object) -> None:
        """Take the newest object of the pod."""
        self._pod = pod
        self._wake.set()

    def leave(self) -> None:
        """Stop looking after the pod; its containers go on."""
        self._leave.set()
        self._wake.set()
        self._thread.join()

    def remove(self) -> None:
        """End the pod at once and remove what it left on disk: the object is gone."""
        self.leave()
        for container in self._all():
            container.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def container(self, name: str) -> Container | None:
        """Return one container of the pod."""
        return next((container for container in self._all() if container.name == name), None)

    # --- the loop

    def _run(self) -> None:
        while True:
            self._wake.clear()  # before looking: what is set from here on is not slept over
            if self._leave.is_set():
                return
            try:
                pause = self._step()
            except ApiError as error:
                pause = RETRY_SECONDS
                LOG.warning("pod %s/%s: %s", self.namespace, self.name, describe(error))
            except (OSError, *Unreachable) as error:
                pause = RETRY_SECONDS
                LOG.warning("pod %s/%s: %s", self.namespace, self.name, error)
            except Exception:  # a pod nobody looks after would hang for ever
                pause = RETRY_SECONDS
                LOG.exception("pod %s/%s: unexpected, trying again", self.namespace, self.name)
            self._wake.wait(pause)

    def _step(self) -> float | None:
        """Do what is due, report, and return how long to wait; None is until the object changes."""
        if self._finished():
            if self._deleting():
                self._delete()
            return None
        pause = LOOK_SECONDS
        if self._deleting() or self._failure:
            self._end()
        elif self._judge():
            pause = self._advance()
        self._report()
        return pause

    def _finished(self) -> bool:
        return self._pod.get("status", {}).get("phase") in {"Succeeded", "Failed"} and not self._any_running()

    def _deleting(self) -> bool:
        return bool(self._pod["metadata"].get("deletionTimestamp"))

    def _judge(self) -> bool:
        """Return whether the pod may go on; say why when it may not."""
        known = self._pod.get("status", {}).get("containerStatuses") or []
        if not self._known and any(each.get("containerID") for each in known):
            self._failure = ("NodeStateLost", "The node lost what it knew of this pod's processes.")
        elif found := refusals(self._pod):
            self._failure = ("NotPossibleOnProcessNode", "; ".join(found))
        elif self._past_deadline():
            self._failure = ("DeadlineExceeded", "Pod was active longer than activeDeadlineSeconds")
        return self._failure is None

    def _past_deadline(self) -> bool:
        seconds = self._pod["spec"].get("activeDeadlineSeconds")
        started = self._pod.get("status", {}).get("startTime")
        return bool(seconds and started and time.time() > _seconds(started) + seconds)

    def _advance(self) -> float:
        """Bring volumes and containers forward, and return when to look again."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known = True
        try:
            if self._volumes_ready:
                self._volumes.refresh()
            else:
                self._volumes.prepare()
                self._volumes_ready = True
        except MissingReference as missing:
            if not self._any_running():
                self._wait_all("ContainerCreating", str(missing))
                return RETRY_SECONDS
        except UnusableVolume as unusable:
            self._failure = ("UnusableVolume", str(unusable))
            return LOOK_SECONDS
        if self._initialize():
            for container in self._containers("containers"):
                self._care_for(container)
        return RETRY_SECONDS if self._waiting else LOOK_SECONDS

    def _initialize(self) -> bool:
        """Run the init containers one after the other, and return whether all are done."""
        for container in self._containers("initContainers"):
            ended = container.terminated()
            if ended is None or ended.exit_code != 0:
                self._care_for(container, repeat_success=False)
                return False
        return True

    def _care_for(self, container: Container, *, repeat_success: bool = True) -> None:
        """Start the container if it should run and does not; stop it if a probe says so."""
        if container.running:
            if dead := container.probe().dead:
                LOG.info(
                    "pod %s/%s: %s failed, restarting %s", self.namespace, self.name, dead, container.name
                )
                container.terminate(self._grace())
            return
        ended = container.terminated()
        if ended is not None and not self._restarts(ended.exit_code, repeat_success=repeat_success):
            self._waiting.pop(container.name, None)
            return
        if ended is not None and not container.may_restart():
            message = f"starts again in {container.backoff_left():.0f} s"
            self._waiting.setdefault(container.name, ("CrashLoopBackOff", message))
            return
        self._start(container)

    def _restarts(self, exit_code: int, *, repeat_success: bool) -> bool:
        policy = self._pod["spec"].get("restartPolicy", "Always")
        if policy == "Always":
            return repeat_success or exit_code != 0
        return bool(policy == "OnFailure" and exit_code != 0)

    def _start(self, container: Container) -> None:
        home = self.folder / "home" / container.name
        try:
            launch(self._pod, container, self._volumes, home, self._api.server)
        except MissingReference as missing:
            self._waiting[container.name] = ("CreateContainerConfigError", str(missing))
        else:
            self._waiting.pop(container.name, None)

    def _end(self) -> None:
        """Stop everything with the grace period that is left."""
        grace = float(self._grace())
        if self._deleting():
            metadata = self._pod["metadata"]
            # The timestamp is cut to whole seconds: a node that was away must not kill a second too early.
            left = _seconds(metadata["deletionTimestamp"]) + 1 - time.time()
            grace = max(0.0, min(metadata.get("deletionGracePeriodSeconds", 0), left))
        for container in self._all():
            container.terminate(grace)
        self._waiting.clear()

    def _grace(self) -> int:
        return int(self._pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))

    def _delete(self) -> None:
        """Let the API server forget the pod, now that nothing of it runs."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        try:
            self._api.delete(namespaced(self.namespace, "pods", self.name), body)
        except ApiError as error:
            if error.status != 409:  # another pod of this name: ours is gone
                raise

    # --- the report

    def _report(self) -> None:
        patch = status(self._view())
        if patch == self._reported:
            return
        path = namespaced(self.namespace, "pods", self.name) + "/status"
        body = {"metadata": {"uid": self.uid}, "status": patch}
        try:
            self._pod = self._api.patch(path, body, STRATEGIC_MERGE_PATCH)
        except ApiError as error:
            if error.status not in {404, 409}:  # the pod is gone; the watch will tell
                raise
        self._reported = patch

    def _view(self) -> PodView:
        return PodView(
            pod=self._pod,
            containers=[self._container_view(each) for each in self._containers("containers")],
            init_containers=[self._container_view(each) for each in self._containers("initContainers")],
            failure=self._failure,
            ending=self._deleting(),
        )

    def _container_view(self, container: Container) -> ContainerView:
        run = container.run
        ended = container.terminated()
        running_since = None if ended or run < 0 else container.process(run).started_at()
        probes = container.probe()
        return ContainerView(
            spec=container.spec,
            container_id=container.container_id(run),
            run=run,
            running_since=running_since,
            terminated=ended,
            last=container.terminated(run - 1) if run > 0 else None,
            waiting=self._waiting.get(container.name, ("", "")),
            started=probes.started,
            ready=probes.ready,
        )

    def _wait_all(self, reason: str, message: str) -> None:
        for container in self._all():
            self._waiting[container.name] = (reason, message)

    def _any_running(self) -> bool:
        return any(container.running for container in self._all())

    def _all(self) -> list[Container]:
        return [*self._containers("initContainers"), *self._containers("containers")]

    def _containers(self, kind: str) -> list[Container]:
        return [self._container(spec) for spec in self._pod["spec"].get(kind) or []]

    def _container(self, spec: Object) -> Container:
        known = self._cache.get(spec["name"])
        if known is None:
            known = self._cache[spec["name"]] = Container(
                spec=spec,
                folder=self.folder / "containers" / spec["name"],
                identity=self.uid,
                owner=self._settings.owner,
                backoff_seconds=self._settings.backoff_seconds,
            )
        return known


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
