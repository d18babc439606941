"""Downloads of programs: nothing but the pinned bytes comes into the cache."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainwright_devstack.acquisition import ARCHIVES, AcquisitionError, Archive, download_binaries
from trainwright_devstack.binaries import REQUIRED


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a server for the files in the test's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def make_archive(folder: Path, site: str, *, digest: str | None = None) -> Archive:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in ("release/bin/etcd", "release/README", "../outside"):
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    (folder / "a.tar.gz").write_bytes(content.getvalue())
    found = "sha256:" + hashlib.sha256(content.getvalue()).hexdigest()
    return Archive(f"{site}/a.tar.gz", digest or found, ("etcd",), "TRAINWRIGHT_TEST_URL")


def test_the_named_programs_come_into_the_cache_and_nothing_else(tmp_path: Path, site: str) -> None:
    said: list[str] = []
    download_binaries(tmp_path / "cache/it", said.append, [make_archive(tmp_path, site)])
    assert [each.name for each in (tmp_path / "cache/it").iterdir()] == ["etcd"]
    assert (tmp_path / "cache/it/etcd").stat().st_mode & 0o111
    assert not (tmp_path / "outside").exists()
    assert said[0] == f"downloading {site}/a.tar.gz"


def test_other_bytes_than_the_pinned_are_refused_and_leave_nothing(tmp_path: Path, site: str) -> None:
    archive = make_archive(tmp_path, site, digest="sha256:" + "0" * 64)
    with pytest.raises(AcquisitionError, match="not the pinned 0000"):
        download_binaries(tmp_path / "cache/it", lambda _: None, [archive])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_mirror_is_used_but_its_bytes_must_be_the_same(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path, site)
    monkeypatch.setenv("TRAINWRIGHT_TEST_URL", f"{site}/mirror.tar.gz")
    with pytest.raises(AcquisitionError, match="mirror"):
        download_binaries(tmp_path / "cache/it", lambda _: None, [archive])
    (tmp_path / "a.tar.gz").rename(tmp_path / "mirror.tar.gz")
    download_binaries(tmp_path / "cache/it", lambda _: None, [archive])


@pytest.mark.parametrize("machine", ARCHIVES)
def test_the_pinned_archives_have_all_that_is_required(machine: str) -> None:
    members = {member for archive in ARCHIVES[machine] for member in archive.members}
    assert set(REQUIRED) <= members
    for archive in ARCHIVES[machine]:
        algorithm, _, digest = archive.digest.partition(":")
        assert len(digest) == 2 * hashlib.new(algorithm).digest_size
