"""A whole fine-tuned model as a folder that transformers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from training.data import DataError
from training.text_run import FittedText


def save_full(fitted: FittedText, folder: Path) -> None:
    """Write what ``full`` has trained into ``folder``, with its tokenizer, as transformers loads it.

    The folder appears whole, in the place of a model that is there; ``training.json`` in it says how it was made. Raises
    :class:`DataError` for a folder that holds anything but a model.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise DataError(f"{folder}: holds something that is no model; name another folder, or an empty one")
    partial, previous = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "previous"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fitted.model.save_pretrained(partial)
        fitted.tokenizer.save_pretrained(partial)
        made = {"recipe": fitted.recipe.resolved(), "metrics": fitted.metrics, "curve": fitted.curve}
        ends = {"calibration": fitted.calibration, "thresholds": fitted.thresholds}
        (partial / "training.json").write_text(json.dumps({**made, **ends}, indent=2) + "\n", "utf-8")
        if folder.exists():
            folder.rename(previous)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
