"""CLIP's two towers, each an encoder of its own: embeddings are its projections, of length 1, as CLIP compares them.

A pair is ``--image-encoder clip:FOLDER --sentence-encoder clip:FOLDER``; either goes with another encoder just as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoTokenizer
from transformers.utils import logging as hub_logging

from service.errors import StartupError
from service.models.scaling import Scaling
from service.models.sources import fingerprint, locate, unreadable
from service.models.tokenizer import Texts

PREFIX = "clip:"
IMAGES, TEXTS = "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection"
BICUBIC = 3  # Pillow's number of the filter, which is what CLIP's own files say


class ClipImages:
    """CLIP's image tower."""

    def __init__(self, name: str, model: Any, scaling: Scaling, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.size, self.fingerprint = name, int(model.config.projection_dim), _fingerprint(model)
        self._scaling, self._model, self._dtype = scaling, model.to(device, dtype), dtype
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (scaling.mean, scaling.std))
        self._factor, self._shift = 1 / std, -mean / std

    def preprocess(self, image: Image.Image) -> Tensor:
        """The encoder's input, (height, width, 3) in uint8, from an RGB image."""
        return self._scaling(image)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Tensor:
        """Embeddings, (n, size) in float32, of stacked inputs, (n, height, width, 3) in uint8."""
        pixels = batch.to(self._shift.device, non_blocking=True).permute(0, 3, 1, 2)
        scaled = torch.addcmul(self._shift, pixels.float(), self._factor).to(self._dtype)
        return normalize(self._model(pixel_values=scaled).image_embeds.float())


class ClipTexts(Texts):
    """CLIP's text tower."""

    def __init__(self, name: str, model: Any, tokenizer: Tokenizer, pad: int, device: torch.device) -> None:
        super().__init__(tokenizer, int(model.config.max_position_embeddings), "")
        self.name, self.size, self.fingerprint = name, int(model.config.projection_dim), _fingerprint(model)
        self.detail = self.size
        self._model, self._pad, self._device = model.to(device), pad, device

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings, (n, size) in float32, of rows of token ids."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        return normalize(self._model(input_ids=ids, attention_mask=mask).text_embeds.float())

    def embed_in_detail(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The same; there is no more to tell."""
        return self.embed(rows)


def load_clip_images(name: str, setting: str, device: torch.device, dtype: torch.dtype) -> ClipImages:
    """The image tower of ``clip:`` and a folder or hub id; raises :class:`StartupError` when there is none."""
    folder = locate(name.removeprefix(PREFIX), setting)
    model = _tower(IMAGES, folder, name, setting)
    return ClipImages(_shown(name), model, _scaling(Path(folder), name, setting), device, dtype)


def load_clip_texts(name: str, setting: str, device: torch.device) -> ClipTexts:
    """The text tower of ``clip:`` and a folder or hub id; raises :class:`StartupError` when there is none."""
    folder = locate(name.removeprefix(PREFIX), setting)
    model = _tower(TEXTS, folder, name, setting)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        raise unreadable(name, setting) from None
    if not tokenizer.is_fast:
        raise StartupError(f"{setting}={name}: its tokenizer is not a fast one; expected a folder with tokenizer.json")
    return ClipTexts(_shown(name), model, tokenizer.backend_tokenizer, tokenizer.pad_token_id or 0, device)


def _tower(kind: str, folder: str, name: str, setting: str) -> nn.Module:
    """One tower out of a whole CLIP's folder; raises :class:`StartupError` unless all of its weights are there."""
    import transformers

    hub_logging.disable_progress_bar()
    if _json(Path(folder) / "config.json").get("model_type") != "clip":
        raise StartupError(f"{setting}={name}: not a CLIP; expected a folder whose config.json has the model_type 'clip'")
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it would list the other tower's weights as unexpected
    try:
        model, info = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError):
        raise unreadable(name, setting) from None
    finally:
        hub_logging.set_verbosity(before)
    if missing := sorted(info["missing_keys"]):
        raise StartupError(f"{setting}={name}: {len(missing)} tensors of its CLIP are missing, the first {missing[0]!r}")
    ready: nn.Module = model.eval().requires_grad_(False)
    return ready


def _scaling(folder: Path, name: str, setting: str) -> Scaling:
    """What ``preprocessor_config.json`` asks for: the shorter side resized, the middle cut out."""
    asked = _json(folder / "preprocessor_config.json")
    try:
        mean, std = ((255 * a, 255 * b, 255 * c) for a, b, c in (asked["image_mean"], asked["image_std"]))
        crop = asked["crop_size"]["height"] if isinstance(asked["crop_size"], Mapping) else asked["crop_size"]
        side = asked["size"]["shortest_edge"] if isinstance(asked["size"], Mapping) else asked["size"]
    except (KeyError, TypeError, ValueError):
        raise StartupError(
            f"{setting}={name}: no preprocessor_config.json with size, crop_size, image_mean and image_std beside its weights"
        ) from None
    return Scaling(int(side), int(crop), mean, std, "bicubic" if asked.get("resample", BICUBIC) == BICUBIC else "bilinear")


def _shown(name: str) -> str:
    """The name in manifests: a hub id, or a folder's own name without where it lies."""
    source = name.removeprefix(PREFIX)
    return PREFIX + (Path(source).expanduser().resolve().name if Path(source).expanduser().is_dir() else source)


def _fingerprint(model: nn.Module) -> str:
    return fingerprint({key: value for key, value in model.state_dict().items() if value.is_floating_point()})


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
