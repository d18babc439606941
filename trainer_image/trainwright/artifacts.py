"""What each step hands to the next: small immutable values that name files by digest.

    Dataset -> Weights -> Evaluation -> OnnxModel -> VerifiedModel -> SealedModel -> Published

All of them survive a round trip through JSON: the stage journal keeps them, and a retry starts from it.
Paths are relative to the workspace, so that a journal still holds when the workspace is mounted elsewhere.
"""

from __future__ import annotations

from trainwright.contract import ClassMap, Contract, DatasetReport, Digest, FurtherFormat, PartReport


class Parent(Contract):
    """The version that a training starts from: fetched, verified and opened; every path is in the workspace.

    `weights` is a `.pt` file that was made here from plain tensors, so whatever may be done with weights of
    our own may be done with it. `manifest` is that of the dataset it was trained on, if it came along.
    `metrics` are those of its own test split.
    """

    model: str
    version: str
    digest: Digest
    weights: str
    class_map: ClassMap
    manifest: str | None = None
    metrics: dict[str, float]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class position of its model."""
        return self.class_map.names


class Dataset(Contract):
    """A built dataset: `data.yaml` below `folder` is what Ultralytics reads.

    `manifest` has a line for each image, `summary` the counts of images and boxes by split and class.
    """

    folder: str
    report: DatasetReport
    class_map: ClassMap
    manifest: str
    summary: str
    quarantine: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class position of the model."""
        return self.class_map.names


class Weights(Contract):
    """Trained weights of the best epoch, a `.pt` file.

    `history` is a CSV file with a row for each epoch: losses, metrics and learning rates, by Ultralytics'
    names. It is empty where nothing is known of the epochs.
    """

    path: str
    digest: Digest
    epochs: int
    batch_size: int
    metrics: dict[str, float]
    resumed_from_epoch: int | None = None
    history: str = ""


class Evaluation(Contract):
    """Metrics of the weights on the test split; `details` is the path of an `EvaluationDetails` as JSON."""

    metrics: dict[str, float]
    per_class: dict[str, float]
    images: int
    details: str
    gate_passed: bool
    gate_reason: str


class FurtherModel(Contract):
    """The model in a format beside ONNX: the names and digests of the files in `folder`."""

    format: FurtherFormat
    folder: str
    files: dict[str, Digest]


class OnnxModel(Contract):
    """An exported model whose bytes depend on weights, dataset and export settings only.

    `further` are the formats that were made of it.
    """

    path: str
    digest: Digest
    size: int
    opset: int
    end_to_end: bool
    further: tuple[FurtherModel, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all its files."""
        return (self.path, *(f"{made.folder}/{name}" for made in self.further for name in made.files))


class Parity(Contract):
    """What shows that one engine detects what the weights detect: nothing does if `compared` is 0."""

    engine: str
    compared: int
    match_percent: float
    max_difference: float


class VerifiedModel(Contract):
    """An exported model that was shown to detect what its weights detect, in each of its formats.

    The images were given in batches of `batch_sizes`, scaled to `image_sizes`: height and width.
    """

    onnx: OnnxModel
    parity_images: int
    batch_sizes: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]
    parities: tuple[Parity, ...]


class SealedModel(Contract):
    """Two encrypted files in the workspace: sealed once, uploaded as often as it takes.

    `bundle` is the training bundle of the same version, sealed for recipients of its own.
    """

    file_id: str
    plaintext_digest: Digest
    plaintext_size: int
    small_path: str
    big_path: str
    small: PartReport
    big: PartReport
    bundle: SealedModel | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All its files."""
        return (self.small_path, self.big_path, *(self.bundle.paths if self.bundle else ()))

    @property
    def big_size(self) -> int:
        """Bytes of all its big parts."""
        return self.big.size + (self.bundle.big_size if self.bundle else 0)


class Published(Contract):
    """Both parts on their servers, read back and compared, and the pointers set.

    `pointers` has the model's own, and its tag's, only if it was promoted.
    """

    file_id: str
    pointers: tuple[str, ...]
    small: PartReport
    big: PartReport
