"""An adapter version as a folder on the client's side: read whole to be pushed, written whole when it was pulled."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from service.errors import InvalidInput
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS

PARTS = {
    CONFIG: "adapter_config",
    WEIGHTS: "adapter_model",
    MANIFEST: "manifest",
    CARD: "card",
    **dict.fromkeys(IMAGES, "images"),
}


def read_file(file: Path) -> bytes:
    """A file's bytes; raises :class:`InvalidInput` when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        raise InvalidInput(f"{file}: no readable file there") from None


def read_folder(folder: Path) -> tuple[str, list[tuple[str, tuple[str, bytes]]]]:
    """The adapter's name by its manifest, else by its folder, and its files as the parts of an upload.

    Raises :class:`InvalidInput` when there is no adapter in the folder.
    """
    for required in (CONFIG, WEIGHTS):
        if not (folder / required).is_file():
            raise InvalidInput(f"{folder}: no {required} in that folder; a bundle or a PEFT adapter is expected")
    files = {file: read_file(folder / file) for file in PARTS if (folder / file).is_file()}
    name = _name_in(files.get(MANIFEST, b"")) or folder.resolve().name
    return name, [(PARTS[file], (file, data)) for file, data in files.items()]


def check_absent(folder: Path) -> None:
    """Raise :class:`InvalidInput` when there is something at this path already."""
    if folder.exists() or folder.is_symlink():
        raise InvalidInput(f"{folder} is there already; name a folder that is not")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, which appears whole or not at all.

    Raises :class:`InvalidInput` when it is there already or cannot be written.
    """
    check_absent(folder)
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        staging.mkdir(parents=True)
        for name, data in files.items():
            (staging / name).write_bytes(data)
        staging.rename(folder)
    except OSError:
        raise InvalidInput(f"{folder} cannot be written; expected a place with space where you may write") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _name_in(manifest: bytes) -> str | None:
    try:
        content = json.loads(manifest)
    except (ValueError, RecursionError):
        return None
    name = content.get("name") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None
