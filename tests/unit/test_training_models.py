"""Which models a training may start from, which device it may use, and what its gate says."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from math import inf, nan
from pathlib import Path

import pytest
from annotation_trees import Silent, plan_of

from trainwright.artifacts import Dataset
from trainwright.contract import ClassMap, DatasetReport, GateSettings, ImageCounts, TrainingSettings
from trainwright.errors import ConfigurationError, GpuFaultError
from trainwright_trainer import yolo
from trainwright_trainer.checkpoints import CheckpointNote
from trainwright_trainer.devices import devices_of
from trainwright_trainer.files import digest_bytes
from trainwright_trainer.measuring.gate import judge
from trainwright_trainer.places import Places
from trainwright_trainer.steps.training import (
    _cap_workers,
    _choose_cache,
    _find_model,
    _share_batch,
    open_checkpoints,
    train_model,
)

SAMPLE = {"source": {"sample": {}}}


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26m.yaml", "yolov8x.yaml", "yolov8n-p2.yaml"])
def test_a_detection_architecture_is_known_by_name(name: str) -> None:
    assert _find_model(name, None) == name


@pytest.mark.parametrize(
    "name",
    ["yolo11n-seg.yaml", "rtdetr-l.yaml", "yolo99n.yaml", "yolo26m.pt", "../yolo11n.yaml", "*.yaml", ""],
)
def test_anything_else_is_refused_and_never_downloaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="baseModel") as refused:
        _find_model(name, tmp_path)
    assert "Nothing is downloaded" in refused.value.hint


def test_a_file_below_the_weights_folder_is_found_and_one_outside_is_not(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    (weights / "parts").mkdir(parents=True)
    (weights / "parts" / "v1.pt").touch()
    (tmp_path / "outside.pt").touch()
    (weights / "link.pt").symlink_to(tmp_path / "outside.pt")
    assert _find_model("parts/v1.pt", weights) == str(weights / "parts" / "v1.pt")
    for name in ("../outside.pt", "link.pt", str(tmp_path / "outside.pt")):
        with pytest.raises(ConfigurationError):
            _find_model(name, weights)


def test_weights_are_not_loaded_with_a_torch_that_would_run_what_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_CONFIG_DIR", "YOLO_VERBOSE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # `prepare` sets them: give them back
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "1")
    yolo.prepare(tmp_path)
    monkeypatch.setattr("ultralytics.nn.tasks._SafeLoad.SUPPORTED", False)
    with pytest.raises(ConfigurationError, match="without running code"):
        yolo.prepare(tmp_path)


def test_no_gpu_means_the_processor_and_gpus_that_can_not_be_seen_are_a_fault_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert devices_of(plan_of(SAMPLE)) == ("cpu",)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices_of(plan_of(SAMPLE, gpus=2)) == ("0", "1")
    with pytest.raises(GpuFaultError, match=r"compute\.gpus is 4, but 2 of them can be seen"):
        devices_of(plan_of(SAMPLE, gpus=4))


@pytest.mark.parametrize(("batch", "shared"), [(8, 8), (11, 10), (1, 2)])
def test_a_batch_that_devices_can_not_share_evenly_is_made_smaller(batch: int, shared: int) -> None:
    assert _share_batch(batch, 2) == shared


@pytest.mark.parametrize(("gibibytes", "cache"), [(4, "ram"), (2, False)])
def test_images_are_cached_in_memory_only_where_there_is_room(
    gibibytes: int, cache: str | bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainwright_trainer.steps.training.available_memory", lambda: gibibytes * 1024**3)
    dataset = dataset_of(b"", images=ImageCounts(train=400, valid=37, test=1))
    settings = TrainingSettings(cache="Memory", image_size=1280)  # 2 GiB of pixels
    assert _choose_cache(settings, dataset, copies=1) == cache


def test_a_metric_that_is_no_number_is_left_out_and_passes_no_gate() -> None:
    found = yolo.pick_metrics({"metrics/mAP50(B)": nan, "metrics/mAP50-95(B)": inf, "metrics/recall(B)": 0.5})
    assert found == {"recall": 0.5}
    verdict = judge(found, {}, None, GateSettings(metric="mAP50", minimum=0.0))
    assert not verdict.passed
    assert "mAP50 on the test split is not a number" in verdict.reason


def dataset_of(content: bytes, images: ImageCounts | None = None) -> Dataset:
    images = images or ImageCounts(train=1, valid=1, test=1)
    report = DatasetReport(digest=digest_bytes(content), images=images, quarantined=0, classes=1)
    papers = {"manifest": "d/m", "summary": "d/s", "quarantine": "d/q"}
    return Dataset(folder="d", report=report, class_map=ClassMap.of_names(["part"]), **papers)


def test_a_changed_dataset_is_trained_on_though_an_earlier_one_was_trained_to_the_end(tmp_path: Path) -> None:
    plan, places = plan_of(SAMPLE, training={"baseModel": "reached.pt"}), Places(tmp_path)
    (tmp_path / "last.pt").write_bytes(b"weights")
    note = CheckpointNote(
        epoch=3,
        epochs=3,
        batch_size=8,
        metrics={},
        final=True,
        digest=digest_bytes(b"weights"),
        time=datetime.now(UTC),
    )
    store = open_checkpoints(dataset_of(b"former"), plan, places)
    store.save(tmp_path / "last.pt", note)
    assert store.newest() is not None
    with pytest.raises(ConfigurationError, match=r"reached\.pt"):  # only a training asks for its base model
        train_model(dataset_of(b"changed"), plan, places, Silent())


def test_workers_are_no_more_than_cpus_also_where_a_process_has_no_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _cap_workers(512) == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert _cap_workers(512) == os.cpu_count()
    assert _cap_workers(0) == 0


def test_a_model_may_be_on_a_volume_of_the_run_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt").mkdir()
    inside, outside = tmp_path / "mnt" / "parts.pt", tmp_path / "parts.pt"
    for path in (inside, outside):
        path.write_bytes(b"weights")
    monkeypatch.setattr("trainwright_trainer.steps.training.VOLUMES", tmp_path / "mnt")
    assert _find_model(str(inside), None) == str(inside)
    for name in (str(outside), f"{tmp_path}/mnt/../parts.pt", f"{tmp_path}/mnt/none.pt"):
        with pytest.raises(ConfigurationError, match="no file below"):
            _find_model(name, None)
