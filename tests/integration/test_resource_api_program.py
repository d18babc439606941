"""The resource API as a program: memory, crashes, what it refuses to start with, TLS, its log."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from resource_api_servers import (
    PASSWORDS,
    PUBLISHER,
    READER,
    Server,
    serve_as_program,
    start_program,
    write_cdn,
    write_users,
)

MIB = 1024 * 1024
LARGE_MIB = 256
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
HEAD = b'--x\r\nContent-Disposition: form-data; name="data"; filename="large"\r\n\r\n'
TAIL = b"\r\n--x--\r\n"


def read_memory_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise AssertionError(f"/proc/{pid}/status has no {key}")


def send_large(count: int, piece: bytes) -> Iterator[bytes]:
    yield HEAD
    for _ in range(count):
        yield piece
    yield TAIL


def wait_for(condition: str, server: Server) -> None:
    deadline = time.monotonic() + 10
    while condition not in " ".join(server.stored()):
        assert time.monotonic() < deadline, f"{condition} never appeared in {server.stored()}"
        time.sleep(0.02)


def test_memory_stays_flat_however_large_the_file(tmp_path: Path) -> None:
    piece = os.urandom(MIB)
    with serve_as_program(tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid
        headers = server.headers()
        server.put(headers, "first", piece)
        server.get(headers, "first")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak: a login's hash takes 64 MiB
        before = read_memory_kib(pid, "VmHWM")
        uploaded = requests.post(
            f"{server.url}/resources/models",
            data=send_large(LARGE_MIB, piece),
            headers={**headers, **FORM},
            timeout=60,
        )
        assert uploaded.json()["size"] == LARGE_MIB * MIB
        body = {"fileName": "large"}
        url = f"{server.url}/resources/get/models"
        digest = hashlib.sha256()
        with requests.post(url, headers=headers, json=body, timeout=60, stream=True) as got:
            for received in got.iter_content(MIB):
                digest.update(received)
        assert digest.hexdigest() == uploaded.json()["sha256"]
        growth = read_memory_kib(pid, "VmHWM") - before
    assert growth < 24 * 1024, f"the peak grew by {growth} KiB for a file of {LARGE_MIB} MiB"


def test_a_kill_in_the_middle_of_an_upload_keeps_the_former_file(tmp_path: Path) -> None:
    with serve_as_program(tmp_path) as server:
        assert server.process is not None
        headers = server.headers()
        server.put(headers, "large", b"the former")

        def send_and_kill() -> Iterator[bytes]:
            yield HEAD
            for _ in range(4):
                yield b"x" * MIB
            wait_for(".upload", server)
            assert server.process is not None
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(10)
            yield b"x" * MIB
            yield TAIL

        with pytest.raises(requests.ConnectionError):
            requests.post(
                f"{server.url}/resources/models",
                data=send_and_kill(),
                headers={**headers, **FORM},
                timeout=20,
            )
        assert len(server.stored()) == 2, "the unfinished upload lies beside the former file"
    with serve_as_program(tmp_path) as server:
        assert server.stored() == ["large"]
        assert server.get(headers, "large").content == b"the former", "tokens outlive a restart"


def test_a_client_that_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    class HungUpError(Exception):
        pass

    with serve_as_program(tmp_path) as server:
        headers = server.headers()

        def hang_up() -> Iterator[bytes]:
            yield HEAD
            yield b"x" * 4 * MIB
            wait_for(".upload", server)
            raise HungUpError

        with pytest.raises(HungUpError):
            requests.post(
                f"{server.url}/resources/models", data=hang_up(), headers={**headers, **FORM}, timeout=20
            )
        deadline = time.monotonic() + 10
        while server.stored() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.stored() == []
        assert server.get(headers, "large").status_code == 404


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_it_does_not_start_with_accounts_that_others_may_read(tmp_path: Path, mode: int) -> None:
    users = write_users(tmp_path)
    users.chmod(mode)
    process = start_program(tmp_path, users)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{users} has mode {mode:o}" in said
    assert f"chmod 600 {users}" in said
    assert "argon2" not in said


def test_a_group_may_read_the_accounts_only_where_asked_for(tmp_path: Path) -> None:
    write_users(tmp_path).chmod(0o440)
    with serve_as_program(tmp_path, "--group-readable") as server:
        assert server.login(READER).status_code == 200


def test_it_does_not_start_with_cdn_keys_that_others_may_read(tmp_path: Path) -> None:
    cdn = write_cdn(tmp_path)
    cdn.chmod(0o644)
    process = start_program(tmp_path, write_users(tmp_path), "--cdn", str(cdn))
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{cdn} has mode 644" in said
    assert "up-secret" not in said


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    with serve_as_program(tmp_path) as server:
        process = start_program(tmp_path, server.users)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 3
        assert "another server works on" in said
        assert server.login(PUBLISHER).status_code == 200


def test_the_log_has_a_line_for_each_request_and_no_secret(tmp_path: Path) -> None:
    with serve_as_program(tmp_path) as server:
        headers = server.headers()
        server.put(headers, "kept", b"the content")
        server.get({"Authorization": "Bearer not-a-token"}, "kept")
        server.login(PUBLISHER, "a wrong password")
    log = "".join(server.log)
    assert '"path": "/resources/models", "status": 200' in log
    assert f'"account": "{PUBLISHER}"' in log
    token = headers["Authorization"].removeprefix("Bearer ")
    for secret in (
        token,
        token.split(".")[2],
        "not-a-token",
        "a wrong password",
        *PASSWORDS.values(),
        "argon2",
    ):
        assert secret not in log


def test_it_serves_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    with serve_as_program(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://127.0.0.1:")
        # An idle TLS client that never says goodbye would hold up the end of the server, and of this test.
        bye = {"Connection": "close"}
        answer = requests.get(f"{server.url}/healthz", headers=bye, verify=str(certificate), timeout=9)
        assert answer.json() == {"status": "ok"}
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{server.url}/healthz", timeout=9)


def test_a_password_comes_from_stdin_and_never_from_the_command_line(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    command = ["trainwright-resource-api", "user", "add", "new@example.com", "--users", str(users)]
    run_program([*command, "--role", "reader"], "short and sweet\n")
    assert users.stat().st_mode & 0o777 == 0o600
    refused = run_program([*command, "--role", "reader", "--password", "x"], "", check=False)
    assert "No such option" in refused
    again = run_program([*command, "--role", "publisher"], "another password\n", check=False)
    assert "--replace" in again
    with serve_as_program(tmp_path) as server:
        assert server.login("NEW@example.com", "short and sweet").status_code == 200


def run_program(command: list[str], given: str, *, check: bool = True) -> str:
    """Run the program from the environment of the tests and return all it said."""
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    done = subprocess.run(program, input=given, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode == 0) is check, done.stderr
    return done.stdout + done.stderr


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "tls.crt", folder / "tls.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path
