"""Servers on this machine that notifications are sent to, and what they got."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Object = dict[str, Any]


@dataclass
class Hook:
    """A server that takes JSON; it answers with `answers`, one after the other, and then with 200."""

    url: str = ""
    got: list[Object] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    redirect: str = ""


@contextmanager
def https_hook(certificate: Path, key: Path) -> Iterator[Hook]:
    """Serve on 127.0.0.1 for as long as the block lasts."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = hook.answers.pop(0) if hook.answers else 200
            if number == 200:
                hook.got.append(json.loads(body))
                hook.keys.append(self.headers.get("Idempotency-Key", ""))
            self.send_response(number)
            if hook.redirect:
                self.send_header("Location", hook.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    hook.url = f"https://127.0.0.1:{server.server_port}/hook-of-the-secret-kind"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
