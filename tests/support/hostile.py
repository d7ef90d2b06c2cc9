"""Files that nobody's library would write."""

from __future__ import annotations

import json


def tensor_file(header: object, data: bytes = bytes(8)) -> bytes:
    """A safetensors file with this header, given as an object or as it is to stand there."""
    encoded = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data
