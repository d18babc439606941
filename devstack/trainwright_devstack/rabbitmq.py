"""RabbitMQ with its stream plug-in, where it is installed: the broker that annotations come from."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from trainwright_devstack.certificates import Authority
from trainwright_devstack.objectstore import wait_for_port
from trainwright_devstack.processes import Process, ProcessError, free_port

PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")
"""Folders of the server's own programs: those on the path insist on an account of their own."""

PLUGINS = "[rabbitmq_stream].\n"
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class BrokerAccount:
    """Who may read and write streams."""

    user: str
    password: str = field(repr=False)


class RabbitMq:
    """A broker of one node on this machine: streams in the clear on `port`, over TLS on `tls_port`.

    It is ended when process `owner` (we) is gone.
    """

    def __init__(
        self, folder: Path, authority: Authority, host: str = "127.0.0.1", *, owner: int | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.host, self.port, self.tls_port = host, free_port(), free_port()
        self.account = BrokerAccount("annotations", secrets.token_urlsafe(18))
        self._authority, self._owner = authority, owner
        self._process = Process(self.folder / "process")
        self._name = f"trainwright-{secrets.token_hex(4)}@localhost"
        self._ports = {"ERL_EPMD_PORT": str(free_port()), "RABBITMQ_DIST_PORT": str(free_port())}

    def start(self) -> None:
        """Start the broker, or start it again with the streams it had."""
        programs = find_rabbitmq()
        if programs is None:
            raise ProcessError("RabbitMQ is not installed here: apt-get install rabbitmq-server, as root")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "enabled_plugins").write_text(PLUGINS)
        self._write_settings()
        self._process.start(
            [str(programs / "rabbitmq-server")],
            environment=self.environment,
            directory=self.folder,
            owner=self._owner,
            contain=True,  # the port mapper is a daemon
        )
        wait_for_port(self._process, "RabbitMQ", self.host, self.port)
        wait_for_port(self._process, "RabbitMQ", self.host, self.tls_port)

    def stop(self) -> None:
        """End the broker; its streams stay in the folder."""
        self._process.stop(STOP_SECONDS)

    def kill(self) -> None:
        """End the broker at once, as a lost machine would."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    @property
    def environment(self) -> dict[str, str]:
        """What its own programs need to find it."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            **self._ports,
        }

    def _write_settings(self) -> None:
        pair = self._authority.issue("rabbitmq", common_name="rabbitmq", hosts=[self.host, "localhost"])
        settings = {
            "listeners.tcp": "none",
            "stream.listeners.tcp.1": f"{self.host}:{self.port}",
            "stream.listeners.ssl.1": f"{self.host}:{self.tls_port}",
            "stream.advertised_host": self.host,
            "stream.advertised_port": self.port,
            "stream.advertised_tls_host": self.host,
            "stream.advertised_tls_port": self.tls_port,
            "ssl_options.cacertfile": self._authority.certificate,
            "ssl_options.certfile": pair.certificate,
            "ssl_options.keyfile": pair.key,
            "ssl_options.verify": "verify_none",
            "default_user": self.account.user,
            "default_pass": self.account.password,
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "warning",
        }
        path = self.folder / "rabbitmq.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))


def find_rabbitmq() -> Path | None:
    """Return the folder of RabbitMQ's own programs, or None where it is not installed."""
    program = shutil.which("rabbitmq-server", path=os.pathsep.join(PLACES))
    return None if program is None else Path(program).parent
