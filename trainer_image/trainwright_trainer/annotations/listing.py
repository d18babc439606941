"""The files of a tree of annotations, put together by name in a database on disk: names may be many."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

Kind = Literal["image", "label"]


@dataclass(frozen=True)
class ListedFile:
    """A file of a tree: what it is for, where it is, and what tells that it has changed."""

    tree: int
    name: str
    kind: Kind
    path: str
    stamp: str


def scan_folder(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield file name and stamp of everything in a folder but hidden files; a folder may be missing.

    The stamp is that of the file a link leads to: size, time of change and inode.
    """
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.name.startswith("."):
                try:
                    found = entry.stat()
                except OSError:  # a link that leads nowhere: whoever reads it will say so
                    found = entry.stat(follow_symlinks=False)
                yield entry.name, f"{found.st_size}.{found.st_mtime_ns}.{found.st_ino}"


class Stamp:
    """The stamp of many files, in whatever order they are added: the same only if nothing has changed."""

    def __init__(self) -> None:
        self._sum = 0
        self._count = 0

    def add(self, name: str, stamp: str) -> None:
        """Add a file."""
        text = os.fsencode(f"{name}\0{stamp}")
        self._sum += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
        self._count += 1

    def __str__(self) -> str:
        return f"{self._count}.{self._sum % 2**128:032x}"


def group_files(files: Iterable[ListedFile], scratch: Path) -> Iterator[tuple[str, list[ListedFile]]]:
    """Yield every name with its files, those of the first tree that has the name."""
    database = scratch / "listing.sqlite"
    with closing(sqlite3.connect(database)) as listing:
        listing.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE files (name BLOB, tree INTEGER, kind TEXT, path BLOB, stamp TEXT)"
        )
        # As bytes: a name need not be UTF-8.
        rows = (
            (os.fsencode(file.name), file.tree, file.kind, os.fsencode(file.path), file.stamp)
            for file in files
        )
        listing.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", rows)
        found = listing.execute(
            "SELECT name, tree, kind, path, stamp FROM files ORDER BY name, tree, kind, path"
        )
        for name, group in groupby((_to_file(row) for row in found), key=lambda file: file.name):
            all_files = list(group)
            yield name, [file for file in all_files if file.tree == all_files[0].tree]
    database.unlink()


def _to_file(row: tuple[bytes, int, Kind, bytes, str]) -> ListedFile:
    name, tree, kind, path, stamp = row
    return ListedFile(tree, os.fsdecode(name), kind, os.fsdecode(path), stamp)
