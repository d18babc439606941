"""Resource API servers for tests: one in a thread of ours, one as the program users start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import uvicorn

from trainwright_resource_api import Settings, create_app
from trainwright_resource_api.accounts import Role, add_account

PUBLISHER = "trainer@example.com"
READER = "viewer@example.com"
PASSWORDS = {PUBLISHER: "round wheels roll", READER: "green apples fall"}


def write_users(folder: Path) -> Path:
    """Write the accounts' file with a publisher and a reader."""
    path = folder / "users.yaml"
    add_account(path, PUBLISHER, Role.PUBLISHER, PASSWORDS[PUBLISHER])
    add_account(path, READER, Role.READER, PASSWORDS[READER])
    return path


def write_cdn(folder: Path) -> Path:
    """Write the server's cdn.yaml with both pairs."""
    path = folder / "cdn.yaml"
    path.write_text(
        "host: https://cdn.example.com\nbucket: models\n"
        "uploader_access_key: UP\nuploader_access_secret: up-secret\n"
        "downloader_access_key: DOWN\ndownloader_access_secret: down-secret\n"
    )
    path.chmod(0o600)
    return path


@dataclass
class Server:
    """A running server as a client sees it, and its folder."""

    url: str
    data: Path
    users: Path
    process: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)

    def login(self, name: str, password: str | None = None) -> requests.Response:
        body = {"email": name, "password": password or PASSWORDS[name]}
        return requests.post(f"{self.url}/login", json=body, timeout=30)

    def headers(self, name: str = PUBLISHER) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.login(name).json()['token']}"}

    def put(
        self, headers: dict[str, str], name: str, content: Any, folder: str = "models"
    ) -> requests.Response:
        files = {"data": (name, content)}
        return requests.post(f"{self.url}/resources/{folder}", headers=headers, files=files, timeout=60)

    def get(
        self, headers: dict[str, str], name: str, folder: str = "models", **more: Any
    ) -> requests.Response:
        body = {"fileName": name, **more}
        return requests.post(f"{self.url}/resources/get/{folder}", headers=headers, json=body, timeout=60)

    def stored(self) -> list[str]:
        """Return everything below the data folder, leftovers included, but not the server's own files."""
        own = {".lock", ".keys.json"}
        return sorted(p.name for p in self.data.rglob("*") if p.is_file() and p.name not in own)


@contextmanager
def serve_in_thread(folder: Path, **settings: Any) -> Iterator[Server]:
    """Run uvicorn in a thread; cheap to start."""
    users = folder / "users.yaml"
    users = users if users.exists() else write_users(folder)
    app = create_app(Settings(data=folder / "data", users=users, **settings))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, server_header=False, ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start within 10 s"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}", folder / "data", users)
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextmanager
def serve_as_program(folder: Path, *options: str) -> Iterator[Server]:
    """Run `trainwright-resource-api serve` on a free port; stopped with SIGTERM unless it is gone."""
    users = folder / "users.yaml"
    users = users if users.exists() else write_users(folder)
    process = start_program(folder, users, *options)
    server = Server("", folder / "data", users, process)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            server.log.append(line)
            record = json.loads(line)
            server.url = record.get("url", server.url)
            if record["message"] == "Application startup complete.":
                break
        assert server.url, f"the server did not start: {server.log}"
        yield server
    finally:
        process.terminate()
        server.log += process.stdout.read().splitlines(keepends=True)
        process.wait(20)
        process.stdout.close()


def start_program(folder: Path, users: Path, *options: str) -> subprocess.Popen[str]:
    """Start the program without waiting for it."""
    command = [sys.executable, "-m", "trainwright_resource_api", "serve", "--port", "0"]
    return subprocess.Popen(
        [*command, "--data", str(folder / "data"), "--users", str(users), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
