"""The `trainwright` command: what it writes, and how it says what is wrong."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from trainwright.cli import main
from trainwright.sealing import PrivateKey, PublisherKey, Recipient, VerifyKey, seal

Output = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["trainwright", *map(str, arguments)])
    with pytest.raises(SystemExit) as raised:
        main()
    return int(raised.value.code or 0)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZAION_API_URL", "AZAION_API_EMAIL", "AZAION_API_PASSWORD", "TRAINWRIGHT_PUBLISHERS"):
        monkeypatch.delenv(name, raising=False)


def test_a_recipients_pair_fits_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert run(monkeypatch, "keys", "new", "--to", tmp_path / "keys", "--name", "field") == 0
    private, public = tmp_path / "keys/field.private", tmp_path / "keys/field.public"
    assert PrivateKey.from_file(private).recipient == Recipient.from_file(public)
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (private, private.parent)] == [0, 0]
    shown = capsys.readouterr().out
    assert f"kubectl create configmap recipients --from-file=field={public}" in shown
    assert "trainwright.dev/use=recipients" in shown
    assert private.read_text().split(":")[2] not in shown


def test_a_publishers_pair_fits_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert run(monkeypatch, "keys", "new", "--kind", "publisher", "--to", tmp_path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    verify_key = VerifyKey.from_file(Path(result["public"]))
    assert PublisherKey.from_file(Path(result["private"])).verify_key == verify_key
    assert result["keyId"] == verify_key.key_id


def test_keys_are_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    arguments = ("keys", "new", "--to", tmp_path, "--name", "field")
    run(monkeypatch, *arguments)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    (tmp_path / "field.private").unlink()
    assert run(monkeypatch, *arguments) == 1
    assert "field.public exist" in capsys.readouterr().err
    assert {path: before[path] for path in tmp_path.iterdir()} == {
        path: path.read_text() for path in tmp_path.iterdir()
    }


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", ""])
def test_a_key_id_that_is_no_file_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, name: str
) -> None:
    code = run(monkeypatch, "keys", "new", "--to", tmp_path / "keys", f"--name={name}")
    if name:
        assert code == 1
        assert "is not usable as a file name" in capsys.readouterr().err
        assert not (tmp_path / "keys").exists()
    else:
        assert code == 0


def test_inspect_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    (tmp_path / "m").write_bytes(b"model")
    reader, publisher = PrivateKey.generate("field"), PublisherKey.generate("ci")
    recipients = [reader.recipient]
    sealed = seal(tmp_path / "m", tmp_path, name="parts.v1", recipients=recipients, publisher=publisher)
    assert run(monkeypatch, "inspect", tmp_path / sealed.small_path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fileId"] == sealed.file_id
    assert facts["recipients"] == ["field"]
    assert facts["publisher"] == publisher.verify_key.fingerprint
    assert facts["bigDigest"] == sealed.big.digest
    assert run(monkeypatch, "inspect", tmp_path / sealed.small_path) == 0
    assert sealed.big.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [("m", "not a part of a sealed model"), ("none", "No such file"), (".", "directory")],
)
def test_an_error_is_one_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, name: str, message: str
) -> None:
    (tmp_path / "m").write_bytes(b"model" * 100)
    assert run(monkeypatch, "inspect", tmp_path / name) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") <= 2
    assert "Traceback" not in error


def test_fetch_names_a_key_in_the_wrong_place_and_missing_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    run(monkeypatch, "keys", "new", "--to", tmp_path, "--name", "field")
    run(monkeypatch, "keys", "new", "--kind", "publisher", "--to", tmp_path, "--name", "ci")
    common = ("fetch", "parts", "--to", tmp_path, "--api-url", "https://api.example.com")
    keys = ("--private-key", tmp_path / "field.private", "--publisher")
    capsys.readouterr()
    assert run(monkeypatch, *common, *keys, tmp_path / "field.public") == 1
    assert "is a recipient's public key, not a publisher's verify key" in capsys.readouterr().err
    assert run(monkeypatch, *common, *keys, tmp_path / "ci.public") == 1
    assert "the environment has no AZAION_API_EMAIL and no AZAION_API_PASSWORD" in capsys.readouterr().err


def test_fetch_refuses_an_unencrypted_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    run(monkeypatch, "keys", "new", "--to", tmp_path, "--name", "field")
    run(monkeypatch, "keys", "new", "--kind", "publisher", "--to", tmp_path, "--name", "ci")
    monkeypatch.setenv("AZAION_API_EMAIL", "reader@example.com")
    monkeypatch.setenv("AZAION_API_PASSWORD", "secret password")
    keys = ("--private-key", tmp_path / "field.private", "--publisher", tmp_path / "ci.public")
    assert run(monkeypatch, "fetch", "parts", "--to", tmp_path, "--api-url", "http://example.com", *keys) == 1
    error = capsys.readouterr().err
    assert "is not encrypted" in error
    assert "secret password" not in error
