"""The chart as helm renders it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
HELM = REPOSITORY / "helm"
CHART = HELM / "trainwright"
CRDS = sorted((REPOSITORY / "crds").glob("*.yaml"))

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


def render_chart(
    helm: str, values: dict[str, Any], release: str = "trainwright", namespace: str = "trainwright-system"
) -> subprocess.CompletedProcess[str]:
    command = [helm, "template", release, CHART, "--namespace", namespace]
    return subprocess.run(
        [*command, "--kube-version", "1.30.0", "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def find(objects: Objects, kind: str, name: str | None = None) -> Objects:
    return [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
