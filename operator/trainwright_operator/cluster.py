"""The only module that speaks to the API server.

By aiohttp: a generated client would take more memory than all the rest of the operator.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import orjson
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from trainwright_operator.login import Login
from trainwright_operator.names import (
    API_VERSION,
    CLUSTER_PROFILE_KIND,
    CLUSTER_PROFILE_PLURAL,
    OPERATOR_MANAGER,
    PROFILE_KIND,
    PROFILE_PLURAL,
    RUN_KIND,
    RUN_PLURAL,
)

Object = dict[str, Any]
"""One Kubernetes object as JSON."""

TOKEN_SECONDS = (
    60  # a projected token is renewed by the kubelet long before it ends: read it again this often
)
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
WATCH_SECONDS = (300, 600)  # after which the API server ends a watch; not all at the same time
# A watch tells about every minute how far it has come: one that is silent for longer is dead.
WATCH_TIMEOUT = aiohttp.ClientTimeout(sock_connect=10, sock_read=150)
PAGE = 100  # objects in one answer; larger ones are the most memory the operator ever takes
FIRST_PAUSE = 0.2  # seconds at most before a request is repeated; later ones are longer
REQUESTS = 5  # of the same kind, where the API server asks to repeat it or could not be reached


@dataclass(frozen=True)
class Kind:
    """Where the objects of a kind live in the API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the URL path of one object, or of the collection without a name."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *filter(None, (name, subresource))])


RUNS = Kind(API_VERSION, RUN_KIND, RUN_PLURAL)
PROFILES = Kind(API_VERSION, PROFILE_KIND, PROFILE_PLURAL)
CLUSTER_PROFILES = Kind(API_VERSION, CLUSTER_PROFILE_KIND, CLUSTER_PROFILE_PLURAL, False)
JOBS = Kind("batch/v1", "Job", "jobs")
PODS = Kind("v1", "Pod", "pods")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
SECRETS = Kind("v1", "Secret", "secrets")
CLAIMS = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
ACCOUNTS = Kind("v1", "ServiceAccount", "serviceaccounts")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
NODES = Kind("v1", "Node", "nodes", False)
EVENTS = Kind("events.k8s.io/v1", "Event", "events")
LEASES = Kind("coordination.k8s.io/v1", "Lease", "leases")
POLICIES = Kind(
    "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False
)
POLICY_BINDINGS = Kind(
    "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    False,
)
KINDS = {
    kind.kind: kind
    for kind in (RUNS, JOBS, PODS, CONFIG_MAPS, SECRETS, CLAIMS, ACCOUNTS, ROLE_BINDINGS, EVENTS, LEASES)
}


class Listing(NamedTuple):
    """Objects of a kind, as they were at one version of the API server's state."""

    items: list[Object]
    version: int


class ApiError(Exception):
    """The API server refused a request: `status` is the HTTP status, `reason` the API's own word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.temporary = status in (0, 429, 503, 504)


class AlreadyExistsError(ApiError):
    """An object of this name exists."""


class NotFoundError(ApiError):
    """No object of this name exists."""


class NotLeadingError(Exception):
    """Another operator may be the leader by now: nothing is written any more."""


class Cluster:
    """Requests to the API server: each returns an object as JSON or raises `ApiError`."""

    def __init__(self, login: Login, session: aiohttp.ClientSession) -> None:
        self._login = login
        self._session = session
        self._token: str | None = None
        self._token_time = float(-TOKEN_SECONDS)
        self.writes = 0
        self.on_answer: Callable[[str, int], None] = lambda _method, _status: None  # 0: there was none
        self.may_write: Callable[[], bool] = lambda: True  # asked before each write

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return the object, or None where there is none."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except NotFoundError:
            return None

    async def pages(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> AsyncIterator[Listing]:
        """Yield all objects of a kind, page by page, each with the version of the state they are from."""
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._request("GET", kind.path(namespace), query=query)
            yield Listing(page["items"], int(page["metadata"]["resourceVersion"]))
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def list(self, kind: Kind, namespace: str | None = None, selector: str = "") -> Listing:
        """Return all objects of a kind at once; for few of them."""
        pages = [page async for page in self.pages(kind, namespace, selector)]
        return Listing([item for page in pages for item in page.items], pages[-1].version)

    async def watch(
        self, kind: Kind, version: int, namespace: str | None = None, selector: str = ""
    ) -> AsyncGenerator[Object, None]:
        """Yield what happens to a kind after a version, and bookmarks, until the API server ends it."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(version)}
        query |= {"timeoutSeconds": str(random.randint(*WATCH_SECONDS))}  # noqa: S311  (not a secret)
        query |= {"labelSelector": selector} if selector else {}
        url, headers = self._login.server + kind.path(namespace), self._authorization()
        try:
            async with self._session.get(
                url, params=query, headers=headers, timeout=WATCH_TIMEOUT
            ) as response:
                if not response.ok:
                    raise await _as_error(response)
                async for line in _lines(response.content):
                    event: Object = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _told_error(event["object"])
                    yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "Unreachable", f"watching {kind.plural}: {error!r}") from error
        except orjson.JSONDecodeError as error:
            raise ApiError(0, "Unreadable", f"watching {kind.plural}: {error}") from error

    async def create(self, body: Object) -> Object:
        """Create an object; one of its name makes this an `AlreadyExistsError`, never a merge."""
        kind = KINDS[body["kind"]]
        return await self._request("POST", kind.path(body["metadata"].get("namespace")), body=body)

    async def replace(self, body: Object) -> Object:
        """Put an object in place of the version that its resourceVersion names, and of no other."""
        kind, metadata = KINDS[body["kind"]], body["metadata"]
        return await self._request("PUT", kind.path(metadata["namespace"], metadata["name"]), body=body)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete this very object and then what it owns; one that is gone is fine."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", kind.path(namespace, name), body=body)
        except NotFoundError:
            return

    async def apply_status(self, item: Object, status: Object, kind: Kind = RUNS) -> Object:
        """Apply an object's status as the operator: replaces all that the operator owns, and nothing else."""
        metadata = item["metadata"]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "status": status,
        }
        return await self._request(
            "PATCH",
            kind.path(metadata.get("namespace"), metadata["name"], "status"),
            body=body,
            query={"fieldManager": OPERATOR_MANAGER},
            content_type="application/apply-patch+yaml",
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        self.writes += method != "GET"
        request = method, path, body, query, content_type
        try:
            return await self._send(*request)  # nearly all need no more, and the loop below has its price
        except ApiError as error:
            if not error.temporary:
                raise
        return await self._send_again(*request)

    @retry(
        retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.temporary),
        wait=wait_random_exponential(multiplier=2 * FIRST_PAUSE, max=5),
        stop=stop_after_attempt(REQUESTS - 1),
        reraise=True,
    )
    async def _send_again(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str] | None, content_type: str
    ) -> Object:
        await asyncio.sleep(random.uniform(0, FIRST_PAUSE))  # noqa: S311  (not a secret)
        return await self._send(method, path, body, query, content_type)

    async def _send(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str] | None, content_type: str
    ) -> Object:
        if method != "GET" and not self.may_write():
            raise NotLeadingError(f"{method} {path}: not the leader any more")
        data = None if body is None else orjson.dumps(body)
        url = self._login.server + path
        try:
            headers = {"Content-Type": content_type, **self._authorization()}
            async with self._session.request(
                method, url, params=query, data=data, headers=headers
            ) as response:
                self.on_answer(method, response.status)
                if response.ok:
                    answer: Object = orjson.loads(await response.read())
                    return answer
                raise await _as_error(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # also of an answer that is no JSON
            self.on_answer(method, 0)
            raise ApiError(0, "Unreachable", f"{method} {path}: {error!r}") from error

    def _authorization(self) -> dict[str, str]:
        if time.monotonic() - self._token_time >= TOKEN_SECONDS:
            self._token, self._token_time = self._login.read_token(), time.monotonic()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


async def _as_error(response: aiohttp.ClientResponse) -> ApiError:
    try:
        answer = await response.json()
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (aiohttp.ContentTypeError, ValueError):
        reason, message = response.reason or "", (await response.text())[:300]
    kinds = {"AlreadyExists": AlreadyExistsError, "NotFound": NotFoundError}
    return kinds.get(reason, ApiError)(response.status, reason, message)


def _told_error(status: Object) -> ApiError:
    """Return the error that a watch ends with."""
    return ApiError(int(status.get("code", 0)), str(status.get("reason", "")), str(status.get("message", "")))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines, however long; what is left of one that was cut off is dropped."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line


@asynccontextmanager
async def connect(login: Login, connections: int = 32) -> AsyncIterator[Cluster]:
    """Open a session with the API server for as long as the block lasts; no limit of connections is 0."""
    connector = aiohttp.TCPConnector(ssl=login.ssl_context(), limit=connections)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        yield Cluster(login, session)
