"""From photographs of any size to the pixels that an image encoder takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True, slots=True)
class Scaling:
    """How pixels become input: resize to ``resize`` (height, width), cut the middle ``crop``, then (x - mean) / std.

    A single number resizes the shorter side; ``mean`` and ``std`` are on the scale from 0 to 255, ``filter`` is
    "bilinear" or "bicubic", with antialiasing.
    """

    resize: int | tuple[int, int]
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    filter: str

    def __call__(self, image: Image.Image) -> Tensor:
        """Resized and cut pixels, (crop, crop, 3) in uint8, of an RGB image of any size."""
        pixels = torch.from_numpy(np.array(image))
        if isinstance(self.resize, int):
            shorter, longer = sorted(image.size)
            pixels = _middle(pixels, 2 * shorter + longer % 2)  # a very long and thin image is not resized at full length
            factor = self.resize / shorter
            size = [max(self.resize, round(side * factor)) for side in pixels.shape[:2]]
        else:
            size = list(self.resize)
        # Torch resizes 8-bit pixels several times faster than Pillow, and rounds to the same number or its neighbour.
        resized = interpolate(pixels.permute(2, 0, 1)[None], size, mode=self.filter, antialias=True)
        return _middle(resized[0].permute(1, 2, 0), self.crop).contiguous()


def _middle(pixels: Tensor, most: int) -> Tensor:
    """The middle of (height, width, 3), cut to at most ``most`` a side."""
    top, left = (max(0, side - most) // 2 for side in pixels.shape[:2])
    return pixels[top : top + most, left : left + most]
