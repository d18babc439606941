"""Writes the report of a run into its workspace; a run never fails by its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from trainwright.contract import ReportFile, RunPlan, Stage
from trainwright_trainer.files import digest_bytes, write_atomically
from trainwright_trainer.report.findings import Made, gather_findings
from trainwright_trainer.report.page import render_card, render_page

FOLDER = "report"
PAGE, CARD = f"{FOLDER}/report.html", f"{FOLDER}/model-card.md"
_LOG = logging.getLogger(__name__)


def write_report(
    plan: RunPlan, made: Made, workspace: Path, seconds: Mapping[Stage, float]
) -> ReportFile | None:
    """Write page and model card; return where the page is, or None where it could not be made."""
    try:
        findings = gather_findings(plan, made, workspace, seconds)
        page = render_page(findings).encode()
        write_atomically(workspace / CARD, render_card(findings).encode())
        write_atomically(workspace / PAGE, page)
    except Exception:  # whatever is odd about a picture or a figure: the model is good, and goes on its way
        _LOG.exception("the report of the run can't be written")
        return None
    return ReportFile(path=PAGE, digest=digest_bytes(page), size=len(page))
