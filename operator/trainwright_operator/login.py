"""How to reach the API server: as a pod's account, or as a kubeconfig says."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

Object = dict[str, Any]


@dataclass
class Login:
    """How to reach the API server; `token_file` is read again as the token is renewed."""

    server: str
    ca_data: str | None = None
    ca_path: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    certificate_data: str | None = field(default=None, repr=False)
    key_data: str | None = field(default=None, repr=False)

    @classmethod
    def from_service_account(cls, folder: Path, environment: Mapping[str, str] = os.environ) -> Self:
        """Log in as the pod's account; `folder` holds its token and ca.crt."""
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
        host = f"[{host}]" if ":" in host else host
        return cls(server=f"https://{host}:{port}", ca_path=folder / "ca.crt", token_file=folder / "token")

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """Log in as the current context of a kubeconfig says; certificates and tokens only."""
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        return cls(
            server=cluster["server"].rstrip("/"),
            ca_data=_inline(cluster, "certificate-authority"),
            token=user.get("token"),
            token_file=Path(user["tokenFile"]) if "tokenFile" in user else None,
            certificate_data=_inline(user, "client-certificate"),
            key_data=_inline(user, "client-key"),
        )

    def read_token(self) -> str | None:
        """Return the token as it is now."""
        return self.token_file.read_text().strip() if self.token_file else self.token

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context that verifies the server and shows the client certificate, if there is one."""
        data = base64.b64decode(self.ca_data).decode() if self.ca_data else None
        context = ssl.create_default_context(cafile=self.ca_path, cadata=data)
        if self.certificate_data and self.key_data:
            # OpenSSL takes a client certificate from files only.
            with tempfile.TemporaryDirectory() as folder:
                certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
                certificate.write_bytes(base64.b64decode(self.certificate_data))
                key.touch(mode=0o600)
                key.write_bytes(base64.b64decode(self.key_data))
                context.load_cert_chain(certificate, key)
        return context


def _named(items: list[Object], name: str) -> Object:
    return next(item for item in items if item["name"] == name)


def _inline(section: Object, key: str) -> str | None:
    if f"{key}-data" in section:
        return str(section[f"{key}-data"])
    return base64.b64encode(Path(section[key]).read_bytes()).decode() if key in section else None
