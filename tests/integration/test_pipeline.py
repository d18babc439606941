"""The trainer's program on real trainings: small ones, shared by the tests of this file."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from annotation_trees import Silent, digest_tree, write_tree
from onnx import numpy_helper
from training_program import IMAGE_SIZE, Program, tiny_plan

from trainwright.artifacts import Dataset, Evaluation, OnnxModel, Parent, VerifiedModel, Weights
from trainwright.contract import ClassMap, EvaluationDetails, ExitCode, RunReport, Stage
from trainwright.errors import StepError
from trainwright_trainer import Places, execute
from trainwright_trainer.files import digest_file
from trainwright_trainer.observers import Moment
from trainwright_trainer.steps.evaluation import evaluate_weights
from trainwright_trainer.steps.verification import verify_model

EPOCHS = 8  # enough for a signal to arrive before the last one
TRAINED_STAGES = [stage for stage in Stage if stage not in (Stage.SEALING, Stage.PUBLISHING)]


@dataclass
class Interrupted:
    """A training whose first attempt was killed, whose second was asked to stop, and whose third finished."""

    program: Program
    exit_codes: list[int]
    output: str


def interrupt_after_an_epoch(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send a signal as soon as an epoch is saved; return the exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("event") == "epoch":
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    plan = tiny_plan(epochs=EPOCHS, export={"formats": ["openvino"]})
    program = Program(tmp_path_factory.mktemp("interrupted"), plan)
    killed = interrupt_after_an_epoch(program.start(1), signal.SIGKILL)
    stopped = interrupt_after_an_epoch(program.start(2), signal.SIGTERM)
    finished, output = program.run(3, "--batch-size", "4", "--workers", "1")
    return Interrupted(program, [killed, stopped, finished], output)


@pytest.fixture
def trained(interrupted: Interrupted, tmp_path: Path) -> Program:
    """A copy of the finished workspace, to break."""
    shutil.copytree(interrupted.program.workspace, tmp_path / "workspace")
    return Program(tmp_path, interrupted.program.plan)


def test_a_killed_attempt_says_nothing_and_a_stopped_one_is_preempted(interrupted: Interrupted) -> None:
    assert interrupted.exit_codes[:2] == [-signal.SIGKILL, ExitCode.PREEMPTED]
    assert not (interrupted.program.folder / "message-1").exists()
    report = interrupted.program.report(2)
    assert report.failure is not None
    assert report.failure.cause == "Preempted"
    assert report.failure.stage is Stage.TRAINING
    assert report.resumed_from_epoch is not None
    assert list(report.finished_stages) == [Stage.DATASET]


def test_the_next_attempt_goes_on_from_the_checkpoint(interrupted: Interrupted) -> None:
    assert interrupted.exit_codes[2] == ExitCode.SUCCESS, interrupted.output
    report = interrupted.program.report(3)
    assert report.attempt == 3
    assert report.outcome == "Succeeded"
    assert report.progress.percent == 100
    assert list(report.finished_stages) == TRAINED_STAGES
    assert report.resumed_from_epoch is not None
    assert 2 <= report.resumed_from_epoch < EPOCHS
    lines = map(json.loads, interrupted.output.splitlines())
    epochs = [line["epoch"] for line in lines if line.get("event") == "epoch"]
    assert epochs == list(range(report.resumed_from_epoch + 1, EPOCHS + 1))


def test_an_attempt_that_is_told_to_trains_on_with_a_smaller_batch_and_says_so(
    interrupted: Interrupted,
) -> None:
    report = interrupted.program.report(3)
    assert report.adjustments is not None
    assert (report.adjustments.batch_size, report.adjustments.workers) == (4, 1)
    assert report.metrics["batchSize"] == 4
    assert interrupted.program.recall(Stage.TRAINING, Weights).batch_size == 4


def test_the_report_names_dataset_metrics_and_model(interrupted: Interrupted) -> None:
    report = interrupted.program.report(3)
    assert report.dataset is not None
    assert report.dataset.images.model_dump() == {"train": 22, "valid": 6, "test": 12}
    assert {"mAP50", "mAP50to95", "precision", "recall", "gatePassed"} <= report.metrics.keys()
    assert report.model is not None
    model = interrupted.program.workspace / "export" / "model.onnx"
    assert report.model.size == model.stat().st_size


def test_nothing_is_asked_of_a_network_or_written_outside_the_workspace(interrupted: Interrupted) -> None:
    folder = interrupted.program.folder
    assert {path.name for path in folder.iterdir()} - {"home", "watch"} == {
        "plan.json",
        "workspace",
        "message-2",
        "message-3",
    }


def test_a_page_about_the_run_is_left_beside_the_model(interrupted: Interrupted) -> None:
    page = interrupted.program.report(3).report
    assert page is not None, interrupted.output
    assert digest_file(interrupted.program.workspace / page.path) == page.digest
    text = (interrupted.program.workspace / page.path).read_text()
    assert "Metrics on the validation split" in text
    assert (interrupted.program.workspace / "report" / "model-card.md").is_file()


def test_a_finished_plan_is_recalled_and_nothing_is_done_again(trained: Program) -> None:
    moments: list[Moment] = []

    class Watch:
        def observe(self, report: RunReport, moment: Moment) -> None:
            moments.append(moment)

    weights = trained.workspace / "training" / "weights.pt"
    before = weights.stat().st_mtime_ns
    result = execute(trained.plan, Places(trained.workspace), observer=Watch(), attempt=4)
    assert result.report.outcome == "Succeeded"
    assert result.weights == trained.recall(Stage.TRAINING, Weights)
    assert Moment.EPOCH not in moments
    assert weights.stat().st_mtime_ns == before


def test_without_its_journal_a_finished_training_is_still_not_done_again(trained: Program) -> None:
    """A crash between the last checkpoint and the journal; the same weights give the same ONNX bytes."""
    before: OnnxModel = trained.recall(Stage.EXPORT, OnnxModel)
    assert [made.format for made in before.further] == ["openvino"]
    (trained.workspace / "journal.json").unlink()
    shutil.rmtree(trained.workspace / "export")
    code, output = trained.run(4)
    assert code == ExitCode.SUCCESS, output
    assert '"event": "epoch"' not in output
    assert trained.recall(Stage.EXPORT, OnnxModel) == before


def test_the_exported_model_takes_one_to_eight_images_and_names_its_classes(trained: Program) -> None:
    session = onnxruntime.InferenceSession(
        trained.workspace / "export" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    assert given.shape[1:] == [3, IMAGE_SIZE, IMAGE_SIZE]
    for batch in (1, 3, 8):
        images = np.zeros((batch, *given.shape[1:]), dtype=np.float32)
        (output,) = session.run(None, {given.name: images})
        assert output.shape == (batch, 300, 6)
    metadata = session.get_modelmeta().custom_metadata_map
    assert "circle" in metadata["names"]
    assert json.loads(metadata["imgsz"]) == [IMAGE_SIZE, IMAGE_SIZE]
    dataset: Dataset = trained.recall(Stage.DATASET, Dataset)
    assert metadata["dataset"] == dataset.report.digest
    assert ClassMap.from_json(metadata["classes"]) == dataset.class_map
    assert not {"date", "args", "description"} & metadata.keys()
    assert str(trained.folder).encode() not in (trained.workspace / "export" / "model.onnx").read_bytes()


@pytest.mark.filterwarnings("ignore")  # torch and Ultralytics warn of their own matters
def test_an_export_that_detects_something_else_is_refused(trained: Program) -> None:
    path = trained.workspace / "export" / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 0.9, tensor.name))
    onnx.save(model, path)
    exported, weights = trained.recall(Stage.EXPORT, OnnxModel), trained.recall(Stage.TRAINING, Weights)
    dataset = trained.recall(Stage.DATASET, Dataset)

    with pytest.raises(StepError, match=r"matches .* % of \d+ detections"):
        verify_model(exported, weights, dataset, trained.plan, Places(trained.workspace), Silent())


def test_every_format_is_shown_to_detect_what_the_weights_detect(interrupted: Interrupted) -> None:
    verified: VerifiedModel = interrupted.program.recall(Stage.VERIFICATION, VerifiedModel)
    assert [parity.engine for parity in verified.parities] == ["onnxruntime", "openvino"]
    assert all(parity.match_percent == 100 and parity.compared > 0 for parity in verified.parities)
    assert verified.batch_sizes == (1, 3, 8)
    folder = interrupted.program.workspace / "export" / "openvino"
    assert {path.name for path in folder.iterdir()} == {"model.xml", "model.bin"}


def test_the_details_of_the_evaluation_are_a_file_in_the_workspace(interrupted: Interrupted) -> None:
    evaluation: Evaluation = interrupted.program.recall(Stage.EVALUATION, Evaluation)
    path = interrupted.program.workspace / evaluation.details
    details = EvaluationDetails.model_validate_json(path.read_bytes())
    assert path.stat().st_size < 100_000
    assert details.metrics.items() <= interrupted.program.report(3).metrics.items()
    assert details.images == evaluation.images
    assert [entry.name for entry in details.classes] == ["circle", "square", "triangle"]
    assert details.boxes == sum(entry.boxes for entry in details.classes)
    assert sum(pair.count for pair in details.confusion if pair.label is not None) == details.boxes
    assert {entry.image for entry in details.worst} <= {
        path.name for path in (interrupted.program.workspace / "dataset" / "images" / "test").iterdir()
    }
    assert 0 < details.latency.median <= details.latency.p95
    assert details.comparison is None


@pytest.mark.filterwarnings("ignore")  # torch and Ultralytics warn of their own matters
def test_a_model_is_compared_with_its_parent_on_the_same_images(trained: Program) -> None:
    """Beside itself a model drops by nothing; the classes that only one of both knows do not count."""
    weights, dataset = trained.recall(Stage.TRAINING, Weights), trained.recall(Stage.DATASET, Dataset)
    parent = Parent(
        model="shapes",
        version="v0",
        digest=weights.digest,
        weights=weights.path,
        class_map=ClassMap.of_names(("circle", "square")),
        metrics={},
    )
    places = Places(trained.workspace)
    evaluation = evaluate_weights(weights, dataset, trained.plan, places, Silent(), parent)
    details = EvaluationDetails.model_validate_json((trained.workspace / evaluation.details).read_bytes())
    assert details.comparison is not None
    assert [entry.name for entry in details.comparison.classes] == ["circle", "square"]
    assert details.comparison.ours == details.comparison.parents
    assert (details.comparison.low, details.comparison.drop, details.comparison.high) == (0, 0, 0)
    assert evaluation.metrics["dropFromParent"] == 0
    assert evaluation.gate_passed


def test_the_example_trains_on_a_folder_without_a_cluster(tmp_path: Path) -> None:
    annotations = write_tree(tmp_path / "annotations", 20)
    before = digest_tree(annotations)
    example = Path(__file__).parents[2] / "examples" / "local_pipeline.py"
    done = subprocess.run(
        [sys.executable, example, annotations, tmp_path / "workspace"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "workspace" / "export" / "model.onnx") in done.stdout
    assert digest_tree(annotations) == before


def test_an_end_to_end_head_is_kept(tmp_path: Path) -> None:
    export = {"onnx": {"imageSize": 160, "dynamicImageSize": True}, "formats": ["openvino"]}
    program = Program(tmp_path, tiny_plan("yolo26n.yaml", image_size=128, export=export))
    code, output = program.run()
    assert code == ExitCode.SUCCESS, output
    assert program.recall(Stage.EXPORT, OnnxModel).end_to_end
    model = onnx.load(program.workspace / "export" / "model.onnx")
    assert not [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    shape = model.graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim][1:] == [300, 6]
    verified: VerifiedModel = program.recall(Stage.VERIFICATION, VerifiedModel)
    assert verified.image_sizes == ((160, 160), (224, 160), (224, 224))
    assert all(parity.match_percent >= 99 for parity in verified.parities)
