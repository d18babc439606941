"""What goes wrong on the way of sealed parts to their servers, and what is left afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import publishing_site
import pytest
from publishing_site import (
    READER_EMAIL,
    READER_PASSWORD,
    S3_KEY,
    S3_SECRET,
    Servers,
    Site,
    connect_s3,
    write_cdn_file,
)

from trainwright.delivery import Cdn, CdnCredentials
from trainwright.errors import ConfigurationError, PublishingError, SupersededError
from trainwright_trainer.steps.publishing import publish_model

servers, site = publishing_site.servers, publishing_site.site  # fixtures are found by name


def test_a_retry_mends_a_big_part_that_was_damaged_on_the_server(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    site.publish(sealed)
    big = servers.s3_folder / "models" / "models" / sealed.big.name
    damaged = bytearray(big.read_bytes())
    damaged[-1] ^= 1
    big.write_bytes(damaged)
    refused = site.fetch(site.plan.model.name)
    assert refused.returncode == 1
    assert "not the one that was signed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list((site.home / "models").iterdir()) == []
    site.publish(sealed)
    assert site.fetch(site.plan.model.name).returncode == 0


def test_a_superseded_pod_commits_nothing(site: Site) -> None:
    def refuse(file_id: str) -> None:
        raise SupersededError(f"another pod publishes, not {file_id}")

    sealed = site.seal()
    with pytest.raises(SupersededError):
        site.publish(sealed, refuse)
    assert not site.connect().api.exists("models", sealed.small.name)
    refused = site.fetch(site.plan.model.name)
    assert refused.returncode == 1
    assert f"has no file '{site.plan.model.name}.json'" in refused.stderr


def test_parts_damaged_on_disk_are_never_committed(site: Site) -> None:
    sealed = site.seal()
    big = site.places.workspace / sealed.big_path
    content = bytearray(big.read_bytes())
    content[100] ^= 1
    big.write_bytes(content)
    with pytest.raises(PublishingError, match="holds something else"):
        site.publish(sealed)
    assert not site.connect().api.exists("models", sealed.small.name)


def test_a_big_part_removed_before_the_commit_is_uploaded_again(site: Site, servers: Servers) -> None:
    sealed = site.seal()
    big = servers.s3_folder / "models" / "models" / sealed.big.name

    def lose_it(_: str) -> None:
        big.unlink()

    site.publish(sealed, lose_it)
    assert hashlib.sha256(big.read_bytes()).hexdigest() == sealed.big.digest.removeprefix("sha256:")


def test_a_failed_upload_leaves_nothing_unfinished_on_the_server(
    site: Site, servers: Servers, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 40)
    seen: list[str] = []
    with serve_gateway(servers, "partNumber=2", seen) as url:
        cdn = Cdn(CdnCredentials(url, S3_KEY, S3_SECRET), bucket="models")
        with pytest.raises(PublishingError, match=r"can't upload models/large-failed\.bin"):
            cdn.upload(tmp_path / "large", "models/large-failed.bin")
    assert seen.count("DELETE") == 1, "the unfinished upload was not aborted"
    listed = connect_s3(servers).list_multipart_uploads(Bucket="models", Prefix="models/large-failed")
    assert listed.get("Uploads", []) == []
    assert site.connect().cdn.find_size("models/large-failed.bin") is None


@contextmanager
def serve_gateway(servers: Servers, refused: str, seen: list[str]) -> Iterator[str]:
    """Pass requests on to the S3 server, but refuse those whose address contains a text."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            seen.append(self.command)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if refused in self.path:
                self.answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
                return
            connection = http.client.HTTPConnection(servers.s3_url.removeprefix("http://"), timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            self.answer(answer.status, {"ETag": answer.headers.get("ETag", "")}, answer.read())
            connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_wrong_api_password_is_a_publishing_error_with_a_hint(site: Site) -> None:
    (site.places.workspace.parent / "api/AZAION_API_PASSWORD").write_text("wrong-password")
    with pytest.raises(PublishingError, match="refuses the account") as raised:
        site.publish(site.seal())
    assert "AZAION_API_PASSWORD" in raised.value.hint
    assert "wrong-password" not in str(raised.value)


def test_an_account_without_rights_is_named_after_one_repetition(site: Site, servers: Servers) -> None:
    (site.home / "api/AZAION_API_EMAIL").write_text(READER_EMAIL)
    (site.home / "api/AZAION_API_PASSWORD").write_text(READER_PASSWORD)
    sealed = site.seal()
    with pytest.raises(PublishingError, match=r"cdn\.yaml has no uploader_access_key") as raised:
        site.publish(sealed)
    assert "account" in raised.value.hint
    write_cdn_file(site.home / "cdn.yaml", servers.s3_url)
    places = dataclasses.replace(site.places, cdn_credentials=site.home)
    with pytest.raises(PublishingError, match=r"refuses the account of the Secret \(403\)") as raised:
        publish_model(sealed, site.evaluation, site.plan, places, lambda _: None)
    assert "rights" in raised.value.hint


def test_a_wrong_key_pair_is_a_publishing_error_with_a_hint(site: Site, servers: Servers) -> None:
    credentials = CdnCredentials(servers.s3_url, S3_KEY, "wrong-secret-value", bucket="models")
    sealed = site.seal()
    with pytest.raises(PublishingError, match="can't upload") as raised:
        Cdn(credentials, bucket="models").upload(site.places.workspace / sealed.big_path, "models/x.big")
    assert "cdn.yaml" in raised.value.hint
    assert "wrong-secret-value" not in str(raised.value) + raised.value.hint


def test_missing_keys_are_told_all_at_once(site: Site) -> None:
    (site.home / "signing/publisher.key").unlink()
    (site.home / "recipients/field").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"recipients/field.*publisher\.key"):
        site.seal()
