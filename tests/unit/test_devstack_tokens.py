"""Tokens of pods are asked for again before they end, and not more often."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from trainwright_devstack.api import Api
from trainwright_devstack.node import volumes
from trainwright_devstack.node.volumes import Volumes


class TokenServer:
    """Stands for the API server: a token lives at least ten minutes, which no test can wait for."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((path, body))
        return {"spec": body["spec"], "status": {"token": f"token-{len(self.requests)}"}}


def test_a_token_is_renewed_when_four_fifths_of_its_life_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(volumes.time, "monotonic", lambda: clock[0])
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    pod = {
        "metadata": {"name": "work", "namespace": "ml", "uid": "u1"},
        "spec": {
            "serviceAccountName": "trainer",
            "volumes": [{"name": "account", "projected": {"sources": [source]}}],
        },
    }
    server = TokenServer()
    token = tmp_path / "account/token"
    prepared = Volumes(pod, tmp_path, cast("Api", server))
    prepared.prepare()
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("token-1", 0o600)
    for elapsed, expected in ((479, "token-1"), (481, "token-2"), (950, "token-2"), (962, "token-3")):
        clock[0] = 1000.0 + elapsed
        prepared.refresh()
        assert token.read_text() == expected
    path, body = server.requests[0]
    assert path == "/api/v1/namespaces/ml/serviceaccounts/trainer/token"
    assert body["spec"]["boundObjectRef"] == {"kind": "Pod", "apiVersion": "v1", "name": "work", "uid": "u1"}
    assert body["spec"]["expirationSeconds"] == 600
