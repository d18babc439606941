"""Requests to the API server with plain JSON objects, over the official client's transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from kubernetes import client
from kubernetes.watch.watch import iter_resp_lines

from trainwright_devstack.kubeconfig import connect

Object = dict[str, Any]

REQUEST_SECONDS = 15
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON = "application/json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
APPLY_PATCH = "application/apply-patch+yaml"

ApiError = client.ApiException
Unreachable = (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
"""What a request raises when no answer came at all."""


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: Object | None = None
    kind: str = JSON
    query: dict[str, str] = field(default_factory=dict)
    seconds: int = REQUEST_SECONDS
    accept: str = JSON


class Api:
    """One API server; objects go in and come out as the JSON of its documentation."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = connect(kubeconfig)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._client.rest_client.pool_manager.clear()

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self._client.configuration.host)

    def get(self, path: str, **query: str) -> Object:
        """Return one object, or one list of objects."""
        return self._request("GET", path, query=query)

    def get_table(self, path: str) -> Object:
        """Return an object, or a list, as the table that `kubectl get` prints."""
        response = self._send(_Request("GET", path, accept=TABLE))
        _require_success(response)
        answer: Object = json.loads(response.read())
        return answer

    def find(self, path: str) -> Object | None:
        """Return one object, or None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Object) -> Object:
        """Create an object, or call a subresource."""
        return self._request("POST", path, body=body)

    def create(self, path: str, body: Object) -> bool:
        """Create an object unless one of its name exists; return whether it was created."""
        try:
            self.post(path, body)
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def patch(self, path: str, body: Object, kind: str = MERGE_PATCH, **query: str) -> Object:
        """Change an object."""
        return self._request("PATCH", path, body=body, kind=kind, query=query)

    def delete(self, path: str, body: Object | None = None) -> None:
        """Delete an object; that it is gone already is no error."""
        try:
            self._request("DELETE", path, body=body)
        except ApiError as error:
            if error.status != 404:
                raise

    def watch(self, path: str, version: str, seconds: int, **query: str) -> Iterator[Object]:
        """Yield the changes of a list since `version`, for `seconds` or until the server ends it."""
        query |= {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        response = self._send(_Request("GET", path, query=query, seconds=seconds + REQUEST_SECONDS))
        try:
            _require_success(response)
            for line in iter_resp_lines(response.response):
                if line:
                    yield json.loads(line)
        finally:
            response.response.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        kind: str = JSON,
        query: dict[str, str] | None = None,
    ) -> Object:
        response = self._send(_Request(method, path, body, kind, query or {}))
        _require_success(response)
        answer: Object = json.loads(response.read())
        return answer

    def _send(self, request: _Request) -> Any:
        method, url, headers, body = self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query.items()),
            header_params={"Accept": request.accept, "Content-Type": request.kind},
            body=request.body,
            auth_settings=["BearerToken"],
        )[:4]
        return self._client.call_api(method, url, headers, body, _request_timeout=request.seconds)


def _require_success(response: Any) -> None:
    if 200 <= response.status <= 299:
        return
    body = response.read()
    raise ApiError.from_response(http_resp=response, body=body.decode(errors="replace"), data=None)


def describe(error: Exception) -> str:
    """Return what the API server said, in one line."""
    body = getattr(error, "body", None)
    if isinstance(body, str):
        try:
            return str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            return body
    return str(error) or type(error).__name__


def namespaced(namespace: str, plural: str, name: str = "") -> str:
    """Return the path of a core/v1 object or list in a namespace."""
    path = f"/api/v1/namespaces/{namespace}/{plural}"
    return f"{path}/{name}" if name else path
