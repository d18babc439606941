"""A multipart form with one file, sent from disk: memory does not grow with the file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

_PIECE = 1 << 16


class FileForm:
    """The body of one upload, as a file of known length that requests can stream."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="data"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file, self._left = file, size
        self.len = len(self._head) + size + len(self._tail)  # requests takes Content-Length from this

    def __iter__(self) -> Iterator[bytes]:
        """Yield the form in pieces: what makes requests stream it."""
        return iter(partial(self.read, _PIECE), b"")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the form; http.client reads it in pieces."""
        if self._head:
            piece, self._head = self._head, b""
        elif self._left:
            piece = self._file.read(self._left if size < 0 else min(size, self._left))
            self._left -= len(piece)
        else:
            piece, self._tail = self._tail, b""
        return piece
