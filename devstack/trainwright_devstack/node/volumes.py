"""Volumes as directories: written once, refreshed while the pod lives, removed with it."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainwright_devstack.api import Api, namespaced
from trainwright_devstack.node.environment import MissingReference
from trainwright_devstack.node.environment import field as pod_field
from trainwright_devstack.node.paths import PathMap

Object = dict[str, Any]

REFRESH_SECONDS = 30.0
TOKEN_REFRESH_SHARE = 0.8
SHARED_MEMORY = "/dev/shm"  # noqa: S108


class UnusableVolume(Exception):  # noqa: N818
    """A volume that will never work on this node; the pod fails with this reason."""


@dataclass(frozen=True)
class File:
    """One file of a volume that comes from the API server."""

    path: str
    content: bytes
    mode: int


@dataclass
class Volumes:
    """The volumes of one pod below `folder`."""

    pod: Object
    folder: Path
    api: Api
    _refresh_at: float = 0.0
    _tokens: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict, repr=False)

    @property
    def namespace(self) -> str:
        """The namespace all references of the pod are in."""
        return str(self.pod["metadata"]["namespace"])

    def prepare(self) -> None:
        """Write every volume; raise MissingReference while something they name does not exist."""
        for volume in self.pod["spec"].get("volumes", []):
            self._prepare(volume)
        self._refresh_at = time.monotonic() + REFRESH_SECONDS

    def refresh(self) -> None:
        """Write again, if it is time, what may have changed on the API server or is about to expire."""
        due = [refresh_at for refresh_at, _ in self._tokens.values()]
        if time.monotonic() >= min([self._refresh_at, *due]):
            self.prepare()

    def places(self, container: Object) -> PathMap:
        """Return where the container's mounts lie."""
        return PathMap(
            {mount["mountPath"]: self._place(mount) for mount in container.get("volumeMounts", [])}
        )

    def texts(self, plural: str, name: str) -> dict[str, str] | None:
        """Return the entries of a ConfigMap or Secret that are text, for variables."""
        entries = self._entries(plural, name)
        if entries is None:
            return None
        return {key: value.decode(errors="replace") for key, value in entries.items()}

    def _prepare(self, volume: Object) -> None:
        if "hostPath" in volume:
            _prepare_host_path(volume["hostPath"])
        elif "persistentVolumeClaim" in volume:
            self._root(volume).mkdir(parents=True, exist_ok=True)
        else:
            folder = self.folder / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "emptyDir" not in volume:
                _write(folder, list(self._files(volume)))

    def _place(self, mount: Object) -> Path:
        if mount["mountPath"] == SHARED_MEMORY:
            return Path(SHARED_MEMORY)  # programs open it by this name whatever we say
        volumes = {volume["name"]: volume for volume in self.pod["spec"].get("volumes", [])}
        root = self._root(volumes[mount["name"]])
        if not mount.get("subPath"):
            return root
        place = root / str(mount["subPath"])
        if not place.exists():
            place.mkdir(parents=True)
        return place

    def _root(self, volume: Object) -> Path:
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            return self._claimed(volume["persistentVolumeClaim"]["claimName"])
        return self.folder / str(volume["name"])

    def _claimed(self, claim_name: str) -> Path:
        claim = self.api.find(namespaced(self.namespace, "persistentvolumeclaims", claim_name))
        if claim is None:
            raise MissingReference(f"persistentvolumeclaims {claim_name} not found")
        name = claim["spec"].get("volumeName")
        if not name or claim["status"]["phase"] != "Bound":
            raise MissingReference(f"claim {claim_name} is not bound yet")
        source = self.api.get(f"/api/v1/persistentvolumes/{name}")["spec"]
        for kind in ("hostPath", "local"):
            if kind in source:
                return Path(source[kind]["path"])
        raise UnusableVolume(f"claim {claim_name}: volume {name} is no folder of this machine")

    def _files(self, volume: Object) -> Iterator[File]:
        if "projected" in volume:
            mode = volume["projected"].get("defaultMode", 0o644)
            for source in volume["projected"].get("sources") or []:
                yield from self._source_files(source, mode)
        else:
            (kind,) = volume.keys() - {"name"}
            yield from self._source_files(volume, volume[kind].get("defaultMode", 0o644))

    def _source_files(self, source: Object, mode: int) -> Iterator[File]:
        if "configMap" in source:
            yield from self._entry_files("configmaps", source["configMap"], mode)
        if "secret" in source:
            yield from self._entry_files("secrets", source["secret"], mode)
        if "downwardAPI" in source:
            for item in source["downwardAPI"].get("items") or []:
                text = pod_field(self.pod, item["fieldRef"]["fieldPath"])
                yield File(item["path"], text.encode(), item.get("mode", mode))
        if "serviceAccountToken" in source:
            yield File(
                source["serviceAccountToken"]["path"], self._token(source["serviceAccountToken"]), 0o600
            )

    def _entry_files(self, plural: str, reference: Object, mode: int) -> Iterator[File]:
        name = reference.get("secretName") or reference["name"]
        entries = self._entries(plural, name)
        if entries is None:
            if reference.get("optional"):
                return
            raise MissingReference(f"{plural} {name} not found")
        items = reference.get("items") or [{"key": key, "path": key} for key in entries]
        for item in items:
            if item["key"] in entries:
                yield File(item["path"], entries[item["key"]], item.get("mode", mode))
            elif not reference.get("optional"):
                raise MissingReference(f"{plural} {name} has no key {item['key']}")

    def _entries(self, plural: str, name: str) -> dict[str, bytes] | None:
        found = self.api.find(namespaced(self.namespace, plural, name))
        if found is None:
            return None
        binary: Mapping[str, str] = found.get("binaryData") or {}
        if plural == "secrets":
            return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        texts = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return texts | {key: base64.b64decode(value) for key, value in binary.items()}

    def _token(self, source: Object) -> bytes:
        """Return a token bound to the pod, asked for again when most of its life is over."""
        audience, seconds = source.get("audience", ""), source.get("expirationSeconds", 3600)
        refresh_at, token = self._tokens.get((audience, source["path"]), (0.0, ""))
        if time.monotonic() < refresh_at:
            return token.encode()
        metadata = self.pod["metadata"]
        binding = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        request: Object = {"spec": {"expirationSeconds": seconds, "boundObjectRef": binding}}
        if audience:
            request["spec"]["audiences"] = [audience]
        account = self.pod["spec"].get("serviceAccountName", "default")
        answer = self.api.post(namespaced(self.namespace, "serviceaccounts", account) + "/token", request)
        token = answer["status"]["token"]
        # The server may shorten or lengthen what was asked for; the answer's spec tells.
        life = answer["spec"]["expirationSeconds"]
        refresh_at = time.monotonic() + min(seconds, life) * TOKEN_REFRESH_SHARE
        self._tokens[audience, source["path"]] = (refresh_at, token)
        return str(token).encode()


def _prepare_host_path(source: Object) -> None:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch(exist_ok=True)
    elif kind == "Directory" and not path.is_dir():
        raise UnusableVolume(f"hostPath {path} is no folder of this machine")
    elif kind == "File" and not path.is_file():
        raise UnusableVolume(f"hostPath {path} is no file of this machine")


def _write(folder: Path, files: list[File]) -> None:
    """Make the folder hold exactly these files, each replaced at once so that no reader sees half of one."""
    wanted = {folder / file.path: file for file in files}
    for path, file in wanted.items():
        if path.exists() and path.read_bytes() == file.content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.touch(mode=0o600)
        temporary.write_bytes(file.content)
        temporary.chmod(file.mode)
        temporary.replace(path)
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()
