"""A run that has its name from the day it began, and what it leaves below the server's root.

unfinished/azaion-DATE[-N]   its workspace: while that is there, the run is not done, and is gone on with
datasets/azaion-DATE[-N]     the dataset it built
models/azaion-DATE[-N]       its model: azaion.pt, azaion.onnx, plan.json, config.yaml, report.json
models/azaion.pt             the newest model, put in place last and in one go
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainwright.contract import ClassesSettings, RunPlan
from trainwright.delivery import ApiCredentials
from trainwright.errors import ConfigurationError, StorageError
from trainwright_trainer.annotations.classes import load_classes
from trainwright_trainer.files import commit_folder, copy_atomically, write_atomically
from trainwright_trainer.pipeline import RunResult
from trainwright_trainer.places import Places
from trainwright_trainer.standalone.config import render_config
from trainwright_trainer.standalone.variables import OUTPUTS, ServerSettings
from trainwright_trainer.workspace_lock import lock_workspace

MODEL = "azaion"
CLASS_FILE = "classes.json"
_DATASETS, _MODELS, _UNFINISHED = OUTPUTS
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatedRun:
    """One run of a server: its plan and places, and what becomes of what it made."""

    root: Path
    plan: RunPlan
    places: Places
    config: str

    @property
    def name(self) -> str:
        """`azaion-DATE[-N]`."""
        return self.plan.run.name

    def keep(self, result: RunResult) -> Path:
        """Put dataset and model where the server keeps them, and the newest model last; return its folder.

        Each appears whole or not at all, and the run is unfinished until all are there.
        """
        assert result.weights is not None  # noqa: S101 - the plan trains
        assert result.onnx is not None  # noqa: S101
        assert result.evaluation is not None  # noqa: S101
        workspace, folder = self.places.workspace, self.root / _MODELS / self.name
        try:
            dataset = self.root / _DATASETS / self.name
            _put_folder(dataset, lambda partial: _link_tree(workspace / result.dataset.folder, partial))
            files = {f"{MODEL}.pt": result.weights.path, f"{MODEL}.onnx": result.onnx.path}
            texts = {
                "plan.json": self.plan.to_json(),
                "config.yaml": self.config,
                "report.json": result.report.model_dump_json(by_alias=True, indent=1),
            }
            _put_folder(folder, lambda partial: _fill(partial, workspace, files, texts))
            if result.evaluation.gate_passed:
                copy_atomically(folder / f"{MODEL}.pt", self.root / _MODELS / f"{MODEL}.pt")
            else:
                _LOG.warning("%s/%s.pt stays as it is: %s", _MODELS, MODEL, result.evaluation.gate_reason)
            _forget(workspace)
        except OSError as error:
            raise StorageError(
                f"{error.filename or self.root} can't be written: {error.strerror}",
                hint="Nothing is lost: mend that and start again, which goes on from here.",
            ) from error
        return folder


@contextmanager
def begin_run(settings: ServerSettings, keys: Places, *, gpus: int, today: date) -> Iterator[DatedRun]:
    """Give the run to go on with, or else a new one; nobody else runs below the same root meanwhile.

    `keys` are the places that no variable names: base models, recipients, signing key, CDN credentials.
    """
    root = settings.folders.root
    unfinished = root / _UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"AZAION_ROOT_DIR is {str(root)!r}, where nothing can be written: {error.strerror}",
            hint="The root needs to be there, and the account that runs this has to own it.",
        ) from None
    account = ApiCredentials(settings.api.email, settings.api.password.get_secret_value())
    with lock_workspace(unfinished):
        for left in unfinished.glob(f".{MODEL}-*"):
            _remove(left)
        body = _describe(settings, keys, gpus)
        plan = _find_unfinished(unfinished, body) or _name_anew(root, body, today)
        workspace = unfinished / plan.run.name
        workspace.mkdir(exist_ok=True)
        write_atomically(workspace / "plan.json", plan.to_json().encode())
        places = replace(
            keys,
            workspace=workspace,
            data=root,
            weights=keys.weights or root / _MODELS,
            api_credentials=account,
        )
        yield DatedRun(root, plan, places, render_config(settings))


def _describe(settings: ServerSettings, keys: Places, gpus: int) -> dict[str, Any]:
    """Return the plan but for its name, which is the day's."""
    folders = settings.folders
    body: dict[str, Any] = {
        "dataset": {
            "source": {"folder": {"path": "."}},
            "directories": {"data": folders.data, "seed": folders.seed, "deleted": folders.deleted},
            "classes": _find_classes(folders.root).model_dump(by_alias=True),
        },
        "training": settings.training.model_dump(by_alias=True),
        "export": {"onnx": settings.onnx.model_dump(by_alias=True)},
        "gpus": gpus,
    }
    if (keys.recipients is None) != (keys.signing_key is None):
        raise ConfigurationError(
            "a model is delivered with --recipients and --signing-key, and only one of them is given",
            hint="Give both, or neither: then the model stays below AZAION_ROOT_DIR.",
        )
    if keys.recipients is not None:
        body["delivery"] = {
            "api": {"url": settings.api.url},
            "bundle": keys.bundle_recipients is not None,
        }
    else:
        _LOG.warning("no --recipients and --signing-key: the model stays below %s", folders.root / _MODELS)
    return body


def _find_classes(root: Path) -> ClassesSettings:
    """Return the class map of the root, or else that of the folder we were started in, as it is now."""
    own = Path(CLASS_FILE).resolve()
    if (root / CLASS_FILE).is_file() or not own.is_file():
        return ClassesSettings(from_source=CLASS_FILE)
    _LOG.info("classes are those of %s: there is no %s", own, root / CLASS_FILE)
    class_map = load_classes(ClassesSettings(from_source=CLASS_FILE), own.parent)
    return ClassesSettings(map=class_map, from_source=None)


def _plan_of(name: str, body: Mapping[str, Any]) -> RunPlan:
    version = name.removeprefix(f"{MODEL}-")
    return RunPlan.model_validate(
        {"run": {"name": name}, "model": {"name": MODEL, "version": version}, **body}
    )


def _find_unfinished(folder: Path, body: Mapping[str, Any]) -> RunPlan | None:
    """Return the plan of the newest run that was interrupted, if today's would be the same."""
    for path in sorted(
        folder.glob(f"{MODEL}-*/plan.json"), key=lambda path: path.stat().st_mtime, reverse=True
    ):
        try:
            plan = RunPlan.from_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError):
            plan = None
        if plan is not None and plan.model_dump() == _plan_of(path.parent.name, body).model_dump():
            _LOG.info("%s was interrupted: going on with it", plan.run.name)
            return plan
        _LOG.warning("%s is unfinished and of other settings: delete it to free its space", path.parent)
    return None


def _name_anew(root: Path, body: Mapping[str, Any], today: date) -> RunPlan:
    """Return the plan under the first name of the day that nothing bears yet."""
    for number in count(1):
        name = f"{MODEL}-{today.isoformat()}" + (f"-{number}" if number > 1 else "")
        if not any((root / folder / name).exists() for folder in OUTPUTS):
            return _plan_of(name, body)
    raise AssertionError("numbers do not end")


def _forget(workspace: Path) -> None:
    """Remove a workspace at once: one without its journal would be trained in again from the beginning."""
    leaving = workspace.with_name(f".{workspace.name}")
    workspace.rename(leaving)
    _remove(leaving)


def _remove(folder: Path) -> None:
    """Remove a folder as far as that goes: what is left of it takes space, and is no reason to fail."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _LOG.warning("%s can't be removed, and is no longer needed: %s", folder, error.strerror)


def _put_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder that is seen whole or not at all; one from before an interruption is replaced."""
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    fill(partial)
    commit_folder(partial, final)


def _fill(partial: Path, workspace: Path, files: Mapping[str, str], texts: Mapping[str, str]) -> None:
    partial.mkdir()
    for name, source in files.items():
        copy_atomically(workspace / source, partial / name)
    for name, text in texts.items():
        write_atomically(partial / name, text.encode(), mode=0o600 if name == "config.yaml" else None)


def _link_tree(source: Path, target: Path) -> None:
    """Copy a tree by hard links where the volume has them: a dataset is not stored twice for a moment."""
    # Ultralytics' caches are pickles with paths of the workspace: of no use elsewhere.
    shutil.copytree(source, target, copy_function=_link, ignore=shutil.ignore_patterns("*.cache"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
