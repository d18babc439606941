"""A run whose account can't log in: it says so, and publishes without training again once that is mended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from stack_cluster import SYSTEM, Cluster, wait
from whole_stack import Team, condition, trained_epochs

from trainwright.contract import ExitCode

Object = dict[str, Any]

RUN, MODEL = "fruit-1", "fruit"


@dataclass(frozen=True)
class Story:
    """What was seen before the password was mended, and after it."""

    failed: Object
    first_log: list[Object]
    published_before: dict[str, list[str]]
    journal_before: Object
    succeeded: Object
    last_log: list[Object]
    journal_after: Object


def _set_password(team: Team, password: str) -> None:
    patch = json.dumps({"stringData": {"AZAION_API_PASSWORD": password}})
    team.kubectl("patch", "secret", "publisher-account", "--type", "merge", "-p", patch)


def _journal(team: Team) -> Object:
    journal: Object = json.loads((team.volume(f"{RUN}-workspace") / "journal.json").read_text())
    return journal


@pytest.fixture(scope="module")
def story(team: Team, cluster: Cluster) -> Story:
    _set_password(team, "not-the-password")
    training = team.manifest(RUN)["spec"]["training"] | {"epochs": 1}
    team.apply(team.manifest(RUN, MODEL, training=training, retry={"publishing": 1}))
    failed = team.wait_for_phase(RUN, "Failed")
    before = (team.logs(RUN, 1), team.published(MODEL), _journal(team))
    _set_password(team, team.stack.state.resource_api.publisher.password)
    team.kubectl("delete", "pods", "-l", f"trainwright.dev/run={RUN}")
    cluster.kubectl("delete", "pods", "-n", SYSTEM, "--all")
    cluster.wait_for_operator()
    patch = json.dumps({"spec": {"retryRequest": "the password is mended"}})
    team.kubectl("patch", "trun", RUN, "--type", "merge", "-p", patch)
    wait(lambda: team.status(RUN)["phase"] == "Succeeded", "the request publishes the model")
    succeeded = team.status(RUN)
    return Story(failed, *before, succeeded, team.logs(RUN, 3), _journal(team))


def test_the_run_fails_for_publishing_and_names_the_account(story: Story) -> None:
    failure = story.failed["failure"]
    assert failure["cause"] == "Publishing"
    assert failure["stage"] == "Publishing"
    assert failure["exitCode"] == ExitCode.PUBLISHING
    assert "AZAION_API_PASSWORD" in failure["hint"]
    assert "not-the-password" not in json.dumps(story.failed)


def test_the_budget_is_spent_and_every_attempt_is_recorded(story: Story) -> None:
    attempts = story.failed["attempts"]
    assert [(a["number"], a["outcome"], a["cause"]) for a in attempts] == [
        (1, "Failed", "Publishing"),
        (2, "Failed", "Publishing"),
    ]
    assert condition(story.failed, "Failed")["reason"] == "BudgetSpent"
    assert condition(story.failed, "Trained")["status"] == "True"
    assert condition(story.failed, "Published")["status"] != "True"
    assert story.published_before["small"] == []


def test_a_mended_password_and_a_request_publish_without_training_again(story: Story) -> None:
    assert trained_epochs(story.first_log) == [1]
    assert trained_epochs(story.last_log) == []
    for stage in ("Dataset", "Training", "Evaluation", "Export", "Verification", "Sealing"):
        assert story.journal_after["entries"][stage] == story.journal_before["entries"][stage]
    attempts = story.succeeded["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["Failed", "Failed", "Succeeded"]
    assert attempts[-1]["retryRequest"] == "the password is mended"
    assert "failure" not in story.succeeded


def test_the_model_can_be_fetched(team: Team, story: Story) -> None:
    assert team.fetch(MODEL)["digest"] == story.succeeded["model"]["digest"]
    assert [len(names) for names in team.published(MODEL).values()] == [1, 1]
