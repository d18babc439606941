"""Write a tree of annotations from real handwriting: digits from forms of 43 people, laid out in scenes.

    pip install scikit-learn
    python examples/digits.py FOLDER [SHEETS]

The 1,797 digits come with scikit-learn; nothing is downloaded. Each is used on one sheet only, and the scenes
of a sheet are frames of one medium: whatever side of the split they come to, no digit is on two.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 96
SCENES_PER_SHEET = 10
DIGITS_PER_SCENE = 4
SMALLEST, LARGEST = 20, 36
COLOURS = ["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3"]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main() -> None:
    root = Path(sys.argv[1])
    sheets = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    for folder in ("data/images", "data/labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    classes = [
        {"Id": index, "Name": name, "ShortName": str(index), "Color": COLOURS[index % len(COLOURS)]}
        for index, name in enumerate(NAMES)
    ]
    (root / "classes.json").write_text(json.dumps(classes))
    digits = load_digits()
    order = list(range(len(digits.images)))
    random.Random(0).shuffle(order)
    for sheet in range(sheets):
        own = order[sheet::sheets]
        for number in range(SCENES_PER_SHEET):
            name = f"sheet{sheet:03d}_{number:03d}"
            draw_scene(root / "data", name, [(digits.images[i], int(digits.target[i])) for i in own])


def draw_scene(folder: Path, name: str, digits: list[tuple[np.ndarray, int]]) -> None:
    """Lay some of the digits out on paper: each of a size and an ink of its own, none over another."""
    rng = random.Random(name)
    paper = np.array([rng.randint(170, 255) for _ in range(3)], dtype=float)
    shade = np.linspace(0, rng.uniform(-40, 0), SIZE)[:, None, None]
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 4, (SIZE, SIZE, 3))
    scene = paper + shade + noise
    lines, taken = [], []
    for _ in range(100):
        if len(taken) == DIGITS_PER_SCENE:
            break
        pixels, digit = rng.choice(digits)
        ink = enlarge(pixels, rng.randint(SMALLEST, LARGEST))
        height, width = ink.shape
        left, top = rng.randint(0, SIZE - width), rng.randint(0, SIZE - height)
        right, bottom = left + width, top + height
        if any(left < x2 and x1 < right and top < y2 and y1 < bottom for x1, y1, x2, y2 in taken):
            continue
        taken.append((left, top, right, bottom))
        colour = np.array([rng.randint(0, 110) for _ in range(3)], dtype=float)
        part = scene[top:bottom, left:right]
        part += (colour - part) * ink[:, :, None]
        box = (left + width / 2, top + height / 2, width, height)
        lines.append(" ".join([str(digit), *(f"{value / SIZE:.6f}" for value in box)]))
    Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
    (folder / "labels" / f"{name}.txt").write_text("".join(line + "\n" for line in lines))


def enlarge(pixels: np.ndarray, height: int) -> np.ndarray:
    """Return how much ink is where, 0 to 1: the digit's own rows and columns only, `height` pixels high."""
    rows, columns = np.nonzero(pixels.max(axis=1) > 2)[0], np.nonzero(pixels.max(axis=0) > 2)[0]
    cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 16
    width = max(round(height * cut.shape[1] / cut.shape[0]), 6)
    picture = Image.fromarray((cut * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=float) / 255


if __name__ == "__main__":
    main()
