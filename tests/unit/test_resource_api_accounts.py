"""Accounts, secret files, tokens and the throttle of the resource API."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trainwright_resource_api.__main__ import app
from trainwright_resource_api.accounts import (
    AccountError,
    Accounts,
    Role,
    add_account,
    list_accounts,
    remove_account,
)
from trainwright_resource_api.cdn import Cdn
from trainwright_resource_api.problems import ProblemError
from trainwright_resource_api.secret_files import SecretFileError, WatchedSecret, write_secret
from trainwright_resource_api.storage import FileTooLargeError, Storage, check_name
from trainwright_resource_api.throttle import LoginThrottle
from trainwright_resource_api.tokens import Tokens, rotate_keys

PASSWORD = "seven red apples"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    add_account(path, "Trainer@example.com", Role.PUBLISHER, PASSWORD)
    return path


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_file_holds_a_hash_and_is_its_owner_s_alone(users: Path) -> None:
    content = users.read_text()
    assert PASSWORD not in content
    assert yaml.safe_load(content)["accounts"][0]["password"].startswith("$argon2id$")
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert [path.name for path in users.parent.iterdir()] == ["users.yaml"]


def test_a_name_is_one_account_in_any_case(users: Path) -> None:
    accounts = Accounts(users)
    found = accounts.authenticate("trainer@EXAMPLE.com", PASSWORD)
    assert found is not None
    assert found.role is Role.PUBLISHER
    assert accounts.authenticate("trainer@example.com", PASSWORD.upper()) is None
    with pytest.raises(AccountError, match="--replace"):
        add_account(users, "TRAINER@example.com", Role.READER, PASSWORD)


def test_replacing_changes_role_and_password(users: Path) -> None:
    accounts = Accounts(users)
    add_account(users, "trainer@example.com", Role.READER, "eight green pears", replace=True)
    assert accounts.authenticate("trainer@example.com", PASSWORD) is None
    assert [account.role for account in list_accounts(users)] == [Role.READER]


def test_an_unknown_name_costs_as_much_as_a_wrong_password(users: Path) -> None:
    accounts = Accounts(users)

    def fastest(name: str) -> float:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            assert accounts.authenticate(name, "wrong") is None
            times.append(time.perf_counter() - started)
        return min(times)

    # Without the hash an unknown name would be thousands of times faster.
    assert fastest("nobody@example.com") > 0.2 * fastest("trainer@example.com")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_has_a_sensible_length(tmp_path: Path, password: str) -> None:
    with pytest.raises(AccountError, match=f"has {len(password)} characters"):
        add_account(tmp_path / "users.yaml", "x@example.com", Role.READER, password)


def test_removing_names_an_account_that_is_not_there(users: Path) -> None:
    with pytest.raises(AccountError, match="no account nobody"):
        remove_account(users, "nobody")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("accounts: [", "not YAML"),
        (
            "accounts: [{name: a, role: owner, password: plain-words}]",
            "role: .*password: .*not an argon2 hash",
        ),
        ("accounts: [{name: 'a b', role: reader, password: $argon2id$x}]", "name: "),
        ("accounts: [{name: a, role: reader, password: $argon2i$x, extra: 1}]", "extra: "),
        ("version: 2", "version: "),
        (
            "accounts: [{name: a, role: reader, password: $argon2i$x}, "
            "{name: A, role: reader, password: $argon2i$x}]",
            "named a",
        ),
    ],
)
def test_a_wrong_file_is_explained_without_its_values(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "users.yaml"
    write_secret(path, content.encode())
    with pytest.raises(SecretFileError, match=words) as refusal:
        Accounts(path)
    assert "plain-words" not in str(refusal.value)
    assert "argon2i$x" not in str(refusal.value)


def test_an_account_s_hash_is_in_no_representation(users: Path) -> None:
    assert "argon2" not in repr(list_accounts(users))


def test_a_watched_file_is_read_when_it_changes_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path, b"1")
    reads: list[bytes] = []

    def parse(content: bytes) -> bytes:
        reads.append(content)
        return content

    watched = WatchedSecret(path, parse)
    assert [watched.get(), watched.get()] == [b"1", b"1"]
    write_secret(path, b"2")
    assert [watched.get(), watched.get()] == [b"2", b"2"]
    assert reads == [b"1", b"2"]
    path.chmod(0o644)
    write_secret(path, b"3")
    assert watched.get() == b"3", "a replacement is private again"
    path.unlink()
    with pytest.raises(SecretFileError, match="can't be read"):
        watched.get()


@pytest.mark.parametrize(("mode", "passes"), [(0o440, True), (0o640, True), (0o660, False), (0o444, False)])
def test_a_group_may_read_but_never_write(tmp_path: Path, mode: int, passes: bool) -> None:
    path = tmp_path / "secret"
    write_secret(path, b"1")
    path.chmod(mode)
    if passes:
        assert WatchedSecret(path, bytes, group_readable=True).get() == b"1"
    else:
        with pytest.raises(SecretFileError, match="chmod 600"):
            WatchedSecret(path, bytes, group_readable=True)
    with pytest.raises(SecretFileError, match=f"mode {mode:o}"):
        WatchedSecret(path, bytes)


def test_signing_keys_are_private_made_once_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / ".keys.json"
    tokens = Tokens(path, 60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = tokens.issue("a@example.com")
    assert Tokens(path, 60).read(token) == "a@example.com"
    rotate_keys(path)
    assert tokens.read(token) == "a@example.com"
    rotate_keys(path)
    assert tokens.read(token) is None
    assert len(json.loads(path.read_text())["keys"]) == 2


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}'])
def test_broken_signing_keys_are_named_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".keys.json"
    write_secret(path, content)
    with pytest.raises(SecretFileError, match="signing keys"):
        Tokens(path, 60)
    assert path.read_bytes() == content


def test_an_attempt_is_free_again_when_its_window_has_passed() -> None:
    clock = Clock()
    throttle = LoginThrottle(2, 60, clock)
    assert [throttle.admit("a", "1.1.1.1") for _ in range(3)] == [0, 0, 60]
    clock.now += 59.5
    assert throttle.admit("a", "1.1.1.1") == 1
    clock.now += 0.5
    assert throttle.admit("a", "1.1.1.1") == 0


def test_one_address_can_t_lock_an_account_for_another() -> None:
    throttle = LoginThrottle(2, 60, Clock())
    assert [throttle.admit("a", "1.1.1.1") for _ in range(3)] == [0, 0, 60]
    assert throttle.admit("a", "2.2.2.2") == 0


def test_an_address_that_tries_many_accounts_is_slowed_down() -> None:
    throttle = LoginThrottle(2, 60, Clock())
    waits = [throttle.admit(f"account-{number}", "1.1.1.1") for number in range(7)]
    assert waits == [0] * 6 + [60]


def test_success_does_not_count() -> None:
    throttle = LoginThrottle(2, 60, Clock())
    for _ in range(20):
        assert throttle.admit("a", "1.1.1.1") == 0
        throttle.succeed("a", "1.1.1.1")


def test_what_the_throttle_remembers_is_bounded() -> None:
    throttle = LoginThrottle(2, 60, Clock())
    for number in range(11_000):
        throttle.admit(f"account-{number}", f"address-{number}")
    assert len(throttle._seen) <= 10_001


@given(st.text(max_size=220))
def test_a_name_that_passes_stays_in_its_folder(name: str) -> None:
    try:
        passed = check_name("file name", name)
    except ProblemError:
        return
    folder = Path("/folder")
    assert (folder / passed).parent == folder
    assert (folder / passed).resolve().parent == folder.resolve()
    assert not passed.startswith(".")
    assert "\0" not in passed


def test_an_upload_beyond_the_limit_is_gone(tmp_path: Path) -> None:
    upload = Storage(tmp_path, most_bytes=10).begin("models", "parts")
    upload.write(b"x" * 10)
    with pytest.raises(FileTooLargeError):
        upload.write(b"x")
    upload.discard()
    assert list((tmp_path / "models").iterdir()) == []


def test_a_cdn_file_with_a_key_nobody_would_filter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cdn.yaml"
    write_secret(path, b"host: https://cdn.example.com\nbucket: models\nroot_secret: very-secret\n")
    with pytest.raises(SecretFileError, match=r"uploader_access_key.*root_secret") as refusal:
        Cdn(path)
    assert "very-secret" not in str(refusal.value)


def test_accounts_are_kept_by_the_command_line(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    run = CliRunner()
    arguments = ["user", "add", "a@example.com", "--role", "reader", "--users", str(users)]
    assert run.invoke(app, [*arguments, "--password-file", str(secret)]).exit_code == 0
    assert run.invoke(app, ["user", "list", "--users", str(users)]).output == "reader\ta@example.com\n"
    assert Accounts(users).authenticate("a@example.com", PASSWORD) is not None
    assert run.invoke(app, ["user", "remove", "a@example.com", "--users", str(users)]).exit_code == 0
    assert list_accounts(users) == ()


def test_half_a_tls_pair_is_refused(tmp_path: Path, users: Path) -> None:
    arguments = ["serve", "--data", str(tmp_path), "--users", str(users), "--tls-cert", str(users)]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--tls-key" in refused.output
