"""A plan in groups of stages on one workspace: each does its own, and trusts what the others left there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from training_program import Program, tiny_plan

from trainwright.contract import ExitCode, Outcome, RunReport, Stage, StageGroup
from trainwright.errors import StorageError
from trainwright_trainer import Places, execute
from trainwright_trainer.observers import Moment

PLAN = tiny_plan()


@dataclass(frozen=True)
class Grouped:
    """A workspace that each group's process worked in, and what they said."""

    workspace: Path
    reports: list[RunReport]


class Watch:
    """Keeps the last report."""

    last: RunReport | None = None

    def observe(self, report: RunReport, moment: Moment) -> None:
        self.last = report


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Grouped:
    program = Program(tmp_path_factory.mktemp("groups"), PLAN)
    reports = []
    for group in StageGroup:
        code, output = program.run(1, "--stages", group)
        assert code == ExitCode.SUCCESS, output
        reports.append(program.report(1))
    return Grouped(program.workspace, reports)


def test_each_group_does_its_own_stages_and_tells_that_others_follow(grouped: Grouped) -> None:
    assert [report.group for report in grouped.reports] == list(StageGroup)
    assert [(report.outcome, list(report.finished_stages)[-1]) for report in grouped.reports] == [
        (Outcome.GROUP_DONE, Stage.DATASET),
        (Outcome.GROUP_DONE, Stage.EVALUATION),
        (Outcome.SUCCEEDED, Stage.VERIFICATION),
    ]
    percents = [report.progress.percent for report in grouped.reports]
    assert 0 < percents[0] < percents[1] < percents[2] == 100


def test_a_later_group_knows_what_the_earlier_ones_found(grouped: Grouped) -> None:
    dataset, training, delivery = grouped.reports
    assert delivery.dataset == training.dataset == dataset.dataset
    assert delivery.metrics == training.metrics
    assert {"mAP50", "gatePassed"} <= delivery.metrics.keys()


@pytest.mark.parametrize(
    ("group", "missing"),
    [(StageGroup.TRAINING, Stage.DATASET), (StageGroup.DELIVERY, Stage.DATASET)],
)
def test_a_group_in_an_empty_workspace_names_the_stage_it_misses(
    tmp_path: Path, group: StageGroup, missing: Stage
) -> None:
    watch = Watch()
    with pytest.raises(StorageError, match=f"stage {missing} is not done in the workspace"):
        execute(PLAN, Places(tmp_path / "workspace"), observer=watch, group=group)
    assert watch.last is not None
    assert watch.last.failure is not None
    assert (watch.last.failure.stage, watch.last.failure.cause) == (missing, "Storage")


def test_lost_weights_are_not_trained_again_without_a_gpu(grouped: Grouped, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(grouped.workspace, workspace)
    (workspace / "training" / "weights.pt").unlink()
    with pytest.raises(StorageError, match="stage Training is not done"):
        execute(PLAN, Places(workspace), group=StageGroup.DELIVERY)
