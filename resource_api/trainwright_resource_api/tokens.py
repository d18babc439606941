"""What a login returns: a short-lived JSON web token, signed with the newest key of a JWK set."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization, OctKey

from trainwright_resource_api.secret_files import SecretFileError, WatchedSecret, read_secret, write_secret

KEYS_FILE = ".keys.json"
"""Inside the data folder; names that begin with a dot are out of reach for clients."""

ISSUER = "trainwright-resource-api"
ALGORITHM = "HS256"

_CLAIMS = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER}, sub={"essential": True}, exp={"essential": True}
)


class Tokens:
    """Issues and checks tokens; a rotated key file is in force with the next request."""

    def __init__(self, path: Path, seconds: int) -> None:
        if not path.exists():
            rotate_keys(path)
        self._keys = WatchedSecret(path, _parse_keys)
        self._seconds = seconds

    def issue(self, name: str) -> str:
        """Return a token that says who its holder is; what they may do is looked up at each request."""
        now = int(time.time())
        newest = self._keys.get().keys[0]
        claims = {"iss": ISSUER, "sub": name, "iat": now, "exp": now + self._seconds}
        return jwt.encode({"alg": ALGORITHM, "kid": newest.kid}, claims, newest)

    def read(self, token: str) -> str | None:
        """Return the name a token was issued to, or nothing when it is expired or not ours."""
        try:
            claims = jwt.decode(token, self._keys.get(), algorithms=[ALGORITHM]).claims
            _CLAIMS.validate(claims)
        except (JoseError, ValueError):
            return None
        return str(claims["sub"])


def rotate_keys(path: Path, *, keep: int = 2) -> str:
    """Put a new signing key first and keep the newest others, so that issued tokens run out by themselves."""
    present = _parse_keys(read_secret(path)).keys if path.exists() else []
    newest = OctKey.generate_key(256, parameters={"kid": secrets.token_hex(8)})
    keys = KeySet([newest, *present][:keep])
    write_secret(path, json.dumps(keys.as_dict(private=True), indent=2).encode())
    return str(newest.kid)


def _parse_keys(content: bytes) -> KeySet:
    try:
        keys = KeySet.import_key_set(cast("KeySetSerialization", json.loads(content)))
    except (ValueError, KeyError, TypeError, JoseError):
        raise SecretFileError("the signing keys are not a JWK set; remove the file to get new ones") from None
    if not keys.keys:
        raise SecretFileError("the file of the signing keys holds none; remove it to get new ones")
    return keys
