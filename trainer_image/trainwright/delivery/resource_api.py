"""The REST side, which keeps small parts and pointers; the only module that speaks to it.

POST /login                    {"email", "password"} -> {"token"}
POST /resources/{folder}       multipart field `data` with a file name
POST /resources/get/{folder}   {"fileName": ...} -> the file
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import requests
import tenacity

from trainwright.delivery.credentials import ApiCredentials
from trainwright.delivery.endpoints import check_endpoint
from trainwright.delivery.forms import FileForm
from trainwright.errors import PublishingError

Result = TypeVar("Result")
Request = dict[str, Any]  # the named arguments of one requests call

TIMEOUTS = (10, 60)  # seconds to connect, and between two pieces of an answer
TIME_LIMIT_SECONDS = 300.0
PIECE = 1 << 20
LARGEST_TEXT = 1 << 20
OLDER_SERVERS = {"hardware": "trainwright"}
"""Older servers want hardware information; a constant, for nobody learns about a pod's machine here."""

_TOKEN = re.compile(r"[!-~]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


class FileMissingError(PublishingError):
    """The server has no file of that name."""


class UnavailableError(PublishingError):
    """The server could not be reached, or said that it can't answer now; worth another try."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


@dataclass(frozen=True)
class StoredFile:
    """What the server sent for a name: size and `sha256:` digest of the bytes that came."""

    size: int
    digest: str


class ResourceApi:
    """A session with one server: logs in when needed, tries again when that can help, never forever."""

    def __init__(
        self,
        url: str,
        credentials: ApiCredentials,
        *,
        time_limit: float = TIME_LIMIT_SECONDS,
        get_fields: Mapping[str, Any] = OLDER_SERVERS,
    ) -> None:
        self.url = check_endpoint(url, what="the resource API")
        self._credentials = credentials
        self._time_limit = time_limit
        self._get_fields = dict(get_fields)
        self._session = requests.Session()
        self._token: str | None = None

    def __repr__(self) -> str:
        return f"ResourceApi({self.url!r}, {self._credentials.email!r})"

    def upload(self, folder: str, name: str, path: Path) -> None:
        """Send a file under a name; the server replaces what was there."""

        with path.open("rb") as file:

            def build_form() -> Request:
                file.seek(0)
                form = FileForm(file, _check_name(name), os.fstat(file.fileno()).st_size)
                return {"data": form, "headers": {"Content-Type": form.content_type}}

            self._put(folder, build_form)

    def upload_text(self, folder: str, name: str, text: str) -> None:
        """Send a short text under a name."""
        files = {"data": (_check_name(name), text.encode(), "application/octet-stream")}
        self._put(folder, lambda: {"files": files})

    def download(self, folder: str, name: str, into: BinaryIO, *, at_most: int) -> StoredFile:
        """Write a file's bytes into an open file; more than was expected is an error."""

        def write(response: requests.Response) -> StoredFile:
            into.seek(0)
            into.truncate()
            return _consume(response, into.write, at_most, name)

        return self._get(folder, name, write)

    def hash(self, folder: str, name: str) -> StoredFile | None:
        """Read a file back and return what it is, or nothing when there is none."""
        try:
            return self._get(folder, name, lambda response: _consume(response, lambda _: None, None, name))
        except FileMissingError:
            return None

    def exists(self, folder: str, name: str) -> bool:
        """Say whether the server has a file, without reading it."""
        try:
            return self._get(folder, name, lambda _: True)
        except FileMissingError:
            return False

    def read_text(self, folder: str, name: str) -> str:
        """Return a short text, which stays in memory."""
        pieces: list[bytes] = []
        self._get(folder, name, lambda response: _consume(response, pieces.append, LARGEST_TEXT, name))
        return b"".join(pieces).decode("utf-8", "replace")

    def _put(self, folder: str, build: Callable[[], Request]) -> None:
        path = f"/resources/{_quote(folder)}"
        self._persist(lambda: self._authorized(path, build, lambda _: None))

    def _get(self, folder: str, name: str, consume: Callable[[requests.Response], Result]) -> Result:
        body = {"fileName": _check_name(name), **self._get_fields}
        path = f"/resources/get/{_quote(folder)}"
        try:
            return self._persist(lambda: self._authorized(path, lambda: {"json": body}, consume))
        except FileMissingError:
            raise FileMissingError(
                f"{self.url} has no file {name!r} in folder {folder!r}",
                hint="check model, version and folder",
            ) from None

    def _persist(self, call: Callable[[], Result]) -> Result:
        """Repeat while the server is unavailable, with growing pauses, within the time limit."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=_choose_pause,
            stop=tenacity.stop_before_delay(self._time_limit),
            reraise=True,
        )(call)

    def _authorized(
        self, path: str, build: Callable[[], Request], consume: Callable[[requests.Response], Result]
    ) -> Result:
        """Post with a token; when it is refused, log in again and repeat once."""
        status = 0
        for _ in range(2):
            self._token = self._token or self._log_in()
            request = build()
            request["headers"] = {**request.get("headers", {}), "Authorization": f"Bearer {self._token}"}
            with self._post(path, **request) as response:
                status = response.status_code
                if status not in (401, 403):
                    self._check(response, path)
                    return self._read(consume, response)
            self._token = None
        raise PublishingError(
            f"{self.url}{path} refuses the account of the Secret ({status})",
            hint="give the account the rights to upload to and read from this folder, or use another account",
        )

    def _log_in(self) -> str:
        body = {"email": self._credentials.email, "password": self._credentials.password}
        with self._post("/login", json=body) as response:
            if response.status_code in (400, 401, 403, 404, 409, 422):
                raise PublishingError(
                    f"{self.url}/login refuses the account of the Secret ({response.status_code})",
                    hint="check AZAION_API_EMAIL and AZAION_API_PASSWORD, and the address of the API",
                )
            self._check(response, "/login")
            answer = self._read(_parse_json, response)
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise PublishingError(f"{self.url}/login answers without a token", hint="is this a resource API?")
        return token

    def _post(self, path: str, **request: Any) -> requests.Response:
        verify = str(self._credentials.ca) if self._credentials.ca else True
        try:
            # The do-nothing `auth` keeps requests from replacing our token by an entry of ~/.netrc.
            return self._session.post(
                self.url + path, timeout=TIMEOUTS, verify=verify, stream=True, allow_redirects=False,
                auth=_leave_as_is, **request,
            )  # fmt: skip
        except requests.exceptions.SSLError as error:
            raise PublishingError(
                f"the certificate of {self.url} is not trusted: {_explain(error)}",
                hint="put the authority that signed it into ca.crt beside the credentials",
            ) from None
        except (
            OSError
        ) as error:  # requests' exceptions are OSErrors, and so is a ca.crt that is no certificate
            if not isinstance(error, requests.RequestException):
                raise PublishingError(f"the ca.crt for {self.url} can't be used: {error}") from None
            raise self._unavailable(error) from None

    def _read(self, consume: Callable[[requests.Response], Result], response: requests.Response) -> Result:
        try:
            return consume(response)
        except requests.RequestException as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> UnavailableError:
        # A server may close the connection while we still send, because the token has expired: log in anew.
        self._token = None
        return UnavailableError(
            f"{self.url} can't be reached: {_explain(error)}", hint="check address, network and server"
        )

    def _check(self, response: requests.Response, path: str) -> None:
        status, where = response.status_code, f"{self.url}{path}"
        if status == 429 or status >= 500:
            raise UnavailableError(
                f"{where} answers {status}",
                hint="the server is overloaded or broken: try again later",
                retry_after=_parse_retry_after(response.headers.get("Retry-After")),
            )
        if status == 404:
            raise FileMissingError(f"{where} answers 404", hint="is this the address of a resource API?")
        if not 200 <= status < 300:
            raise PublishingError(f"{where} answers {status}", hint="is this the address of a resource API?")


def _choose_pause(state: tenacity.RetryCallState) -> float:
    """Return what the server asked for, else an exponential pause with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, UnavailableError) else None
    return tenacity.wait_random_exponential(multiplier=0.5, max=30)(state) if asked is None else asked


def _parse_retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _consume(
    response: requests.Response, write: Callable[[bytes], Any], at_most: int | None, name: str
) -> StoredFile:
    digest, size = hashlib.sha256(), 0
    for piece in response.iter_content(PIECE):
        size += len(piece)
        if at_most is not None and size > at_most:
            raise PublishingError(f"{name} is larger than the {at_most} bytes it should have")
        digest.update(piece)
        write(piece)
    return StoredFile(size, "sha256:" + digest.hexdigest())


def _parse_json(response: requests.Response) -> Any:
    pieces: list[bytes] = []
    _consume(response, pieces.append, LARGEST_TEXT, "the answer to a login")
    try:
        return json.loads(b"".join(pieces))
    except ValueError:
        return None


def _check_name(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise PublishingError(f"{name!r} is not a plain file name", hint="no path separators, no leading dot")
    return name


def _quote(folder: str) -> str:
    return quote(_check_name(folder), safe="")


def _explain(error: Exception) -> str:
    """Return the innermost reason: requests wraps it three times."""
    reason: Any = error
    while inner := (getattr(reason, "reason", None) or next(iter(getattr(reason, "args", ())), None)):
        if not isinstance(inner, Exception):
            break
        reason = inner
    return str(reason)[:200]


def _leave_as_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
