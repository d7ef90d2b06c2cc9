"""CLIP's towers equal transformers' own CLIPModel on the same images and texts, and serve answers like any other encoders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from service.errors import StartupError
from service.models.image_encoder import load_image_encoder
from service.models.sentence_encoder import load_sentence_encoder
from tests.support.clip import clip_folder

CPU = torch.device("cpu")
TEXTS = ["what is it", "how many chairs are there in the room", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("models") / "tiny-clip")


def photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8))


def test_image_embeddings_are_those_of_the_whole_model(folder: Path) -> None:
    encoder, model = load_image_encoder(f"clip:{folder}", CPU), CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessor.from_pretrained(folder)(photograph(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([[52, 1, 53]]), pixel_values=pixels).image_embeds
    found = encoder.embed(encoder.preprocess(photograph())[None])
    assert (encoder.name, encoder.size) == ("clip:tiny-clip", 8)
    assert torch.allclose(found.norm(dim=1), torch.ones(1)) and found.dtype == torch.float32
    assert float(torch.cosine_similarity(found, expected)) > 0.9999


def test_text_embeddings_are_those_of_the_whole_model_whatever_the_batch(folder: Path) -> None:
    encoder, model = load_sentence_encoder(f"clip:{folder}", CPU), CLIPModel.from_pretrained(folder).eval()
    rows = encoder.tokenize(TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixels = torch.zeros(1, 3, 32, 32)
    together = encoder.embed(rows)
    for text, row, found in zip(TEXTS, rows, together, strict=True):
        ids = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == row and len(row) <= encoder.max_length == 24
        with torch.inference_mode():
            expected = model(input_ids=ids, pixel_values=pixels).text_embeds
        assert torch.allclose(found[None], expected, atol=1e-5)


def test_each_tower_has_a_fingerprint_of_its_own_weights(folder: Path, tmp_path: Path) -> None:
    image, text = load_image_encoder(f"clip:{folder}", CPU), load_sentence_encoder(f"clip:{folder}", CPU)
    other = clip_folder(tmp_path / "other", seed=1)
    assert image.fingerprint != text.fingerprint
    assert image.fingerprint == load_image_encoder(f"clip:{folder}", CPU).fingerprint
    assert image.fingerprint != load_image_encoder(f"clip:{other}", CPU).fingerprint


def test_a_folder_that_is_no_clip_or_lacks_a_part_is_one_clear_line(tmp_path: Path) -> None:
    other = clip_folder(tmp_path / "clip")
    tensors = load_file(other / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(StartupError, match=r"1 tensors of its CLIP are missing, the first 'visual_projection\.weight'"):
        load_image_encoder(f"clip:{other}", CPU)
    (other / "preprocessor_config.json").write_text("{}")
    save_file({**tensors, "visual_projection.weight": torch.zeros(8, 16)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(StartupError, match=r"no preprocessor_config\.json with size"):
        load_image_encoder(f"clip:{other}", CPU)
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(StartupError, match="not a CLIP; expected"):
        load_sentence_encoder(f"clip:{other}", CPU)
