"""Kubeconfig files: ours stands alone, and the user's own is never opened for writing."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any, cast

import yaml
from kubernetes import client, config

from trainwright_devstack.certificates import KeyPair


def write_kubeconfig(path: Path, *, server: str, authority: Path, identity: KeyPair, user: str) -> Path:
    """Write a kubeconfig with everything in it, readable by its owner only."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "trainwright",
                "cluster": {"server": server, "certificate-authority-data": _base64(authority)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(identity.certificate),
                    "client-key-data": _base64(identity.key),
                },
            }
        ],
        "contexts": [{"name": "trainwright", "context": {"cluster": "trainwright", "user": user}}],
        "current-context": "trainwright",
    }
    write_private(path, yaml.safe_dump(content, sort_keys=False))
    return path


def server_of(path: Path) -> str:
    """Return the address of the API server that a kubeconfig's current context points to."""
    content = cast("dict[str, Any]", yaml.safe_load(path.read_text()))
    contexts = {entry["name"]: entry["context"] for entry in content.get("contexts", [])}
    clusters = {entry["name"]: entry["cluster"] for entry in content.get("clusters", [])}
    return str(clusters[contexts[content["current-context"]]["cluster"]]["server"])


def connect(path: Path) -> client.ApiClient:
    """Return a client of the official library for a kubeconfig's current context; close it after use."""
    return config.new_client_from_config(config_file=str(path), persist_config=False)


def write_private(path: Path, text: str) -> None:
    """Replace a file's content at once, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
