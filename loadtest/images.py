"""Images to ask about: drawn in memory, so that no data set is needed; each drawing is another file for the server."""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image, ImageDraw

SIZE = (640, 480)


def drawing(random: Random) -> bytes:
    """A JPEG of a few plain shapes on a soft, noisy wall: about as many bytes as a photograph of its size."""
    noise = np.random.default_rng(random.getrandbits(64)).integers(90, 200, (48, 64, 3), np.uint8)
    image = Image.fromarray(noise).resize(SIZE, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = random.randrange(SIZE[0]), random.randrange(SIZE[1])
        box = (x, y, x + random.randrange(30, 220), y + random.randrange(30, 220))
        colour = (random.randrange(256), random.randrange(256), random.randrange(256))
        shape = random.choice((draw.rectangle, draw.ellipse))
        shape(box, fill=colour, outline=(30, 30, 30))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
