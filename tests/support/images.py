"""Image files as clients send them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from service.store.layout import IMAGES


def image_file(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """A file with a seeded picture in it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def card_images(*names: str) -> dict[str, bytes]:
    """What a bundle carries beside its card, or those of these names."""
    return {name: image_file(seed) for seed, name in enumerate(IMAGES) if not names or name in names}
