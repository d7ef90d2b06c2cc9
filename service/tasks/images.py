"""Real photographs, from bytes to RGB pixels: JPEG, PNG and WebP of every mode, upright, within a pixel limit."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import Transpose

from service.errors import InvalidInput, TooLarge, UnsupportedMedia

ENOUGH = (464, 464)  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if it stays as large as this: twice what encoders see
ORIENTATION = 0x0112
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
Opener = Callable[[io.BytesIO], Image.Image]
_filters = threading.Lock()


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame of a JPEG, PNG or WebP file: upright, RGB, transparency laid on white, large JPEGs reduced.

    Raises :class:`UnsupportedMedia` for any other format, :class:`TooLarge` when the header announces more than
    ``max_pixels``, and :class:`InvalidInput` for a broken or truncated file.
    """
    opener = _opener(data)
    try:
        # A format's own class, not Image.open, which warns of large images by itself and tries every format there is.
        with _quiet_header():
            image = opener(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            raise TooLarge(f"the image has {width} x {height} = {width * height} pixels; at most {max_pixels} are accepted")
        image.draft(None, ENOUGH)
        image.load()
        with _quiet_header():
            orientation = image.getexif().get(ORIENTATION)
        rgb = _rgb(image)
    except TooLarge:
        raise
    except Exception:
        raise InvalidInput("the image is broken or truncated") from None
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _opener(data: bytes) -> Opener:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.jpeg_factory
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    raise UnsupportedMedia("not an image that is read here; accepted: JPEG, PNG, WebP")


@contextmanager
def _quiet_header() -> Iterator[None]:
    """Silence Pillow's warnings of damaged metadata, which does not matter here.

    The filters are the process's own, so one thread at a time changes them, and never while pixels are decoded.
    """
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits at 255 rather than scaling them.
        return Image.fromarray(np.round(np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
