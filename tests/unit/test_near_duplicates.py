"""Which images look the same: those of one scene, and not those of two."""

from __future__ import annotations

import random
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance

from trainwright_trainer.annotations.images import check_image
from trainwright_trainer.annotations.looks import find_lookalikes


def draw_scene(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a picture of smooth patches, another one for each number."""
    rng = random.Random(number)
    return Image.frombytes("RGB", (12, 9), rng.randbytes(12 * 9 * 3)).resize(size, Image.Resampling.BICUBIC)


def look_of(image: Image.Image, quality: int = 92) -> bytes:
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return check_image(file.getvalue()).look


def pairs_of(looks: list[bytes]) -> set[tuple[int, int]]:
    rows = np.frombuffer(b"".join(looks), np.uint8).reshape(-1, 72)
    return {(left, right) for left, right in find_lookalikes(rows).tolist()}


def test_a_scene_saved_again_smaller_or_brighter_looks_the_same() -> None:
    for number in range(20):
        scene = draw_scene(number)
        variants = [
            look_of(scene),
            look_of(scene, quality=60),
            look_of(scene.resize((160, 120), Image.Resampling.LANCZOS)),
            look_of(ImageEnhance.Brightness(scene).enhance(1.03)),
        ]
        found = pairs_of(variants)
        assert {index for pair in found for index in pair} == {0, 1, 2, 3}, number


def test_two_scenes_do_not_look_the_same() -> None:
    assert pairs_of([look_of(draw_scene(number)) for number in range(400)]) == set()


def test_what_is_nearly_uniform_is_not_judged() -> None:
    grey = [look_of(Image.new("RGB", (320, 240), (level,) * 3)) for level in (20, 21, 120, 120)]
    sky = Image.linear_gradient("L").resize((320, 240)).convert("RGB")
    assert pairs_of([*grey, look_of(sky), look_of(sky, quality=60)]) == set()


def test_a_crowd_of_one_scene_is_joined_though_not_every_pair_is_compared() -> None:
    look = look_of(draw_scene(1))
    found = pairs_of([look] * 3000)
    reached = {0}
    for left, right in sorted(found):
        if left in reached or right in reached:
            reached |= {left, right}
    assert len(found) < 3000 * 70
    assert len(reached) == 3000


def test_the_order_does_not_matter() -> None:
    looks = [look_of(draw_scene(number // 2), quality=90 - number % 2 * 20) for number in range(60)]
    order = random.Random(0).sample(range(60), 60)
    shuffled = pairs_of([looks[index] for index in order])
    assert {tuple(sorted((order[a], order[b]))) for a, b in shuffled} == pairs_of(looks)
