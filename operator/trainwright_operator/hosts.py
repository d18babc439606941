"""Which host an address leads to, and whether it is one of those that are allowed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

HTTPS = 443


def host_of(address: str) -> str:
    """Return the host of an address, with or without a scheme before it."""
    try:
        return (_split(address).hostname or "").lower()
    except ValueError:  # its text may be a Secret's, and has to stay out of logs
        return ""


def is_allowed(address: str, allowed: tuple[str, ...]) -> bool:
    """Return whether an address leads to one of these hosts: HOST, HOST:PORT, or *.HOST for all below it.

    One with a user or a backslash in it does not: libraries disagree on which host is meant.
    """
    try:
        parts = _split(address)
        host, port = (parts.hostname or "").lower(), parts.port or HTTPS
    except ValueError:
        return False
    if "\\" in address or parts.username is not None:
        return False
    return matches_any(host, port, allowed)


def matches_any(host: str, port: int, allowed: Iterable[str]) -> bool:
    """Return whether a host, in lower case, and a port are allowed."""
    return any(_matches(host, port, *pattern.partition(":")[::2]) for pattern in allowed)


def is_loopback(host: str) -> bool:
    """Return whether a host is the very machine that asks: nobody else is on the way to it."""
    return re.fullmatch(r"localhost|127(\.[0-9]+){3}", host.lower()) is not None


def without_user(address: str) -> str:
    """Return an address without path, user and password; as it is where it can be read in two ways."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if "\\" in address:
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _split(address: str) -> Any:
    return urlsplit(address if "//" in address else f"//{address}")


def _matches(host: str, port: int, pattern: str, pattern_port: str) -> bool:
    if pattern_port and int(pattern_port) != port:
        return False
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
