"""The report of a run: everything that is known, nothing asked of a server, and nothing believed of names."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainwright.artifacts import Dataset, Evaluation, OnnxModel, Parity, VerifiedModel, Weights
from trainwright.contract import (
    ClassMap,
    ClassResult,
    Comparison,
    ConfusedPair,
    DatasetReport,
    ErrorBox,
    EvaluationDetails,
    ImageCounts,
    ImageErrors,
    Latency,
    RunPlan,
    Stage,
)
from trainwright_trainer.report.findings import Findings, Made
from trainwright_trainer.report.page import render_card, render_page
from trainwright_trainer.report.writing import write_report

DIGEST = "sha256:" + "0" * 64
SIZE: dict[str, Any] = {"width": 640, "height": 480}
EVIL = "<script>alert('x')</script>|`pear`"


class Reader(HTMLParser):
    """Collects what a browser would fetch, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset", "data"}
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    images = tmp_path / "images" / "test"
    images.mkdir(parents=True)
    Image.new("RGB", (640, 480), "grey").save(images / "crate-1.jpg")
    plan = RunPlan.model_validate(
        {
            "run": {"name": "fruit-1"},
            "model": {"name": "fruit", "version": "2026-11-21-aaaa", "description": EVIL},
            "dataset": {"source": {"folder": {}}},
        }
    )
    counts = ImageCounts(train=70, valid=20, test=10)
    dataset = Dataset(
        folder="dataset",
        report=DatasetReport(digest=DIGEST, images=counts, quarantined=3, classes=2),
        class_map=ClassMap.of_names(["apple", "pear"]),
        manifest="m",
        summary="s",
        quarantine="q",
    )
    onnx = OnnxModel(path="m.onnx", digest=DIGEST, size=5_400_000, opset=18, end_to_end=False)
    made = Made(
        dataset,
        Weights(path="w.pt", digest=DIGEST, epochs=40, batch_size=8, metrics={}),
        Evaluation(
            metrics={"mAP50": 0.91},
            per_class={},
            images=10,
            details="d",
            gate_passed=False,
            gate_reason="mAP50to95 0.610 on the test split is below gate.minimum 0.7",
        ),
        onnx,
        VerifiedModel(
            onnx=onnx,
            parity_images=8,
            batch_sizes=(1,),
            image_sizes=((640, 640),),
            parities=(Parity(engine="onnxruntime", compared=50, match_percent=100, max_difference=0.001),),
        ),
    )
    box = ErrorBox(name="apple", box=(10, 20, 200, 220), confidence=0.7)
    details = EvaluationDetails(
        metrics={"mAP50": 0.91, "mAP50to95": 0.61, "precision": 0.9},
        images=10,
        boxes=33,
        gate_passed=False,
        gate_reasons=("mAP50to95 0.610 on the test split is below gate.minimum 0.7",),
        threshold=0.41,
        f1=0.88,
        classes=(
            ClassResult(name="apple", images=8, boxes=20, ap50=0.95, ap50to95=0.7, curve=(1.0, 0.9, 0.2)),
            ClassResult(name=EVIL, images=0, boxes=0),
        ),
        confusion=(
            ConfusedPair(label="apple", found="apple", count=18),
            ConfusedPair(label="apple", found=EVIL, count=2),
            ConfusedPair(label=None, found="apple", count=1),
        ),
        worst=(
            ImageErrors(
                image="crate-1.jpg", width=640, height=480, missed_count=0, false_count=1, false=(box,)
            ),
            ImageErrors(image="../../secret.jpg", width=1, height=1, missed_count=1, false_count=0),
            ImageErrors(image="gone.jpg", width=1, height=1, missed_count=1, false_count=0),
        ),
        latency=Latency(device="CPU", image_size=640, images=10, median=12.3, p95=20.1),
        comparison=Comparison(
            model="fruit",
            version="2026-11-01-4f2a",
            metric="mAP50to95",
            ours=0.61,
            parents=0.60,
            drop=-0.01,
            low=-0.03,
            high=0.01,
            resamples=1000,
        ),
    )
    split = {"images": 70, "share": 0.7, "wanted": 0.7}
    side = {"images": 8, "boxes": 11, "share": 1.0}
    summary: dict[str, Any] = {
        "annotations": 103,
        "quarantined": {"count": 3, "rules": {"truncated": 2, "classId": 1}},
        "splits": {"train": split, "valid": split, "test": split},
        "classes": [{"id": 0, "name": EVIL, "train": side, "valid": side, "test": side}],
        "parent": {"images": {"added": 12, "removed": 1}, "drift": 0.0123},
    }
    history = [
        {"epoch": 1.0, "train/box_loss": 2.0, "metrics/mAP50(B)": 0.1},
        {"epoch": 2.0, "train/box_loss": 1.0, "metrics/mAP50(B)": float("nan")},
    ]
    seconds = {Stage.DATASET: 4.0, Stage.TRAINING: 4000.0}
    return Findings(plan, made, details, summary, history, seconds, {"torch": "2.9"}, images)


def test_the_page_tells_what_was_found_and_where_it_comes_from(findings: Findings) -> None:
    text = read(render_page(findings)).text
    for wanted in (
        "Did not pass the gate: kept, not promoted",
        "is below gate.minimum 0.7",
        "0.910",
        "12.3",
        "between -0.030 and +0.010",
        "3 of 103 annotations were left out: 2 truncated, 1 classId",
        "1 h 06 min",
        "No GPU was used.",
        findings.plan.digest,
        "torch 2.9",
        "images added",
    ):
        assert wanted in text


def test_the_page_asks_nothing_of_any_server_and_runs_nothing(findings: Findings) -> None:
    page = render_page(findings)
    reader = read(page)
    assert "script" not in reader.tags
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_names_from_the_data_are_shown_and_not_believed(findings: Findings) -> None:
    page = render_page(findings)
    assert EVIL in read(page).text
    assert "<script>alert" not in page
    assert "<script>" not in render_card(findings)


def test_only_pictures_of_the_test_split_are_shown(findings: Findings) -> None:
    reader = read(render_page(findings))
    assert reader.tags.count("img") == 1
    assert "crate-1.jpg: 0 missed, 1 false" in reader.text


def test_the_card_is_markdown_with_a_table_of_classes(findings: Findings) -> None:
    card = render_card(findings)
    assert card.startswith(f"# {findings.plan.model.name} ")
    assert "| apple | 8 | 20 | 0.950 | 0.700 | – | – |" in card
    assert "## Classes" in card
    assert "\n\n## Data\n" in card


def test_the_same_findings_give_the_same_bytes(findings: Findings) -> None:
    assert render_page(findings) == render_page(findings)


def test_a_run_that_knows_nothing_of_its_epochs_or_a_parent_has_a_page_too(findings: Findings) -> None:
    details = findings.details.model_copy(update={"comparison": None, "worst": (), "confusion": ()})
    summary = {name: value for name, value in findings.summary.items() if name != "parent"}
    bare = replace(findings, history=[], details=details, summary=summary)
    text = read(render_page(bare)).text
    assert "Nothing is known of the epochs." in text
    assert "None on 10 test images." in text
    assert "Against the parent" not in text


def test_a_report_that_can_not_be_made_does_not_fail_the_run(
    findings: Findings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert write_report(findings.plan, findings.made, tmp_path, {}) is None
    assert "can't be written" in caplog.text
