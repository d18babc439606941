"""Images, labels and class files as they are met, each with its verdict: broken ones, and odd but good ones.

A verdict is the rule that the thing is refused by, or the repairs it needs: none for what is kept as it is.
"""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

from trainwright_trainer.annotations.items import Repair, Rule

SIZE = (48, 32)
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Case:
    """One file: what is in it, what it is called, and what becomes of it."""

    name: str
    data: bytes
    verdict: Rule | frozenset[Repair]
    suffix: str = ""
    keeps_its_bytes: bool = False


def picture() -> Image.Image:
    """Return a picture without a symmetry: turned or mirrored it is another one."""
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    channels = (columns * 5, rows * 7, (columns + 2 * rows) * 2)
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8), "RGB")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file of this kind."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    """Return the picture as a camera stores it that was held in another way."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(picture(), kind, exif=exif)


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims to be of this size."""
    data = encode(Image.new("L", (16, 16)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def png_with(chunk: bytes, content: bytes) -> bytes:
    """Return a PNG with one more chunk before its pixels."""
    data = encode(picture(), "PNG")
    inserted = struct.pack(">I", len(content)) + chunk + content
    return data[:33] + inserted + struct.pack(">I", zlib.crc32(chunk + content)) + data[33:]


def flipped(data: bytes, position: int) -> bytes:
    """Return the bytes with one of them inverted."""
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def _transparent() -> Image.Image:
    image = picture()
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def broken_images() -> Iterator[Case]:
    """Yield images that can't be trained on."""
    jpeg, png = encode(picture(), "JPEG"), encode(picture(), "PNG")
    webp, bmp = encode(picture(), "WEBP"), encode(picture(), "BMP")
    frames = [picture().rotate(90), picture().rotate(180)]
    yield Case("empty", b"", Rule.IMAGE_EMPTY)
    yield Case("zeros", bytes(4096), Rule.IMAGE_FORMAT)
    yield Case("text", b"not an image\n", Rule.IMAGE_FORMAT, ".jpg")
    yield Case("error page", b"<!doctype html><title>404</title>", Rule.IMAGE_FORMAT, ".jpg")
    yield Case("vector graphic", b"<svg xmlns='http://www.w3.org/2000/svg'/>", Rule.IMAGE_FORMAT, ".png")
    yield Case("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Rule.IMAGE_FORMAT, ".jpg")
    yield Case("pickle", pickle.dumps({"image": 1}), Rule.IMAGE_FORMAT, ".png")
    yield Case("gif", encode(picture(), "GIF"), Rule.IMAGE_FORMAT, ".jpg")
    yield Case("tiff", encode(picture(), "TIFF"), Rule.IMAGE_FORMAT, ".jpg")
    yield Case("heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", Rule.IMAGE_FORMAT, ".jpg")
    yield Case("sound", b"RIFF\x24\x00\x00\x00WAVEfmt ", Rule.IMAGE_FORMAT, ".webp")
    yield Case("jpeg without its end", jpeg[:-2], Rule.IMAGE_DAMAGED)
    yield Case("jpeg cut in the pixels", jpeg[: len(jpeg) * 2 // 3], Rule.IMAGE_DAMAGED)
    yield Case("jpeg cut in the header", jpeg[:150], Rule.IMAGE_DAMAGED)
    yield Case("jpeg start only", jpeg[:4], Rule.IMAGE_DAMAGED)
    yield Case("png cut in the pixels", png[:-40], Rule.IMAGE_DAMAGED)
    yield Case("png header only", png[:33], Rule.IMAGE_DAMAGED)
    yield Case("png signature only", png[:8], Rule.IMAGE_DAMAGED)
    yield Case("png with a wrong byte in the pixels", flipped(png, len(png) // 2), Rule.IMAGE_DAMAGED)
    yield Case("png with a wrong checksum of its header", flipped(png, 30), Rule.IMAGE_DAMAGED)
    yield Case("png without width", png_claiming(0, 32), Rule.IMAGE_DAMAGED)
    yield Case("png with other pixels than it claims", png_claiming(64, 64), Rule.IMAGE_DAMAGED)
    yield Case("webp cut", webp[: len(webp) // 2], Rule.IMAGE_DAMAGED)
    yield Case("bmp cut", bmp[: len(bmp) // 2], Rule.IMAGE_DAMAGED)
    yield Case("bmp in name only", b"BMI is a number", Rule.IMAGE_DAMAGED, ".bmp")
    yield Case("bomb of pixels", png_claiming(60_000, 60_000), Rule.IMAGE_TOO_LARGE)
    yield Case("large beyond the limit", png_claiming(12_000, 12_000), Rule.IMAGE_TOO_LARGE)
    bomb = b"Comment\x00\x00" + zlib.compress(bytes(80_000_000), 9)
    yield Case("bomb of text", png_with(b"zTXt", bomb), Rule.IMAGE_DAMAGED)
    yield Case("one pixel", encode(Image.new("RGB", (1, 1)), "PNG"), Rule.IMAGE_TOO_SMALL)
    yield Case("nine rows", encode(picture().resize((32, 9)), "JPEG"), Rule.IMAGE_TOO_SMALL)
    animated = encode(picture(), "WEBP", save_all=True, append_images=frames)
    yield Case("animated webp", animated, Rule.IMAGE_ANIMATED, ".webp")
    animated = encode(picture(), "PNG", save_all=True, append_images=frames)
    yield Case("animated png", animated, Rule.IMAGE_ANIMATED, ".png")


def good_images() -> Iterator[Case]:
    """Yield images that look odd, and are or can be made good."""
    jpeg, png = encode(picture(), "JPEG"), encode(picture(), "PNG")

    def kept(name: str, data: bytes, suffix: str = "") -> Case:
        return Case(name, data, frozenset(), suffix, keeps_its_bytes=True)

    yield kept("jpg in capitals", jpeg, ".JPG")
    yield kept("jpeg", jpeg, ".jpeg")
    yield kept("progressive jpeg", encode(picture(), "JPEG", progressive=True), ".jpg")
    yield kept("grey jpeg", encode(picture().convert("L"), "JPEG"), ".jpg")
    yield kept("ten rows", encode(picture().resize((32, 10)), "PNG"), ".png")
    yield kept("png", png, ".png")
    yield kept("grey png", encode(picture().convert("L"), "PNG"), ".png")
    yield kept("one bit", encode(picture().convert("1"), "PNG"), ".png")
    yield kept("palette", encode(picture().convert("P"), "PNG"), ".png")
    yield kept("palette with a transparent colour", encode(picture().convert("P"), "PNG", transparency=3))
    yield kept("transparent png", encode(_transparent(), "PNG"), ".png")
    yield kept("transparent grey png", encode(_transparent().convert("LA"), "PNG"), ".png")
    yield kept("png with a text", png_with(b"tEXt", b"Comment\x00bolts"), ".png")
    yield kept("webp", encode(picture(), "WEBP"), ".webp")
    yield kept("lossless webp", encode(picture(), "WEBP", lossless=True), ".webp")
    yield kept("transparent webp", encode(_transparent(), "WEBP"), ".webp")
    yield kept("bmp", encode(picture(), "BMP"), ".bmp")
    yield kept("palette bmp", encode(picture().convert("P"), "BMP"), ".bmp")
    second = [picture().rotate(180)]
    yield kept("jpeg of two views", encode(picture(), "MPO", save_all=True, append_images=second), ".jpg")
    yield kept("upright by exif", turned("JPEG", 1), ".jpg")
    yield kept("orientation that is none", turned("JPEG", 9), ".jpg")
    yield kept("malformed exif", encode(picture(), "JPEG", exif=b"Exif\x00\x00rubbish"), ".jpg")
    renamed = frozenset({Repair.IMAGE_RENAMED})
    yield Case("png called jpg", png, renamed, ".jpg", keeps_its_bytes=True)
    yield Case("jpeg called png", jpeg, renamed, ".png", keeps_its_bytes=True)
    yield Case("webp called jpeg", encode(picture(), "WEBP"), renamed, ".jpeg", keeps_its_bytes=True)
    trimmed = frozenset({Repair.IMAGE_TRIMMED})
    yield Case("jpeg with a trailer", jpeg + b"camera 7", trimmed, ".jpg")
    yield Case("jpeg with padding", jpeg + bytes(512), trimmed, ".jpg")
    for orientation in range(2, 9):
        once = frozenset({Repair.IMAGE_TURNED})
        yield Case(f"jpeg of orientation {orientation}", turned("JPEG", orientation), once, ".jpg")
    yield Case("turned png", turned("PNG", 6), frozenset({Repair.IMAGE_TURNED}), ".png")
    both = frozenset({Repair.IMAGE_TURNED, Repair.IMAGE_RENAMED})
    yield Case("turned webp", turned("WEBP", 8), both, ".webp")
    converted = frozenset({Repair.IMAGE_CONVERTED})
    yield Case("cmyk jpeg", encode(picture().convert("CMYK"), "JPEG"), converted, ".jpg")
    deep = np.asarray(picture()).astype(np.uint16) * 257
    for name, pixels in (
        ("grey", deep[:, :, 0]),
        ("colour", deep),
        ("transparent", deep[:, :, [0, 1, 2, 2]]),
    ):
        done, data = cv2.imencode(".png", pixels)
        assert done
        yield Case(f"sixteen bits, {name}", data.tobytes(), converted, ".png")


def broken_labels() -> Iterator[Case]:
    """Yield labels that are not understood, or say what can't be. The classes are 0, 1 and 21."""

    def line(name: str, text: str, rule: Rule) -> Case:
        return Case(name, f"0 0.5 0.5 0.2 0.2\n{text}\n".encode(), rule)

    yield line("four columns", "0 0.5 0.5 0.2", Rule.LABEL_COLUMNS)
    yield line("with a confidence", "0 0.5 0.5 0.2 0.2 0.93", Rule.LABEL_COLUMNS)
    yield line("polygon", "0 0.1 0.1 0.2 0.2 0.3 0.1", Rule.LABEL_COLUMNS)
    yield line("commas", "0,0.5,0.5,0.2,0.2", Rule.LABEL_COLUMNS)
    yield line("comment", "# drawn by hand", Rule.LABEL_COLUMNS)
    yield line("word", "0 0.5 half 0.2 0.2", Rule.LABEL_NUMBER)
    yield line("decimal comma", "0 0,5 0,5 0,2 0,2", Rule.LABEL_NUMBER)
    yield line("underscore", "0 0.5 0_0.5 0.2 0.2", Rule.LABEL_NUMBER)
    yield line("digits of another script", "0 0.5 ٠.٥ 0.2 0.2", Rule.LABEL_NUMBER)
    yield line("hexadecimal", "0 0x1p-1 0.5 0.2 0.2", Rule.LABEL_NUMBER)
    yield line("nan", "0 NaN 0.5 0.2 0.2", Rule.LABEL_NUMBER)
    yield line("infinite", "0 0.5 0.5 -inf 0.2", Rule.LABEL_NUMBER)
    yield line("too large for a number", "0 0.5 0.5 1e999 0.2", Rule.LABEL_NUMBER)
    yield line("pixels", "0 320 240 64 48", Rule.LABEL_RANGE)
    yield line("beyond one", "0 1.01 0.5 0.2 0.2", Rule.LABEL_RANGE)
    yield line("below zero", "0 0.5 -0.1 0.2 0.2", Rule.LABEL_RANGE)
    yield line("negative size", "0 0.5 0.5 -0.2 0.2", Rule.LABEL_AREA)
    yield line("no width", "0 0.5 0.5 0 0.2", Rule.LABEL_AREA)
    yield line("no height worth the name", "0 0.5 0.5 0.2 1e-9", Rule.LABEL_AREA)
    yield line("nothing inside", "0 0 0.5 1e-7 0.2", Rule.LABEL_AREA)
    yield line("class not in the map", "2 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("variant not in the map", "41 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("negative class", "-1 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("half a class", "1.5 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("class by name", "bolt 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("class of many digits", "1" * 5000 + " 0.5 0.5 0.2 0.2", Rule.LABEL_CLASS)
    yield line("zero byte", "0 0.5 0.5 0.2 0.2\x00", Rule.LABEL_NUMBER)
    yield Case("utf-16", "0 0.5 0.5 0.2 0.2\n".encode("utf-16"), Rule.LABEL_ENCODING)
    yield Case("latin-1", "0 0.5 0.5 0.2 0.2 \xe9\n".encode("latin-1"), Rule.LABEL_ENCODING)
    yield Case("image", encode(picture(), "JPEG"), Rule.LABEL_ENCODING)
    yield Case("huge", b"0 0.5 0.5 0.2 0.2\n" * 300_000, Rule.LABEL_TOO_LARGE)
    yield Case("xml", b"<annotation></annotation>", Rule.LABEL_COLUMNS)


def good_labels() -> Iterator[tuple[Case, str]]:
    """Yield labels that look odd and are good, with what they say."""
    plain, other = "0 0.5 0.5 0.2 0.2\n", "1 0.5 0.5 0.1 0.1\n"

    def good(name: str, data: bytes, text: str, *repairs: Repair) -> tuple[Case, str]:
        return Case(name, data, frozenset(repairs)), text

    yield good("one box", plain.encode(), plain)
    yield good("nothing: a background", b"", "")
    yield good("blank lines only", b"\n \r\n\t", "")
    yield good("byte order mark", plain.encode("utf-8-sig"), plain)
    yield good("other ends of lines", b"0 0.5 0.5 0.2 0.2\r\n1 0.5 0.5 0.1 0.1\r", plain + other)
    yield good("tabs, blanks, no end of line", b"  0\t0.5  0.5 0.2 0.2", plain)
    yield good("exponents", b"0 5e-1 .5 2E-01 +0.2", "0 5e-1 .5 2E-01 +0.2\n")
    yield good("class with a decimal point", b"21.0 0.5 0.5 0.2 0.2", "21 0.5 0.5 0.2 0.2\n")
    yield good("whole image", b"1 0.5 0.5 1 1", "1 0.5 0.5 1 1\n")
    yield good("beyond the border by rounding", b"1 0.167 0.5 0.334 1.0", "1 0.167 0.5 0.334 1.0\n")
    cut = "1 0.050000 0.500000 0.100000 0.200000\n"
    yield good("half outside", b"1 0 0.5 0.2 0.2", cut, Repair.BOX_CLIPPED)
    corner = "1 0.950000 0.950000 0.100000 0.100000\n"
    yield good("one beyond by rounding", b"1 1.0004 1 0.2008 0.2", corner, Repair.BOX_CLIPPED)
    yield good(
        "the same box twice", b"0 0.5 0.5 0.2 0.2\n0 0.50 .5 0.2 0.20\n", plain, Repair.DUPLICATE_DROPPED
    )


def class_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield class files that can't be used, and a piece of the sentence that says why."""
    entry = {"Id": 0, "Name": "bolt"}
    yield "empty file", b"", "not a list"
    yield "no class", b"[]", "names no class"
    yield "cut", b'[{"Id": 0, "Na', "not JSON or YAML"
    yield "utf-16", json.dumps([entry]).encode("utf-16"), "not UTF-8"
    yield "image", encode(picture(), "PNG"), "not UTF-8"
    yield "number", b"3", "not a list"
    yield "names by id", b'{"0": "bolt"}', "not a list of classes"
    yield "no name", b'[{"Id": 0}]', "name: Field required"
    yield "no id", b'[{"Name": "bolt"}]', "id: Field required"
    yield "blank name", b'[{"Id": 0, "Name": " "}]', "at least 1 character"
    yield "negative id", b'[{"Id": -1, "Name": "bolt"}]', "it is -1"
    yield "id by name", b'[{"Id": "first", "Name": "bolt"}]', "it is 'first'"
    yield "id twice", json.dumps([entry, {"Id": 0, "Name": "nut"}]).encode(), "id 0 is both 'bolt' and 'nut'"
    yield "id beyond all slots", b'[{"Id": 5000, "Name": "bolt"}]', "less than 1000"
    yield "more classes than slots", b'{"classes": ["a", "b"], "slots": 1}', "beyond the 1 slots"
    yield "line break in a name", b'["bolt\\nnut"]', "match pattern"
    yield "markup in a colour", b'[{"Id": 0, "Name": "bolt", "Color": "<b>"}]', "color"
    yield "nested a thousand times", b"[" * 100_000, "nested too deeply"
    yield "references", b"- &a [&b [x, x]]\n- *a", "references"
    yield "yaml that would run a program", b"!!python/object/apply:os.system [ls]", "not JSON or YAML"
    yield "huge", b'["' + b"x" * 5_000_000 + b'"]', "larger than"
