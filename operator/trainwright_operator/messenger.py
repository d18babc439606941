"""The program that sends notifications: a process of its own, which can do nothing else.

Addresses are written by whoever may write a Secret of a namespace, and the libraries that understand them
follow redirects and read files that an address names. So they run where an audit hook refuses every
connection to an address that is not public, when it is made and whatever its name resolved to before; every
file but those of Python and of certificates; and every other program. It reads letters and writes answers,
one JSON per line, and answers in words of its own only: an address is a secret, and libraries tell it.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TextIO

import apprise
import requests
from apprise.plugins.email.base import NotifyEmail

from trainwright_operator.hosts import matches_any

Object = dict[str, Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TIMEOUT = 15.0
MAIL = ("mailto", "mailtos")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
LOCAL_AFTER_ALL = (  # of a cloud's own services, which no registry lists as private
    ipaddress.IPv4Network("168.63.129.16/32"),
    ipaddress.IPv4Network("192.0.0.0/24"),
)
READABLE = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/mime.types",
    "/usr/lib/ssl",
    "/usr/share/ca-certificates",
    "/dev/null",
)
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn")
NO_ADDRESS = "the Secret's text is no address that a notification can go to"
NOT_SECURE = "the address is neither https, nor mail, nor a service that is reached by https"
NOT_ALLOWED = "the address leads to a host that the limits.endpoints of the run's profile do not have"
NOT_PUBLIC = "the address leads to a private or local network, which the operator's settings do not allow"


class RefusedError(OSError):
    """Something that a notification has no need of; libraries take it for a connection that failed."""


class Guard:
    """Decides what this process may do, and remembers what it refused."""

    def __init__(self, allowed: Iterable[str], refused: Iterable[str]) -> None:
        self._allowed: list[Network] = [ipaddress.ip_network(text) for text in allowed]
        self._refused: list[Network] = [ipaddress.ip_network(text) for text in refused]
        self._readable = tuple(
            os.path.realpath(path)
            for path in (
                *READABLE,
                sys.prefix,
                sys.base_prefix,
                str(Path(os.__file__).parent),
                *_certificates(),
            )
        )
        self.refusal = ""
        self.hosts: tuple[str, ...] | None = None
        """The hosts whose names may be looked up; None: all."""

    def stand(self) -> None:
        """Refuse from now on; there is no way back."""
        sys.addaudithook(self._audit)

    def is_allowed(self, host: str) -> bool:
        """Whether a connection to an IP address may be made."""
        try:
            address = _unwrap(ipaddress.ip_address(host.split("%", maxsplit=1)[0]))
        except ValueError:
            return False  # a name: whoever connects has to have resolved it
        if any(address in network for network in self._refused if network.version == address.version):
            return False
        if any(address in network for network in self._allowed if network.version == address.version):
            return True
        if address.version == 6 and address not in PUBLIC_IPV6:
            return False
        if any(address in network for network in LOCAL_AFTER_ALL if network.version == address.version):
            return False
        return address.is_global and not address.is_multicast

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            # What a library takes for the host, however the address is spelled.
            if self.hosts is not None and not _is_host(arguments[0], arguments[1], self.hosts):
                self._refuse(NOT_ALLOWED)
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            if not (isinstance(address, tuple) and self.is_allowed(str(address[0]))):
                self._refuse(NOT_PUBLIC)
        elif event == "open":
            if not isinstance(arguments[0], int) and not self._may_open(arguments[0], arguments[2]):
                self._refuse("the address names a file")
        elif event == "socket.bind" or event.startswith(PROGRAMS):
            self._refuse("the address asks for more than a connection")

    def _may_open(self, path: Any, flags: int) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        reads = flags & (os.O_WRONLY | os.O_RDWR) == 0
        return reads and any(real == known or real.startswith(f"{known}/") for known in self._readable)

    def _refuse(self, reason: str) -> NoReturn:
        self.refusal = reason
        raise RefusedError(reason)


def _is_host(host: Any, port: Any, allowed: tuple[str, ...]) -> bool:
    name = host.decode("idna") if isinstance(host, bytes) else str(host)
    return str(port).isdecimal() and matches_any(name.lower(), int(port), allowed)


def _certificates() -> list[str]:
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
    return [os.environ[name] for name in names if name in os.environ]


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def send(letter: Object, guard: Guard) -> str:
    """Send one letter; return what went wrong, or nothing."""
    allowed = letter.get("hosts")
    limited = None if allowed is None else tuple(allowed)
    guard.hosts = limited
    url = str(letter["url"]).strip()
    asset = apprise.AppriseAsset(app_id="Trainwright", app_desc="Trainwright", app_url="", plugin_paths=[])
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        return _post(url, letter) if url.lower().startswith("https://") else NO_ADDRESS
    if not _is_secure(url.partition("://")[0].lower(), service):
        return NOT_SECURE
    guard.hosts = limited if _names_host(service) else None
    service.verify_certificate = True
    kind = apprise.NotifyType.FAILURE if letter["facts"]["phase"] == "Failed" else apprise.NotifyType.INFO
    heard = _Answers()
    logging.getLogger("apprise").addHandler(heard)
    try:
        done = service.notify(body=letter["text"], title=letter["title"], notify_type=kind)
    finally:
        logging.getLogger("apprise").removeHandler(heard)
    return "" if done else heard.describe()


def _is_secure(schema: str, service: Any) -> bool:
    """Whether a service is mail, or is reached by https: posts with requests, and not by its plain schema."""
    if isinstance(service, NotifyEmail):
        return schema in MAIL
    if str(getattr(service, "notify_url", "")).startswith("http://"):
        return False  # some have a schema that counts as secure, and a server that is not
    named = service.secure_protocol or ()
    secure = (named,) if isinstance(named, str) else tuple(named)
    return (schema in secure or schema == "https") and hasattr(
        sys.modules[type(service).__module__], "requests"
    )


def _names_host(service: Any) -> bool:
    """Whether an address says which host a service is on; mail goes to whom it is for, by any host."""
    if isinstance(service, NotifyEmail):
        return False
    return any("{host}" in template for template in service.templates) or "relay" in service.template_args


class _Answers(logging.Handler):
    """Takes from Apprise's log the number of the answer, and nothing else: addresses are in it."""

    number = ""

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"error=(\d{3})\b", record.getMessage()):
            self.number = found[1]

    def describe(self) -> str:
        """Return what is known of a failure."""
        return f"the service answered {self.number}" if self.number else "the service can't be reached"


def _post(url: str, letter: Object) -> str:
    """POST the facts as JSON; whoever gets them can tell by the key that they came before."""
    body = {"id": letter["id"], "title": letter["title"], "text": letter["text"], **letter["facts"]}
    headers = {"Idempotency-Key": letter["id"], "User-Agent": "trainwright"}
    try:
        answer = requests.post(
            url, json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True
        )
    except requests.RequestException:
        return "the server can't be reached, or its certificate is not trusted"
    with answer:
        return "" if answer.ok and answer.status_code < 300 else f"the server answered {answer.status_code}"


def serve(letters: TextIO, answers: TextIO, guard: Guard) -> None:
    """Answer each letter, until there are no more."""
    for line in letters:
        guard.refusal = ""
        try:
            problem = send(json.loads(line), guard)
        except Exception as error:
            problem = f"the notification can't be sent: {type(error).__name__}"
        if problem and guard.refusal:
            problem = guard.refusal
        answers.write(json.dumps({"problem": problem}) + "\n")
        answers.flush()


def main() -> None:
    """Serve standard input; the first line says which networks are allowed, and which are not."""
    policy = json.loads(sys.stdin.readline())
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.getLogger("apprise").propagate = False
    logging.getLogger("apprise").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    socket.setdefaulttimeout(TIMEOUT)
    requests.sessions.DEFAULT_REDIRECT_LIMIT = 0  # a redirect may lead away from https
    threading.excepthook = lambda _: None
    apprise.Apprise.instantiate("json://localhost")  # has all services loaded, while files may be opened
    guard = Guard(policy["allowed"], policy["refused"])
    guard.stand()
    serve(sys.stdin, answers, guard)


if __name__ == "__main__":
    main()
