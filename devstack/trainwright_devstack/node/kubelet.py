"""The one endpoint of a kubelet that people miss first: the logs, for `kubectl logs`."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from trainwright_devstack.certificates import KeyPair
from trainwright_devstack.node.container import Container

LOG = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.2
BLOCK_BYTES = 64 * 1024

Find = Callable[[str, str, str], Container | None]
"""Returns the container of namespace, pod and name."""


class KubeletServer(ThreadingHTTPServer):
    """Serves logs to whoever shows a client certificate of the cluster's authority."""

    daemon_threads = True

    def __init__(self, port: int, pair: KeyPair, authority: Path, find: Find) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.find = find
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pair.certificate, pair.key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(target=self.serve_forever, name="kubelet", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: KubeletServer
    timeout = 3600

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        match address.path.strip("/").split("/"):
            case ["containerLogs", namespace, pod, container]:
                options = {key: values[-1] for key, values in parse_qs(address.query).items()}
                self._send_logs(self.server.find(namespace, pod, container), options)
            case ["healthz"]:
                self._answer(200, "ok")
            case _:
                self._answer(
                    501, "a process node serves logs only: no exec, attach, port-forward or metrics\n"
                )

    def do_POST(self) -> None:
        self._answer(501, "a process node serves logs only: no exec, attach or port-forward\n")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        LOG.debug(format, *arguments)

    def _answer(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_logs(self, container: Container | None, options: dict[str, str]) -> None:
        run = -1 if container is None else container.run - (options.get("previous") == "true")
        if container is None or run < 0:
            self._answer(404, "no such container has run on this node\n")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        try:
            for block in _blocks(container, run, options):
                self.wfile.write(block)
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            LOG.debug("the reader of a log went away")


def _blocks(container: Container, run: int, options: dict[str, str]) -> Iterator[bytes]:
    """Yield the log from where the options say, and what is added to it when it is followed."""
    process = container.process(run)
    follow = options.get("follow") == "true"
    left = int(options["limitBytes"]) if "limitBytes" in options else None
    with process.log.open("rb") as log:
        if "tailLines" in options:
            log.seek(_tail_offset(process.log, int(options["tailLines"])))
        while left is None or left > 0:
            over = not process.alive()  # before reading: what was written until then is not missed
            block = log.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left))
            if block:
                left = None if left is None else left - len(block)
                yield block
            elif over or not follow:
                return
            else:
                time.sleep(FOLLOW_SECONDS)


def _tail_offset(path: Path, lines: int) -> int:
    """Return where the last `lines` lines begin, reading from the end."""
    position = path.stat().st_size
    if lines <= 0:
        return position
    with path.open("rb") as file:
        found = 0
        last = True
        while position > 0:
            start = max(0, position - BLOCK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            for index in range(len(block) - 1, -1, -1):
                if block[index : index + 1] == b"\n" and not (last and index == len(block) - 1):
                    found += 1
                    if found == lines:
                        return start + index + 1
            last, position = False, start
    return 0
