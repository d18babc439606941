"""The control plane alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubernetes import client

    from trainwright_devstack.controlplane import ControlPlane


def test_it_serves_the_version_its_programs_have(control_plane: ControlPlane, assets: Path) -> None:
    told = subprocess.run(
        [assets / "kube-apiserver", "--version"], check=True, capture_output=True, text=True
    ).stdout
    assert control_plane.version() == told.split()[-1]


def test_its_files_are_private(control_plane: ControlPlane) -> None:
    assert control_plane.folder.stat().st_mode & 0o077 == 0
    for secret in [control_plane.kubeconfig, *control_plane.folder.glob("pki/*.key")]:
        assert secret.stat().st_mode & 0o077 == 0


def test_etcd_refuses_who_has_no_certificate(control_plane: ControlPlane, kube: client.ApiClient) -> None:
    import ssl
    import urllib.request
    from urllib.error import URLError

    import pytest

    trust = ssl.create_default_context(cafile=str(control_plane.authority.certificate))
    with pytest.raises((URLError, ssl.SSLError, OSError)):
        urllib.request.urlopen(f"https://127.0.0.1:{control_plane.etcd_port}/version", context=trust)
