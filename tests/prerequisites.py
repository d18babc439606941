"""What a test needs of this machine: without it the test is skipped by name, and fails in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def require(present: object, missing: str) -> None:
    """Skip the test with what is missing; with CI=true nothing may be missing, and the test fails."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def require_program(name: str) -> str:
    """Return where a program is: in KUBEBUILDER_ASSETS, the cache of unpacked programs, or on PATH."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), str(Path.home() / ".cache/trainwright-kube/bin")]
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders))) or shutil.which(name)
    require(found, f"needs {name} in KUBEBUILDER_ASSETS, in the cache, or on PATH")
    return str(found)
