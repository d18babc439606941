"""Which addresses may be spoken to: https, and plain http only on this very machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from trainwright.errors import ConfigurationError


def check_endpoint(url: str, *, what: str) -> str:
    """Return the URL without a trailing slash; refuse one that would send secrets in the clear."""
    if "\\" in url:  # to some libraries the host ends there, to others it goes on
        raise ConfigurationError(
            f"{what} has a backslash in its address", hint="write it as https://host[:port], with '/' only"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{what} {url!r} is not a URL", hint="write it as https://host[:port]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{what} on {parts.hostname} carries more than an address",
            hint="credentials belong into their Secret, not into the URL",
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{what} {url!r} is not encrypted", hint="use https; http is for servers on this machine only"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
