"""Training: weights from a dataset, resumed from the newest whole checkpoint of an earlier attempt."""

from __future__ import annotations

import logging
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from trainwright.artifacts import Dataset, Parent, Weights
from trainwright.contract import Adjustments, ArgumentValue, CheckpointReport, RunPlan, TrainingSettings
from trainwright.errors import ConfigurationError, StepError, StorageError
from trainwright.training_arguments import check_arguments
from trainwright_trainer import ranks, yolo, yolo_training
from trainwright_trainer.checkpoint_uploads import CheckpointUploads
from trainwright_trainer.checkpoints import Checkpoint, CheckpointFolder, CheckpointNote
from trainwright_trainer.devices import devices_of
from trainwright_trainer.files import copy_atomically, digest_bytes, digest_file
from trainwright_trainer.history import restore_history
from trainwright_trainer.memory import available_memory
from trainwright_trainer.places import Places
from trainwright_trainer.watching import Watcher
from trainwright_trainer.workers import usable_cpus

FOLDER = "training"
WEIGHTS = f"{FOLDER}/weights.pt"
HISTORY = f"{FOLDER}/history.csv"
EVENTS = f"{FOLDER}/tensorboard"
UNCHANGED = Adjustments()
VOLUMES = Path("/mnt")  # where a pod has the volumes that its run brought along
CACHE_MARGIN = 1.5  # so much more memory than cached images take is to be left for everything else
GIB = 1024**3
_LOG = logging.getLogger(__name__)


def train_model(  # noqa: PLR0913 - what to train, from where, and who is told
    dataset: Dataset,
    plan: RunPlan,
    places: Places,
    watcher: Watcher,
    uploads: CheckpointUploads | None = None,
    *,
    parent: Parent | None = None,
    adjustments: Adjustments = UNCHANGED,
) -> Weights:
    """Train, or finish the training that an earlier attempt began; return the weights of the best epoch.

    It begins with the weights of the parent, if there is one, and else with the plan's base model.

    It goes on from the newest checkpoint that is whole: in the workspace, or in the store of `uploads`.
    """
    folder = open_checkpoints(dataset, plan, places)
    newest = folder.newest()
    if uploads is not None:
        newest = _fetch_newer(folder, newest, uploads, places.workspace)
    recorder = _Recorder(folder, plan, watcher, uploads)
    if newest is not None:
        recorder.resume(newest)
    if newest is None or not newest.note.final:
        _run_training(parent, dataset, plan, places, recorder, newest, adjustments)
    elif not (places.workspace / HISTORY).is_file():
        _restore_history(newest, places.workspace)
    return _deliver_weights(folder, places.workspace, newest)


def open_checkpoints(dataset: Dataset, plan: RunPlan, places: Places) -> CheckpointFolder:
    """Return the checkpoints of this training: those of a dataset that has changed since are of another."""
    training = digest_bytes(f"{plan.digest} {dataset.report.digest}".encode())
    return CheckpointFolder(places.workspace / FOLDER / "checkpoints", training, plan.checkpoint.keep)


def _fetch_newer(
    folder: CheckpointFolder, newest: Checkpoint | None, uploads: CheckpointUploads, workspace: Path
) -> Checkpoint | None:
    """Return the store's newest checkpoint, brought into the folder, if it is newer than the folder's."""
    yolo.prepare(workspace / "ultralytics")
    scratch = workspace / FOLDER / "fetched"
    after = 0 if newest is None else newest.note.epoch
    try:
        fetched = uploads.store.fetch_newest(
            folder.training, scratch, after=after, is_harmless=yolo.is_harmless
        )
        if fetched is None:
            return newest
        if fetched.manifest.best is not None and fetched.best is not None:
            folder.save_best(fetched.best, fetched.manifest.best)
        return folder.save(fetched.last, fetched.manifest.last)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def training_arguments(settings: TrainingSettings) -> dict[str, ArgumentValue]:
    """Return Ultralytics' arguments for the settings; raise `ConfigurationError` with all that is wrong."""
    problems = check_arguments(settings.arguments)
    if problems:
        raise ConfigurationError("training.arguments: " + "; ".join(problems))
    return {
        "epochs": settings.epochs,
        "batch": settings.gpu_memory_fraction or settings.batch_size,
        "nbs": settings.nominal_batch_size,
        "imgsz": settings.image_size,
        "patience": settings.patience,
        "seed": settings.seed,
        "optimizer": settings.optimizer,
        "lr0": settings.learning_rate,
        "lrf": settings.final_learning_rate,
        "cos_lr": settings.cosine_learning_rate,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "warmup_epochs": settings.warmup_epochs,
        "warmup_momentum": settings.warmup_momentum,
        "warmup_bias_lr": settings.warmup_bias_learning_rate,
        "freeze": settings.freeze,
        "multi_scale": settings.multi_scale,
        "rect": settings.rect,
        "close_mosaic": settings.close_mosaic,
        "amp": settings.mixed_precision,
        "deterministic": settings.deterministic,
        "box": settings.loss.box,
        "cls": settings.loss.cls,
        "dfl": settings.loss.dfl,
        "cls_pw": settings.loss.class_balance,
        **settings.augmentation.model_dump(),
        **settings.arguments,
    }


class _Recorder:
    """Keeps copies of what Ultralytics saves, and passes progress on."""

    def __init__(
        self, folder: CheckpointFolder, plan: RunPlan, watcher: Watcher, uploads: CheckpointUploads | None
    ) -> None:
        self._folder = folder
        automatic = plan.training.gpu_memory_fraction is not None
        self._batch_size = None if automatic else plan.training.batch_size
        self._period = plan.checkpoint.every_epochs or plan.training.save_period
        self._watcher = watcher
        self._uploads = uploads

    def resume(self, checkpoint: Checkpoint) -> None:
        done = "was finished with" if checkpoint.note.final else "goes on after"
        _LOG.info("training %s epoch %d", done, checkpoint.note.epoch)
        self._watcher.resume_from(checkpoint.note.epoch)
        self._hand_on(checkpoint, 0)

    def on_batch_size(self, batch_size: int) -> None:
        """Tell of a batch that is not the planned one: found by itself, or halved as it did not fit."""
        if batch_size == self._batch_size:
            return
        if self._batch_size is None:
            _LOG.info("batch size is %d: it was found by itself", batch_size)
        else:
            _LOG.warning("batch size is %d: %d did not fit", batch_size, self._batch_size)
        self._batch_size = batch_size
        self._watcher.use_batch(batch_size)

    def on_batch(self, epoch: int, epochs: int, batch: int, batches: int) -> None:
        self._watcher.train_batch(epoch, epochs, batch, batches)

    def on_validation_batch(self) -> None:
        self._watcher.linger()  # the epoch is trained: it is saved even if a stop was asked for

    def _hand_on(self, checkpoint: Checkpoint, seconds: float) -> None:
        """Tell of a checkpoint, and upload it: an earlier attempt's too, as its own place will be cleared."""
        manifest = self._folder.describe(checkpoint)
        self._watcher.keep_checkpoint(
            CheckpointReport(
                epoch=checkpoint.note.epoch,
                time=checkpoint.note.time,
                save_seconds=round(seconds, 3),
                digest=manifest.digest,
            )
        )
        if self._uploads is not None:
            best = None if manifest.best is None else self._folder.path_of(manifest.best)
            self._uploads.offer(manifest, checkpoint.path, best)

    def on_saved(self, saved: yolo_training.SavedEpoch) -> None:
        start = time.monotonic()
        note = CheckpointNote(
            epoch=saved.epoch,
            epochs=saved.epochs,
            batch_size=saved.batch_size,
            metrics=saved.metrics,
            final=saved.is_final,
            digest=digest_file(saved.last),
            time=datetime.now(UTC),
        )
        if saved.is_best:
            self._folder.save_best(saved.last, note)
        if saved.is_final or (self._period > 0 and saved.epoch % self._period == 0):
            checkpoint = self._folder.save(saved.last, note)
            self._hand_on(checkpoint, time.monotonic() - start)
        self._watcher.finish_epoch(saved.epoch, saved.epochs, saved.metrics)


def _choose_model(plan: RunPlan, places: Places, parent: Parent | None) -> str:
    """Return what training begins with; weights of a parent are read as any others, and need no download."""
    if plan.model.parent is None:
        return _find_model(plan.training.base_model, places.weights)
    if parent is None:  # never anything else instead
        raise StorageError(
            "the parent is no longer in the workspace", hint="The next attempt fetches it again."
        )
    _LOG.info("training begins with %s-%s", parent.model, parent.version)
    return str(places.workspace / parent.weights)


def _run_training(  # noqa: PLR0913, PLR0917 - what to train, from where, and how otherwise than planned
    parent: Parent | None,
    dataset: Dataset,
    plan: RunPlan,
    places: Places,
    recorder: _Recorder,
    newest: Checkpoint | None,
    adjustments: Adjustments,
) -> None:
    arguments = training_arguments(plan.training)
    devices = devices_of(plan)
    if adjustments.batch_size is not None:
        arguments["batch"] = adjustments.batch_size
    if len(devices) > 1:
        arguments["batch"] = _share_batch(int(arguments["batch"]), len(devices))
    arguments["cache"] = _choose_cache(plan.training, dataset, copies=len(devices))
    hours = plan.training.max_hours
    job = yolo_training.TrainingJob(
        model=_choose_model(plan, places, parent),
        data=places.workspace / dataset.folder / "data.yaml",
        folder=places.workspace / FOLDER / "ultralytics",
        devices=devices,
        workers=_cap_workers(plan.training.workers, adjustments.workers) // len(devices),
        batch_size=None if adjustments.batch_size is None else int(arguments["batch"]),
        arguments=arguments,
        history=places.workspace / HISTORY,
        events=places.workspace / EVENTS,
        base_models=places.weights,
        resume=None if newest is None else newest.path,
        most_seconds=None if hours is None else hours * 3600,
    )
    settings = places.workspace / "ultralytics"
    if len(devices) > 1:
        ranks.train(job, recorder, settings)
    else:
        yolo.prepare(settings)
        yolo_training.train(job, recorder)


def _share_batch(batch: int, devices: int) -> int:
    """Return the batch that devices can share evenly: no larger, but at least one image for each."""
    shared = max(batch // devices, 1) * devices
    if shared != batch:
        _LOG.warning("batch size is %d: %d devices can't share %d evenly", shared, devices, batch)
    return shared


def _choose_cache(settings: TrainingSettings, dataset: Dataset, copies: int) -> str | bool:
    """Return where Ultralytics keeps decoded images; in memory only if the container has room for them."""
    if settings.cache != "Memory":
        return "disk" if settings.cache == "Disk" else False
    images = dataset.report.images.train + dataset.report.images.valid
    needed = copies * images * settings.image_size**2 * 3
    left = available_memory()
    if needed * CACHE_MARGIN <= left:
        return "ram"
    _LOG.warning(
        "training.cache is Memory, but %d images may take %.1f GiB of %.1f GiB left: they are not cached",
        images,
        needed / GIB,
        left / GIB,
    )
    return False


def _restore_history(checkpoint: Checkpoint, workspace: Path) -> None:
    """Write the history that the last checkpoint keeps, where the training ended in another workspace."""
    yolo.prepare(workspace / "ultralytics")
    kept = yolo_training.read_history(checkpoint.path)
    restore_history(workspace / HISTORY, workspace / EVENTS, checkpoint.note.epoch, kept)


def _deliver_weights(folder: CheckpointFolder, workspace: Path, resumed: Checkpoint | None) -> Weights:
    last, best = folder.newest(), folder.best()
    if last is None:
        raise StepError("training ended without a checkpoint", hint="The log of the attempt says why.")
    chosen = best or last
    yolo.prepare(workspace / "ultralytics")
    yolo.strip(chosen.path, workspace / f"{WEIGHTS}.stripped")
    copy_atomically(workspace / f"{WEIGHTS}.stripped", workspace / WEIGHTS)
    (workspace / f"{WEIGHTS}.stripped").unlink()
    return Weights(
        path=WEIGHTS,
        digest=digest_file(workspace / WEIGHTS),
        epochs=last.note.epoch,
        batch_size=last.note.batch_size,
        metrics=chosen.note.metrics,
        resumed_from_epoch=None if resumed is None else resumed.note.epoch,
        history=HISTORY,
    )


def _find_model(base_model: str, weights: Path | None) -> str:
    """Return what Ultralytics is to load: a file of a volume or the weights folder, or an architecture."""
    own = Path(base_model).resolve()
    if Path(base_model).is_absolute() and own.is_relative_to(VOLUMES) and own.is_file():
        return str(own)
    if weights is not None:
        path = (weights / base_model).resolve()
        if path.is_file() and path.is_relative_to(weights.resolve()):
            return str(path)
    is_plain_name = base_model.endswith((".yaml", ".yml")) and Path(base_model).name == base_model
    if is_plain_name and yolo.is_architecture(base_model):
        return base_model
    raise ConfigurationError(
        f"training.baseModel {base_model!r} is no file below the weights folder or {VOLUMES},"
        " and no known architecture",
        hint="Nothing is downloaded: put the file there, or name an architecture such as yolo11n.yaml.",
    )


def _cap_workers(wanted: int, adjusted: int | None = None) -> int:
    """Return no more data-loading processes than there are CPUs for us; of those, the adjusted part."""
    available = usable_cpus()
    if wanted > available:
        _LOG.info("training.workers is %d, but %d CPUs are available: using %d", wanted, available, available)
    used = min(wanted, available)
    if adjusted is None or adjusted >= wanted:
        return used
    _LOG.warning("using %d loader processes of %d, for want of memory", used * adjusted // wanted, used)
    return used * adjusted // wanted
