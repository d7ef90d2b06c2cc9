"""Decoding: every kind of photograph that clients send, and what broken, huge or foreign files get."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import InvalidInput, TooLarge, UnsupportedMedia
from service.tasks.images import ENOUGH, decode

LIMIT = 1_000_000
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(pixel: Any, colour: tuple[int, int, int], tolerance: int = 8) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_are_read(kind: str) -> None:
    image = decode(encoded(halves(), kind), LIMIT)
    assert (image.mode, image.size) == ("RGB", (32, 16))
    assert near(image.getpixel((2, 2)), RED, 12) and near(image.getpixel((29, 13)), BLUE, 12)


UNTURN = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = halves()
    stored = upright.transpose(Image.Transpose[UNTURN[orientation]]) if orientation in UNTURN else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, kind, exif=exif), LIMIT)
    assert image.size == (32, 16)
    assert near(image.getpixel((2, 2)), RED, 12) and near(image.getpixel((29, 13)), BLUE, 12)


def test_a_large_jpeg_is_reduced_and_still_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = halves((2048, 2560)).transpose(Image.Transpose.ROTATE_90)
    image = decode(encoded(stored, "JPEG", exif=exif), 10**7)
    assert image.size == (512, 640) and min(image.size) >= min(ENOUGH)
    assert near(image.getpixel((100, 300)), RED) and near(image.getpixel((400, 300)), BLUE)


def test_cmyk_jpeg() -> None:
    image = decode(encoded(halves().convert("CMYK"), "JPEG"), LIMIT)
    assert near(image.getpixel((2, 2)), RED, 12)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.array([[0, 257 * 100, 257 * 200, 65535]], np.uint16)
    image = decode(encoded(Image.fromarray(shades), "PNG"), LIMIT)
    assert [image.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 100, 200, 255)]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_modes_without_colour_or_with_a_palette(mode: str) -> None:
    image = decode(encoded(Image.new("RGB", (4, 4), "white").convert(mode), "PNG"), LIMIT)
    assert image.mode == "RGB" and image.getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_white(mode: str, kind: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    assert decode(encoded(clear, kind), LIMIT).getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_palettes_transparency_is_white(transparency: int | bytes) -> None:
    palette = Image.new("P", (4, 1), 0)
    palette.putpalette([10, 20, 30, *RED])
    palette.putpixel((3, 0), 1)
    image = decode(encoded(palette, "PNG", transparency=transparency), LIMIT)
    assert [image.getpixel((x, 0)) for x in (0, 3)] == [WHITE, RED]


@pytest.mark.parametrize(("kind", "lossless"), [("WEBP", {"lossless": True}), ("PNG", {})])
def test_the_first_frame_of_an_animation(kind: str, lossless: dict[str, bool]) -> None:
    frames = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    assert decode(data, LIMIT).getpixel((4, 4)) == RED


def test_the_first_picture_of_a_phones_mpo() -> None:
    data = encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 16), "green")])
    assert near(decode(data, LIMIT).getpixel((2, 2)), RED, 12)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_told_what_is_accepted(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="accepted: JPEG, PNG, WebP"):
        decode(encoded(halves(), kind), LIMIT)


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"RIFF\0\0\0\0WAVE", b"\x89PNG", b"%PDF-1.7"])
def test_what_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decode(data, LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_capped_with_the_value_and_the_limit(kind: str) -> None:
    with pytest.raises(TooLarge, match="32 x 16 = 512 pixels; at most 511 are accepted"):
        decode(encoded(halves(), kind), 511)
    assert decode(encoded(halves(), kind), 512).size == (32, 16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge):
        decode(bomb(*size), LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_invalid(kind: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(InvalidInput, match=r"^the image is broken or truncated$"):
        decode(data[: int(len(data) * kept)], LIMIT)


def test_damaged_exif_does_not_matter() -> None:
    data = encoded(halves(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0")
    assert decode(data, LIMIT).size == (32, 16)


SEEDS = [encoded(halves(), kind) for kind in ("JPEG", "PNG", "WEBP")]


@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)
)
def test_damage_anywhere_gives_an_image_or_one_of_our_errors(data: bytes, damage: list[tuple[int, bytes]]) -> None:
    for place, patch in damage:
        start = place % len(data)
        data = data[:start] + patch + data[start + len(patch) :]
    with suppress(InvalidInput, UnsupportedMedia, TooLarge):
        assert decode(data, LIMIT).mode == "RGB"


def test_many_threads_decode_at_once() -> None:
    expected = [decode(data, LIMIT).tobytes() for data in SEEDS]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda data: decode(data, LIMIT).tobytes(), SEEDS * 20)) == expected * 20
