"""The reference resource API of the stack, with one account that publishes and one that reads."""

from __future__ import annotations

import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trainwright_devstack.certificates import Authority
from trainwright_devstack.kubeconfig import write_private
from trainwright_devstack.objectstore import wait_for_port
from trainwright_devstack.processes import Process, free_port

PROGRAM = (sys.executable, "-m", "trainwright_resource_api")


@dataclass(frozen=True)
class Account:
    """One account of the resource API."""

    email: str
    role: str
    password: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(24))


class ResourceServer:
    """The resource API over TLS; it hands each role its own `cdn.yaml`."""

    def __init__(self, folder: Path, authority: Authority, host: str = "127.0.0.1") -> None:
        self.folder = folder.resolve()
        self.publisher = Account("publisher@example.com", "publisher")
        self.reader = Account("reader@example.com", "reader")
        self._authority, self._host, self._port = authority, host, free_port()
        self._process = Process(self.folder / "process")

    @property
    def url(self) -> str:
        """The address."""
        return f"https://{self._host}:{self._port}"

    def start(self, cdn_yaml: str) -> None:
        """Start the server, and return when it answers; `cdn_yaml` has the pairs of both roles."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        users, cdn = self.folder / "users.yaml", self.folder / "cdn.yaml"
        write_private(cdn, cdn_yaml)
        for account in (self.publisher, self.reader):
            self._add(account, users)
        pair = self._authority.issue("api", common_name="api", hosts=[self._host, "127.0.0.1", "localhost"])
        options = {
            "--data": self.folder / "data",
            "--users": users,
            "--host": self._host,
            "--port": self._port,
            "--tls-cert": pair.certificate,
            "--tls-key": pair.key,
            "--cdn": cdn,
        }
        words = [str(word) for option in options.items() for word in option]
        self._process.start([*PROGRAM, "serve", *words], directory=self.folder)
        wait_for_port(self._process, "the resource API", self._host, self._port)

    def stop(self) -> None:
        """End the server."""
        self._process.stop()

    def _add(self, account: Account, users: Path) -> None:
        command = [*PROGRAM, "user", "add", account.email, "--role", account.role, "--users", str(users)]
        subprocess.run(
            [*command, "--replace"], input=account.password + "\n", text=True, check=True, capture_output=True
        )
