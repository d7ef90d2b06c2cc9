"""The images beside a bundle's card: which there may be, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.store.layout import IMAGES
from service.wording import shown

SIGNATURE = b"\x89PNG\r\n\x1a\n"  # which every PNG file begins with (https://www.w3.org/TR/png-3/#5PNG-file-signature)
MOST_BYTES = 512 * 1024


def image_faults(images: Mapping[str, bytes]) -> Iterator[str]:
    """A line for everything that is wrong with the images of a bundle, by their file's name."""
    for name, data in images.items():
        if name not in IMAGES:
            yield f"{shown(name)} is no image of a bundle; accepted: {', '.join(IMAGES)}"
        elif len(data) > MOST_BYTES:
            yield f"{name} has {len(data):,} bytes; at most {MOST_BYTES:,} are accepted"
        elif not data.startswith(SIGNATURE):
            yield f"{name} is not a PNG image; its first bytes are others"
