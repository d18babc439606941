"""A server's variables: from .env and the environment, all that is missing told at once, no secret kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from trainwright.contract import ExitCode, OnnxSettings, TrainingSettings
from trainwright.errors import ConfigurationError
from trainwright_trainer.__main__ import app
from trainwright_trainer.standalone.config import render_config
from trainwright_trainer.standalone.variables import VARIABLES, read_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
ACCOUNT = {
    "AZAION_API_URL": "https://resources.parts.test",
    "AZAION_API_EMAIL": "trainer@parts.test",
    "AZAION_API_PASSWORD": "round wheels roll",
}
STREAM = {"RABBITMQ_USER": "reader", "RABBITMQ_PASSWORD": "green $apples #fall"}
NO_FILE = Path("there-is-none.env")


def write_env(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(environment: dict[str, str], env_file: Path = NO_FILE) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(env_file, environment)
    return caught.value


def test_names_and_defaults_are_those_of_the_example() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    assert [variable.name for variable in VARIABLES] == list(example)
    defaults = {variable.name: variable.default for variable in VARIABLES if variable.default}
    assert defaults == {name: example[name] for name in defaults}


def test_a_server_with_its_account_alone_has_the_defaults_of_the_example_and_of_a_plan() -> None:
    settings = read_settings(NO_FILE, ACCOUNT)
    assert settings.training == TrainingSettings()
    assert settings.onnx == OnnxSettings(image_size=1280)
    assert settings.folders.root == Path("/azaion")
    assert settings.annotation_stream is None


def test_the_example_as_it_is_lacks_every_required_variable_in_one_error(tmp_path: Path) -> None:
    error = refusal({}, write_env(tmp_path / ".env", EXAMPLE.read_text()))
    assert [part.split()[0] for part in str(error).partition(": ")[2].split("; ")] == [
        "AZAION_API_URL", "AZAION_API_EMAIL", "AZAION_API_PASSWORD", "RABBITMQ_USER", "RABBITMQ_PASSWORD",
    ]  # fmt: skip
    assert str(error).count("placeholder") == 5
    assert "chmod 600" in error.hint


def test_nothing_at_all_lacks_the_account_and_no_stream() -> None:
    assert str(refusal({})).count("is missing") == 3
    assert "RABBITMQ" not in str(refusal({}))


def test_half_a_stream_lacks_the_other_half() -> None:
    assert "RABBITMQ_PASSWORD is missing" in str(refusal({**ACCOUNT, "RABBITMQ_USER": "reader"}))
    both = "RABBITMQ_USER is missing; RABBITMQ_PASSWORD is missing"
    assert both in str(refusal({**ACCOUNT, "RABBITMQ_HOST": "10.0.0.7"}))


@pytest.mark.parametrize(
    "value",
    [
        "changeme",
        "CHANGE-ME",
        "change_it",
        "replace me",
        "<password>",
        "your-password",
        "xxxx",
        "***",
        "TODO",
    ],
)
def test_a_placeholder_is_no_password(value: str) -> None:
    error = refusal({**ACCOUNT, "AZAION_API_PASSWORD": value})
    assert "AZAION_API_PASSWORD is missing (it has a placeholder)" in str(error)
    assert value not in str(error)


@pytest.mark.parametrize("value", ["changeme42!", "example-horse", "exchange me", "x", "todo list of May"])
def test_a_password_that_resembles_a_placeholder_is_one_nevertheless(value: str) -> None:
    settings = read_settings(NO_FILE, {**ACCOUNT, "AZAION_API_PASSWORD": value})
    assert settings.api.password.get_secret_value() == value


def test_addresses_nobody_can_own_are_placeholders() -> None:
    wrong = {**ACCOUNT, "AZAION_API_URL": "https://api.example.com", "AZAION_API_EMAIL": "a@b.example"}
    assert str(refusal(wrong)).count("placeholder") == 2


def test_everything_that_is_wrong_is_told_with_what_is_missing() -> None:
    wrong = {
        **ACCOUNT,
        "AZAION_API_URL": "http://resources.parts.test",
        "AZAION_API_PASSWORD": "",
        "AZAION_ROOT_DIR": "azaion",
        "AZAION_DATA_DIR": "../data",
        "AZAION_DATA_SEED_DIR": "models/seed",
        "TRAINING_EPOCHS": "many",
        "TRAINING_IMGSZ": "1000",
    }
    text = str(refusal(wrong))
    for name in wrong.keys() - {"AZAION_API_EMAIL"}:
        assert name in text
    assert "'many'" in text
    assert "not encrypted" in text


def test_no_message_has_a_password(tmp_path: Path) -> None:
    secret = "hunter-two"
    wrong = {**ACCOUNT, "AZAION_API_PASSWORD": secret, "AZAION_API_URL": f"https://me:{secret}@parts.test"}
    assert secret not in str(refusal({**wrong, "TRAINING_EPOCHS": "many"}))
    broken = write_env(tmp_path / ".env", f"AZAION_API_EMAIL=a@b.c\nAZAION_API_PASSWORD='{secret}\n")
    error = refusal(ACCOUNT, broken)
    assert "lines that are not NAME=value: 2" in str(error)
    assert secret not in str(error)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    error = refusal(ACCOUNT, write_env(tmp_path / ".env", "TRAINING_EPOCHS=3\n", mode))
    assert f"{mode:03o}" in str(error)
    assert error.hint.endswith(f"chmod 600 {tmp_path / '.env'}")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    lines = [f"{name}='{value}'" for name, value in {**ACCOUNT, **STREAM}.items()]
    text = "\n".join(
        [*lines, "export TRAINING_EPOCHS=7  # for a first look", "TRAINING_WORKERS=3", "PATH=/x"]
    )
    settings = read_settings(write_env(tmp_path / ".env", text), {"TRAINING_WORKERS": "2"})
    assert (settings.training.epochs, settings.training.workers) == (7, 2)
    assert settings.annotation_stream is not None
    assert settings.annotation_stream.password.get_secret_value() == STREAM["RABBITMQ_PASSWORD"]


def test_the_rendered_file_has_every_variable_and_no_password() -> None:
    text = render_config(read_settings(NO_FILE, {**ACCOUNT, **STREAM}))
    sections = yaml.safe_load(text)
    assert sum(len(section) for section in sections.values()) == len(VARIABLES)
    assert sections["api"]["passwordFrom"] == "AZAION_API_PASSWORD"
    assert sections["training"]["baseModel"] == "yolo26m.pt"
    for secret in (ACCOUNT["AZAION_API_PASSWORD"], STREAM["RABBITMQ_PASSWORD"]):
        assert secret not in text


def run_command(*words: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, words, env=environment or {})
    return done.exit_code, done.output


def test_render_writes_a_file_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_env(tmp_path / ".env", "\n".join(f"{name}={value}" for name, value in ACCOUNT.items()))
    (tmp_path / "config.yaml").write_text("api: {password: from an earlier script}\n")
    assert run_command("config", "render") == (ExitCode.SUCCESS, "")
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600
    assert "earlier" not in (tmp_path / "config.yaml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {".env", "config.yaml"}


def test_render_writes_nothing_when_a_variable_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run_command("config", "render")
    assert code == ExitCode.USER_CONFIG
    assert output.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--from-env", "--plan", "plan.json"],
        ["--from-env", "--service-account", "account"],
        ["--plan", "plan.json"],
        [],
    ],
)
def test_variables_and_a_plan_are_not_mixed(words: list[str]) -> None:
    code, output = run_command("run", *words)
    assert code == 2
    assert "--from-env" in output
