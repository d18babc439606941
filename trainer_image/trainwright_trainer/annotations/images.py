"""What an image must be like: whole, of a known format, and the same picture to whoever reads it.

Readers disagree about some files: whether an EXIF orientation turns the picture, how sixteen bits become
eight, what CMYK looks like. The dataset's own copy of such a file is written anew; any other stays as it is,
byte for byte.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

# Bound before anybody imports Ultralytics: it replaces Pillow's own by one that, given bytes of no known
# format, looks for a package to install instead of refusing them.
from PIL.Image import open as open_image

from trainwright_trainer.annotations.items import LOOK_SIZE, Picture, Repair, Rule, UnfitError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MIN_SIDE = 10  # Ultralytics ignores smaller images
MOST_PIXELS = 128 * 1024 * 1024
MOST_IMAGE_BYTES = 512 * 1024 * 1024

# Pillow tries no other format, so a file of a stranger reaches no rarely used decoder.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# MPO is the JPEG of cameras that keep a second view behind the first.
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNDECODABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    EOFError,
    ImportError,  # the end of that look for a package, where Ultralytics was imported before us
)


def check_image(data: bytes, suffix: str = "") -> Picture:
    """Return what there is to know of a fully decodable image; raise `UnfitError` otherwise.

    `suffix` is that of its file: the content counts, and says so where they differ. Bytes after a JPEG's end
    are cut off: Ultralytics would rewrite such a file in place.
    """
    with _opened(data) as image:
        image.load()
        return _make_picture(data, image, suffix.lower())


def check_header(data: bytes) -> None:
    """Raise `UnfitError` for what is no image to train on by its header; pixels are not decoded."""
    with _opened(data):
        pass


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open what may be decoded, and explain what goes wrong with it."""
    if not data:
        raise UnfitError(Rule.IMAGE_EMPTY, "image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a malformed EXIF block or a large image is no reason to warn
            with open_image(BytesIO(data), formats=_FORMATS) as image:
                _check_frame(image)
                yield image
    except Image.DecompressionBombError as error:
        raise UnfitError(Rule.IMAGE_TOO_LARGE, f"image has more than {MOST_PIXELS} pixels") from error
    except _UNDECODABLE as error:
        raise _refuse(data) from error


def _refuse(data: bytes) -> UnfitError:
    if data.startswith(_STARTS) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP"):
        return UnfitError(Rule.IMAGE_DAMAGED, "image can't be decoded: truncated or damaged")
    reason = f"image is no JPEG, PNG, WebP or BMP: it can't be decoded (it begins with {data[:8]!r})"
    return UnfitError(Rule.IMAGE_FORMAT, reason)


def _check_frame(image: Image.Image) -> None:
    """Refuse what should not be decoded at all, by what the header says."""
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        reason = f"image is {width} x {height} pixels, smaller than {MIN_SIDE}"
        raise UnfitError(Rule.IMAGE_TOO_SMALL, reason)
    if width * height > MOST_PIXELS:
        raise UnfitError(Rule.IMAGE_TOO_LARGE, f"image is {width} x {height}, more than {MOST_PIXELS} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        reason = f"image is animated: it is not clear which of its {frames} frames the boxes are in"
        raise UnfitError(Rule.IMAGE_ANIMATED, reason)


def _make_picture(data: bytes, image: Image.Image, suffix: str) -> Picture:
    kind = _SUFFIXES[image.format or ""]
    pixels, repairs = _agreed_pixels(data, image)
    if repairs:
        kind = ".jpg" if kind == ".jpg" else ".png"
        data = _encode(pixels, kind)
    elif data.startswith(_JPEG_START):
        trimmed = _trim_jpeg(data)
        repairs = [] if len(trimmed) == len(data) else [Repair.IMAGE_TRIMMED]
        data = trimmed
    if kind == ".jpg" and suffix == ".jpeg":
        kind = suffix
    if suffix and suffix != kind:
        repairs.append(Repair.IMAGE_RENAMED)
    return Picture(data, kind, *pixels.size, _look_of(pixels), tuple(repairs))


def _agreed_pixels(data: bytes, image: Image.Image) -> tuple[Image.Image, list[Repair]]:
    """Return the upright picture in eight bits, and what had to be done for it."""
    pixels, repairs = image, []
    if pixels.mode.startswith("I;16"):
        pixels = Image.fromarray((np.asarray(pixels) >> 8).astype(np.uint8))  # as OpenCV takes it
        repairs.append(Repair.IMAGE_CONVERTED)
    elif pixels.mode not in ("L", "LA", "RGB", "RGBA", "P", "1") or _has_16_bits(data):
        pixels = pixels.convert("RGB")
        repairs.append(Repair.IMAGE_CONVERTED)
    orientation = _orientation(image)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
        repairs.append(Repair.IMAGE_TURNED)
    return pixels, repairs


def _has_16_bits(data: bytes) -> bool:
    """Return whether this is a PNG of more than eight bits a channel: Pillow tells it of grey ones only."""
    return data.startswith(b"\x89PNG") and data[24:25] == b"\x10"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation. Pillow's own look-up also believes XMP, which OpenCV does not."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        return int(exif.get(_ORIENTATION, 1))
    except (*_UNDECODABLE, TypeError, KeyError):
        return 1  # as whoever can't read it takes it


def _encode(pixels: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    bare = pixels.copy()
    bare.info = {}  # no orientation, no profile of colours that are gone
    if kind == ".jpg":
        bare.save(file, "JPEG", quality=95, subsampling=0)
    else:
        bare.save(file, "PNG")
    return file.getvalue()


def _look_of(image: Image.Image) -> bytes:
    grey = image.convert("L")  # then the exact mean of each part: the same whatever the size of the image
    return grey.resize(LOOK_SIZE, Image.Resampling.BOX).tobytes()


def _trim_jpeg(data: bytes) -> bytes:
    end = data.rfind(_JPEG_END)
    if end < 0:
        raise UnfitError(Rule.IMAGE_DAMAGED, "image is truncated: the end marker of the JPEG is missing")
    return data[: end + 2]
