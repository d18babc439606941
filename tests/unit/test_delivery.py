"""The client of the resource API against a server that misbehaves on demand, and what it refuses to read."""

from __future__ import annotations

import http.server
import io
import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import write_certificate

from trainwright.delivery import ApiCredentials, CdnCredentials, ResourceApi
from trainwright.delivery.endpoints import check_endpoint
from trainwright.delivery.pointers import Pointer, name_pointer, split_big_name
from trainwright.delivery.resource_api import FileMissingError
from trainwright.errors import ConfigurationError, PublishingError

ACCOUNT = ApiCredentials("trainer@example.com", "a secret password")


@dataclass
class Answer:
    """What the server answers once; `cut` ends the connection before the last bytes are sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Script:
    """What the server will answer, path by path, and what it was asked."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]


LOGIN = Answer(body=b'{"token": "token-1"}')


@contextmanager
def serve(script: Script, context: ssl.SSLContext | None = None) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.requests.append((self.path, dict(self.headers), body))
            answers = script.answers.get(self.path, [Answer(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) + (100 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        script.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script({"/login": [LOGIN]})
    with serve(script):
        yield script


def connect(script: Script, time_limit: float = 10) -> ResourceApi:
    return ResourceApi(script.url, ACCOUNT, time_limit=time_limit)


def test_the_wire_is_what_existing_servers_speak(script: Script, tmp_path: Path) -> None:
    script.answers |= {"/resources/models": [Answer()], "/resources/get/models": [Answer(body=b"content")]}
    (tmp_path / "part").write_bytes(b"\0content\r\n")
    api = connect(script)
    api.upload("models", "parts.v1.small", tmp_path / "part")
    assert api.read_text("models", "parts.json") == "content"
    login, upload, get = script.requests
    assert json.loads(login[2]) == {"email": ACCOUNT.email, "password": ACCOUNT.password}
    assert upload[1]["Authorization"] == get[1]["Authorization"] == "Bearer token-1"
    boundary = upload[1]["Content-Type"].removeprefix("multipart/form-data; boundary=")
    assert (
        upload[2]
        == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="data"; filename="parts.v1.small"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        + b"\0content\r\n"
        + f"\r\n--{boundary}--\r\n".encode()
    )
    assert json.loads(get[2]) == {"fileName": "parts.json", "hardware": "trainwright"}


def test_a_large_file_is_sent_from_disk(script: Script, tmp_path: Path) -> None:
    script.answers["/resources/models"] = [Answer(503), Answer()]
    content = bytes(range(256)) * 20_000
    (tmp_path / "part").write_bytes(content)
    connect(script).upload("models", "big.small", tmp_path / "part")
    bodies = [body for path, _, body in script.requests if path == "/resources/models"]
    assert [body.count(content) for body in bodies] == [1, 1]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_overloaded_server_is_asked_again(script: Script, status: int) -> None:
    script.answers["/resources/get/models"] = [Answer(status), Answer(status), Answer(body=b"text")]
    assert connect(script).read_text("models", "parts.json") == "text"


def test_retry_after_is_respected(script: Script) -> None:
    script.answers["/resources/get/models"] = [
        Answer(429, headers={"Retry-After": "1"}),
        Answer(body=b"text"),
    ]
    started = time.monotonic()
    assert connect(script).read_text("models", "parts.json") == "text"
    assert time.monotonic() - started >= 1


def test_a_pause_beyond_the_time_limit_is_not_waited_for(script: Script) -> None:
    script.answers["/resources/get/models"] = [Answer(429, headers={"Retry-After": "3600"})]
    started = time.monotonic()
    with pytest.raises(PublishingError, match="answers 429"):
        connect(script).read_text("models", "parts.json")
    assert time.monotonic() - started < 5


def test_trying_ends_with_the_time_limit(script: Script) -> None:
    script.answers["/resources/get/models"] = [Answer(500)]
    started = time.monotonic()
    with pytest.raises(PublishingError, match="answers 500") as raised:
        connect(script, time_limit=1).read_text("models", "parts.json")
    assert raised.value.hint
    assert time.monotonic() - started < 5
    assert len(script.requests) > 2


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_token_is_renewed_once(script: Script, status: int) -> None:
    script.answers["/login"] = [LOGIN, Answer(body=b'{"token": "token-2"}')]
    script.answers["/resources/get/models"] = [Answer(status), Answer(body=b"text")]
    assert connect(script).read_text("models", "parts.json") == "text"
    assert script.paths() == ["/login", "/resources/get/models"] * 2
    assert script.requests[-1][1]["Authorization"] == "Bearer token-2"


@pytest.mark.parametrize("status", [401, 403])
def test_a_second_refusal_names_the_accounts_rights(script: Script, status: int) -> None:
    script.answers["/resources/get/models"] = [Answer(status)]
    with pytest.raises(PublishingError, match=rf"refuses the account .*\({status}\)") as raised:
        connect(script).read_text("models", "parts.json")
    assert "rights" in raised.value.hint
    assert ACCOUNT.email not in str(raised.value)
    assert script.paths() == ["/login", "/resources/get/models"] * 2


def test_a_refused_login_is_not_repeated(script: Script) -> None:
    script.answers["/login"] = [Answer(401)]
    with pytest.raises(PublishingError, match="refuses the account") as raised:
        connect(script).read_text("models", "parts.json")
    told = str(raised.value) + raised.value.hint
    assert ACCOUNT.password not in told
    assert ACCOUNT.email not in told
    assert script.paths() == ["/login"]


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"token": 5}', b"", b'{"token": "two\\nlines"}', b"\xff", b" " * (2 << 20)]
)
def test_a_login_without_a_token_is_an_error(script: Script, body: bytes) -> None:
    script.answers["/login"] = [Answer(body=body)]
    with pytest.raises(PublishingError, match=r"without a token|larger than") as raised:
        connect(script).read_text("models", "parts.json")
    assert "two" not in str(raised.value)


def test_a_download_that_is_cut_starts_again(script: Script) -> None:
    script.answers["/resources/get/models"] = [Answer(body=b"half", cut=True), Answer(body=b"whole")]
    into = io.BytesIO()
    stored = connect(script).download("models", "parts.small", into, at_most=100)
    assert into.getvalue() == b"whole"
    assert stored.size == 5


def test_a_download_larger_than_promised_is_stopped(script: Script) -> None:
    script.answers["/resources/get/models"] = [Answer(body=b"x" * 101)]
    with pytest.raises(PublishingError, match="larger than the 100 bytes"):
        connect(script).download("models", "parts.small", io.BytesIO(), at_most=100)


def test_a_redirect_is_not_followed(script: Script) -> None:
    script.answers["/resources/get/models"] = [Answer(307, headers={"Location": "http://127.0.0.1:9/"})]
    with pytest.raises(PublishingError, match="answers 307"):
        connect(script).read_text("models", "parts.json")


def test_a_missing_file_is_told_apart(script: Script) -> None:
    api = connect(script)
    assert api.hash("models", "none") is None
    assert not api.exists("models", "none")
    with pytest.raises(FileMissingError):
        api.read_text("models", "none")


def test_an_entry_of_netrc_does_not_replace_the_token(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    script.answers["/resources/get/models"] = [Answer(body=b"text")]
    connect(script).read_text("models", "parts.json")
    assert "Authorization" not in script.requests[0][1]
    assert script.requests[1][1]["Authorization"] == "Bearer token-1"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x\r\ny", 'x"'])
def test_a_name_that_leads_elsewhere_is_never_sent(script: Script, name: str) -> None:
    with pytest.raises(PublishingError, match="not a plain file name"):
        connect(script).read_text("models", name)
    with pytest.raises(PublishingError, match="not a plain file name"):
        connect(script).read_text(name, "parts.json")
    assert script.requests == []


def test_a_server_that_is_not_there_is_an_error_with_a_hint() -> None:
    with pytest.raises(PublishingError, match=r"can't be reached: .*refused") as raised:
        ResourceApi("http://127.0.0.1:9", ACCOUNT, time_limit=0.2).read_text("models", "parts.json")
    assert raised.value.hint


# --- TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder)
    return folder


def test_only_a_trusted_certificate_is_spoken_to(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.crt", certificate / "key.pem")
    script = Script({"/login": [LOGIN], "/resources/get/models": [Answer(body=b"text")]})
    trusting = ApiCredentials(ACCOUNT.email, ACCOUNT.password, ca=certificate / "ca.crt")
    with serve(script, context):
        started = time.monotonic()
        with pytest.raises(PublishingError, match=r"certificate of .* is not trusted") as raised:
            ResourceApi(script.url, ACCOUNT).read_text("models", "parts.json")
        assert "ca.crt" in raised.value.hint
        assert time.monotonic() - started < 5, "a wrong certificate does not become right by waiting"
        assert script.requests == []
        # An authority of the environment must not replace the one that was given.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "key.pem"))
        assert ResourceApi(script.url, trusting).read_text("models", "parts.json") == "text"


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://127.0.0.1:80", "http://localhost/x/", "http://[::1]"]
)
def test_encrypted_or_local_addresses_are_taken(url: str) -> None:
    assert check_endpoint(url, what="the API") == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["http://example.com", "http://10.0.0.1", "http://127.0.0.1.example.com", "ftp://x", "example.com",
     "https://user:secret@example.com", "https://example.com?token=secret",
     "https://example.org\\.example.com", "https://example.org\\@example.com"],
)  # fmt: skip
def test_other_addresses_are_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_endpoint(url, what="the API")
    assert "secret" not in str(raised.value)


# --- credentials --------------------------------------------------------------------------------------

CDN = {
    "host": "cdn.example.com",
    "uploader_access_key": "up-key",
    "uploader_access_secret": "up-secret",
    "downloader_access_key": "down-key",
    "downloader_access_secret": "down-secret",
}


def write_yaml(**changes: str | None) -> str:
    return "".join(f"{key}: {value}\n" for key, value in {**CDN, **changes}.items() if value is not None)


def test_the_other_roles_keys_are_dropped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        credentials = CdnCredentials.from_text(write_yaml(), "downloader")
    assert (credentials.access_key, credentials.access_secret) == ("down-key", "down-secret")
    assert credentials.endpoint == "https://cdn.example.com"
    assert credentials.too_broad
    assert "CredentialsTooBroad" in caplog.text
    assert not [value for value in vars(credentials).values() if "up-" in str(value)]
    assert "secret" not in caplog.text + repr(credentials)


def test_one_pair_is_enough() -> None:
    text = write_yaml(
        downloader_access_key=None, downloader_access_secret=None, bucket="parts", region="eu-1"
    )
    credentials = CdnCredentials.from_text(text, "uploader")
    assert (credentials.bucket, credentials.region, credentials.too_broad) == ("parts", "eu-1", False)


def test_all_that_is_missing_is_told_at_once_without_the_rest() -> None:
    with pytest.raises(ConfigurationError, match="no host and no uploader_access_secret") as raised:
        CdnCredentials.from_text(write_yaml(host=None, uploader_access_secret=None), "uploader")
    assert "up-key" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="not YAML") as raised:
        CdnCredentials.from_text("a: b: up-secret", "uploader")
    assert "up-secret" not in str(raised.value)


def test_an_unencrypted_cdn_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not encrypted"):
        CdnCredentials.from_text(write_yaml(host="http://cdn.example.com"), "uploader")


def test_api_credentials_are_read_as_a_mounted_secret_has_them(tmp_path: Path) -> None:
    (tmp_path / "AZAION_API_EMAIL").write_text("a@example.com\n")
    with pytest.raises(ConfigurationError, match="no AZAION_API_PASSWORD"):
        ApiCredentials.from_folder(tmp_path)
    (tmp_path / "AZAION_API_PASSWORD").write_text("secret\n")
    (tmp_path / "ca.crt").write_text("certificate")
    credentials = ApiCredentials.from_folder(tmp_path)
    assert credentials == ApiCredentials("a@example.com", "secret", tmp_path / "ca.crt")
    assert "'secret'" not in repr(credentials) + repr(ResourceApi("https://example.com", credentials))
    with pytest.raises(ConfigurationError, match="AZAION_API_EMAIL and no AZAION_API_PASSWORD"):
        ApiCredentials.from_environment({})


# --- pointers -----------------------------------------------------------------------------------------


def test_names_are_taken_apart_as_they_were_made() -> None:
    file_id = "0123456789abcdef" * 2
    assert split_big_name(f"parts-a.2026.1-x.{file_id}.big") == ("parts-a", "2026.1-x", file_id)
    assert split_big_name(f"parts.v1.{file_id}.small") is None
    assert split_big_name("parts.v1.big") is None
    assert (name_pointer("parts"), name_pointer("parts", "v1")) == ("parts.json", "parts.v1.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "parts"}', "<html>"])
def test_what_is_no_pointer_is_named(text: str) -> None:
    with pytest.raises(PublishingError, match=r"parts\.json is not a pointer"):
        Pointer.from_text(text, name="parts.json")


def test_an_unknown_format_is_refused_by_name_and_unknown_fields_are_read_over() -> None:
    part = {"name": "parts.v1.x.big", "size": 1, "digest": "sha256:" + "0" * 64}
    values = {"model": "parts", "version": "v1", "fileId": "0" * 32, "bucket": "models", "small": part}
    text = json.dumps({**values, "big": part, "novelty": 1})
    assert Pointer.from_text(text, name="parts.json").model == "parts"
    with pytest.raises(PublishingError, match="format 'trainwright-v9'; known here: 'trainwright-v1'"):
        Pointer.from_text(json.dumps({**values, "big": part, "format": "trainwright-v9"}), name="parts.json")
