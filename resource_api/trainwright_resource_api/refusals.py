"""How refusals and failures are answered: always as JSON, never with what only the log should know."""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from trainwright_resource_api.perimeter import SECURITY_HEADERS
from trainwright_resource_api.problems import ProblemError, bad_request
from trainwright_resource_api.secret_files import SecretFileError
from trainwright_resource_api.storage import FileTooLargeError

LOG = logging.getLogger(__name__)


def add_problem_answers(app: FastAPI) -> None:
    """Answer every refusal and failure as JSON, and log what the caller is not told."""

    def answer(problem: ProblemError) -> JSONResponse:
        return JSONResponse(problem.as_json(), problem.status, headers=problem.headers)

    @app.exception_handler(ProblemError)
    async def answer_problem(_: Request, problem: ProblemError) -> JSONResponse:
        return answer(problem)

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> JSONResponse:
        reason = HTTPStatus(error.status_code).phrase.lower()
        return answer(
            ProblemError(
                HTTPStatus(error.status_code),
                f"{request.method} {request.url.path[:200]}: {reason}",
                "the documentation lists the routes",
                error.headers,
            )
        )

    @app.exception_handler(FileTooLargeError)
    async def answer_too_large(_: Request, __: FileTooLargeError) -> JSONResponse:
        return answer(
            ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "the file is larger than this server takes",
                "ask for a higher --max-upload-mib",
            )
        )

    @app.exception_handler(SecretFileError)
    async def answer_unusable(_: Request, error: SecretFileError) -> JSONResponse:
        LOG.error("a file of the server is unusable", extra={"fields": {"reason": str(error)}})
        return answer(
            ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the server's accounts, keys or CDN file can't be used",
                "its log names the file and what is wrong",
            )
        )

    @app.exception_handler(ClientDisconnect)
    async def answer_nobody(_: Request, __: ClientDisconnect) -> JSONResponse:
        return answer(bad_request("the connection was closed", "send the request again"))

    @app.exception_handler(OSError)
    async def answer_disk(_: Request, error: OSError) -> JSONResponse:
        LOG.error("storage failed", extra={"fields": {"errno": error.errno, "reason": error.strerror}})
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return answer(
            ProblemError(
                HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.INTERNAL_SERVER_ERROR,
                "the disk is full" if full else "the server's storage failed",
                "look at the server's volume and log",
            )
        )

    @app.exception_handler(Exception)
    async def answer_unexpected(_: Request, __: Exception) -> JSONResponse:
        return answer(
            ProblemError(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the server failed",
                "its log has the reason; try again later",
                SECURITY_HEADERS,  # answered outside of the middleware
            )
        )
