"""Where the programs of a control plane come from: a folder of the user's, the cache, a download, a build."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.36.3"
ETCD_VERSION = "v3.6.8"
REQUIRED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
OPTIONAL = ("kubectl",)

Say = Callable[[str], None]
"""Prints one line of progress."""


class BinariesError(RuntimeError):
    """No rung of the ladder gave a complete set of programs; the message says what each lacked."""


@dataclass(frozen=True)
class Binaries:
    """A folder with the programs of a control plane."""

    folder: Path

    def missing(self) -> list[str]:
        """Return the required programs that the folder does not have."""
        return [name for name in REQUIRED if not os.access(self.folder / name, os.X_OK)]

    def path(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.folder / name)


def cache_folder() -> Path:
    """Return the folder where downloads and builds are kept: TRAINWRIGHT_CACHE, else the user's cache."""
    if chosen := os.environ.get("TRAINWRIGHT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainwright"


def cached_folder() -> Path:
    """Return the cache folder of this minor version and machine; downloads and builds differ in patches."""
    minor = KUBERNETES_VERSION.rpartition(".")[0]
    return cache_folder() / f"control-plane-{minor}-{system()}-{architecture()}"


def system() -> str:
    """Return the operating system as release addresses name it."""
    return platform.system().lower()


def architecture() -> str:
    """Return the processor as release addresses name it."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def find_binaries() -> tuple[Binaries | None, list[str]]:
    """Look in KUBEBUILDER_ASSETS, then in the cache; what was lacking is told in sentences."""
    problems: list[str] = []
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        problems.append("KUBEBUILDER_ASSETS is not set")
    places = [("KUBEBUILDER_ASSETS", Path(assets))] if assets else []
    for name, folder in [*places, ("the cache", cached_folder())]:
        binaries = Binaries(folder)
        missing = binaries.missing()
        if not missing:
            return binaries, problems
        problems.append(f"{name} ({folder}) lacks {', '.join(missing)}")
    return None, problems
