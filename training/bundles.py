"""From trained tensors to a bundle in a folder: weights in half precision, manifest, model card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from service.store.bundle import Bundle
from service.store.layout import CARD, IMAGES, MANIFEST

CURVE = "curve"
LONG_CURVE = 20  # epochs
LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "timm", "safetensors")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def halve(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float16, as a file stores them."""
    return {name: tensor.detach().cpu().to(torch.float16).contiguous() for name, tensor in tensors.items()}


def weights_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file's bytes."""
    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})
    return data


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle into ``folder`` in the place of one that is there, each file whole; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in {MANIFEST, CARD, *IMAGES} - set(bundle.files):
        (folder / name).unlink(missing_ok=True)
    for name, data in bundle.contents.items():
        fresh = folder / f".{name}"
        fresh.write_bytes(data)
        fresh.replace(folder / name)


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The metrics as a Markdown table: one row a figure, one column a split."""
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return markdown_table(["", *metrics], [[name, *(values.get(name) for values in metrics.values())] for name in names])


def recipe_table(recipe: Mapping[str, Any]) -> str:
    """The recipe as a Markdown table, nested entries on one line, without the learning curve."""
    rows = [[f"`{name}`", value] for name, value in recipe.items() if name != CURVE]
    return markdown_table(["setting", "value"], rows, figures=False)


def curve_table(recipe: Mapping[str, Any]) -> str:
    """The learning curve in a recipe as a Markdown table: a row an epoch, or every tenth of a long one."""
    points = recipe.get(CURVE) or [{}]
    step = 1 if len(points) <= LONG_CURVE else LONG_CURVE // 2
    shown = [point for i, point in enumerate(points, 1) if i % step == 0 or i == len(points)]
    names = list(dict.fromkeys(name for point in points for name in point))
    return markdown_table(names, [[point.get(name) for name in names] for point in shown]) if names else ""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, figures: bool = True) -> str:
    """A Markdown table; with ``figures`` all columns but the first stand to the right."""
    rule = ["---", *["---:" if figures else "---"] * (len(columns) - 1)]
    lines = [columns, *([_cell(cell) for cell in row] for row in rows)]
    marked = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join([marked[0], f"|{'|'.join(rule)}|", *marked[1:]])


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return "–" if value is None else str(value)
