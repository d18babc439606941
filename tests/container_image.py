"""The image of the real node's containers: links, programs of a line each, and nothing that weighs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path

from trainwright_devstack.installation import Images

ROOT = Path(__file__).parents[1]
MOUNTS = {
    "/usr": "/usr",
    "/opt/python": sys.base_prefix,
    "/opt/packages": sysconfig.get_path("purelib"),
    "/opt/source": str(ROOT),
}
"""Folders of this machine, read-only in every container, by their path there."""

IMAGES = Images(
    operator="registry.local/trainwright-operator:test", trainer="registry.local/trainwright-trainer:test"
)
PAUSE = "registry.local/pause:test"
SOURCES = ("operator", "trainer_image")
PROGRAMS = {"trainwright-operator": "trainwright_operator", "trainwright-trainer": "trainwright_trainer"}
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}
ENVIRONMENT = {
    "PATH": "/opt/bin:/opt/python/bin:/usr/bin:/bin",
    "LD_LIBRARY_PATH": "/opt/python/lib",
    "PYTHONPATH": ":".join(["/opt/packages", *(f"/opt/source/{name}" for name in SOURCES)]),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def find_busybox() -> Path:
    """Return the program that needs no library."""
    return Path(shutil.which("busybox") or "busybox")


def write_image(path: Path) -> Path:
    """Write an archive that `ctr images import` takes, under all the names."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "config": {
            "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            # A pod's own container sees no folders of the machine: it has to wait by itself.
            "Cmd": ["/opt/bin/busybox", "tail", "-f", "/dev/null"],
            "User": "65532:65532",
            "WorkingDir": "/",
        },
    }
    text = json.dumps(configuration).encode()
    name = hashlib.sha256(text).hexdigest()
    names = [IMAGES.operator, IMAGES.trainer, PAUSE]
    manifest = [{"Config": f"{name}.json", "RepoTags": names, "Layers": [f"{digest}.tar"]}]
    files = {f"{name}.json": text, f"{digest}.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for file, content in files.items():
            _add(archive, file, content)
    return path


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("etc", "opt", "opt/bin", "proc", "sys", "dev", "tmp", "usr", "var"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, target in LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, module in PROGRAMS.items():
            script = f'#!/bin/sh\nexec /opt/python/bin/python3 -m {module} "$@"\n'
            _add(archive, f"opt/bin/{name}", script.encode(), mode=0o755)
        _add(archive, "opt/bin/busybox", find_busybox().read_bytes(), mode=0o755)
        _add(archive, "etc/passwd", b"root:x:0:0::/:/bin/sh\ntrainwright:x:65532:65532::/tmp:/bin/sh\n")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    archive.addfile(file, io.BytesIO(content))
