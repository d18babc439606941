"""Getting the programs of a control plane that nobody has put on this machine: downloaded, else built."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from trainwright_devstack.binaries import (
    Binaries,
    BinariesError,
    Say,
    architecture,
    cached_folder,
    system,
)
from trainwright_devstack.building import BuildError, build_binaries

CONNECT_SECONDS, READ_SECONDS = 10, 60
PIECE = 1 << 20


class AcquisitionError(RuntimeError):
    """A download did not work or did not have the pinned digest."""


@dataclass(frozen=True)
class Archive:
    """A published archive: where it is, what its bytes are, which programs are in it.

    `variable` names an environment variable with another address, such as a mirror; the digest stays.
    """

    url: str
    digest: str
    members: Sequence[str]
    variable: str

    @property
    def address(self) -> str:
        """The address to use."""
        return os.environ.get(self.variable) or self.url


# The digests are those that Kubernetes publishes in CHANGELOG-1.36.md, and kubespray's of etcd's release.
ARCHIVES = {
    "linux-amd64": (
        Archive(
            "https://dl.k8s.io/v1.36.0/kubernetes-server-linux-amd64.tar.gz",
            "sha512:1c64da92575451c2c7ff97c79b772e603995f8e76da1371a6b0746aaa27b65dc"
            "e81c4d734cbb50f40e71486a8e08df36f14e12974f97d4d29e41f23a172a6a25",
            ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
            "TRAINWRIGHT_KUBE_URL",
        ),
        Archive(
            "https://github.com/etcd-io/etcd/releases/download/v3.5.27/etcd-v3.5.27-linux-amd64.tar.gz",
            "sha256:0aad9a9e4e0817a021e933f9806a2b2960a62f949ad5a3d6436d8886945cb1bc",
            ("etcd",),
            "TRAINWRIGHT_ETCD_URL",
        ),
    ),
}


def acquire_binaries(say: Say) -> Binaries:
    """Download the programs into the cache, or build them there; say what is being done."""
    problems: list[str] = []
    for name, way in (("download", download_binaries), ("build", build_binaries)):
        try:
            way(cached_folder(), say)
        except (AcquisitionError, BuildError) as error:
            say(f"{name}: {error}")
            problems.append(f"{name}: {error}")
        else:
            return Binaries(cached_folder())
    raise BinariesError("no control plane to be had: " + "; ".join(problems))


def download_binaries(folder: Path, say: Say, archives: Sequence[Archive] | None = None) -> None:
    """Download archives, check their digests, and put their programs into the folder at once."""
    machine = f"{system()}-{architecture()}"
    chosen = ARCHIVES.get(machine, ()) if archives is None else archives
    if not chosen:
        raise AcquisitionError(f"no digest is pinned for {machine}, only for {', '.join(ARCHIVES)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        programs = Path(temporary) / "programs"
        programs.mkdir()
        for archive in chosen:
            file = Path(temporary) / "archive"
            _fetch(archive, file, say)
            _extract(archive, file, programs)
        shutil.rmtree(folder, ignore_errors=True)
        programs.rename(folder)


def _fetch(archive: Archive, file: Path, say: Say) -> None:
    algorithm, _, expected = archive.digest.partition(":")
    digest = hashlib.new(algorithm)
    say(f"downloading {archive.address}")
    try:
        with (
            requests.get(archive.address, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer,
            file.open("wb") as output,
        ):
            answer.raise_for_status()
            total, done, told = int(answer.headers.get("Content-Length", 0)), 0, 0
            for piece in answer.iter_content(PIECE):
                digest.update(piece)
                output.write(piece)
                done += len(piece)
                if total and done * 10 // total > told:
                    told = done * 10 // total
                    say(f"downloaded {told * 10} % of {total // PIECE} MiB")
    except requests.RequestException as error:
        raise AcquisitionError(f"{archive.address}: {type(error).__name__}") from error
    if digest.hexdigest() != expected:
        found = digest.hexdigest()
        raise AcquisitionError(f"{archive.address} has {algorithm} {found}, not the pinned {expected}")


def _extract(archive: Archive, file: Path, folder: Path) -> None:
    wanted = set(archive.members)
    with tarfile.open(file, "r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            source = tar.extractfile(member) if name in wanted and member.isfile() else None
            if source is None:
                continue
            with source, (folder / name).open("wb") as program:
                shutil.copyfileobj(source, program)
            (folder / name).chmod(0o755)
            wanted.discard(name)
    if wanted:
        raise AcquisitionError(f"{archive.address} lacks {', '.join(sorted(wanted))}")
