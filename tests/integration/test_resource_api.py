"""The resource API over HTTP: what each account may do, and what nobody may."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from resource_api_servers import PASSWORDS, PUBLISHER, READER, Server, serve_in_thread, write_cdn

from trainwright_resource_api.accounts import remove_account
from trainwright_resource_api.storage import Upload
from trainwright_resource_api.tokens import KEYS_FILE, Tokens, rotate_keys


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("resource-api")
    with serve_in_thread(folder, cdn=write_cdn(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> dict[str, str]:
    return server.headers(PUBLISHER)


@pytest.fixture(scope="module")
def reader(server: Server) -> dict[str, str]:
    return server.headers(READER)


def assert_problem(answer: requests.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "hint"}
    assert words in body["error"]
    assert body["hint"]


def test_what_is_uploaded_is_what_both_roles_get(
    server: Server, publisher: dict[str, str], reader: dict[str, str]
) -> None:
    content = os.urandom(3_000_001)
    digest = hashlib.sha256(content)
    answer = server.put(publisher, "parts.v1.small", content)
    assert answer.json() == {"name": "parts.v1.small", "size": len(content), "sha256": digest.hexdigest()}
    for headers in (publisher, reader):
        got = server.get(headers, "parts.v1.small", hardware="a constant", password="read over")
        assert got.content == content
        assert got.headers["content-length"] == str(len(content))
        assert got.headers["x-content-sha256"] == digest.hexdigest()
        assert got.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"


def test_an_empty_file_is_a_file(server: Server, publisher: dict[str, str]) -> None:
    assert server.put(publisher, "empty", b"").json()["size"] == 0
    assert server.get(publisher, "empty").content == b""


def test_a_digest_follows_a_replacement(server: Server, publisher: dict[str, str]) -> None:
    for content in (b"triangle", b"squares!"):  # of one length
        server.put(publisher, "shape", content)
        got = server.get(publisher, "shape")
        assert got.headers["x-content-sha256"] == hashlib.sha256(content).hexdigest()


def test_a_reader_gets_and_nothing_else(
    server: Server, publisher: dict[str, str], reader: dict[str, str]
) -> None:
    server.put(publisher, "kept", b"circle")
    refusals = (
        server.put(reader, "kept", b"other"),
        requests.post(f"{server.url}/resources/list/models", headers=reader, json={}, timeout=9),
        requests.delete(f"{server.url}/resources/models/kept", headers=reader, timeout=9),
    )
    for answer in refusals:
        assert_problem(answer, 403, "reader")
    assert server.get(reader, "kept").content == b"circle"


def test_a_publisher_lists_and_deletes(server: Server, publisher: dict[str, str]) -> None:
    for name in ("car.2.small", "car.1.small", "cart.json"):
        server.put(publisher, name, b"12345", folder="vehicles")

    def names(**body: str) -> list[str]:
        url = f"{server.url}/resources/list/vehicles"
        return [
            f["name"] for f in requests.post(url, headers=publisher, json=body, timeout=9).json()["files"]
        ]

    assert names() == ["car.1.small", "car.2.small", "cart.json"]
    assert names(prefix="car.") == ["car.1.small", "car.2.small"]
    assert names(after="car.2.small") == ["cart.json"]
    url = f"{server.url}/resources/vehicles/car.1.small"
    assert requests.delete(url, headers=publisher, timeout=9).status_code == 204
    assert_problem(requests.delete(url, headers=publisher, timeout=9), 404, "car.1.small")
    assert names(prefix="car.") == ["car.2.small"]


def test_a_listing_of_an_unknown_folder_is_empty(server: Server, publisher: dict[str, str]) -> None:
    url = f"{server.url}/resources/list/nowhere"
    assert requests.post(url, headers=publisher, json={}, timeout=9).json() == {"files": []}


def test_each_role_gets_its_own_cdn_keys(
    server: Server, publisher: dict[str, str], reader: dict[str, str]
) -> None:
    common = {"host": "https://cdn.example.com", "bucket": "models"}
    uploader = {"uploader_access_key": "UP", "uploader_access_secret": "up-secret"}
    downloader = {"downloader_access_key": "DOWN", "downloader_access_secret": "down-secret"}
    assert yaml.safe_load(server.get(publisher, "cdn.yaml").content) == common | uploader
    assert yaml.safe_load(server.get(reader, "cdn.yaml").content) == common | downloader
    bare = requests.post(
        f"{server.url}/resources/get", headers=reader, json={"fileName": "cdn.yaml"}, timeout=9
    )
    assert yaml.safe_load(bare.content) == common | downloader
    assert_problem(server.put(publisher, "cdn.yaml", b"mine"), 400, "cdn.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "../users.yaml",
        "..",
        ".",
        ".keys.json",
        "a/b",
        "a\\b",
        "/etc/hostname",
        "a\0b",
        "",
        "x" * 256,
        "é",
        "a\n",
    ],
)
def test_no_name_leaves_its_folder(server: Server, publisher: dict[str, str], name: str) -> None:
    before = {p: p.read_bytes() for p in server.data.parent.rglob("*") if p.is_file()}
    assert_problem(server.get(publisher, name), 400, "not a valid name")
    raw = name.replace("\0", "\x01").replace("\n", "\x02").encode()
    boundary = b'--x\r\nContent-Disposition: form-data; name="data"; filename="' + raw
    uploaded = requests.post(
        f"{server.url}/resources/models",
        data=boundary + b'"\r\n\r\nfound\r\n--x--\r\n',
        headers={**publisher, "Content-Type": "multipart/form-data; boundary=x"},
        timeout=9,
    )
    assert_problem(uploaded, 400, "not a valid name")
    assert {p: p.read_bytes() for p in server.data.parent.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "path",
    [
        "/resources/get/..",
        "/resources/get/%2e%2e",
        "/resources/get/..%2f",
        "/resources/get/..%2f..%2fetc",
        "/resources/get/%2fetc",
        "/resources/get/models%00",
        "/resources/get/.%2fmodels",
        "/resources/get/models/../..",
        "//resources/get/..",
    ],
)
def test_no_folder_leaves_the_root(server: Server, publisher: dict[str, str], path: str) -> None:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    for file_name in ("users.yaml", "hostname", ".keys.json", "data"):
        connection.request("POST", path, json.dumps({"fileName": file_name}), publisher)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status in (400, 404), body
        assert b"argon2" not in body
    connection.close()


def test_a_folder_is_not_a_file(server: Server, publisher: dict[str, str]) -> None:
    server.put(publisher, "wheel", b"round", folder="spare")
    (server.data / "spare" / "inner").mkdir()
    answer = server.get(publisher, "inner", folder="spare")
    assert_problem(answer, 404, "inner")


def test_without_a_valid_token_nothing_is_served(server: Server, publisher: dict[str, str]) -> None:
    keys = server.data / KEYS_FILE
    expired = Tokens(keys, -1).issue(PUBLISHER)
    stranger = Tokens(keys, 60).issue("nobody@example.com")
    forger = server.data.parent / "forged.json"
    forged = Tokens(forger, 60).issue(PUBLISHER)
    head, claims, _ = Tokens(keys, 60).issue(PUBLISHER).split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for token in (expired, stranger, forged, f"{none}.{claims}.", f"{head}.{claims}.AAAA", "x", ""):
        for scheme in ("Bearer", "Basic"):
            answer = server.get({"Authorization": f"{scheme} {token}"}, "kept")
            assert_problem(answer, 401, "token")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(server.get({}, "kept"), 401, "token")
    assert_problem(server.put({}, "kept", b"x"), 401, "token")


def test_the_reason_reaches_a_client_that_sends_everything_before_it_reads(server: Server) -> None:
    address = urlsplit(server.url)
    head = "POST /resources/models HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode())
        for _ in range(30):
            connection.sendall(b"\0" * 1_000_000)
        answer = connection.recv(64)
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_rotated_keys_let_tokens_run_out_and_a_single_key_ends_them(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path) as server:
        old = server.headers()
        rotate_keys(server.data / KEYS_FILE)
        assert server.get(old, "nothing").status_code == 404
        assert server.get(server.headers(), "nothing").status_code == 404
        rotate_keys(server.data / KEYS_FILE, keep=1)
        assert server.get(old, "nothing").status_code == 401


def test_wrong_password_and_unknown_account_look_the_same(server: Server) -> None:
    wrong = server.login(PUBLISHER, "not the password")
    unknown = server.login("nobody@example.com", "not the password")
    assert_problem(wrong, 401, "password")
    assert wrong.json() == unknown.json()


def test_login_names_what_is_missing_and_repeats_no_value(server: Server) -> None:
    answer = requests.post(f"{server.url}/login", json={"password": ["hunter2"]}, timeout=9)
    assert_problem(answer, 400, "email")
    assert "password" in answer.json()["error"]
    assert "hunter2" not in answer.text


def test_every_answer_is_json_with_security_headers(server: Server) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/login", 405), ("GET", "/healthz", 200)):
        answer = requests.request(method, server.url + path, timeout=9)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_a_json_body_has_a_limit(server: Server, publisher: dict[str, str]) -> None:
    answer = server.get(publisher, "kept", padding="x" * 70_000)
    assert_problem(answer, 413, "65536")


BROKEN_FORMS = {
    "no form": (b"plain", "text/plain", "multipart form"),
    "no boundary": (b"plain", "multipart/form-data", "multipart form"),
    "not a form": (b"plain", "multipart/form-data; boundary=x", "multipart form"),
    "other field": (
        b'--x\r\nContent-Disposition: form-data; name="other"; filename="f"\r\n\r\nabc\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
        "no field 'data'",
    ),
    "cut short": (
        b'--x\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\nabc',
        "multipart/form-data; boundary=x",
        "closing boundary",
    ),
    "two files": (
        b'--x\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\nabc\r\n' * 2 + b"--x--\r\n",
        "multipart/form-data; boundary=x",
        "more than one",
    ),
}


@pytest.mark.parametrize("case", BROKEN_FORMS)
def test_a_broken_form_leaves_nothing(server: Server, publisher: dict[str, str], case: str) -> None:
    body, kind, words = BROKEN_FORMS[case]
    answer = requests.post(
        f"{server.url}/resources/broken", data=body, headers={**publisher, "Content-Type": kind}, timeout=9
    )
    assert_problem(answer, 400, words)
    assert not list(server.data.glob("broken/*"))


def test_a_replacement_is_seen_whole_or_not_at_all(server: Server, publisher: dict[str, str]) -> None:
    versions = [bytes([number]) * 3_000_000 for number in range(2)]
    server.put(publisher, "busy", versions[0])
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            assert server.put(publisher, "busy", versions[number % 2]).status_code == 200

    writers = [threading.Thread(target=replace) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        seen = set()
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            got = server.get(publisher, "busy")
            assert got.content in versions
            assert got.headers["x-content-sha256"] == hashlib.sha256(got.content).hexdigest()
            seen.add(got.content[0])
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert seen == {0, 1}
    assert not list(server.data.glob("models/.*"))


def test_failed_logins_are_slowed_down_and_good_ones_are_not(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path, login_attempts=3, login_window_seconds=2) as server:
        for _ in range(6):
            assert server.login(READER).status_code == 200
        for _ in range(3):
            assert server.login(PUBLISHER, "not the password").status_code == 401
        refused = server.login(PUBLISHER)
        assert_problem(refused, 429, "too many")
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        assert server.login(READER).status_code == 200
        time.sleep(int(refused.headers["retry-after"]))
        assert server.login(PUBLISHER).status_code == 200


def test_a_removed_account_is_out_at_once(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path) as server:
        headers = server.headers(READER)
        assert server.get(headers, "nothing").status_code == 404
        remove_account(server.users, READER)
        assert server.get(headers, "nothing").status_code == 401
        assert server.login(READER).status_code == 401


def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path, max_upload_bytes=1_000_000) as server:
        headers = server.headers()
        assert server.put(headers, "fits", b"x" * 1_000_000).status_code == 200
        assert_problem(server.put(headers, "fits", b"y" * 1_000_001), 413, "larger")
        assert_problem(server.put(headers, "huge", b"y" * 9_000_000), 413, "larger")
        assert server.stored() == ["fits"]
        assert server.get(headers, "fits").content == b"x" * 1_000_000


def test_a_client_that_falls_silent_is_dropped_and_leaves_nothing(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path, idle_seconds=0.3) as server:

        def dawdle() -> Iterator[bytes]:
            yield (
                b'--x\r\nContent-Disposition: form-data; name="data"; filename="slow"\r\n\r\n'
                + b"x" * 100_000
            )
            time.sleep(1)
            yield b"\r\n--x--\r\n"

        form = {**server.headers(), "Content-Type": "multipart/form-data; boundary=x"}
        answer = requests.post(f"{server.url}/resources/models", data=dawdle(), headers=form, timeout=9)
        assert_problem(answer, 408, "0.3 s")
        assert server.stored() == []


def test_without_a_cdn_file_there_is_none(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path) as server:
        assert_problem(server.get(server.headers(), "cdn.yaml"), 404, "cdn.yaml")


def test_a_users_file_that_became_unreadable_refuses_instead_of_serving(tmp_path: Path) -> None:
    with serve_in_thread(tmp_path) as server:
        headers = server.headers()
        server.users.write_text("accounts: [{name: x}]")
        answer = server.get(headers, "nothing")
        assert_problem(answer, 503, "accounts")
        assert PASSWORDS[PUBLISHER] not in answer.text


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507, "disk is full"),
        (OSError(errno.EIO, "Input/output error"), 500, "storage failed"),
        (RuntimeError("something private"), 500, "server failed"),
    ],
)
def test_a_failing_server_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise failure

    with serve_in_thread(tmp_path) as server:
        headers = server.headers()
        server.put(headers, "kept", b"the former")
        monkeypatch.setattr(Upload, "commit", fail)
        answer = server.put(headers, "kept", b"the next")
        assert_problem(answer, status, words)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert str(failure) not in answer.text
        assert server.stored() == ["kept"]
        assert server.get(headers, "kept").content == b"the former"
