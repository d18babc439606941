"""The summary of a dataset: what is in each split, by class, and what was left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from trainwright.contract import ClassMap, SplitSettings
from trainwright.errors import DataError
from trainwright_trainer.annotations.ledger import Ledger
from trainwright_trainer.annotations.manifest import ManifestHeader
from trainwright_trainer.annotations.splitting import SPLITS

_MOST_SIZES = 20
_MOST_NAMED = 10


class Balance:
    """How many images and boxes each class has in each split, in numbers only."""

    def __init__(self, ledger: Ledger) -> None:
        self.images: Counter[tuple[int, str]] = Counter()
        self.boxes: Counter[tuple[int, str]] = Counter()
        for item in ledger.placed():
            for class_id, count in item.boxes.items():
                self.images[class_id, item.split] += 1
                self.boxes[class_id, item.split] += count

    def require_training_images(self, classes: ClassMap) -> None:
        """Raise where a class of the map has no image to train on."""
        missing = [
            f"{name!r} ({class_id})"
            for class_id, name in classes.names_by_id.items()
            if not self.images[class_id, "train"]
        ]
        if missing:
            more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            raise DataError(
                f"{len(missing)} of {len(classes.names_by_id)} classes have no image to train on:"
                f" {', '.join(missing[:_MOST_NAMED])}{more}",
                hint="Annotate some, take the classes out of the class map, or set"
                " dataset.allowEmptyClasses to train without them.",
            )


def summarize(
    ledger: Ledger, header: ManifestHeader, balance: Balance, split: SplitSettings
) -> dict[str, Any]:
    """Return the summary: counts, shares and sizes, by split and by class."""
    totals = {side: ledger.total(side) for side in SPLITS}
    images = sum(total["images"] for total in totals.values())
    annotations, unfit = ledger.count()
    return {
        "digest": header.digest,
        "annotations": annotations,
        "quarantined": {"count": unfit, "rules": ledger.count_by_rule()},
        "repaired": ledger.count_by_repair(),
        "splits": {
            side: {**total, "share": _share(total["images"], images), "wanted": getattr(split, side) / 100}
            for side, total in totals.items()
        },
        "classes": [
            {
                "id": class_id,
                "name": name,
                **{side: _class_in(balance, class_id, side) for side in SPLITS},
            }
            for class_id, name in header.class_map.names_by_id.items()
        ],
        "imageSizes": [
            {"width": width, "height": height, "images": count}
            for width, height, count in ledger.image_sizes(_MOST_SIZES)
        ],
    }


def _class_in(balance: Balance, class_id: int, side: str) -> dict[str, float]:
    """Return what a class has in a split; `share` is the part of the class's boxes that lie there."""
    boxes = balance.boxes[class_id, side]
    everywhere = sum(balance.boxes[class_id, other] for other in SPLITS)
    return {"images": balance.images[class_id, side], "boxes": boxes, "share": _share(boxes, everywhere)}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
