"""Claims of the class `standard` become folders; they are removed with their claim."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from trainwright_devstack.api import Api, ApiError, describe
from trainwright_devstack.node.watching import ListWatch

Object = dict[str, Any]
LOG = logging.getLogger(__name__)

PROVISIONER = "trainwright.dev/folder"
STORAGE_CLASS = "standard"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"


class Provisioner:
    """Makes a folder and a volume for each claim, named by the claim's uid: several may run side by side.

    Claims are bound at once, not when their first pod is: all nodes are this machine, so place is no reason
    to wait. The folders belong to `owner`, the user whom pods run as; to us if none is named.
    """

    def __init__(self, api: Api, folder: Path, owner: int | None = None) -> None:
        self._api, self._folder, self._owner = api, folder, owner
        self._watches = [
            ListWatch(api, CLAIMS, {}, self._each(self._provide), self._on_change(self._provide)),
            ListWatch(api, VOLUMES, {}, self._each(self._reclaim), self._on_change(self._reclaim)),
        ]

    def start(self) -> None:
        """Create the storage class and begin to serve claims."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        storage_class = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        }
        self._api.create("/apis/storage.k8s.io/v1/storageclasses", storage_class)
        for watch in self._watches:
            watch.start()

    def stop(self) -> None:
        """Serve no more claims."""
        for watch in self._watches:
            watch.stop()

    def _each(self, act: Any) -> Any:
        def replace(objects: list[Object]) -> None:
            for each in objects:
                _try(act, each)

        return replace

    def _on_change(self, act: Any) -> Any:
        def change(kind: str, changed: Object) -> None:
            if kind != "DELETED":
                _try(act, changed)

        return change

    def _provide(self, claim: Object) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        if spec.get("storageClassName") != STORAGE_CLASS or spec.get("volumeName"):
            return
        if metadata.get("deletionTimestamp"):
            return
        name = f"pvc-{metadata['uid']}"
        path = self._folder / name
        reference = {key: metadata[key] for key in ("namespace", "name", "uid")}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": STORAGE_CLASS,
                "hostPath": {"path": str(path), "type": "Directory"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            },
        }
        if self._api.create(VOLUMES, volume):
            path.mkdir(parents=True, exist_ok=True)
            if self._owner is not None:
                os.chown(path, self._owner, self._owner)

    def _reclaim(self, volume: Object) -> None:
        metadata, spec = volume["metadata"], volume["spec"]
        ours = (metadata.get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER
        if not ours or volume["status"].get("phase") != "Released":
            return
        if spec["persistentVolumeReclaimPolicy"] != "Delete" or metadata.get("deletionTimestamp"):
            return
        path = Path(spec["hostPath"]["path"])
        if path.parent == self._folder:  # never a folder we did not make
            shutil.rmtree(path, ignore_errors=True)
            self._api.delete(f"{VOLUMES}/{metadata['name']}")


def _try(act: Any, subject: Object) -> None:
    try:
        act(subject)
    except ApiError as error:
        LOG.warning("%s: %s", subject["metadata"]["name"], describe(error))
