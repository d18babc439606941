"""A multipart body, streamed into storage: memory does not grow with the file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import anyio
from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from trainwright_resource_api.problems import ProblemError, bad_request
from trainwright_resource_api.settings import MIB
from trainwright_resource_api.storage import Upload

FIELD = "data"
"""The form's field that holds the file; others are read over."""

_HOW = f"send multipart/form-data with the file, and its file name, in the field '{FIELD}'"


class _Form:
    """What the parser found since it was last asked: the file's name, a piece of it, the form's end."""

    def __init__(self, boundary: bytes) -> None:
        self.filename: str | None = None
        self.files = 0
        self.piece = bytearray()
        self.ended = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._in_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_part_data": self._take_data,
                "on_header_field": self._take_header,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        self._parser.write(chunk)

    def _begin_part(self) -> None:
        self._disposition = b""
        self._in_file = False

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode():
            return
        self._in_file = True
        self.files += 1
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.piece += data[start:end]

    def _end(self) -> None:
        self.ended = True


async def receive_upload(request: Request, begin: Callable[[str], Upload], idle_seconds: float) -> Upload:
    """Store the file of the request's form and return it committed; whatever goes wrong, nothing is left."""
    form = _Form(_read_boundary(request))
    upload: Upload | None = None
    try:
        async for chunk in read_chunks(request, idle_seconds):
            form.feed(chunk)
            if form.files > 1:
                raise bad_request(f"the form has more than one field '{FIELD}'", "send one file per request")
            if upload is None and form.filename is not None:
                upload = await run_sync(begin, form.filename)
            if upload is not None and len(form.piece) >= MIB:
                await _flush(form, upload)
        if upload is None:
            raise bad_request(f"the form has no field '{FIELD}'", _HOW)
        if not form.ended:
            raise bad_request("the body ends before its closing boundary", "send the whole file again")
        await _flush(form, upload)
        await run_sync(upload.commit)
    except FormParserError as error:
        raise bad_request("the body is not a multipart form", _HOW) from error
    finally:
        if upload is not None:
            with anyio.CancelScope(shield=True):
                await run_sync(upload.discard)
    return upload


def _read_boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise bad_request("the body is not a multipart form", _HOW)
    return boundary


async def read_chunks(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    """Return the body piece by piece; a client that falls silent is refused."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(idle_seconds):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT, f"nothing arrived for {idle_seconds:g} s", "send the file again"
            ) from None
        if chunk is None:
            return
        yield chunk


async def _flush(form: _Form, upload: Upload) -> None:
    piece = bytes(form.piece)
    form.piece.clear()
    await run_sync(upload.write, piece)
