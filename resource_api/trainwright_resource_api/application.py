"""The routes: which account may do what.

POST   /login                        anyone         name and password -> token
POST   /resources/{folder}           publisher      multipart upload
POST   /resources/get/{folder}       any account    JSON {"fileName"} -> the file
POST   /resources/list/{folder}      publisher      JSON {"prefix", "after"} -> names, sizes, times
DELETE /resources/{folder}/{name}    publisher
GET    /healthz                      anyone
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from io import BufferedReader
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic.alias_generators import to_camel
from starlette.middleware import Middleware

from trainwright_resource_api.accounts import LONGEST_PASSWORD, Account, Accounts, Role
from trainwright_resource_api.cdn import CDN_FILE, Cdn
from trainwright_resource_api.perimeter import AccessLog, SecurityHeaders
from trainwright_resource_api.problems import ProblemError, bad_request, describe_validation
from trainwright_resource_api.refusals import add_problem_answers
from trainwright_resource_api.settings import Settings
from trainwright_resource_api.storage import OpenedFile, Storage, Upload
from trainwright_resource_api.throttle import LoginThrottle
from trainwright_resource_api.tokens import KEYS_FILE, Tokens
from trainwright_resource_api.uploads import read_chunks, receive_upload

LONGEST_JSON = 64 * 1024
PIECE_BYTES = 256 * 1024
HASHES_AT_ONCE = 2
"""An argon2 check takes 64 MiB: more than this many at once would let logins decide our memory."""

Body = TypeVar("Body", bound=BaseModel)


class Login(BaseModel):
    """The body of a login."""

    email: str = Field(min_length=1, max_length=254)
    password: SecretStr = Field(min_length=1, max_length=LONGEST_PASSWORD)


class FileRequest(BaseModel, alias_generator=to_camel):
    """The body of a download; whatever else older clients send is read over."""

    file_name: str


class ListRequest(BaseModel):
    """The body of a listing: names that begin with `prefix` and come after `after`."""

    prefix: str = Field(default="", max_length=255)
    after: str = Field(default="", max_length=255)


class ResourceServer:
    """The parts a running server is made of, and what its routes have in common."""

    def __init__(self, settings: Settings) -> None:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings = settings
        self.accounts = Accounts(settings.users, group_readable=settings.group_readable)
        self.tokens = Tokens(settings.data / KEYS_FILE, settings.token_seconds)
        self.throttle = LoginThrottle(settings.login_attempts, settings.login_window_seconds)
        self.storage = Storage(settings.data, settings.max_upload_bytes)
        self.cdn = Cdn(settings.cdn, group_readable=settings.group_readable) if settings.cdn else None
        self._hashing = anyio.CapacityLimiter(HASHES_AT_ONCE)

    async def authenticate(self, name: str, password: SecretStr) -> Account | None:
        """Return the account whose password this is."""
        return await run_sync(
            self.accounts.authenticate, name, password.get_secret_value(), limiter=self._hashing
        )

    def identify(self, request: Request) -> Account:
        """Return the account of the request's token, with the rights it has now."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        name = self.tokens.read(token.strip()) if scheme.lower() == "bearer" else None
        account = self.accounts.find(name) if name else None
        if account is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing, expired or not from this server",
                "log in with POST /login and send 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )
        request.state.account = account.name
        return account

    def begin_upload(self, folder: str, name: str) -> Upload:
        """Start an upload of a name that is not reserved."""
        if name == CDN_FILE:
            raise bad_request(f"{CDN_FILE} is kept by the server", "use another name")
        return self.storage.begin(folder, name)


def create_app(settings: Settings) -> FastAPI:
    """Return the server as an ASGI application; raise SecretFileError when its files are open to others."""
    server = ResourceServer(settings)

    @asynccontextmanager
    async def hold_storage(_: FastAPI) -> AsyncIterator[None]:
        with server.storage.hold():
            yield

    app = FastAPI(
        title="Trainwright resource API",
        openapi_url=None,
        lifespan=hold_storage,
        redirect_slashes=False,
        middleware=[Middleware(AccessLog), Middleware(SecurityHeaders)],
    )
    add_problem_answers(app)
    _add_session_routes(app, server)
    _add_resource_routes(app, server)
    return app


def _add_session_routes(app: FastAPI, server: ResourceServer) -> None:
    @app.get("/healthz")
    def check_health() -> dict[str, str]:
        if not server.settings.data.is_dir():
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the data folder is gone", "look at the server's volume"
            )
        return {"status": "ok"}

    @app.post("/login")
    async def log_in(request: Request) -> dict[str, str]:
        login = await _read_json(request, Login, server.settings.idle_seconds)
        address = request.client.host if request.client else ""
        wait = server.throttle.admit(login.email, address)
        if wait:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many failed logins",
                f"wait {wait} s and check the password",
                {"Retry-After": str(wait)},
            )
        account = await server.authenticate(login.email, login.password)
        if account is None:
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "the account or the password is wrong", "check both")
        server.throttle.succeed(login.email, address)
        request.state.account = account.name
        return {"token": server.tokens.issue(account.name)}


def _add_resource_routes(app: FastAPI, server: ResourceServer) -> None:
    publisher = Depends(_require(server, Role.PUBLISHER))

    @app.post("/resources/get")
    @app.post("/resources/get/")
    @app.post("/resources/get/{folder}")
    async def get_file(request: Request, folder: str = "") -> Response:
        account = server.identify(request)
        wanted = await _read_json(request, FileRequest, server.settings.idle_seconds)
        if wanted.file_name == CDN_FILE and server.cdn is not None:
            return Response(server.cdn.render(account.role), media_type="application/yaml")
        opened = await run_sync(server.storage.open, folder, wanted.file_name)
        if opened is None:
            raise _missing(folder, wanted.file_name)
        return _stream(opened)

    @app.post("/resources/list/{folder}", dependencies=[publisher])
    async def list_files(request: Request, folder: str) -> dict[str, Any]:
        wanted = await _read_json(request, ListRequest, server.settings.idle_seconds)
        files = await run_sync(server.storage.list, folder, wanted.prefix, wanted.after)
        return {"files": [{"name": f.name, "size": f.size, "modified": f.modified} for f in files]}

    @app.post("/resources/{folder}", dependencies=[publisher])
    async def put_file(request: Request, folder: str) -> dict[str, Any]:
        begin = partial(server.begin_upload, folder)
        upload = await receive_upload(request, begin, server.settings.idle_seconds)
        return {"name": upload.name, "size": upload.size, "sha256": upload.sha256}

    @app.delete("/resources/{folder}/{name}", dependencies=[publisher])
    async def delete_file(folder: str, name: str) -> Response:
        if not await run_sync(server.storage.delete, folder, name):
            raise _missing(folder, name)
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _require(server: ResourceServer, role: Role) -> Callable[[Request], Account]:
    def check(request: Request) -> Account:
        account = server.identify(request)
        if account.role is not role:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                f"the account is a {account.role}; this needs a {role}",
                "use an account with that role, or ask for one",
            )
        return account

    return check


def _missing(folder: str, name: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_FOUND,
        f"there is no file {name[:200]!r} in folder {folder[:200]!r}",
        "check the names; publishers can list a folder with POST /resources/list/{folder}",
    )


async def _read_json(request: Request, model: type[Body], idle_seconds: float) -> Body:
    content = bytearray()
    async for chunk in read_chunks(request, idle_seconds):
        content += chunk
        if len(content) > LONGEST_JSON:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {LONGEST_JSON} bytes",
                "send the JSON the documentation shows",
            )
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        hint = "send a JSON object with the fields the documentation shows"
        raise bad_request(f"the body is wrong: {describe_validation(error)}", hint) from None


def _stream(opened: OpenedFile) -> StreamingResponse:
    digest = base64.b64encode(opened.digest).decode()
    headers = {
        "Content-Length": str(opened.size),
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-SHA256": opened.digest.hex(),
    }
    return StreamingResponse(_pieces(opened.content), headers=headers, media_type="application/octet-stream")


async def _pieces(content: BufferedReader) -> AsyncIterator[bytes]:
    with content:
        while piece := await run_sync(content.read, PIECE_BYTES):
            yield piece
