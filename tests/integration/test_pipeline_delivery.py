"""From annotations to a model in a reader's hands: what failed is done again, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import publishing_site
import pytest
from publishing_site import PASSWORD, Servers, Site, build_site
from training_program import Program, tiny_plan

from trainwright.artifacts import SealedModel
from trainwright.contract import Cause, ExitCode, Stage
from trainwright.errors import SupersededError
from trainwright_trainer import execute

servers = publishing_site.servers  # fixtures are found by name


def refuse(file_id: str) -> None:
    """Be the fence of a pod that is no longer the current one."""
    raise SupersededError("another pod is the current one")


def options_of(site: Site) -> list[str]:
    places = site.places
    named = {
        "--api-credentials": places.api_credentials,
        "--recipients": places.recipients,
        "--signing-key": places.signing_key,
    }
    return [text for option, folder in named.items() for text in (option, str(folder))]


def test_a_failed_delivery_is_mended_without_training_or_sealing_again(
    servers: Servers, tmp_path: Path
) -> None:
    site = build_site(tmp_path, servers, "shapes-mended")
    program = Program(tmp_path, tiny_plan("yolo26n.yaml", delivery={"api": {"url": servers.api_url}}))
    password = tmp_path / "api" / "AZAION_API_PASSWORD"
    password.write_text("a wrong password")
    code, output = program.run(1, *options_of(site))
    assert code == ExitCode.PUBLISHING, output
    failure = program.report(1).failure
    assert failure is not None
    assert (failure.cause, failure.stage) == (Cause.PUBLISHING, Stage.PUBLISHING)
    assert failure.hint
    assert "a wrong password" not in output
    sealed: SealedModel = program.recall(Stage.SEALING, SealedModel)

    password.write_text(PASSWORD)
    with pytest.raises(SupersededError):
        execute(program.plan, site.places, fence=refuse, attempt=2)
    assert site.fetch("shapes").returncode != 0, "a superseded pod committed its model"

    result = execute(program.plan, site.places, attempt=3)
    assert result.sealed == sealed
    assert result.published is not None
    assert result.published.file_id == sealed.file_id
    assert result.report.model is not None
    assert result.report.model.parts is not None
    assert result.report.finished_stages.keys() == set(Stage)

    done = site.fetch("shapes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == result.report.model.digest
